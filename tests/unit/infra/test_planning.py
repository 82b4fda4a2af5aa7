"""The plan of a stack: what can't be built is refused where it is planned, and not later."""

import pytest

from infra.config import StackConfig
from infra.planning import plan_stack
from planner.catalog import load
from planner.errors import PlanError
from tests.unit.infra.test_config import GCP, TRAINING, config_of


@pytest.mark.parametrize("instance_type", ["g4ad.xlarge", "dl1.24xlarge", "f2.6xlarge"])
def test_a_type_that_no_node_image_drives_is_refused_by_name(instance_type: str) -> None:
    needs = {"instance_type": instance_type, "accelerators": 1}
    with pytest.raises(PlanError, match=f"needs.instance_type {instance_type} can't be a node of a pool"):
        plan_stack(config_of(workloads=[TRAINING | {"needs": needs}]), "test", load())


@pytest.mark.parametrize(
    ("accelerator", "types"),
    [("Gaudi1", "dl1.24xlarge"), ("RadeonProV520", "g4ad.16xlarge, g4ad.2xlarge"), ("VU47P", "f2.12xlarge")],
)
def test_an_accelerator_that_is_sold_in_such_types_only_is_refused_with_them(accelerator: str, types: str) -> None:
    needs = {"accelerator": accelerator, "accelerators": 1}
    said = (
        f"needs.accelerator {accelerator} is sold in aws us-east-1 as {types}.* only, which can't be a node of a pool"
    )
    with pytest.raises(PlanError, match=said):
        plan_stack(config_of(workloads=[TRAINING | {"needs": needs}]), "test", load())


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
