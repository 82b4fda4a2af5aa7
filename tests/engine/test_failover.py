"""Where the cloud has no capacity of an offer, `fusion up` takes the next plan, or leaves nothing half made."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusion.commands.up import provision
from fusion.errors import FusionError
from fusion.stack import Stack
from localcloud import capacity
from tests.engine.conftest import DIGITS, PACK, Engine


@pytest.fixture
def stack(platform: Engine, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """The stack of this checkout's own program, as `fusion` drives it, with its guardrails."""
    for name, value in (platform.environment | PACK | {"PULUMI_OPTION_SKIP_PREVIEW": "true"}).items():
        monkeypatch.setenv(name, value)
    return Stack(platform.stack, platform.folder)


BLOCK = DIGITS | {
    "name": "pretrain",
    "price_model": "capacity_block",
    "reservation_id": "cr-0123456789abcdef0",
    "zone": "us-east-1b",
    "needs": {"instance_type": "p5.48xlarge", "accelerators": 8},
    "nodes": {"min": 0, "desired": 1, "max": 1},
}


def test_the_next_plan_is_taken_the_user_told_and_the_next_update_changes_nothing(
    platform: Engine, stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = {"monthly_cost_limit_usd": 60_000, "levels": {"images-by-digest": "disabled"}}
    platform.configure(workloads=[DIGITS, BLOCK], guardrails=limits)
    capacity.set_left("aws:g5.xlarge:us-east-1:spot", 0)
    capacity.set_left("aws:cr-0123456789abcdef0:us-east-1b", 0)
    provision(stack, tmp_path / "log")
    said = capsys.readouterr().out
    assert "aws us-east-1 had no capacity of g5.xlarge spot" in said
    assert "(InsufficientInstanceCapacity)" in said
    assert "no capacity of p5.48xlarge in the Capacity Block cr-0123456789abcdef0" in said
    assert "(ReservationCapacityExceeded); plans buy on demand in its place" in said
    pools = [each for each in platform.exists() if "/local-pool-" in each]
    assert len(pools) == 2 and not any("g5-xlarge-spot" in each or "capacity-block" in each for each in pools)
    groups = [each["inputs"] for each in stack.resources() if each["type"] == "aws:eks/nodeGroup:NodeGroup"]
    of_block = [each for each in groups if each.get("instanceTypes") == ["p5.48xlarge"]]
    assert [each["capacityType"] for each in of_block] == ["ON_DEMAND"]
    assert not [each["urn"] for each in stack.resources() if "g5-xlarge-spot" in each["urn"]]

    again = platform.up()
    assert "plans leave it out until" in again
    assert not any(word in again for word in ("created", "updated", "deleted", "replaced"))


def on(instance_type: str) -> list[dict[str, object]]:
    return [DIGITS | {"needs": DIGITS["needs"] | {"instance_type": instance_type}}]


def test_where_no_plan_is_left_nothing_stays_but_what_was_there_before(
    platform: Engine, stack: Stack, tmp_path: Path
) -> None:
    platform.configure(workloads=on("g5.xlarge"))
    capacity.set_left("aws:g5.xlarge:us-east-1", 0)
    with pytest.raises(FusionError, match="all that had been made of local is removed") as none_left:
        provision(stack, tmp_path / "log")
    assert "number of spot g5.xlarge nodes in aws us-east-1 that can be had" in str(none_left.value), (
        "the plan's own sentence comes with it"
    )
    assert platform.exists() == []
    assert stack.resources() == []

    platform.configure(workloads=on("g5.2xlarge"), guardrails={"monthly_cost_limit_usd": 5000})
    provision(stack, tmp_path / "log")
    before = platform.exists(), {each["urn"] for each in stack.resources()}
    capacity.set_left("aws:g5.4xlarge:us-east-1", 0)
    platform.configure(workloads=on("g5.4xlarge"))
    with pytest.raises(FusionError, match="what local had before is there, what this update had made is removed"):
        provision(stack, tmp_path / "log")
    assert (platform.exists(), {each["urn"] for each in stack.resources()}) == before
