"""Each guardrail on the plan, on cost and on capacity, on the real engine: what breaks it alone creates nothing, what keeps it
to its edge is created, and no guardrail of the pack is without such programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator

import pytest

from policies import guardrails
from policies.cost import KARPENTER_POOL, NODE_GROUP
from policies.guardrail import Guardrail
from tests.engine.conftest import PACK, Engine
from tests.engine.test_guardrails.plan_cases import PLAN_CASES
from tests.engine.test_guardrails.programs import Made, Program, broken, declare, existing, prefixed, project
from tests.engine.test_guardrails.security_cases import CASES, STACK_CASES

AFTER_ANOTHER = [name for name, each in PLAN_CASES.items() if each.refused[0].deployed]
NODES_OF_A_CLUSTER = {NODE_GROUP, KARPENTER_POOL}
SEVERAL = {"one-plan": "disabled"}
"""Levels of a program that is made of many."""


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


def where(program: Program) -> str:
    """Where its resources can be made: nodes need a cluster, which these programs have not."""
    return "recorder" if {made.type for made in program.resources.values()} & NODES_OF_A_CLUSTER else "cloud"


def refused_together() -> dict[tuple[str, str], dict[str, dict[str, Made]]]:
    """The resources of each program that is refused, by its guardrail and number, of those of the same settings together."""
    found: dict[tuple[str, str], dict[str, dict[str, Made]]] = {}
    for name, cases in PLAN_CASES.items():
        for index, program in enumerate(cases.refused):
            if program.deployed:
                continue
            several = {"levels": SEVERAL | program.settings.get("levels", {})}
            # plans of others would break it
            given = f"{settings_of(program)} {index}" if name == "one-plan" else json.dumps(program.settings | several)
            together = found.setdefault((where(program), given), {})
            together[f"{name}-{index}"] = prefixed(f"{name}-{index}", program.resources)
    return found


def passing_together() -> dict[tuple[str, str], dict[str, Made]]:
    """The resources of all programs that pass, by where they can be made and by their settings."""
    found: dict[tuple[str, str], dict[str, Made]] = {}
    for name, cases in PLAN_CASES.items():
        for index, program in enumerate(cases.passing):
            if not program.deployed:
                resources = prefixed(f"{name}-{index}", program.resources)
                found.setdefault((where(program), settings_of(program)), {}).update(resources)
    return found


@pytest.mark.parametrize(("place", "settings"), refused_together())
def test_what_breaks_a_guardrail_alone_creates_nothing(
    place: str, settings: str, request: pytest.FixtureRequest
) -> None:
    engine: Engine = request.getfixturevalue(place)
    programs = refused_together()[place, settings]
    engine.configure(guardrails=json.JSONDecoder().raw_decode(settings)[0])
    declare(engine, {name: made for resources in programs.values() for name, made in resources.items()})
    # without a preview, the first of several would stop the update before the others are judged
    preview = ("--skip-preview",) if len(programs) == 1 else ()
    printed = engine.run("up", "--yes", *preview, status=None, **PACK)
    found = broken(printed)
    for program, resources in programs.items():
        assert {each for name in resources for each in found.pop(name, ())} == {program.rpartition("-")[0]}, printed
    assert found == {}
    assert existing(engine) == []


@pytest.mark.parametrize(("place", "settings"), passing_together())
def test_what_keeps_a_guardrail_to_its_edge_is_created(
    place: str, settings: str, request: pytest.FixtureRequest
) -> None:
    engine: Engine = request.getfixturevalue(place)
    resources, given = passing_together()[place, settings], json.loads(settings)
    engine.configure(guardrails=given | {"levels": SEVERAL | given.get("levels", {})})
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
    recorder.configure(guardrails={})
    declare(recorder, cases.refused[0].deployed)
    recorder.up(**PACK)
    for program in (*cases.refused, *cases.passing):
        is_refused = program in cases.refused
        recorder.configure(guardrails=program.settings)
        declare(recorder, program.resources)
        printed = recorder.run("up", "--yes", status=None if is_refused else 0, **PACK)
        assert {each for names in broken(printed).values() for each in names} == ({name} if is_refused else set())
        kept = program.deployed if is_refused else program.resources
        made = [each for each in recorder.state() if not each["type"].startswith("pulumi:")]
        assert {each["urn"].rpartition("::")[2]: each["inputs"] for each in made} == {
            each: one.inputs for each, one in kept.items()
        }
    recorder.destroy()


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
