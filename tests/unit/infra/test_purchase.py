"""What a stack's file says of how nodes are had and where, as its plan and its pools have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.assembly import platform_args
from infra.planning import plan_stack
from planner.catalog import load
from planner.errors import PlanError
from planner.quotas import taken
from planner.sold_out import SoldOut, remember
from planner.workloads import Quota
from tests.unit.infra.conftest import refusal
from tests.unit.infra.test_bill import registered, stack
from tests.unit.infra.test_config import GCP, INFERENCE, TRAINING, config_of, refused

H100 = {"instance_type": "p5.48xlarge", "accelerators": 8}
A100 = {"instance_type": "a2-highgpu-8g", "accelerators": 8}
RESERVED = {"reservation_id": "cr-0123456789abcdef0", "zone": "us-east-1b"}
SEVERAL = {"nodes": {"desired": 2, "max": 4}}
LATER = {"price_model": "flex_start", "max_run_hours": 24, "queued": True}


def pools(cloud: str, *workloads: dict[str, Any]) -> list[Any]:
    config, plan = stack(cloud, {"workloads": list(workloads), "cluster": {"queueing": "kueue"}})
    return list(platform_args(config, plan).pools)


@pytest.mark.parametrize(
    ("cloud", "workload", "becomes"),
    [
        ("aws", TRAINING | RESERVED | {"needs": H100}, {"price_model": "on_demand"} | RESERVED),
        (
            "aws",
            TRAINING | RESERVED | {"needs": H100, "price_model": "capacity_block"},
            {"price_model": "capacity_block"} | RESERVED,
        ),
        (
            "gcp",
            INFERENCE | {"needs": A100, "reservation_id": "mine", "zone": "us-central1-a"},
            {"price_model": "on_demand", "reservation_id": "mine", "zone": "us-central1-a", "nodes_desired": 1},
        ),
        ("gcp", TRAINING | LATER | {"needs": A100}, LATER | {"nodes_desired": 0, "nodes_max": 1}),
    ],
)
def test_a_way_to_buy_reaches_the_pool(cloud: str, workload: dict[str, Any], becomes: dict[str, Any]) -> None:
    (pool,) = pools(cloud, workload)
    asked = {name: value for name, value in becomes.items() if name != "zone"}
    assert {name: getattr(pool, name) for name in asked} == asked
    if "zone" in becomes:
        assert pool.zones == (becomes["zone"],)


def test_queued_nodes_are_asked_for_by_kueue_all_that_a_job_needs_at_once() -> None:
    tuned = TRAINING | LATER | {"needs": A100}
    made = registered(*stack("gcp", {"workloads": [tuned], "cluster": {"queueing": "kueue"}}))
    objects = {each.props.value["kind"]: each.props.value for each in made if each.type.startswith("kubernetes:kueue")}
    config, check = objects["ProvisioningRequestConfig"], objects["AdmissionCheck"]
    assert config["spec"] == {
        "provisioningClassName": "queued-provisioning.gke.io",
        "managedResources": ["nvidia.com/gpu"],
        "parameters": {"maxRunDurationSeconds": str(24 * 3_600)},
    }
    assert check["spec"]["controllerName"] == "kueue.x-k8s.io/provisioning-request"
    assert check["spec"]["parameters"]["name"] == config["metadata"]["name"]
    flavor, name = objects["ResourceFlavor"], check["metadata"]["name"]
    asked_for = [{"name": name, "onFlavors": [flavor["metadata"]["name"]]}]
    assert objects["ClusterQueue"]["spec"]["admissionChecksStrategy"] == {"admissionChecks": asked_for}
    assert {"key": "cloud.google.com/gke-queued", "value": "true", "effect": "NoSchedule"} in flavor["spec"][
        "nodeTaints"
    ]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "fusion:workloads: "),
        ({}, "digits: queued nodes come when Kueue asks for them, and nobody else does here; set fusion:cluster"),
        ({"cluster": {"queueing": "kueue", "topology_levels": ["rack"]}}, "Kueue v0.10 places no job by topology"),
    ],
)
def test_queued_without_somebody_who_asks_is_refused(changes: dict[str, Any], says: str) -> None:
    asked = {"workloads": [TRAINING | LATER | {"needs": A100}]} | changes
    assert says in refused(region=None, places=GCP, cloud="gcp", **asked)


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_nodes_that_train_together_are_in_one_zone_and_services_in_all(cloud: str) -> None:
    needs = H100 if cloud == "aws" else A100
    service = INFERENCE | {"needs": needs}
    together, apart = pools(cloud, TRAINING | SEVERAL | {"needs": needs}, service)
    assert (len(together.zones), len(apart.zones)) == (1, 2)
    assert together.pool == f"{apart.pool}-{together.zones[0]}"
    (alone,) = pools(cloud, TRAINING | {"needs": needs})
    assert len(alone.zones) == 2, "a single node has nobody to be close to"


def test_replicas_share_nodes_only_with_those_that_are_had_alike() -> None:
    first, second = (INFERENCE | {"name": name, "needs": H100 | {"accelerators": 1}} for name in ("one", "two"))
    assert len(pools("aws", first, second)) == 1
    assert [each.pool for each in pools("aws", first | RESERVED, second)] == [
        "p5-48xlarge-reserved",
        "p5-48xlarge-on-demand",
    ]


def test_the_plan_says_what_it_counts_as_on_demand_and_whose_plugin_is_missing() -> None:
    _, plan = stack("aws", {"workloads": [TRAINING | RESERVED | SEVERAL | {"needs": H100}]})
    assert any("come from the reservation cr-0123456789abcdef0, which is billed whether" in each for each in plan.notes)
    assert any("name the image of the plugin that hands it out" in each for each in plan.notes)


def test_where_a_block_has_no_instance_left_its_type_is_bought_on_demand_in_the_same_zone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSION_HOME", str(tmp_path))
    bought = TRAINING | RESERVED | {"needs": H100, "price_model": "capacity_block"}
    before = plan_stack(config_of(workloads=[bought]), "t", load())
    said = "ReservationCapacityExceeded", "today", RESERVED["reservation_id"]
    remember("t", [SoldOut("aws", "us-east-1", "p5.48xlarge", "capacity_block", *said)])
    after = plan_stack(config_of(workloads=[bought]), "t", load())
    assert [(each.bought_as, each.purchase, each.zones) for each in after.pools] == [
        ("on_demand", None, ("us-east-1b",))
    ]
    assert after.monthly_usd == before.monthly_usd
    assert any("in the Capacity Block cr-0123456789abcdef0" in each for each in after.notes)


def test_flex_start_takes_of_the_quotas_of_spot() -> None:
    _, plan = stack("gcp", {"workloads": [TRAINING | LATER | {"needs": A100}], "cluster": {"queueing": "kueue"}})
    quotas = {model: Quota(cloud="gcp", price_model=model, accelerators=8) for model in ("spot", "on_demand")}
    of_pools = {model: [each.total for each in taken(quota, plan, load())] for model, quota in quotas.items()}
    assert of_pools == {"spot": [8], "on_demand": []}


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        ({"price_model": "capacity_block"}, "set reservation_id to the id of the block that you bought"),
        ({"reservation_id": "cr-01234567"}, "which lies in one zone; set zone to it"),
        (RESERVED | {"price_model": "spot"}, "what is reserved is bought on_demand, or as a capacity_block"),
        (RESERVED, "needs.instance_type is not set; capacity that is had as reserved is of one type: name it"),
        ({"queued": True}, "queued is of price_model flex_start, and it is on_demand"),
        ({"price_model": "flex_start", "nodes": {"min": 1, "max": 2}, "needs": A100}, "nodes.min is 1"),
        ({"price_model": "flex_start", "max_run_hours": 200}, "max_run_hours: got 200; input should be less than"),
    ],
)
def test_what_is_not_sold_so_is_refused_in_the_stacks_words(workload: dict[str, Any], said: str) -> None:
    assert said in refused(workloads=[TRAINING | workload])


def test_a_service_is_not_put_on_nodes_that_go_after_seven_days() -> None:
    workload = INFERENCE | {"price_model": "flex_start", "needs": A100}
    assert "whose nodes go after seven days at most" in refused(workloads=[workload])


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        ({"zone": "us-east-1f"}, "zone us-east-1f is none of the stack's on aws, which are us-east-1a, us-east-1b"),
        ({"price_model": "flex_start", "needs": H100}, "price_model flex_start is not sold on aws; expected one of"),
        ({"needs": A100}, "needs.instance_type a2-highgpu-8g: the catalog has no a2-highgpu-8g in aws us-east-1"),
    ],
)
def test_what_the_cloud_has_not_is_refused_in_the_plan(workload: dict[str, Any], said: str) -> None:
    with pytest.raises(PlanError, match=said):
        plan_stack(config_of(workloads=[TRAINING | workload]), "t", load())


def test_what_is_no_reservation_of_the_cloud_is_refused_before_anything_is_made() -> None:
    config, plan = stack("aws", {"workloads": [TRAINING | RESERVED | {"needs": H100, "reservation_id": "mine"}]})
    assert "reservation_id mine is no id of a capacity reservation" in refusal(platform_args, config, plan)


def test_a_slices_memory_is_that_of_all_its_hosts() -> None:
    config, plan = stack("gcp", {"workloads": [TRAINING | {"needs": {"accelerator": "TPUv5e", "accelerators": 16}}]})
    assert "memory_gib 2 is of all 4 hosts" in refusal(platform_args, config, plan)
