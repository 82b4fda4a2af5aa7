"""Which plugin serves a stack: the local cloud's own on a local stack, the official one on any other.

The engine gives a plugin the stack's config of its own package in `PULUMI_CONFIG`, as JSON, before it asks anything.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from localcloud.provider import Backend, serve


def official_version(distribution: str) -> str:
    """The version of the installed SDK, whose plugin is stood in for."""
    return importlib.metadata.version(distribution)


def serve_or_hand_over(
    package: str, make_backend: Callable[[], Backend], *, is_local: Callable[[Mapping[str, object]], bool]
) -> None:
    """Serve the local cloud if the stack's config says so, else become the official plugin.

    Where that is not installed, one sentence says how to install it, and the plugin ends with status 1.
    """
    config = json.loads(os.environ.get("PULUMI_CONFIG") or "{}")
    if is_local(config):
        serve(make_backend)
        return
    become_official(package)
    sys.stderr.write(f"{not_installed(package)}\n")
    sys.exit(1)


def become_official(package: str) -> None:
    """Run the official plugin in this one's place; return where it is not installed."""
    official = _installed(package, official_version(f"pulumi-{package}"))
    if official is not None:
        os.execv(official, [str(official), *sys.argv[1:]])


def not_installed(package: str) -> str:
    """What to do where a stack needs the official plugin, in a sentence."""
    return (
        f"This stack is not a local one, and the official {package} plugin is not installed; install it with: "
        f"pulumi plugin install resource {package} {official_version(f'pulumi-{package}')}"
    )


def _installed(package: str, version: str) -> Path | None:
    """The official plugin: of the SDK's version if it is there, else the newest one."""
    home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    found = sorted(
        (home / "plugins").glob(f"resource-{package}-v*/pulumi-resource-{package}"),
        key=lambda path: [int(part) for part in path.parent.name.rpartition("-v")[2].split(".") if part.isdigit()],
    )
    same = [path for path in found if path.parent.name.endswith(f"-v{version}")]
    return next(iter(same or found[-1:]), None)
