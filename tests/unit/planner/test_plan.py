"""A plan: the cheapest offer that fits, pools shared by what runs on the same offer, and a bill that adds up."""

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from planner.catalog import UnknownOffer, load
from planner.cost import HOURS_PER_MONTH
from planner.errors import PlanError
from planner.plan import Plan, PlanRequest, PlatformShape, choose_offer, plan
from planner.stack import NOT_EXACT, SHARING_MOST
from planner.workloads import Bounds, ExpectedUsage, InferenceService, Needs, TrainingJob

IMAGE = "registry.example.com/image:1"
SHAPE = PlatformShape(
    zones=("us-east-1a", "us-east-1b"),
    kubernetes_version="1.35",
    nat_gateways=1,
    interface_endpoints=6,
    encryption_keys=3,
    system_instance_type="m6i.large",
    system_nodes=2,
    system_disk_gib=30,
)


def job(name: str = "digits", **fields: object) -> TrainingJob:
    return TrainingJob.model_validate({"kind": "training", "name": name, "image": IMAGE} | fields)


def service(name: str = "classify", **fields: object) -> InferenceService:
    return InferenceService.model_validate({"kind": "inference", "name": name, "image": IMAGE} | fields)


def planned(*workloads: TrainingJob | InferenceService, usage: ExpectedUsage | None = None) -> Plan:
    request = PlanRequest("test", "aws", "us-east-1", SHAPE, workloads, usage or ExpectedUsage())
    return plan(request, load())


def test_the_cheapest_offer_that_has_what_is_needed_is_chosen() -> None:
    needs = Needs(accelerators=1, accelerator_memory_gib=20, vcpus=3, memory_gib=12)
    offer = choose_offer(job(needs=needs), "aws", "us-east-1", load())
    for other in load().find(cloud="aws", region="us-east-1"):
        fits = (
            other.accelerator_count >= 1
            and (other.accelerator_memory_gib or 0) >= 20
            and other.vcpus >= 3.5
            and other.memory_gib >= 12 / 0.85
        )
        if fits and other.price_usd_per_hour is not None:
            assert offer.price_usd_per_hour is not None
            assert offer.price_usd_per_hour <= other.price_usd_per_hour


@pytest.mark.parametrize(("services", "said"), [(2, False), (SHARING_MOST + 1, True)])
def test_the_registered_plan_says_that_services_were_not_planned_together(services: int, said: bool) -> None:
    props = planned(*(service(f"service{number}") for number in range(services))).as_props()
    assert props["notes"] == ([NOT_EXACT] if said else [])
    assert Plan.from_props(props).notes == tuple(props["notes"])


def test_workloads_with_the_same_offer_share_a_pool() -> None:
    needs = {"instance_type": "g5.xlarge", "accelerators": 1}
    result = planned(job(needs=needs, nodes={"max": 3}), job("other", needs=needs, nodes={"min": 1, "max": 2}))
    (pool,) = result.pools
    assert (pool.nodes_min, pool.nodes_expected, pool.nodes_max) == (1, 1, 5)
    assert pool.workloads == ("digits", "other")


def test_replicas_are_packed_on_nodes_by_their_accelerators() -> None:
    needs = {"instance_type": "g5.12xlarge", "accelerators": 1, "vcpus": 2, "memory_gib": 8}
    (pool,) = planned(service(needs=needs, replicas={"min": 1, "max": 9})).pools
    assert (pool.nodes_min, pool.nodes_max) == (1, 3)


def test_the_pool_costs_its_nodes_and_their_disks() -> None:
    result = planned(job(needs={"instance_type": "g5.xlarge"}, nodes={"max": 2}, disk_gib=100))
    offer = load().offer("aws", "us-east-1", "g5.xlarge")
    assert offer.price_usd_per_hour is not None
    disk = load().service_price("aws", "us-east-1", "block_storage_gib").price_usd
    own = sum(each.monthly_usd.max for each in result.items if each.component.startswith("pool"))
    assert own == pytest.approx(2 * (offer.price_usd_per_hour * HOURS_PER_MONTH + 100 * disk))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"needs": {"instance_type": "g5.2xlrge"}}, "g5.2xlarge"),
        ({"needs": {"instance_type": "g5.xlarge", "accelerators": 2}}, "has 1 accelerators, 2 are asked for"),
        ({"needs": {"accelerators": 16, "accelerator_memory_gib": 1000}}, "GiB an accelerator, 1000 are asked for"),
        ({"needs": {"accelerator": "B900", "accelerators": 1}}, "B900 is not in the catalog; nearest: B300"),
    ],
)
def test_what_fits_nothing_says_what_is_nearest(fields: dict[str, object], expected: str) -> None:
    with pytest.raises((PlanError, UnknownOffer), match=expected):
        planned(job(**fields))


