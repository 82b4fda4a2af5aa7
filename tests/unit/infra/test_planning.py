"""The plan of a stack: what can't be built is refused where it is planned, and not later."""

import dataclasses
import json
import re
from typing import Any

import pulumi
import pytest

from infra.assembly import platform_args
from infra.config import ConfigError, StackConfig
from infra.plan_resource import PlanResource
from infra.planning import plan_stack, violations
from planner.catalog import load
from planner.errors import PlanError
from planner.plan import Plan
from tests.unit.infra.test_config import GCP, INFERENCE, TRAINING, config_of


@pytest.mark.parametrize("instance_type", ["g4ad.xlarge", "dl1.24xlarge", "g7.2xlarge"])
def test_a_type_that_no_node_image_drives_is_refused_by_name(instance_type: str) -> None:
    needs = {"instance_type": instance_type, "accelerators": 1}
    with pytest.raises(PlanError, match=f"needs.instance_type {instance_type} can't be a node of a pool"):
        plan_stack(config_of(workloads=[TRAINING | {"needs": needs}]), "test", load())


@pytest.mark.parametrize(
    ("accelerator", "types"),
    [("Gaudi1", "dl1.24xlarge"), ("RadeonProV520", "g4ad.16xlarge, g4ad.2xlarge")],
)
def test_an_accelerator_that_is_sold_in_such_types_only_is_refused_with_them(accelerator: str, types: str) -> None:
    needs = {"accelerator": accelerator, "accelerators": 1}
    said = (
        f"needs.accelerator {accelerator} is sold in aws us-east-1 as {types}.* only, which can't be a node of a pool"
    )
    with pytest.raises(PlanError, match=said):
        plan_stack(config_of(workloads=[TRAINING | {"needs": needs}]), "test", load())


@pytest.mark.parametrize("needs", [{"instance_type": "f2.6xlarge"}, {"accelerator": "VU47P"}])
def test_fpgas_are_planned_where_the_stack_says_what_its_own_plugin_calls_them(needs: dict[str, str]) -> None:
    job = TRAINING | {"needs": needs | {"accelerators": 1, "vcpus": 4}}
    with pytest.raises(PlanError, match=r"needs asks for FPGAs .* device_plugins\.fpga_resource"):
        plan_stack(config_of(workloads=[job]), "test", load())
    config = config_of(workloads=[job], cluster={"device_plugins": {"fpga_resource": "xilinx.com/fpga-f2"}})
    plan = plan_stack(config, "test", load())
    (pool,) = platform_args(config, plan).pools
    assert (pool.instance_type, pool.device_resource) == ("f2.6xlarge", "xilinx.com/fpga-f2")


def test_a_part_of_a_gpu_is_no_node_of_gke() -> None:
    needs = {"instance_type": "g4-standard-6", "accelerators": 0}
    config = config_of(region=None, places=GCP, cloud="gcp", workloads=[TRAINING | {"needs": needs}])
    with pytest.raises(PlanError, match=r"needs\.instance_type g4-standard-6 can't be a node of a pool"):
        plan_stack(config, "test", load())


def either(**workload: object) -> StackConfig:
    return config_of(places=GCP, cloud="auto", workloads=[TRAINING | workload])


def test_a_stack_of_either_cloud_is_planned_where_it_is_cheapest() -> None:
    config = either(needs={"accelerators": 1, "accelerator_memory_gib": 16, "vcpus": 3, "memory_gib": 8})
    both = {cloud: plan_stack(config.on(cloud), "test", load()) for cloud in ("aws", "gcp")}
    cheapest = min(both.values(), key=lambda plan: plan.monthly_usd.expected)
    plan = plan_stack(config, "test", load())
    assert plan.cloud == cheapest.cloud
    assert plan.items == cheapest.items
    assert f"fusion:cloud auto: on {plan.cloud} {plan.region} for $" in plan.notes[-1]


def test_where_one_cloud_has_nothing_that_fits_the_other_is_taken_and_it_is_said_why() -> None:
    plan = plan_stack(either(needs={"accelerator": "TPUv5e", "accelerators": 4}), "test", load())
    assert plan.cloud == "gcp"
    assert "on gcp us-central1, as aws us-east-1 can't have it: workload digits: " in plan.notes[-1]


def test_what_else_there_was_to_choose_from_is_no_part_of_the_registered_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said in each preview; in the plan's inputs a second update would change it where nothing changes."""
    registered: list[dict[str, Any]] = []
    monkeypatch.setattr(
        pulumi.ComponentResource, "__init__", lambda _, kind, name, props, opts: registered.append(props)
    )
    monkeypatch.setattr(pulumi.ComponentResource, "register_outputs", lambda _, outputs: None)
    plan = plan_stack(either(), "test", load())
    PlanResource("first", plan)
    PlanResource("second", dataclasses.replace(plan, notes=("the stack stays where it is",)))
    assert registered[0] == registered[1]
    assert Plan.from_props(registered[0]) == dataclasses.replace(plan, notes=())


