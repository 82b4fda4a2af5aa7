"""Cost limits on parts of a plan, each at its edge."""

import math
import re
from typing import Any

import pytest

from planner.catalog import load
from planner.cost import HOURS_PER_MONTH
from planner.guardrails.rules import check_plan
from planner.guardrails.settings import GuardrailSettings
from planner.plan import Plan
from tests.unit.planner.test_plan import job, planned, service

G5 = {"instance_type": "g5.xlarge", "accelerators": 1}
HOURLY = load().offer("aws", "us-east-1", "g5.xlarge").price_usd_per_hour or 0.0
IMAGENET = {"profile": "resnet-50", "samples": 1_281_167}


def broken(plan: Plan, **settings: Any) -> dict[str, str]:
    found = check_plan(plan, GuardrailSettings.model_validate(settings), load())
    return {each.guardrail: each.message for each in found}


def pool_usd_per_month(plan: Plan, load: str) -> float:
    items = [each for each in plan.items if each.component == f"pool {plan.pools[0].name}"]
    return sum(getattr(each.monthly_usd, load) for each in items)


def test_a_workload_is_held_to_its_share_of_the_pool_that_it_is_in() -> None:
    plan = planned(
        service("chat", needs=G5, replicas={"min": 1, "max": 3}),
        service("embed", needs=G5, replicas={"min": 1, "max": 1}),
    )
    assert len(plan.pools) == 1
    share = round(pool_usd_per_month(plan, "max") * 3 / 4, 2)
    assert broken(plan, workload_cost_limits_usd={"chat": share + 0.01}) == {}
    message = broken(plan, workload_cost_limits_usd={"chat": share - 0.01})["workload-cost-limit"]
    assert f"workload chat costs ${share:,.2f} a month" in message
    assert message.endswith(f"It would pass with a limit of {math.ceil(share)}")


@pytest.mark.parametrize(("vcpus", "replicas"), [(3, 5), (1.5, 7)])
def test_the_replicas_and_the_limit_that_are_named_pass_and_one_replica_more_does_not(
    vcpus: float, replicas: int
) -> None:
    needs = {"instance_type": "m6i.xlarge", "vcpus": vcpus, "memory_gib": 4}

    def of(most: int) -> Plan:
        return planned(service("embed", needs=needs, replicas={"min": 1, "max": most}))

    limits = {"embed": round(pool_usd_per_month(of(replicas), "max") * 0.7, 2)}
    message = broken(of(replicas), workload_cost_limits_usd=limits)["workload-cost-limit"]
    named = re.search(r"It would pass with replicas.max: (\d+), or with a limit of (\d+)$", message)
    assert named is not None
    assert broken(of(int(named[1])), workload_cost_limits_usd=limits) == {}
    assert "workload-cost-limit" in broken(of(int(named[1]) + 1), workload_cost_limits_usd=limits)
    assert broken(of(replicas), workload_cost_limits_usd={"embed": float(named[2])}) == {}


def test_the_nodes_of_a_job_that_are_named_pass() -> None:
    limits = {"digits": 1500.0}
    message = broken(planned(job(needs=G5, nodes={"max": 4})), workload_cost_limits_usd=limits)["workload-cost-limit"]
    assert "It would pass with nodes.max: 2, or" in message
    assert broken(planned(job(needs=G5, nodes={"max": 2})), workload_cost_limits_usd=limits) == {}


def test_a_limit_of_a_workload_that_is_not_there_is_told() -> None:
    message = broken(planned(job(needs=G5)), workload_cost_limits_usd={"chat": 1})["workload-cost-limit"]
    assert "names chat, and the stack has digits" in message


@pytest.mark.parametrize("nodes", [1, 2, 7])
def test_a_pool_is_held_to_its_hour_with_all_its_nodes(nodes: int) -> None:
    plan = planned(job(needs=G5, nodes={"max": nodes}))
    assert broken(plan, pool_hourly_limit_usd=round(HOURLY * nodes, 4)) == {}
    message = broken(plan, pool_hourly_limit_usd=round(HOURLY * nodes - 0.01, 4))["pool-hourly-limit"]
    fits = f"at most {nodes - 1} of them" if nodes > 1 else "an instance type of at most"
    assert fits in message


def test_requests_are_priced_at_the_declared_rate() -> None:
    target = {"profile": "resnet-50", "requests_per_s": 10}
    plan = planned(service("classify", needs=G5, replicas={"min": 1, "max": 4}, target=target))
    cost = pool_usd_per_month(plan, "expected") / HOURS_PER_MONTH / 36_000 * 1000
    assert broken(plan, usd_per_1000_requests_max=cost * 1.001) == {}
    message = broken(plan, usd_per_1000_requests_max=cost * 0.999)["request-cost-limit"]
    assert f"costs ${cost:.4g} for 1,000 requests" in message
    assert broken(plan, usd_per_1000_requests_max=float(message.rpartition(" ")[2])) == {}


def test_a_run_is_priced_by_what_is_predicted_of_it_and_not_by_what_the_plan_states() -> None:
    plan = planned(job(needs=G5, target=IMAGENET))
    (stated,) = plan.predictions
    assert stated.run_usd is not None
    assert broken(plan, training_run_usd_max=stated.run_usd.value * 1.001) == {}
    message = broken(plan, training_run_usd_max=stated.run_usd.value * 0.999)["training-run-limit"]
    assert re.search(r"one run is predicted to cost \$[\d,.]+ \([\d.e+]+ node-hours at \$1\.01\)", message)
    longer = planned(job(needs=G5, target=IMAGENET, training={"epochs": 24}))
    limit_usd = stated.run_usd.value * 1.001
    told = broken(longer, training_run_usd_max=limit_usd)["training-run-limit"]
    named = re.search(r"It would pass with training.epochs: (\d+), or with a limit of ([\d.]+)$", told)
    assert named is not None
    assert int(named[1]) == 12
    assert broken(longer, training_run_usd_max=float(named[2])) == {}