def test_spot_without_a_price_names_the_way_out() -> None:
    with pytest.raises(PlanError, match=r"p5\.4xlarge has no spot price .* choose another price_model"):
        planned(job(price_model="spot", needs={"instance_type": "p5.4xlarge"}))


@given(
    low=st.integers(0, 50),
    extra=st.integers(0, 50),
    more=st.integers(0, 50),
    spot=st.booleans(),
)
def test_the_bill_never_falls_when_the_autoscaler_may_buy_more(low: int, extra: int, more: int, spot: bool) -> None:
    bounds = Bounds(min=low, desired=low + extra, max=max(1, low + extra + more))
    workload = job(
        needs={"instance_type": "g5.xlarge"}, price_model="spot" if spot else "on_demand", nodes=bounds.model_dump()
    )
    monthly = planned(workload).monthly_usd
    assert monthly.min <= monthly.expected <= monthly.max


def test_what_the_components_cannot_build_is_not_chosen() -> None:
    needs = Needs(accelerator="V100-16GB", accelerators=1)
    first = choose_offer(job(needs=needs), "aws", "us-east-1", load())
    second = choose_offer(job(needs=needs), "aws", "us-east-1", load(), {first.instance_type})
    assert second.instance_type != first.instance_type


TARGET = {"profile": "resnet-50", "samples": 1_281_167, "hours_max": 24}


def test_a_training_job_with_a_target_gets_the_cheapest_offer_that_keeps_it_and_its_prediction() -> None:
    result = planned(job(needs={"accelerators": 1}, training={"batch_size": 256, "epochs": 5}, target=TARGET))
    (prediction,) = result.predictions
    assert prediction.run_hours is not None and prediction.run_usd is not None
    assert prediction.run_hours.low <= prediction.run_hours.value <= min(24, prediction.run_hours.high)
    assert prediction.run_usd.value == pytest.approx(prediction.run_hours.value * prediction.usd_per_hour)
    tighter = TARGET | {"hours_max": prediction.run_hours.value * 0.9}
    faster = planned(job(needs={"accelerators": 1}, training={"batch_size": 256, "epochs": 5}, target=tighter))
    assert faster.pools[0].instance_type != result.pools[0].instance_type


def test_a_service_with_a_target_gets_latency_quantiles_and_its_plan_is_plain_json() -> None:
    target = {"profile": "fusionnet-8", "requests_per_s": 1000, "p99_ms_max": 20}
    result = planned(service(needs={"accelerators": 1}, replicas={"min": 1, "max": 2}, target=target))
    (prediction,) = result.predictions
    assert prediction.p50_ms is not None and prediction.p95_ms is not None and prediction.p99_ms is not None
    assert prediction.p50_ms.value <= prediction.p95_ms.value <= prediction.p99_ms.value <= 20
    props = json.loads(json.dumps(result.as_props(), allow_nan=False))
    judged = {name: props[name] for name in Plan.__dataclass_fields__ if name not in ("predictions", "others")}
    assert TypeAdapter(Plan).validate_python(judged).pools == result.pools


def test_the_peak_is_borne_by_the_most_replicas_within_the_same_limits() -> None:
    target = {"profile": "resnet-50", "requests_per_s": 100, "peak_requests_per_s": 3000, "p99_ms_max": 30}
    declared = service(needs={"accelerators": 1}, replicas={"min": 1, "max": 3}, target=target)
    result = planned(declared)
    (prediction,) = result.predictions
    peak = prediction.peak
    assert peak is not None and peak.p50_ms is not None and peak.p99_ms is not None
    assert (peak.requests_per_s, peak.replicas, prediction.requests_per_s) == (3000, 3, 100)
    assert peak.p50_ms.value <= peak.p99_ms.value <= 30 and prediction.replicas < 3
    assert 0 < prediction.utilisation < peak.utilisation < 1
    assert (prediction.p99_ms_max, prediction.p95_ms_max) == (30, None)
    assert Plan.from_props(json.loads(json.dumps(result.as_props(), allow_nan=False))).predictions == result.predictions
    calm = planned(
        service(needs=declared.needs, replicas=declared.replicas, target=target | {"peak_requests_per_s": 100})
    )
    assert calm.monthly_usd.expected <= result.monthly_usd.expected


