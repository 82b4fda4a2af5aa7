"""Queue times: exact where theory is exact, near a simulation elsewhere, ordered in every parameter, clear when
overloaded."""

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.queueing import Simulation, service_times
from planner.performance import queueing
from planner.performance.checks import PerformanceError
from planner.performance.queueing import BatchQueue, Overloaded, md1_wait_quantile, queue_times, queue_times_within


def queue(utilisation: float, batch_max: int, replicas: int, *, wait_s: float = 0.0, fixed: float = 0.8) -> BatchQueue:
    service = service_times(batch_max, fixed)
    return BatchQueue(utilisation * replicas * batch_max / service[-1], service, replicas, wait_s)


@pytest.mark.parametrize(
    ("utilisation", "batch_max", "replicas", "wait_s"),
    [
        (0.1, 1, 1, 0.0),
        (0.3, 8, 2, 0.0),
        (0.5, 16, 4, 0.01),
        (0.7, 4, 1, 0.0),
        (0.8, 64, 16, 0.01),
        (0.6, 64, 16, 0.0),
        (0.3, 64, 1, 0.02),
    ],
)
def test_p99_lies_within_a_tenth_of_a_simulation(utilisation, batch_max, replicas, wait_s):
    asked = queue(utilisation, batch_max, replicas, wait_s=wait_s)
    ordered = Simulation(asked, 100_000, seed=11).run()
    simulated = ordered[int(0.99 * len(ordered))]
    assert queue_times(asked).response.p99_s == pytest.approx(simulated, rel=0.1)


@pytest.mark.parametrize(
    ("utilisation", "of_front", "batch_max", "replicas"),
    [(0.3, 0.3, 8, 1), (0.6, 0.9, 16, 1), (0.8, 1.0, 4, 2), (0.5, 1.5, 32, 1), (0.8, 0.9, 1, 4)],
)
def test_behind_a_front_station_p99_lies_within_a_tenth_of_a_simulation(utilisation, of_front, batch_max, replicas):
    """`of_front`: the front station's utilisation over that of the batches."""
    plain = queue(utilisation, batch_max, replicas)
    front_s = of_front * utilisation * replicas / plain.arrivals_per_s
    asked = dataclasses.replace(plain, front_s=front_s)
    assert asked.utilisation == pytest.approx(utilisation * max(1.0, of_front))
    ordered = Simulation(asked, 80_000, seed=11).run()
    simulated = ordered[int(0.99 * len(ordered))]
    assert queue_times(asked).response.p99_s == pytest.approx(simulated, rel=0.1)


def test_a_lone_request_passes_the_front_station_and_one_that_is_too_slow_is_named():
    alone = BatchQueue(0.01, (0.02,), front_s=0.003)
    assert queue_times(alone).response.p50_s == pytest.approx(0.023)
    with pytest.raises(Overloaded, match="at most 333"):
        queue_times(dataclasses.replace(alone, service_s=(0.0001,), arrivals_per_s=400))


@pytest.mark.parametrize("utilisation", [0.75, 0.9, 0.95])
def test_single_requests_on_one_replica_wait_as_in_m_d_1(utilisation):
    service_s = 0.02
    times = queue_times(BatchQueue(utilisation / service_s, (service_s,)))
    mean = utilisation * service_s / (2 * (1 - utilisation))  # Pollaczek–Khinchine
    assert times.waiting.mean_s == pytest.approx(mean, rel=0.02)
    assert times.waiting.p99_s == pytest.approx(md1_wait_quantile(utilisation, 0.99) * service_s, rel=0.02)


def test_p99_on_a_step_between_two_batches_is_decided_by_a_longer_trace():
    # 1.0 % of the requests are in a batch of two: a trace of 160,000 said 11 ms, simulations of millions 15 ms
    asked = queue(0.3, 16, 16, fixed=0.5)
    assert queue_times(asked).response.p99_s == pytest.approx(0.015, rel=0.1)


def test_busy_fraction_of_single_requests_is_the_utilisation():
    assert queue_times(queue(0.6, 1, 4)).busy_fraction == pytest.approx(0.6, rel=0.02)


def test_a_lone_request_waits_for_the_deadline_and_no_longer():
    times = queue_times(BatchQueue(0.01, service_times(8, 0.9), 1, batch_wait_s=0.05))
    assert times.waiting.p50_s == pytest.approx(0.05)
    assert times.response.p50_s == pytest.approx(0.06)


def test_more_replicas_never_make_requests_slower():
    rate = queue(0.9, 4, 2).arrivals_per_s
    p99 = [queue_times(BatchQueue(rate, service_times(4, 0.8), replicas)).response.p99_s for replicas in (2, 3, 4, 8)]
    assert p99 == sorted(p99, reverse=True)


def test_more_requests_never_make_single_service_faster():
    p99 = [queue_times(queue(rho, 1, 2)).response.p99_s for rho in (0.1, 0.3, 0.5, 0.69, 0.71, 0.8, 0.9, 0.95)]
    assert p99 == sorted(p99)


def test_quantiles_are_ordered_and_no_response_is_faster_than_its_service():
    times = queue_times(queue(0.85, 16, 2))
    assert 0.01 <= times.response.p50_s <= times.response.p95_s <= times.response.p99_s


@settings(max_examples=25, deadline=None)
@given(
    utilisation=st.floats(0.1, 0.98),
    batch_max=st.sampled_from([1, 2, 8, 32]),
    replicas=st.sampled_from([1, 3, 8]),
    wait_s=st.sampled_from([0.0, 0.01]),
    share=st.sampled_from([0.1, 0.5, 0.99, 0.999999, 1.0, 1.000001, 1.01, 3.0]),
)
def test_a_limit_is_broken_exactly_where_the_whole_trace_says_so(utilisation, batch_max, replicas, wait_s, share):
    service = service_times(batch_max, 0.5)
    queue = BatchQueue(utilisation * replicas * batch_max / service[-1], service, replicas, wait_s)
    whole = queue_times(queue)
    limit_s = whole.response.p99_s * share
    queueing._KNOWN.clear()
    within = queue_times_within(queue, limit_s)
    assert within == (whole if whole.response.p99_s <= limit_s else None)


def test_overload_is_refused_with_the_replicas_that_would_do():
    with pytest.raises(Overloaded, match="take at least 3 replicas"):
        queue_times(queue(2.5, 1, 1))


@settings(max_examples=150, deadline=None)
@given(
    arrivals=st.floats(allow_nan=True, allow_infinity=True) | st.integers(),
    service=st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=3),
    replicas=st.integers() | st.floats() | st.booleans(),
    wait=st.floats(allow_nan=True, allow_infinity=True),
)
def test_whatever_numbers_are_given_the_answer_is_a_time_or_one_clear_sentence(arrivals, service, replicas, wait):
    try:
        times = queue_times(BatchQueue(arrivals, tuple(service), replicas, wait))
    except PerformanceError as error:
        assert str(error)
        assert "\n" not in str(error)
    else:
        assert math.isfinite(times.response.p99_s)
        assert times.response.p99_s >= 0


@pytest.mark.parametrize("utilisation", [0.99994, 0.99996, 1 - 1e-12])
def test_a_queue_that_is_all_but_full_has_long_waits_and_no_error(utilisation):
    times = queue_times(BatchQueue(utilisation / 0.02, (0.02,)))
    assert math.isfinite(times.response.p99_s)
    assert times.response.p99_s > queue_times(BatchQueue(0.999 / 0.02, (0.02,))).response.p99_s
