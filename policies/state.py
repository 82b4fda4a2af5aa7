"""The state of the stack, read with the CLI that runs the update; the engine does not tell it to a pack."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

State = Sequence[Mapping[str, Any]]
READ_WITHIN_S = 120
DEFAULT_ORGANIZATION = "organization"
"""Of every stack in a backend of the team's own."""


class StateNotRead(Exception):
    """The state of the stack can't be read; says why."""


def read_state(organization: str, stack: str) -> State:
    """The stack's resources as its backend has them now; secrets stay encrypted.

    Raises:
        StateNotRead: the CLI is not there, or its backend does not answer.
    """
    pulumi = shutil.which("pulumi")
    if pulumi is None:
        raise StateNotRead("the pulumi command is not on PATH")
    name = stack if organization in ("", DEFAULT_ORGANIZATION) else f"{organization}/{stack}"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PULUMI_OPTION_")}
    command = [pulumi, "stack", "export", "--stack", name, "--non-interactive"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=READ_WITHIN_S, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StateNotRead(str(error)) from None
    if done.returncode != 0:
        raise StateNotRead(f"`pulumi stack export` says {' '.join(done.stderr.split())}")
    deployment = json.loads(done.stdout).get("deployment") or {}
    resources: State = deployment.get("resources") or ()
    return resources