NETWORK = {"round_trip_ms": 8, "request_kb": 600, "response_kb": 25, "bandwidth_mb_per_s": 62.5}


def test_the_network_between_clients_and_service_is_part_of_every_quantile() -> None:
    target = {"profile": "resnet-50", "requests_per_s": 100, "p99_ms_max": 60}
    near, far = (
        planned(service(needs={"accelerator": "A10G", "accelerators": 1}, target=target | more)).predictions[0]
        for more in ({}, {"network": NETWORK})
    )
    for name in ("p50_ms", "p95_ms", "p99_ms"):
        before, after = getattr(near, name), getattr(far, name)
        assert after.value - before.value == pytest.approx(8 + 10)
        assert after.low - before.low == pytest.approx(8 + 10)
    with pytest.raises(PlanError, match=r"raise p99_ms_max from 17 to"):
        planned(service(needs={"accelerators": 1}, target=target | {"p99_ms_max": 17, "network": NETWORK}))


def test_the_network_of_a_language_model_delays_its_first_token_only() -> None:
    target = {"model": "llama-3.1-8b", "input_tokens": 500, "output_tokens": 100, "requests_per_s": 1}
    near, far = (
        planned(service(needs={"accelerator": "L4", "accelerators": 1}, target=target | more)).predictions[0]
        for more in ({}, {"network": NETWORK})
    )
    assert far.ttft_ms.value - near.ttft_ms.value == pytest.approx(18)
    assert far.tpot_ms == near.tpot_ms
    assert "18 ms are network" in " ".join(far.reasons)


def test_a_language_model_has_times_at_its_peak() -> None:
    target = {"model": "llama-3.1-8b", "input_tokens": 500, "output_tokens": 100, "tpot_ms_max": 60}
    load = {"requests_per_s": 1, "peak_requests_per_s": 4}
    (prediction,) = planned(
        service(needs={"accelerators": 1}, replicas={"min": 1, "max": 2}, target=target | load)
    ).predictions
    assert prediction.peak is not None and prediction.peak.tpot_ms is not None and prediction.peak.ttft_ms is not None
    assert prediction.tpot_ms.value <= prediction.peak.tpot_ms.value <= 60 == prediction.tpot_ms_max
    assert 0 < prediction.utilisation <= 1


