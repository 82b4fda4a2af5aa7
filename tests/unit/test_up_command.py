"""`fusion up`: what is done where a cloud has no capacity, with an engine that answers as it is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from fusion import capacity
from fusion.commands import up
from fusion.errors import FusionError
from fusion.stack import Stack
from planner.sold_out import SoldOut

GONE = SoldOut("gcp", "us-central1", "g2-standard-4", "spot", "ZONE_RESOURCE_POOL_EXHAUSTED", "2026-11-27 12:00 UTC")


class Told:
    """A stack that has nothing yet, and whose updates end as they are told: None is well, else an error."""

    name, root, file = "both", Path("/stack"), Path("/stack/stacks/Pulumi.both.yaml")
    is_local = is_on_cluster = stays = False

    def __init__(self, cloud: str, *updates: str | None) -> None:
        self.config = {"fusion:cloud": cloud}
        self._updates: Iterator[str | None] = iter(updates)
        self.done: list[str] = []

    def resources(self) -> list[dict[str, Any]]:
        return []

    def up(self, log: Path) -> None:
        self.done.append("up")
        if error := next(self._updates):
            raise FusionError(error)

    def destroy(self) -> None:
        self.done.append("destroy")
        if self.stays:
            raise FusionError("pulumi destroy ended with status 255")


def provision(stack: Told, folder: Path) -> None:
    up.provision(cast(Stack, stack), folder / "log")


@pytest.fixture
def sold_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each update's log says that the same offer is sold out; the first one is news."""
    monkeypatch.setenv("FUSION_HOME", str(tmp_path))
    monkeypatch.setattr(capacity, "sold_out", lambda log: (GONE,))


@pytest.mark.usefixtures("sold_out")
def test_where_one_cloud_has_no_plan_left_a_first_update_moves_to_the_other(tmp_path: Path) -> None:
    stack = Told("auto", "sold out", "nothing fits", None)
    provision(stack, tmp_path)
    assert stack.done == ["up", "up", "destroy", "up"]


@pytest.mark.usefixtures("sold_out")
def test_it_moves_once_and_then_says_that_no_plan_is_left(tmp_path: Path) -> None:
    stack = Told("auto", "sold out", "nothing fits", "nothing fits here either")
    with pytest.raises(FusionError, match=r"nothing fits here either\. No plan is left"):
        provision(stack, tmp_path)
    assert stack.done == ["up", "up", "destroy", "up", "destroy"]


@pytest.mark.usefixtures("sold_out")
def test_a_stack_of_one_cloud_stays_there(tmp_path: Path) -> None:
    stack = Told("gcp", "sold out", "nothing fits")
    with pytest.raises(FusionError, match="all that had been made of both is removed"):
        provision(stack, tmp_path)
    assert stack.done == ["up", "up", "destroy"]


@pytest.mark.usefixtures("sold_out")
def test_what_can_not_be_removed_hides_neither_why_it_was_to_be_nor_where_it_is(tmp_path: Path) -> None:
    stack = Told("gcp", "sold out", "nothing fits")
    stack.stays = True
    with pytest.raises(FusionError) as failed:
        provision(stack, tmp_path)
    said = str(failed.value)
    assert said.startswith("nothing fits. No plan is left without what was sold out; what had been made is not all")
    assert "(pulumi destroy ended with status 255): `pulumi stack --stack both` lists what is there" in said


@pytest.mark.usefixtures("sold_out")
def test_the_summary_says_what_was_sold_out(tmp_path: Path) -> None:
    stack = Told("auto", "sold out", None)
    provision(stack, tmp_path)
    cost = {"expected": 1.0, "min": 1.0, "max": 1.0}
    outputs = {"cloud": "aws", "region": "us-east-1", "cluster_name": "c", "bucket_url": "b", "monthly_cost_usd": cost}
    said = up.summary(cast(Stack, stack), outputs, [], {})
    assert f"  sold out    {GONE}" in said.splitlines()
    assert "until `fusion up --ask-again`" in said
