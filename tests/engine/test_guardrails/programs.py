"""Programs that are written down as data: what the engine runs for each guardrail, and what it says of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pytest

from localcloud import server
from localcloud.aws.inventory import inventory
from planner.plan import Plan
from policies.plan import PLAN_TYPE
from tests.engine.conftest import Engine, make_engine, record

MAKES = """
    import json
    from pathlib import Path
    import pulumi

    made = {}

    def given(value):
        if isinstance(value, dict) and "$secret" in value:
            return pulumi.Output.secret(value["$secret"])
        if isinstance(value, dict) and "$id" in value:
            return made[value["$id"]].id
        if isinstance(value, dict):
            return {key: given(each) for key, each in value.items() if each is not None}
        return [given(each) for each in value] if isinstance(value, list) else value

    for name, resource in json.loads(Path("resources.json").read_text()).items():
        # of a component without children nothing is awaited unless its URN is
        last = [each.urn.apply(lambda _, each=each: each) for each in [*made.values()][-1:]]
        before = pulumi.ResourceOptions(depends_on=last, retain_on_delete=resource["retained"])
        if resource["type"].startswith("fusion:"):
            made[name] = pulumi.ComponentResource(resource["type"], name, resource["inputs"], before)
        else:
            made[name] = pulumi.CustomResource(resource["type"], name, given(resource["inputs"]), before)
"""


@dataclass(frozen=True)
class Made:
    """A resource as a program makes it: its type and its inputs, and whether it is kept when it leaves the program.

    In them, `{"$secret": value}` is marked as secret by the program, and `{"$id": name}` is the id of a resource before it.
    """

    type: str
    inputs: dict[str, Any]
    retained: bool = False


@dataclass(frozen=True)
class Program:
    """Resources by name, made one after the other in a stack of these settings of `fusion:guardrails`.

    `deployed` is what the stack has before that; the same for all programs of a guardrail.
    """

    resources: dict[str, Made]
    settings: dict[str, Any] = field(default_factory=dict)
    deployed: dict[str, Made] = field(default_factory=dict)


@dataclass(frozen=True)
class Programs:
    """What a guardrail refuses, and what it lets pass."""

    refused: tuple[Program, ...]
    passing: tuple[Program, ...]


def registered(plan: Plan) -> Made:
    """A plan as the program of a stack registers it."""
    return Made(PLAN_TYPE, plan.as_props())


def prefixed(prefix: str, resources: Mapping[str, Made]) -> dict[str, Made]:
    """Resources under names of their own, each referring to the others by these."""
    written = json.dumps({f"{prefix}-{name}": asdict(made) for name, made in resources.items()})
    renamed = json.loads(written.replace('{"$id": "', f'{{"$id": "{prefix}-'))
    return {name: Made(**made) for name, made in renamed.items()}


def project(folders: pytest.TempPathFactory, *recorded: str) -> Iterator[Engine]:
    """A project whose program makes what is declared; a recorder stands in for the clouds that are named."""
    engine = make_engine(folders.mktemp("project") / "project", ".")
    record(engine, *recorded)
    engine.program(MAKES)
    yield engine
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("FUSION_HOME", engine.environment["FUSION_HOME"])
        server.stop()


def declare(engine: Engine, resources: Mapping[str, Made]) -> None:
    """Let the program make these resources, one after the other."""
    written = {name: asdict(made) for name, made in resources.items()}
    (engine.folder / "resources.json").write_text(json.dumps(written))


def broken(printed: str, level: str = "mandatory") -> dict[str, set[str]]:
    """By resource, the guardrails that the engine says it breaks."""
    found: dict[str, set[str]] = {}
    for guardrail, resource in re.findall(rf"\[{level}\]  ([a-z0-9-]+)  \(\S+: (\S+)\)", printed):
        found.setdefault(resource, set()).add(guardrail)
    return found


def existing(engine: Engine) -> list[str]:
    """Everything that was created, wherever."""
    return [*inventory(engine.ensure()), *engine.recorded(), *(path.name for path in engine.manifests.rglob("*.yaml"))]
