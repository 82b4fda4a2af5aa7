"""Each guardrail of security on the real engine: what breaks it creates nothing, what keeps it is created.

Resources of AWS and Kubernetes go to the local cloud, those that it does not serve (Google Cloud, Helm) to a plugin that
takes everything, so that only a guardrail can stop them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from policies.testing import UNKNOWN, secret
from tests.engine.conftest import PACK, Engine
from tests.engine.test_guardrails.programs import Made, broken, declare, existing, prefixed, project
from tests.engine.test_guardrails.security_cases import CASES, SETTINGS, STACK_CASES, TEAM
from tests.unit.policies.security.test_rules import REFUSE

NOT_SERVED = ("kubernetes:helm.sh", "aws:cloudformation/", "aws:cloudcontrol/")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A project on the local cloud, and on a recorder for Google Cloud; each test writes its resources."""
    for engine in project(tmp_path_factory, "gcp"):
        engine.configure(guardrails=SETTINGS)
        yield engine


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A project of which a recorder takes every resource."""
    for engine in project(tmp_path_factory, "aws", "gcp", "kubernetes"):
        engine.configure(guardrails=SETTINGS)
        yield engine


def guardrail_of(name: str) -> str:
    return re.split("-(refused|passing)-", name)[0]


def is_served(made: Made) -> bool:
    return not made.type.startswith(NOT_SERVED)


def is_first(name: str, made: Made) -> bool:
    """Whether it is a guardrail's first refused resource of all, or of Google Cloud."""
    others = CASES[guardrail_of(name)].refused
    return made in (others[0], next((each for each in others if each.type.startswith("gcp:")), None))


def declared(part: str) -> dict[str, Made]:
    """The refused or the passing resources of all guardrails, by names of their own."""
    return {
        f"{name}-{part}-{index}": made
        for name, cases in CASES.items()
        for index, made in enumerate(getattr(cases, part))
    }


@pytest.mark.parametrize("name", [name for name, made in declared("refused").items() if is_first(name, made)])
def test_what_breaks_a_guardrail_is_not_created(name: str, request: pytest.FixtureRequest) -> None:
    made = declared("refused")[name]
    engine: Engine = request.getfixturevalue("cloud" if is_served(made) else "recorder")
    declare(engine, {name: made})
    printed = engine.up(status=None, **PACK)
    assert broken(printed) == {name: {guardrail_of(name)}}, printed
    assert existing(engine) == []


def test_a_preview_tells_all_that_breaks_a_guardrail_each_for_its_own_reason(cloud: Engine, recorder: Engine) -> None:
    for engine, served in ((cloud, True), (recorder, False)):
        refused = {name: made for name, made in declared("refused").items() if is_served(made) is served}
        declare(engine, refused)
        assert broken(engine.preview(status=None, **PACK)) == {name: {guardrail_of(name)} for name in refused}


def test_a_preview_tells_each_case_of_the_rules_own_tests(recorder: Engine) -> None:
    refused = {
        f"{name}-refused-{index}": Made(kind, given(inputs)) for index, (name, kind, inputs, _) in enumerate(REFUSE)
    }
    declare(recorder, {"later": Made("aws:ec2/vpc:Vpc", {"tags": TEAM}), **refused})
    found = broken(recorder.preview(status=None, **PACK))
    assert {name for name in refused if guardrail_of(name) not in found.get(name, ())} == set()


def given(value: Any) -> Any:
    """Inputs as a guardrail sees them, as the program has to write them."""
    if value == UNKNOWN:
        return {"$id": "later"}
    if isinstance(value, dict):
        marked = value.keys() == secret("").keys()
        return {"$secret": value["value"]} if marked else {key: given(each) for key, each in value.items()}
    return [given(each) for each in value] if isinstance(value, list) else value


def test_what_keeps_every_guardrail_is_created(cloud: Engine, recorder: Engine) -> None:
    for engine, served in ((cloud, True), (recorder, False)):
        passing = {name: made for name, made in declared("passing").items() if is_served(made) is served}
        declare(engine, passing)
        engine.up(**PACK)
        assert {each["urn"].rpartition("::")[2] for each in engine.state() if each.get("id")} >= passing.keys()
        assert existing(engine) != []
        engine.destroy()


@pytest.mark.parametrize(
    ("name", "index"), [(name, i) for name, each in STACK_CASES.items() for i in range(len(each.refused))]
)
def test_a_stack_that_lacks_something_is_stopped_in_its_preview(recorder: Engine, name: str, index: int) -> None:
    cases = STACK_CASES[name]
    recorder.configure(guardrails=SETTINGS | cases.settings)
    declare(recorder, cases.refused[index])
    printed = recorder.run("up", "--yes", status=None, **PACK)
    assert {each for names in broken(printed).values() for each in names} == {name}, printed
    assert existing(recorder) == []


@pytest.mark.parametrize("index", [0, 1])
def test_a_stack_that_lacks_nothing_is_created(recorder: Engine, index: int) -> None:
    resources: dict[str, Made] = {}
    settings = dict(SETTINGS)
    for name, cases in STACK_CASES.items():
        resources |= prefixed(name, cases.passing[index])
        settings |= cases.settings
    recorder.configure(guardrails=settings)
    declare(recorder, resources)
    recorder.run("up", "--yes", **PACK)
    assert set(recorder.recorded()) == resources.keys()
    recorder.destroy()
