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


def test_the_next_plan_is_taken_and_the_user_told(
    platform: Engine, stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.configure(guardrails={"monthly_cost_limit_usd": 1500, "levels": {"images-by-digest": "disabled"}})
    capacity.set_left("aws:g5.xlarge:us-east-1:spot", 0)
    provision(stack, tmp_path / "log")
    said = capsys.readouterr().out
    assert "aws us-east-1 had no capacity of g5.xlarge spot" in said
    assert "(InsufficientInstanceCapacity)" in said
    pools = [each for each in platform.exists() if "/local-pool-" in each]
    assert len(pools) == 1 and "g5-xlarge-spot" not in pools[0]
    assert not [each["urn"] for each in stack.resources() if "g5-xlarge-spot" in each["urn"]]
    assert "plans leave it out until" in platform.preview()


def on(instance_type: str) -> list[dict[str, object]]:
    return [DIGITS | {"needs": DIGITS["needs"] | {"instance_type": instance_type}}]


def test_where_no_plan_is_left_nothing_stays_but_what_was_there_before(
    platform: Engine, stack: Stack, tmp_path: Path
) -> None:
    platform.configure(workloads=on("g5.xlarge"))
    capacity.set_left("aws:g5.xlarge:us-east-1", 0)
    with pytest.raises(FusionError, match="all that had been made of local is removed"):
        provision(stack, tmp_path / "log")
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
