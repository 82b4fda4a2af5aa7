"""The plan of a stack: what can't be built is refused where it is planned, and not later."""

import pytest

from infra.planning import plan_stack
from planner.catalog import load
from planner.errors import PlanError
from tests.unit.infra.test_config import TRAINING, config_of


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


def test_a_type_that_can_be_built_is_taken() -> None:
    needs = {"instance_type": "g5.xlarge", "accelerators": 1}
    plan = plan_stack(config_of(workloads=[TRAINING | {"needs": needs}]), "test", load())
    assert [pool.instance_type for pool in plan.pools] == ["g5.xlarge"]
