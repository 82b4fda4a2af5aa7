"""Each guardrail on the plan, on cost and on capacity, on the real engine: what breaks it alone creates nothing, what keeps it
to its edge is created, and no guardrail of the pack is without such programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator

import pytest

from policies import guardrails
from policies.guardrail import Guardrail
from tests.engine.conftest import PACK, Engine
from tests.engine.test_guardrails.plan_cases import NODE_GROUP, PLAN_CASES
from tests.engine.test_guardrails.programs import Made, Program, broken, declare, existing, prefixed, project
from tests.engine.test_guardrails.security_cases import CASES, STACK_CASES

AFTER_ANOTHER = [name for name, each in PLAN_CASES.items() if each.refused[0].deployed]
REFUSED = [
    (name, index)
    for name, each in PLAN_CASES.items()
    if name not in AFTER_ANOTHER
    for index in range(len(each.refused))
]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A project on the local cloud, and on a recorder for Google Cloud."""
    yield from project(tmp_path_factory, "gcp")


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A project of which a recorder takes every resource, those of the local cloud's included that name what is not there."""
    yield from project(tmp_path_factory, "aws", "gcp", "kubernetes")


def settings_of(program: Program) -> str:
    return json.dumps(program.settings, sort_keys=True)


def passing_together() -> dict[tuple[str, str], dict[str, Made]]:
    """The resources of all programs that pass, by where they can be made (node groups need a cluster, which these have not) and by their settings."""
    found: dict[tuple[str, str], dict[str, Made]] = {}
    for name, cases in PLAN_CASES.items():
        for index, program in enumerate(cases.passing):
            if program.deployed:
                continue
            kinds = {made.type for made in program.resources.values()}
            where = "recorder" if NODE_GROUP in kinds else "cloud"
            resources = prefixed(f"{name}-{index}", program.resources)
            found.setdefault((where, settings_of(program)), {}).update(resources)
    return found


@pytest.mark.parametrize(("name", "index"), REFUSED)
def test_what_breaks_a_guardrail_alone_creates_nothing(cloud: Engine, name: str, index: int) -> None:
    program = PLAN_CASES[name].refused[index]
    cloud.configure(guardrails=program.settings)
    declare(cloud, program.resources)
    printed = cloud.up(status=None, **PACK)
    assert {each for names in broken(printed).values() for each in names} == {name}, printed
    assert existing(cloud) == []


@pytest.mark.parametrize(("where", "settings"), passing_together())
def test_what_keeps_a_guardrail_to_its_edge_is_created(
    where: str, settings: str, request: pytest.FixtureRequest
) -> None:
    engine: Engine = request.getfixturevalue(where)
    resources, given = passing_together()[where, settings], json.loads(settings)
    several = {"levels": {"one-plan": "disabled"} | given.get("levels", {})}  # for here, many programs are one
    engine.configure(guardrails=given | several)
    declare(engine, resources)
    engine.up(**PACK)
    created = {each["urn"].rpartition("::")[2] for each in engine.state() if each.get("id")}
    assert created >= {name for name, made in resources.items() if not made.type.startswith("fusion:")}
    assert existing(engine) != []


@pytest.mark.parametrize("name", AFTER_ANOTHER)
def test_what_breaks_a_guardrail_on_what_is_deployed_changes_nothing_and_what_keeps_it_is_made(
    recorder: Engine, name: str
) -> None:
    cases = PLAN_CASES[name]
    for program in (*cases.refused, *cases.passing):
        recorder.configure(guardrails={})
        declare(recorder, program.deployed)
        recorder.up(**PACK)
        recorder.configure(guardrails=program.settings)
        declare(recorder, program.resources)
        is_refused = program in cases.refused
        printed = recorder.up(status=None if is_refused else 0, **PACK)
        assert {each for names in broken(printed).values() for each in names} == ({name} if is_refused else set())
        kept = program.deployed if is_refused else program.resources
        made = {each["urn"].rpartition("::")[2]: each["inputs"] for each in recorder.state() if each.get("id")}
        assert {each: made[each]["instanceType"] for each in kept} == {
            each: one.inputs["instanceType"] for each, one in kept.items()
        }
        recorder.destroy()
        assert existing(recorder) == []


def without_programs(judged: Iterable[Guardrail]) -> set[str]:
    """The guardrails of which fewer than two different programs are refused, or fewer than two pass."""
    declared = CASES | STACK_CASES | PLAN_CASES
    lacking = set()
    for each in judged:
        cases = declared.get(each.name)
        parts = (cases.refused, cases.passing) if cases else ((), ())
        if any(len({repr(program) for program in part}) < 2 for part in parts):
            lacking.add(each.name)
    return lacking


def test_a_guardrail_without_programs_is_found() -> None:
    assert without_programs([dataclasses.replace(guardrails()[0], name="quite-new")]) == {"quite-new"}


def test_every_guardrail_has_two_programs_that_break_it_and_two_that_keep_it() -> None:
    assert without_programs(guardrails()) == set()
