"""Which requests run together, in what order, and which are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads.serving.choosing import Curve
from workloads.serving.scheduler import HIGH, LOW, NORMAL, Queue, Refused

CURVE = Curve((1, 2, 4, 8, 16, 32), (0.002, 0.0025, 0.0035, 0.006, 0.011, 0.021))


def queue(slo_s: float = 0.1, queue_max: int = 10_000, curve: Curve = CURVE) -> Queue[int]:
    return Queue(curve, batch_max=32, slo_s=slo_s, queue_max=queue_max)


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    first = draw(st.floats(1e-4, 0.05))
    steps = draw(st.lists(st.floats(0, 0.05), min_size=5, max_size=5))
    seconds = [first]
    for step in steps:
        seconds.append(seconds[-1] + step)
    return Curve((1, 2, 4, 8, 16, 32), tuple(seconds))


def test_all_that_waits_goes_into_the_next_batch_and_no_more_than_fits() -> None:
    waiting = queue(slo_s=10)
    for number in range(40):
        waiting.add(number, 1, 0.0)
    assert [request.work for request in waiting.take(0.0).batch] == list(range(32))
    assert [request.work for request in waiting.take(0.0).batch] == list(range(32, 40))
    assert waiting.rows == 0


def test_a_request_of_several_rows_is_never_split() -> None:
    waiting = queue(slo_s=10)
    for rows in (20, 20, 5):
        waiting.add(rows, rows, 0.0)
    assert [request.rows for request in waiting.take(0.0).batch] == [20]
    assert [request.rows for request in waiting.take(0.0).batch] == [20, 5]


def test_a_high_priority_goes_first_and_a_low_one_does_not_starve() -> None:
    waiting = queue()
    waiting.add(0, 32, 0.0, priority=LOW)
    for number in range(1, 30):
        waiting.add(number, 32, number * 0.02, priority=HIGH)
    order = [request.work for _ in range(30) for request in (lambda t: t.batch + t.late)(waiting.take(0.0))]
    assert order[0] == 1
    assert 0 < order.index(0) < 29, "after a while it goes before those that come"


def test_an_idle_server_takes_a_request_that_will_be_late() -> None:
    waiting = queue(slo_s=0.001)
    waiting.check(1, 0.0)
    waiting.add(1, 1, 0.0)
    assert len(waiting.take(0.0).batch) == 1


def test_what_would_miss_its_deadline_is_refused_at_once_with_the_time_to_come_back() -> None:
    waiting = queue(slo_s=0.05)
    waiting.add(0, 32, 0.0)
    waiting.take(0.0)
    accepted = 0
    with pytest.raises(Refused, match="50 ms are allowed") as refusal:
        for accepted in range(1000):  # how far it came is looked at below
            waiting.check(1, 0.0)
            waiting.add(accepted, 1, 0.0)
    assert 16 <= accepted <= 64, "a batch under way and what it leaves time for"
    assert 0 < refusal.value.retry_after_s < 0.05
    waiting.check(1, refusal.value.retry_after_s + 0.001 + 0.021)


def test_a_shorter_timeout_than_the_slo_is_kept() -> None:
    waiting = queue()
    waiting.add(0, 32, 0.0)
    waiting.take(0.0)
    waiting.check(1, 0.0)
    with pytest.raises(Refused):
        waiting.check(1, 0.0, timeout_s=0.01)


def test_a_high_priority_is_not_refused_for_what_waits_behind_it() -> None:
    waiting = queue(slo_s=0.05)
    with pytest.raises(Refused):
        for number in range(1000):
            waiting.check(1, 0.0, priority=LOW)
            waiting.add(number, 1, 0.0, priority=LOW)
    waiting.check(1, 0.0, priority=HIGH)
    with pytest.raises(Refused):
        waiting.check(1, 0.0, priority=LOW)


def test_a_full_queue_refuses_whatever_the_deadline() -> None:
    waiting = queue(slo_s=1000, queue_max=40)
    waiting.add(0, 32, 0.0)
    with pytest.raises(Refused, match="queue is full"):
        waiting.check(9, 0.0)
    waiting.check(8, 0.0)


def test_a_cancelled_request_costs_nothing() -> None:
    waiting = queue()
    gone = waiting.add(0, 5, 0.0)
    waiting.add(1, 1, 0.0)
    waiting.cancel(gone)
    waiting.cancel(gone)
    assert waiting.rows == 1
    (taken,) = waiting.take(0.0).batch
    assert taken.work == 1
    waiting.cancel(taken)
    assert waiting.rows == 0


def test_a_slower_machine_is_noticed() -> None:
    waiting = queue()
    for number in range(60):
        waiting.ended(32, 0.042, float(number))
    assert waiting.seconds_of(32) == pytest.approx(0.042, rel=0.01)


@given(
    curve=curves(),
    slo_s=st.floats(0.01, 1),
    arrivals=st.lists(
        st.tuples(st.floats(0, 0.05), st.integers(1, 32), st.sampled_from((HIGH, NORMAL, LOW))), max_size=80
    ),
)
def test_every_request_ends_once_and_those_of_one_priority_that_were_let_in_keep_their_deadline(
    curve: Curve, slo_s: float, arrivals: list[tuple[float, int, int]]
) -> None:
    """A simulated server whose batches take exactly what the curve says."""
    waiting: Queue[int] = Queue(curve, batch_max=32, slo_s=slo_s, queue_max=500)
    now = free_at = 0.0
    let_in: dict[int, float] = {}
    ended: dict[int, float] = {}
    late: set[int] = set()

    def run_until(moment: float) -> None:
        nonlocal free_at
        while waiting.rows and free_at <= moment:
            taken = waiting.take(free_at)
            assert taken.rows == sum(request.rows for request in taken.batch) <= 32
            late.update(request.work for request in taken.late)
            free_at += waiting.seconds_of(taken.rows) if taken.batch else 0
            for request in taken.batch:
                assert request.work not in ended
                ended[request.work] = free_at

    for number, (gap, rows, priority) in enumerate(arrivals):
        now += gap
        run_until(now)
        free_at = max(free_at, now)
        try:
            waiting.check(rows, now, priority=priority)
        except Refused as refusal:
            assert refusal.retry_after_s > 0 or waiting.rows + rows > 500
            continue
        waiting.add(number, rows, now, priority=priority)
        let_in[number] = now
        if free_at <= now:
            run_until(now)
    run_until(float("inf"))
    assert ended.keys() | late == let_in.keys()
    assert not ended.keys() & late
    assert waiting.rows == 0
    if len({priority for _, _, priority in arrivals}) == 1 and not any(
        waiting.seconds_of(rows) > slo_s for _, rows, _ in arrivals
    ):
        assert not late