@pytest.mark.parametrize(
    ("load", "said"),
    [
        ({"requests_per_s": 10, "peak_requests_per_s": 5}, "peak_requests_per_s (5) is below requests_per_s (10)"),
        ({"requests_per_s": 10, "peak_requests_per_s": math.nan}, "finite number"),
        ({"requests_per_s": 10, "peak_ramp_s": 5}, "peak_ramp_s is set and peak_requests_per_s is not"),
    ],
)
def test_a_peak_that_is_none_is_refused(load: dict[str, float], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        service(target={"profile": "resnet-50"} | load)
    assert said in str(caught.value)


def test_a_target_that_nothing_keeps_names_the_limit_and_its_least_value() -> None:
    with pytest.raises(PlanError, match=r"workload digits: .*raise hours_max from 0.001 to [\d.]+"):
        planned(job(needs={"accelerators": 1}, target=TARGET | {"hours_max": 0.001}))


def test_spot_with_a_fallback_has_a_second_pool_that_the_cost_at_the_maximum_counts():
    needs = {"instance_type": "g5.xlarge", "accelerators": 1}
    alone = planned(job(price_model="spot", needs=needs, nodes={"max": 2}))
    both = planned(job(price_model="spot", spot_fallback=True, needs=needs, nodes={"max": 2}))
    spot, fallback = both.pools
    assert (spot.price_model, fallback.price_model) == ("spot", "on_demand")
    assert fallback.stands_in_for == spot.name and (fallback.nodes_min, fallback.nodes_max) == (0, 2)
    assert both.pool_of("digits") == spot
    on_demand = load().offer("aws", "us-east-1", "g5.xlarge").price_usd_per_hour
    assert both.monthly_usd.max - alone.monthly_usd.max >= 2 * on_demand * HOURS_PER_MONTH


def test_data_that_is_elsewhere_is_an_item_of_the_bill():
    away = planned(job(data={"cloud": "aws", "region": "eu-west-1", "gb_per_month": 500}))
    here = planned(job(data={"cloud": "aws", "region": "us-east-1", "gb_per_month": 500}))
    price = load().service_price("aws", "eu-west-1", "egress_region_gb").price_usd
    assert away.monthly_usd.expected - here.monthly_usd.expected == pytest.approx(500 * price)


def test_services_of_different_sizes_share_the_nodes_of_one_pool():
    needs = {"accelerators": 0, "memory_gib": 4}
    target = {"profile": "fusionnet-8", "requests_per_s": 300, "p99_ms_max": 20}
    services = [
        service(name, needs=needs | {"vcpus": vcpus}, target=target) for name, vcpus in (("one", 1), ("other", 2))
    ]
    together = planned(*services)
    apart = [planned(each).pools[0] for each in services]
    cost = sum(pool.nodes_max * pool.price_usd_per_hour for pool in together.pools)
    assert cost <= sum(pool.nodes_max * pool.price_usd_per_hour for pool in apart) + 1e-9


def test_the_prediction_of_a_cpu_says_that_it_was_not_measured_and_is_wide():
    target = {"profile": "fusionnet-8", "requests_per_s": 300}
    (prediction,) = planned(service(needs={"accelerators": 0, "vcpus": 2, "memory_gib": 4}, target=target)).predictions
    assert "not measured on this instance type" in prediction.calibration and prediction.accelerators == 0
    assert prediction.p99_ms.high > 2 * prediction.p99_ms.low


def test_a_language_model_is_declared_and_its_pods_take_what_it_was_predicted_with():
    target = {"model": "llama-3.1-8b", "requests_per_s": 1, "input_tokens": 500, "output_tokens": 100}
    result = planned(service(needs={"accelerators": "any"}, replicas={"min": 1, "max": 4}, target=target))
    (prediction,) = result.predictions
    assert prediction.ttft_ms is not None and prediction.tpot_ms is not None
    assert prediction.accelerators_each == prediction.tensor_parallel
    assert result.pool_of("classify").accelerators_per_node >= prediction.accelerators_each


@pytest.mark.parametrize(
    ("needs", "expected"),
    [
        ({"accelerator": "H900", "accelerators": 1}, "needs.accelerator H900 is not in the catalog; nearest: H"),
        (
            {"accelerator": "TPUv5e", "accelerators": 4},
            "no on-demand offer in aws us-east-1 has TPUv5e; the catalog has it in gcp alone",
        ),
    ],
)
def test_an_accelerator_that_is_not_to_be_had_is_told_with_where_it_is(needs: dict[str, object], expected: str) -> None:
    with pytest.raises(PlanError, match=re.escape(expected)):
        planned(job(needs=needs))


def test_an_accelerator_of_another_region_is_told_with_its_regions() -> None:
    with pytest.raises(PlanError, match=r"aws us-west-1 has A10G; the catalog has it in .*us-east-1"):
        choose_offer(job(needs={"accelerator": "A10G", "accelerators": 1}), "aws", "us-west-1", load())


def test_of_precisions_and_splits_that_cost_the_same_a_language_model_gets_the_one_that_answers_soonest() -> None:
    target = {"model": "qwen2.5-72b", "precision": ["bf16", "fp8"], "input_tokens": 1000, "output_tokens": 200}
    asked = service(
        "chat", needs={"instance_type": "g6.48xlarge", "accelerators": 8}, target=target | {"concurrency": 32}
    )
    (prediction,) = planned(asked).predictions
    assert (prediction.precision, prediction.tensor_parallel * prediction.pipeline_parallel) == ("fp8", 8)
    assert prediction.pipeline_parallel > 1  # what tensor parallelism exchanges takes long on PCIe
