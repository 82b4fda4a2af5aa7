"""Capacity limits on a plan: what can't be had or can't run is said by how much, with the change that passes."""

import dataclasses
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.catalog import load
from planner.catalog.instances import GCP_ACCELERATORS, gcp_accelerators, not_sold, table, unknown_type
from planner.guardrails.capacity import no_such_accelerator_type, no_such_slice, no_such_topology
from planner.guardrails.rules import check_plan
from planner.guardrails.settings import GuardrailSettings
from planner.plan import Plan
from planner.workloads import AnyWorkload
from tests.unit.planner.test_plan import job, planned, service

A10G = {"accelerators": 1, "instance_type": "g5.xlarge"}
CHAT = {"model": "llama-3.1-8b", "input_tokens": 500, "output_tokens": 100, "concurrency": 1}
SPOT = {"needs": A10G, "price_model": "spot", "nodes": {"min": 0, "max": 1}}
IMAGENET = {"profile": "resnet-50", "samples": 1_281_167}


def broken(plan: Plan, **settings: Any) -> dict[str, str]:
    found = check_plan(plan, GuardrailSettings.model_validate(settings), load())
    return {each.guardrail: each.message for each in found}


def declaring(plan: Plan, workload: AnyWorkload) -> Plan:
    """The plan with another workload declared than it was planned for, as an edited one has."""
    return dataclasses.replace(plan, workloads=(workload,))


def on_spot(every: int, epochs: int = 12, batch: int = 64) -> Plan:
    training = {"checkpoint_every_steps": every, "epochs": epochs, "batch_size": batch}
    return planned(job(**SPOT, training=training, target=IMAGENET))


def chat(**target: Any) -> AnyWorkload:
    return service("chat", needs=A10G, target=CHAT | target)


def test_a_model_that_does_not_fit_is_told_by_how_many_gib_and_the_change_that_is_named_fits() -> None:
    plan = planned(chat())
    message = broken(declaring(plan, chat(input_tokens=120_000)))["memory-fit"]
    assert re.search(r"[0-9.]+ GiB a device are missing", message)
    assert "Nearest change that passes: target.precision: int8" in message
    bigger = broken(declaring(plan, chat(model="llama-3.1-70b")))["memory-fit"]
    assert "Nearest change that passes: needs.instance_type: " in bigger


def test_a_model_that_just_fits_passes_and_a_token_more_does_not() -> None:
    plan = planned(chat())
    low, high = 500, 120_000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if "memory-fit" in broken(declaring(plan, chat(input_tokens=middle))) else (middle, high)
        )
    assert "memory-fit" not in broken(declaring(plan, chat(input_tokens=low)))
    assert "0.0 GiB a device are missing" in broken(declaring(plan, chat(input_tokens=low + 1)))["memory-fit"]


def test_a_training_batch_that_does_not_fit_names_the_batch_that_does() -> None:
    plan = planned(job(needs=A10G, target=IMAGENET))
    huge = job(needs=A10G, target=IMAGENET, training={"batch_size": 8192})
    message = broken(declaring(plan, huge))["memory-fit"]
    fits = re.search(r"passes: training.batch_size: (\d+)", message)
    assert fits is not None
    assert "memory-fit" not in broken(planned(job(needs=A10G, target=IMAGENET, training={"batch_size": int(fits[1])})))


def test_memory_that_a_workload_asks_for_must_be_there_to_a_tenth_of_a_gib() -> None:
    plan = planned(job(needs=A10G))
    asking = {gib: job(needs=A10G | {"accelerator_memory_gib": gib}) for gib in (22.4, 22.5)}
    assert broken(declaring(plan, asking[22.4])) == {}
    assert ": 0.1 GiB are missing" in broken(declaring(plan, asking[22.5]))["memory-fit"]


@pytest.mark.parametrize(
    ("cloud", "instance_type", "reason"),
    [
        ("aws", "g5.xlarge", None),
        ("aws", "m5zn.metal", None),  # no offer has it, and EC2 sells it
        ("aws", "g5.3xlarge", "is no instance type of aws; nearest: g5."),
        ("aws", "x99.large", "is no instance type of aws"),
        ("aws", "f1.2xlarge", "was retired on 2025-12-20; F2 (VU47P) follows it"),
        ("gcp", "a3-highgpu-8g", None),
        ("gcp", "a3-highgpu-9g", "is no instance type of gcp; nearest: a3-highgpu-8g"),
        ("gcp", "n2-standard-8", None),
        ("gcp", "n2-custom-6-20480", None),
        ("gcp", "custom-6-20480", None),
        ("gcp", "c3-standard-8-lssd", None),
        ("gcp", "q9-custom-6-20480", "is no instance type of gcp"),
        ("gcp", "n2-standard-many", "is no instance type of gcp"),
        ("gcp", "ct5lp-hightpu-4t", None),
    ],
)
def test_an_instance_type_is_known_or_what_is_wrong_with_it_is_told(
    cloud: str, instance_type: str, reason: str | None
) -> None:
    told = unknown_type(cloud, instance_type, load())
    assert told is None if reason is None else reason in (told or "")


def test_every_offer_is_of_a_known_instance_type() -> None:
    strange = {
        (each.cloud, each.instance_type)
        for each in load().offers
        if each.cloud in ("aws", "gcp") and unknown_type(each.cloud, each.instance_type, load())
    }
    assert strange == set()


def test_every_accelerator_of_google_cloud_has_one_row_and_all_that_are_sold_with_gpus_have_one() -> None:
    assert len(gcp_accelerators()) == 2 * len(table(GCP_ACCELERATORS))
    sold = {each.accelerator for each in load().find(cloud="gcp") if each.accelerator}
    gpus = {each for each in sold if load().accelerators[each].kind == "gpu"}
    assert gpus <= {each.accelerator for each in gcp_accelerators().values()}