@pytest.mark.parametrize(("chips", "notes"), [(1, 0), (4, 1)])
def test_a_training_job_on_several_chips_of_a_tpu_is_warned_of(chips: int, notes: int) -> None:
    needs = {"accelerator": "TPUv5e", "accelerators": chips}
    config = config_of(region=None, places=GCP, cloud="gcp", workloads=[TRAINING | {"needs": needs}])
    said = plan_stack(config, "test", load()).notes
    assert len([each for each in said if "uses one chip of a TPU so far" in each]) == notes


def test_where_no_cloud_has_it_both_say_why() -> None:
    with pytest.raises(
        PlanError, match=r"a stack is whole on one cloud, and it fits neither: aws us-east-1: .*; gcp us"
    ):
        plan_stack(either(needs={"accelerator": "A10G", "accelerators": 16}), "test", load())


def test_a_type_that_can_be_built_is_taken() -> None:
    needs = {"instance_type": "g5.xlarge", "accelerators": 1}
    plan = plan_stack(config_of(workloads=[TRAINING | {"needs": needs}]), "test", load())
    assert [pool.instance_type for pool in plan.pools] == ["g5.xlarge"]


def on_both(**changes: object) -> StackConfig:
    target = {"profile": "bert-base-128", "requests_per_s": 9_000, "peak_requests_per_s": 12_000, "p99_ms_max": 50}
    needs = {"accelerator": "L4", "accelerators": 1, "vcpus": 3, "memory_gib": 12}
    service = INFERENCE | {"needs": needs, "replicas": {"min": 2, "max": 40}, "target": target}
    return config_of(places=GCP, cloud="both", **{"workloads": [service], **changes})


def test_on_both_clouds_each_is_planned_for_what_it_must_bear_and_the_bill_is_the_sum() -> None:
    config = on_both(failover={"primary": "gcp", "bears": {"aws": 0.5}})
    catalog = load()
    plan = plan_stack(config, "test", catalog)
    gcp, aws = plan.parts
    assert (gcp.cloud, aws.cloud) == ("gcp", "aws")
    assert [each.workloads[0].target.requests_per_s for each in plan.parts] == [9_000, 4_500]
    assert gcp.predictions[0].replicas > aws.predictions[0].replicas
    alone = [
        plan_stack(config.borne_by(cloud).model_copy(update={"cloud": cloud}), "test", catalog)
        for cloud in ("gcp", "aws")
    ]
    assert plan.monthly_usd.max == pytest.approx(sum(each.monthly_usd.max for each in alone))
    assert Plan.from_props(json.loads(json.dumps(plan.as_props()))).parts == plan.parts


def test_on_both_clouds_each_keeps_the_limits_by_itself_and_cost_is_judged_as_one() -> None:
    config = on_both(guardrails={"monthly_cost_limit_usd": 100, "utilisation_max": 0.2})
    found = violations(plan_stack(config, "test", load()), config, load())
    headroom = [each.message for each in found if each.guardrail == "utilisation-headroom"]
    assert any(each.startswith("on aws us-east-1: ") for each in headroom)
    assert any(each.startswith("on gcp us-central1: ") for each in headroom)
    assert len([each for each in found if each.guardrail == "monthly-cost-limit"]) == 1


def test_where_one_of_both_clouds_can_not_have_its_part_it_is_said_which() -> None:
    service = INFERENCE | {"needs": {"accelerator": "A10G", "accelerators": 1}, "replicas": {"min": 2, "max": 4}}
    with pytest.raises(PlanError, match="fusion:cloud both: gcp us-central1 can't have its part: workload classify"):
        plan_stack(on_both(workloads=[service]), "test", load())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"workloads": [TRAINING]}, "a training job runs on one; put digits into a stack of its own"),
        ({"failover": {"dns": "route53"}}, "dns route53 and a domain belong together"),
        ({"failover": {"bears": {"aws": 1.5}}}, "fusion:failover.bears.aws: got 1.5"),
        ({"cloud": "auto", "failover": {"primary": "gcp"}}, "it is read with fusion:cloud both alone"),
    ],
)
def test_what_does_not_serve_on_both_clouds_is_refused_in_a_sentence(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        on_both(**changes) if "cloud" not in changes else config_of(places=GCP, **changes)
