"""Cost guardrails on what is declared beside the plan."""

from typing import Any

import pytest

from infra.aws.accelerator_pool import POOL_LABEL
from planner.catalog import load
from policies import cost
from policies.plan import PLAN_TYPE
from policies.testing import UNKNOWN, Declared, judge
from tests.unit.planner.test_plan import job, planned

GROUP = "aws:eks/nodeGroup:NodeGroup"
G5 = {"instance_type": "g5.xlarge", "accelerators": 1}
HOURLY = load().offer("aws", "us-east-1", "g5.xlarge").price_usd_per_hour or 0.0
SPOT_PLAN = planned(job(needs=G5, price_model="spot", nodes={"min": 0, "max": 2}))


def group(nodes: int = 1, **inputs: Any) -> Declared:
    scaling = {"minSize": 0, "desiredSize": 1, "maxSize": nodes}
    return Declared(GROUP, {"instanceTypes": ["g5.xlarge"], "diskSize": 20, "scalingConfig": scaling} | inputs)


def test_a_node_group_beside_the_plan_is_held_to_the_hour_of_a_pool() -> None:
    assert judge(cost.pool_hourly_limit, group(3), pool_hourly_limit_usd=3.02) == []
    (message,) = judge(cost.pool_hourly_limit, group(4), pool_hourly_limit_usd=3.02)
    assert f"costs ${4 * HOURLY:.2f} an hour with all its machines" in message


def test_what_a_node_group_starts_with_is_its_expected_load() -> None:
    usd = HOURLY * 730 + 20 * 0.08
    assert judge(cost.expected_monthly_cost, group(9), expected_monthly_cost_limit_usd=round(usd + 1)) == []
    assert judge(cost.expected_monthly_cost, group(9), expected_monthly_cost_limit_usd=round(usd - 1))


@pytest.mark.parametrize(
    ("inputs", "refused"),
    [
        ({"capacityType": "SPOT"}, False),
        ({}, True),
        ({"capacityType": "ON_DEMAND"}, True),
        ({"labels": {POOL_LABEL: SPOT_PLAN.pools[0].name}}, True),
        ({"instanceTypes": ["m6i.large"]}, False),
        ({"capacityType": UNKNOWN}, True),
    ],
)
def test_a_pool_that_is_planned_on_spot_is_bought_on_spot(inputs: dict[str, Any], refused: bool) -> None:
    plan = Declared(PLAN_TYPE, SPOT_PLAN.as_props())
    assert bool(judge(cost.spot_as_planned, plan, group(**inputs))) == refused


@pytest.mark.parametrize(
    ("config", "refused"),
    [
        ({"spot": True}, False),
        ({"preemptible": True}, False),
        ({}, True),
        ({"spot": False}, True),
        ({"labels": {POOL_LABEL: "another"}}, False),
    ],
)
def test_a_pool_of_gke_that_is_planned_on_spot_is_bought_on_spot(config: dict[str, Any], refused: bool) -> None:
    pool = Declared(
        "gcp:container/nodePool:NodePool",
        {"location": "us-central1", "nodeConfig": {"machineType": SPOT_PLAN.pools[0].instance_type} | config},
    )
    assert bool(judge(cost.spot_as_planned, Declared(PLAN_TYPE, SPOT_PLAN.as_props()), pool)) == refused


@pytest.mark.parametrize(
    ("label", "bought", "refused"),
    [
        (SPOT_PLAN.pools[0].name, ["spot"], False),
        (SPOT_PLAN.pools[0].name, ["spot", "on-demand"], True),
        (SPOT_PLAN.pools[0].name, None, True),
        (None, ["on-demand"], True),
        ("another", ["on-demand"], False),
    ],
)
def test_a_pool_of_karpenter_that_is_planned_on_spot_is_bought_on_spot(
    label: str | None, bought: list[str] | None, refused: bool
) -> None:
    asked = {"node.kubernetes.io/instance-type": [SPOT_PLAN.pools[0].instance_type]}
    asked |= {"karpenter.sh/capacity-type": bought} if bought else {}
    requirements = [{"key": key, "operator": "In", "values": values} for key, values in asked.items()]
    template = {"metadata": {"labels": {POOL_LABEL: label}}, "spec": {"requirements": requirements}}
    pool = Declared("kubernetes:karpenter.sh/v1:NodePool", {"spec": {"template": template}})
    assert bool(judge(cost.spot_as_planned, Declared(PLAN_TYPE, SPOT_PLAN.as_props()), pool)) == refused


def test_a_pool_that_is_planned_on_demand_may_be() -> None:
    plan = Declared(PLAN_TYPE, planned(job(needs=G5)).as_props())
    assert judge(cost.spot_as_planned, plan, group()) == []