def test_accelerators_are_sold_in_a_region_or_where_they_are_is_told() -> None:
    assert not_sold("aws", "us-east-1", "p5.48xlarge", load()) is None
    assert not_sold("aws", "us-east-1", "m6i.large", load()) is None
    assert "(H100) is not sold in eu-central-1; it is in" in (
        not_sold("aws", "eu-central-1", "p5.4xlarge", load()) or ""
    )
    assert "(TPUv5e) is not sold in us-west2" in (not_sold("gcp", "us-west2", "ct5lp-hightpu-4t", load()) or "")
    assert not_sold("gcp", "us-central1", "ct5lp-hightpu-4t", load()) is None
    assert not_sold("aws", "mars-north-1", "p5.4xlarge", load()) is None  # nothing is known of that region
    assert not_sold("aws", "eu-central-1", "g6.xlarge", load()) is None  # nor of all regions that have an L4


def test_pools_and_system_nodes_of_a_plan_are_judged_by_their_instance_types() -> None:
    plan = planned(job(needs=A10G))
    pool = dataclasses.replace(plan.pools[0], instance_type="f1.2xlarge")
    retired = dataclasses.replace(plan, pools=(pool,), workloads=())
    assert "f1.2xlarge was retired" in broken(retired, levels={"monthly-cost-limit": "disabled"})["instance-types"]
    platform = dataclasses.replace(plan.platform, system_instance_type="m6i.huge")
    unknown = dataclasses.replace(plan, platform=platform)
    assert broken(unknown)["instance-types"].startswith("system nodes: m6i.huge is no instance type of aws")


def test_a_slice_of_tpus_exists_or_its_neighbours_are_named() -> None:
    assert no_such_slice("TPUv5e", 16, load()) is None
    assert no_such_slice("TPUv5e", 12, load()) == "TPUv5e has no slice of 12 chips; nearest: 4, 8, 16"
    assert no_such_slice("TPUv2", 4, load()) is None
    assert no_such_slice("TPUv2", 8, load()) is not None
    assert no_such_topology("2x2x4", "ct5p-hightpu-4t", 4, load()) is None
    assert no_such_topology("2x2x4", "ct5p-hightpu-4t", 5, load()) == (
        "a slice 2x2x4 of ct5p-hightpu-4t has 4 nodes, and 5 are asked for; set 4"
    )
    assert "there is no slice 2x3 of ct5lp-hightpu-4t" in (no_such_topology("2x3", "ct5lp-hightpu-4t", 1, load()) or "")
    assert "there is no slice cube" in (no_such_topology("cube", None, None, load()) or "")
    assert no_such_topology("2x2", "g2-standard-4", 1, load()) is None


@pytest.mark.parametrize(
    ("accelerator_type", "exists"),
    [("v2-8", True), ("v3-32", True), ("v4-8", True), ("v5litepod-16", True), ("v5p-128", True), ("v6e-256", True)]
    + [("v5litepod-12", False), ("v4-10", False), ("v2-16", False), ("v9-8", False), ("v4", False), ("h100-8", False)],
)
def test_accelerator_types_of_cloud_tpu_are_counted_in_cores_or_chips(accelerator_type: str, exists: bool) -> None:
    assert (no_such_accelerator_type(accelerator_type, load()) is None) == exists


@given(st.text(max_size=20))
def test_no_text_breaks_the_judgement_of_names(text: str) -> None:
    for cloud in ("aws", "gcp", "azure"):
        unknown_type(cloud, text, load())
    no_such_topology(text, None, None, load())
    no_such_accelerator_type(text, load())


def test_a_run_on_spot_that_ends_before_its_first_checkpoint_is_refused_and_one_step_more_is_not() -> None:
    steps = -(-1_281_167 * 12 // 64)
    assert "spot-checkpoints" not in broken(on_spot(steps - 1))
    message = broken(on_spot(steps))["spot-checkpoints"]
    assert f"it ends after {steps:,} steps and would write its first checkpoint after {steps:,}" in message
    on_demand = job(needs=A10G, training={"checkpoint_every_steps": steps}, target=IMAGENET)
    assert broken(planned(on_demand)) == {}


def test_the_interval_that_is_named_passes_and_so_does_one_off_by_the_factor_but_no_more() -> None:
    message = broken(on_spot(10))["checkpoint-interval"]
    assert "times less than the best, one every" in message
    best = int(re.findall(r"checkpoint_every_steps: (\d+)", message)[0])
    assert broken(on_spot(best), checkpoint_factor_max=1) == {}
    assert broken(on_spot(best * 3)) == {}
    assert "3 times more than the best" in broken(on_spot(best * 3 + 1))["checkpoint-interval"]
    assert broken(on_spot(best * 3 + 1), checkpoint_factor_max=4) == {}


def test_a_slower_store_asks_for_fewer_checkpoints() -> None:
    best = [
        int(
            re.findall(
                r"checkpoint_every_steps: (\d+)",
                broken(on_spot(1, epochs=200), checkpoint_write_mb_per_s=speed)["checkpoint-interval"],
            )[0]
        )
        for speed in (85, 0.85)
    ]
    assert best[1] == pytest.approx(10 * best[0], rel=0.05)


def test_a_short_run_needs_one_checkpoint_in_its_middle_and_no_more() -> None:
    short = {"profile": "resnet-50", "samples": 64 * 100}
    plan = planned(job(**SPOT, training={"checkpoint_every_steps": 50, "epochs": 1, "batch_size": 64}, target=short))
    assert broken(plan, checkpoint_factor_max=1) == {}
