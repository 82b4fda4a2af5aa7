"""What exchanges say of a link is what the link is."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from planner.performance.link import FIRST_WINDOW_BYTES, Link
from workloads.partition.measuring import STALE_S, LinkMeter, Mean


@settings(deadline=None)
@given(st.floats(1e4, 1e9), st.floats(1e-4, 0.2), st.lists(st.integers(500, 10**6), min_size=8, max_size=20))
def test_bandwidth_and_round_trip_are_found_where_bytes_take_time(
    bytes_per_s: float, round_trip_s: float, sizes: list[int]
) -> None:
    true, meter = Link(bytes_per_s, round_trip_s), LinkMeter()
    assume(true.exchange_s(10**6, 300) > 1.2 * Link(1e11, round_trip_s).exchange_s(10**6, 300))
    meter.small(round_trip_s)
    for number, size in enumerate([10**6, *sizes]):
        meter.exchange(size, 300, true.exchange_s(size, 300), FIRST_WINDOW_BYTES, is_first=number == 0)
    for size in (10**3, 10**5, 10**6):
        assert meter.link().exchange_s(size, 300) == pytest.approx(true.exchange_s(size, 300), rel=0.3)


def test_a_quick_small_exchange_says_only_that_the_link_is_no_slower() -> None:
    meter = LinkMeter()
    meter.small(0.1)
    meter.exchange(100_000, 0, 0.6, FIRST_WINDOW_BYTES, is_first=True)
    before = meter.link().bytes_per_s
    meter.exchange(500, 300, 0.1001, FIRST_WINDOW_BYTES)
    assert meter.link().bytes_per_s == before


def test_a_slow_measurement_fades_to_the_usual_one() -> None:
    mean = Mean(9.0)
    mean.add(1.0, now_s=0)
    assert mean.now(0) == 1
    for _ in range(10):
        mean.add(5.0, now_s=1)
    assert mean.now(1 + STALE_S) > 4.9
    assert mean.now(1.1 + STALE_S) == 1
