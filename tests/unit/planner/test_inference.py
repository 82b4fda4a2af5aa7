"""Inference: the parts of a request's time add up, limits are named."""

import dataclasses
import math

import pytest

from planner.calibration.store import MeasuredOn, ServingCosts, ThreadCosts
from planner.performance import DoesNotFit, InferenceLoad, Overloaded, builtin, predict_inference
from planner.performance.inference import on_server, service_times, with_server
from planner.profiles.model import profile
from tests.unit.planner.chips import chip

LOAD = InferenceLoad(profile("resnet-50"), requests_per_s=200, batch_max=8, batch_wait_s=0.002)


def predict(name="A100-80GB", **changes):
    return predict_inference(chip(name), dataclasses.replace(LOAD, **changes), builtin())


def test_the_network_adds_its_round_trip_and_transfer():
    near, far = predict(), predict(network_round_trip_s=0.03, request_bytes=125_000, network_bytes_per_s=125e6)
    assert far.p99_s.value - near.p99_s.value == pytest.approx(0.031)
    assert far.bound_by == "network"


def test_batches_are_at_least_as_long_as_smaller_ones():
    times = service_times(chip("A100-80GB"), dataclasses.replace(LOAD, batch_max=13), builtin())
    assert len(times) == 13
    assert list(times) == sorted(times)


def test_quantiles_and_intervals_are_ordered():
    result = predict()
    assert result.p50_s.value <= result.p95_s.value <= result.p99_s.value
    assert result.p99_s.low <= result.p99_s.value <= result.p99_s.high


def test_overload_says_how_many_replicas_would_do():
    with pytest.raises(Overloaded, match="take at least"):
        predict(requests_per_s=1e6)


def test_near_overload_the_slow_case_has_no_bound():
    capacity = predict().capacity_per_s.value
    assert predict(requests_per_s=capacity * 0.95).p99_s.high == math.inf


def test_memory_that_is_missing_is_named():
    with pytest.raises(DoesNotFit, match="GiB are missing"):
        predict("T4", precision="fp16", batch_max=65_536)


@pytest.mark.parametrize("requests_per_s", [20, 200, 2000, 4800])
@pytest.mark.parametrize("batch_wait_s", [0.0, 0.004])
def test_the_parts_of_the_99th_percentile_add_up_to_it(requests_per_s, batch_wait_s):
    result = predict(
        requests_per_s=requests_per_s, batch_wait_s=batch_wait_s, network_round_trip_s=0.01, request_bytes=125_000
    )
    parts = dataclasses.astuple(result.parts)
    assert sum(parts) == pytest.approx(result.p99_s.value)
    assert all(part >= 0 for part in parts) and result.parts.service_s > 0
    assert (result.parts.network_s, result.parts.transfer_s) == pytest.approx((0.01, 0.001))


def test_a_lone_request_waits_for_its_batch_and_a_crowded_one_for_a_replica():
    calm, crowded = predict(requests_per_s=1, batch_wait_s=0.004), predict(requests_per_s=4800, batch_wait_s=0.004)
    assert calm.parts.batch_wait_s == pytest.approx(0.004, rel=0.01) and calm.parts.queue_s == pytest.approx(
        0, abs=1e-6
    )
    assert crowded.parts.queue_s > crowded.parts.batch_wait_s


COSTS = ServingCosts(
    wake_ups_s=5e-5,
    http=ThreadCosts(batch_s=1e-5, request_s=2e-5, request_s_per_byte=1e-9),
    loop=ThreadCosts(batch_s=4e-5, request_s=2e-4, request_s_per_byte=2e-9),
    model=ThreadCosts(batch_s=3e-5, request_s=1e-5, request_s_per_byte=1e-9),
)


def test_on_one_processor_all_that_the_server_does_is_part_of_its_batches():
    bare = dataclasses.replace(LOAD, request_bytes=10_000)
    load = on_server(bare, COSTS, processors=1, threads=1)
    added = [
        with_s - without_s
        for with_s, without_s in zip(
            service_times(chip("A100-80GB"), load, builtin()),
            service_times(chip("A100-80GB"), bare, builtin()),
            strict=True,
        )
    ]
    assert added == pytest.approx([8e-5 + rows * 2.7e-4 for rows in range(1, 9)])
    assert (load.front_s_per_request, load.network_round_trip_s) == (0, pytest.approx(5e-5))


def test_an_event_loop_with_a_processor_of_its_own_limits_what_is_answered_however_fast_the_model_is():
    load = on_server(LOAD, COSTS, processors=2, threads=1)
    slow_model = predict_inference(chip("A100-80GB"), load, builtin()).capacity_per_s.value
    assert slow_model < 1 / 2e-4
    fast = dataclasses.replace(load, profile=profile("fusionnet-8"), batch_max=64)
    assert predict_inference(chip("A100-80GB"), fast, builtin()).capacity_per_s.value == pytest.approx(1 / 2e-4)
    with pytest.raises(Overloaded, match="at least 2 replicas"):
        predict_inference(chip("A100-80GB"), dataclasses.replace(fast, requests_per_s=6000), builtin())


def test_a_calibration_that_measured_the_server_counts_it():
    on = MeasuredOn(processor="x", processors=4, accelerator="A100", torch="2")
    measured = builtin().model_copy(update={"serving": COSTS, "measured_on": on})
    assert with_server(LOAD, builtin()) == LOAD
    assert with_server(LOAD, measured) == on_server(LOAD, COSTS, processors=4, threads=0)
