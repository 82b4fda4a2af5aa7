"""The bill of a plan is the sum of what its stack registers, tariff by tariff, on both clouds."""

from __future__ import annotations

from typing import Any

import pulumi
import pytest

from infra.assembly import platform_args
from infra.build import build_platform
from infra.config import StackConfig
from infra.planning import plan_stack
from planner.catalog import load
from planner.cost import Quantity, Tariff, netted
from planner.plan import Plan
from policies.pricing import Place, Registered, quantities
from policies.resource import Resource, read
from tests.unit.infra.cloud import run_program, whole
from tests.unit.infra.test_config import GCP, INFERENCE, TRAINING, config_of
from tools.cloud_args import Echo

BY_USE = {"object_store_gib", "registry_gib", "nat_gb", "logs_gb", "egress_gb"}
NOTHING = Quantity.fixed(0)
L4, A100 = {"accelerator": "L4", "accelerators": 1}, {"instance_type": "a2-highgpu-8g", "accelerators": 8}
SPOT = TRAINING | {"needs": L4, "price_model": "spot", "spot_fallback": True, "nodes": {"desired": 1, "max": 2}}
KEPT = TRAINING | {"name": "kept", "needs": L4, "training": {"checkpoint_volume": {"gib": 300}}}
CPUS = INFERENCE | {"name": "cpus", "needs": {"vcpus": 3, "memory_gib": 6}, "replicas": {"min": 3, "max": 8}}
SLICE = {"accelerator": "TPUv5e", "accelerators": 16, "memory_gib": 64}
H100 = {"instance_type": "p5.48xlarge", "accelerators": 8}
BLOCK = {"price_model": "capacity_block", "reservation_id": "cr-0123456789abcdef0", "zone": "us-east-1b"}
STACKS: dict[str, tuple[str, dict[str, Any]]] = {
    "spot that on demand stands in for, disks, CPUs": (
        "aws",
        {"workloads": [SPOT, KEPT, CPUS], "network": {"nat": "per_zone"}, "budget_alarms": {"emails": ["a@b.example"]}},
    ),
    "a Capacity Block and a reservation": (
        "aws",
        {
            "workloads": [
                TRAINING | BLOCK | {"needs": H100, "nodes": {"desired": 2, "max": 4}},
                INFERENCE | {"needs": H100, "reservation_id": "cr-0fedcba9876543210", "zone": "us-east-1a"},
            ]
        },
    ),
    "nodes of Karpenter": ("aws", {"workloads": [SPOT, CPUS], "cluster": {"node_autoscaler": "karpenter"}}),
    "a file cache of Lustre": ("aws", {"workloads": [SPOT], "object_store": {"file_cache_gib": 1_300}}),
    "a file cache on nodes": ("gcp", {"workloads": [SPOT, KEPT, CPUS], "object_store": {"file_cache_gib": 200}}),
    "slices, flex-start and a reservation": (
        "gcp",
        {
            "workloads": [
                TRAINING | {"needs": SLICE, "nodes": {"desired": 1, "max": 1}},
                TRAINING | {"name": "tune", "needs": A100, "price_model": "flex_start", "nodes": {"min": 0, "max": 3}},
                INFERENCE | {"needs": A100, "reservation_id": "mine", "zone": "us-central1-a"},
            ]
        },
    ),
}


def stack(cloud: str, fusion: dict[str, Any]) -> tuple[StackConfig, Plan]:
    guardrails = {"monthly_cost_limit_usd": 10_000_000}
    where = {"region": None, "places": GCP} if cloud == "gcp" else {}
    config = config_of(**where, cloud=cloud, guardrails=guardrails, **fusion)
    return config, plan_stack(config, "t", load())


def registered(config: StackConfig, plan: Plan) -> list[Resource]:
    """What the stack's program registers, as a guardrail sees it."""
    mocks = Echo()

    def program() -> None:
        build_platform(platform_args(config, plan), pulumi.ComponentResource("fusion:platform:Plan", "p", {}))

    run_program(program, mocks)
    return [
        Resource(each.typ, each.name, read(whole(each.inputs)), f"urn:{each.typ}::{each.name}", plan.region)
        for each in mocks.registered
    ]


@pytest.mark.parametrize(("cloud", "fusion"), STACKS.values(), ids=STACKS)
def test_the_bill_is_the_sum_of_what_is_registered(cloud: str, fusion: dict[str, Any]) -> None:
    config, plan = stack(cloud, fusion)
    known, place, catalog = Registered(), Place(cloud, plan.region), load()
    resources = registered(config, plan)
    for each in resources:
        known.take(each)
    taken: dict[Tariff, Quantity] = {}
    for each in resources:
        for tariff, amount in quantities(each, catalog, place, known).items():
            taken[tariff] = taken.get(tariff, NOTHING) + amount
    planned: dict[Tariff, Quantity] = {}
    for item in plan.items:
        if item.tariff.item not in BY_USE:
            planned[item.tariff] = planned.get(item.tariff, NOTHING) + item.quantity
    billed = {tariff: amount for tariff, amount in netted(taken, NOTHING, Quantity.or_more).items() if amount.max}
    assert {tariff: (each.min, each.max) for tariff, each in billed.items()} == {
        tariff: (each.min, each.max) for tariff, each in planned.items()
    }
