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
GCP_SAID = "googleapi: Error 429: ZONE_RESOURCE_POOL_EXHAUSTED: The zone 'projects/p/zones/z' does not have enough"


def log(folder: Path, token: str, inputs: dict[str, Any], message: str) -> Path:
    urn = f"urn:pulumi:prod::fusion::{token}::prod-pool"
    step = {"op": "create", "urn": urn, "type": token, "new": {"type": token, "urn": urn, "inputs": inputs}}
    said = {"urn": urn, "message": message, "severity": "error", "prefix": "", "color": "never"}
    events = [{"resourcePreEvent": {"metadata": step}}, {"diagnosticEvent": said}]
    file = folder / "events.jsonl"
    file.write_text("".join(json.dumps({"sequence": index} | each) + "\n" for index, each in enumerate(events)))
    return file


@pytest.mark.parametrize(
    ("token", "inputs", "message", "offer"),
    [
        (
            "aws:eks/nodeGroup:NodeGroup",
            {"instanceTypes": ["p5.48xlarge"], "capacityType": "SPOT"},
            AWS_SAID,
            ("aws", "p5.48xlarge", "spot", "InsufficientInstanceCapacity"),
        ),
        (
            "gcp:container/nodePool:NodePool",
            {"nodeConfig": {"machineType": "ct5lp-hightpu-4t"}},
            GCP_SAID,
            ("gcp", "tpu-v5e-4chip", "on_demand", "ZONE_RESOURCE_POOL_EXHAUSTED"),
        ),
        (
            "gcp:container/nodePool:NodePool",
            {
                "nodeConfig": {"machineType": "ct5lp-hightpu-4t", "spot": True},
                "placementPolicy": {"type": "COMPACT", "tpuTopology": "4x4"},
            },
            GCP_SAID,
            ("gcp", "tpu-v5e-16chip", "spot", "ZONE_RESOURCE_POOL_EXHAUSTED"),
        ),
        (
            "gcp:container/nodePool:NodePool",
            {
                "nodeConfig": {
                    "machineType": "n1-standard-8",
                    "spot": True,
                    "guestAccelerators": [{"type": "nvidia-tesla-t4", "count": 1}],
                }
            },
            GCP_SAID,
            ("gcp", "n1-standard-8+T4x1", "spot", "ZONE_RESOURCE_POOL_EXHAUSTED"),
        ),
    ],
)
def test_a_pool_without_capacity_is_found(
    tmp_path: Path, token: str, inputs: dict[str, Any], message: str, offer: tuple[str, ...]
) -> None:
    (found,) = sold_out(log(tmp_path, token, inputs, message), {f"{offer[0]}:region": "somewhere"})
    assert (found.cloud, found.instance_type, found.price_model, found.code) == offer
    assert found.region == "somewhere"


def test_another_error_is_none(tmp_path: Path) -> None:
    inputs = {"instanceTypes": ["p5.48xlarge"]}
    assert (
        sold_out(log(tmp_path, "aws:eks/nodeGroup:NodeGroup", inputs, "AccessDenied"), {"aws:region": "us-east-1"})
        == ()
    )
    assert sold_out(tmp_path / "none", {}) == ()


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
