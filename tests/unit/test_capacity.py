"""What was sold out is read from the engine's log, kept by stack, and left out of its plans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fusion.capacity import sold_out
from planner import sold_out as kept
from planner.errors import PlanError

AWS_SAID = "last error: AsgInstanceLaunchFailures: Could not launch Spot Instances. InsufficientInstanceCapacity - We"
BLOCK_SAID = "AsgInstanceLaunchFailures: Could not launch. ReservationCapacityExceeded - The requested reservation does"
OVER_SAID = "operation error EC2: InvalidCapacityReservationId.NotFound: cr-0123456789abcdef0 does not exist"
GCP_SAID = "googleapi: Error 429: ZONE_RESOURCE_POOL_EXHAUSTED: The zone 'projects/p/zones/z' does not have enough"
BLOCK = {"price_model": "capacity_block", "reservation_id": "cr-0123456789abcdef0"}


def log(folder: Path, pool: dict[str, Any], message: str, parent: str | None = None) -> Path:
    """Of an update that made a pool's component and failed of its node group."""
    token = "aws:eks/nodeGroup:NodeGroup" if pool["cloud"] == "aws" else "gcp:container/nodePool:NodePool"
    component = parent or f"fusion:{pool['cloud']}:AcceleratorPool"
    urn = f"urn:pulumi:prod::fusion::{component}::prod-pool"
    child = f"urn:pulumi:prod::fusion::{component}${token}::prod-pool"
    steps = (
        {"urn": urn, "type": component, "new": {"inputs": pool}},
        {"urn": child, "type": token, "new": {"inputs": {}, "parent": urn}},
    )
    events = [{"resourcePreEvent": {"metadata": {"op": "create"} | each}} for each in steps]
    said = {"urn": child, "message": message, "severity": "error", "prefix": "", "color": "never"}
    file = folder / "events.jsonl"
    lines = [
        json.dumps({"sequence": number} | each) for number, each in enumerate([*events, {"diagnosticEvent": said}])
    ]
    file.write_text("\n".join(lines) + "\n")
    return file


def pool(cloud: str, instance_type: str, **more: Any) -> dict[str, Any]:
    return {"cloud": cloud, "region": "somewhere", "instance_type": instance_type, "price_model": "spot"} | more


@pytest.mark.parametrize(
    ("inputs", "message", "code"),
    [
        (pool("aws", "p5.48xlarge"), AWS_SAID, "InsufficientInstanceCapacity"),
        (pool("aws", "p5.48xlarge") | BLOCK, BLOCK_SAID, "ReservationCapacityExceeded"),
        (pool("aws", "p5.48xlarge") | BLOCK, OVER_SAID, "InvalidCapacityReservationId.NotFound"),
        (pool("gcp", "tpu-v5e-16chip"), GCP_SAID, "ZONE_RESOURCE_POOL_EXHAUSTED"),
        (pool("gcp", "n1-standard-8+T4x1", price_model="on_demand"), GCP_SAID, "ZONE_RESOURCE_POOL_EXHAUSTED"),
    ],
)
def test_a_pool_without_capacity_is_found(tmp_path: Path, inputs: dict[str, Any], message: str, code: str) -> None:
    (found,) = sold_out(log(tmp_path, inputs, message))
    assert found.code == code
    expected = {"reservation_id": None} | inputs
    assert {name: getattr(found, name) for name in expected} == expected


def test_another_error_is_none_and_neither_is_that_of_a_node_group_outside_the_plan(tmp_path: Path) -> None:
    assert sold_out(log(tmp_path, pool("aws", "p5.48xlarge"), "AccessDenied")) == ()
    assert sold_out(log(tmp_path, pool("aws", "p5.48xlarge"), AWS_SAID, parent="team:own:Pool")) == ()
    assert sold_out(tmp_path / "none") == ()


def test_a_block_that_is_sold_out_says_nothing_of_its_type_on_demand() -> None:
    block = kept.SoldOut("aws", "us-east-1", "p5.48xlarge", code="C", said_at="today", **BLOCK)
    assert block.quotas == ()
    on_demand = kept.SoldOut("aws", "us-east-1", "p5.48xlarge", "on_demand", "C", "today")
    assert [each.price_model for each in on_demand.quotas] == ["on_demand"]
    assert not block.is_same_as(on_demand)


def test_what_is_known_is_kept_once_until_it_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSION_HOME", str(tmp_path))
    one = kept.SoldOut("aws", "us-east-1", "p5.48xlarge", "spot", "InsufficientInstanceCapacity", "today")
    assert kept.remember("prod", [one, one]) == (one,)
    assert kept.remember("prod", [one]) == ()
    assert kept.of_stack("prod") == (one,)
    assert kept.of_stack("other") == ()
    (tmp_path / "sold-out" / "other.json").write_text("[")
    with pytest.raises(PlanError, match=r"other\.json: .*remove the file"):
        kept.of_stack("other")
    kept.forget("prod")
    assert kept.of_stack("prod") == ()
