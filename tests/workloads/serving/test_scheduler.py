"""Which requests run together, in what order, and which are refused."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from workloads.serving.choosing import Curve
from workloads.serving.scheduler import HIGH, LOW, NORMAL, SLOWEST, WEIGHTS, Queue, Refused, Request

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


def test_a_high_priority_goes_first() -> None:
    waiting = queue(slo_s=10)
    for number in range(6):
        waiting.add(number, 16, 0.0, priority=LOW)
    for number in range(6, 12):
        waiting.add(number, 16, 0.0, priority=HIGH)
    order = [request.work for _ in range(6) for request in waiting.take(0.0).batch]
    assert order == [6, 0, 7, 8, 9, 10, 11, 1, 2, 3, 4, 5], "and the one that has waited longest in between"


def test_while_all_priorities_wait_each_is_served_by_its_weight() -> None:
    waiting = queue(slo_s=1000)
    for number in range(3 * 2000):
        waiting.add(number, 1, 0.0, priority=number % 3 + 1)
    served = Counter(request.priority for _ in range(30) for request in waiting.take(0.0).batch)
    for priority, weight in WEIGHTS.items():
        assert abs(served[priority] - 30 * 32 * weight / sum(WEIGHTS.values())) <= 1


@given(
    low_rows=st.integers(1, 32),
    before=st.lists(st.tuples(st.integers(1, 32), st.sampled_from((HIGH, NORMAL))), max_size=30),
    high_rows=st.integers(1, 32),
)
def test_the_first_of_low_priority_is_overtaken_by_no_more_than_its_weight_allows(
    low_rows: int, before: list[tuple[int, int]], high_rows: int
) -> None:
    waiting = queue(slo_s=1000)
    for rows, priority in before:
        waiting.add(0, rows, 0.0, priority=priority)
    low = waiting.add(1, low_rows, 0.0, priority=LOW)
    served_before = 0
    while True:
        for _ in range(32):  # high priority never ends
            waiting.add(2, high_rows, 0.0, priority=HIGH)
        batch = waiting.take(0.0).batch
        if low in batch:
            break
        served_before += sum(request.rows for request in batch)
    assert served_before <= sum(WEIGHTS.values()) + 3 * 32, "the first of its priority has its turn at once"


def test_what_low_priority_was_given_while_nobody_else_came_is_not_paid_back() -> None:
    waiting = queue(slo_s=1000)
    for number in range(64):
        waiting.add(number, 1, 0.0, priority=LOW)
    for _ in range(2):
        waiting.take(0.0)
    for number in range(100):
        waiting.add(number, 32, 0.0, priority=HIGH)
    low = waiting.add(-1, 1, 0.0, priority=LOW)
    assert any(low in waiting.take(0.0).batch for _ in range(5))


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
    waiting.ended(32, 0.021)
    waiting.check(1, 0.021)


def test_a_batch_that_does_not_end_closes_the_door_and_what_waits_is_given_up_in_time() -> None:
    waiting = queue(slo_s=0.05)
    waiting.add(0, 1, 0.0)
    waiting.take(0.0)
    waiting.check(1, 0.01)
    waits = waiting.add(1, 1, 0.01)
    with pytest.raises(Refused, match="50 ms are allowed"):
        waiting.check(1, 0.055)
    assert waiting.expire(0.06) == []
    assert waiting.expire(0.0601) == [waits]
    assert waiting.rows == 0


def test_one_that_many_overtake_is_refused_sooner_the_next_time() -> None:
    waiting = queue(slo_s=1.0)
    now = 0.0
    accepted = late = 0
    for _ in range(200):  # high priority takes half of the time
        for rows, priority in ((16, HIGH), (32, LOW)):
            try:
                waiting.check(rows, now, priority=priority)
            except Refused:
                continue
            waiting.add(0, rows, now, priority=priority)
            accepted += priority == LOW
        taken = waiting.take(now)
        late += len(taken.late)
        now += 0.021
        waiting.ended(taken.rows, waiting.curve.at(taken.rows))
    assert accepted > 30
    assert late < accepted / 20


def test_a_request_that_is_larger_than_a_usual_batch_is_counted_as_the_one_batch_that_it_is() -> None:
    """Batches of 8 take 4 ms and of 16 take 35: in 63 ms there is time for one of the large ones, not for two."""
    curve = Curve((1, 2, 4, 8, 16, 32), (0.004,) * 4 + (0.035,) * 2)
    waiting: Queue[str] = Queue(curve, batch_max=32, slo_s=0.0625, queue_max=500)
    assert waiting.usual_rows == 8
    waiting.add("running", 16, 0.0)
    waiting.take(0.0)
    with pytest.raises(Refused, match="are allowed"):
        waiting.check(16, 0.0)
    waiting.check(8, 0.0)


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
    for _ in range(60):
        waiting.ended(32, 0.042)
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


class Life(RuleBasedStateMachine):
    """Requests come, go away, are taken, expire; batches end sooner or later."""

    @initialize(curve=curves(), slo_s=st.floats(0.01, 1), queue_max=st.integers(32, 200))
    def start(self, curve: Curve, slo_s: float, queue_max: int) -> None:
        self.queue: Queue[int] = Queue(curve, batch_max=32, slo_s=slo_s, queue_max=queue_max)
        self.now = 0.0
        self.running = 0
        self.waiting: dict[int, Request[int]] = {}
        self.gone: list[Request[int]] = []

    @rule(rows=st.integers(1, 32), priority=st.sampled_from(list(WEIGHTS)), timeout_s=st.none() | st.floats(0, 2))
    def come(self, rows: int, priority: int, timeout_s: float | None) -> None:
        was_idle = not self.queue.rows and not self.running
        try:
            self.queue.check(rows, self.now, priority=priority, timeout_s=timeout_s)
        except Refused as refusal:
            assert refusal.retry_after_s >= 0
            assert not was_idle, "an idle server takes whatever comes"
            return
        request = self.queue.add(len(self.gone), rows, self.now, priority=priority, timeout_s=timeout_s)
        assert request.deadline_s <= self.now + self.queue.slo_s
        self.waiting[request.number] = request

    @rule(which=st.integers(0, 1000), also_one_that_is_gone=st.booleans())
    def go_away(self, which: int, also_one_that_is_gone: bool) -> None:
        some = self.gone if also_one_that_is_gone else list(self.waiting.values())
        if some:
            self.queue.cancel(some[which % len(some)])
            self.waiting.pop(some[which % len(some)].number, None)

    @rule(seconds=st.floats(0, 2))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        for request in self.queue.expire(self.now):
            assert request.deadline_s < self.now
            self.forget(request)
        assert all(each.deadline_s >= self.now for each in self.waiting.values())

    @rule()
    def take(self) -> None:
        if self.running:
            return
        lonely = len(self.waiting) == 1
        taken = self.queue.take(self.now)
        assert taken.rows == sum(each.rows for each in taken.batch) <= 32
        for request in taken.batch:
            assert request.deadline_s >= self.now or request.arrival_s == self.now
        for request in taken.late:
            assert request.deadline_s < self.now + self.queue.seconds_of(max(request.rows, self.queue.usual_rows))
            assert not lonely or request.deadline_s < self.now
        for request in taken.batch + taken.late:
            self.forget(request)
        by_priority = [[each.number for each in taken.batch if each.priority == level] for level in WEIGHTS]
        assert all(numbers == sorted(numbers) for numbers in by_priority), "in the order in which they came"
        assert taken.batch or not self.waiting, "the chip is never idle while requests wait"
        self.running = taken.rows

    @rule(seconds=st.floats(0, 1))
    def end(self, seconds: float) -> None:
        if self.running:
            self.now += seconds
            self.queue.ended(self.running, seconds)
            self.running = 0
            assert self.queue.busy_s(self.now) == 0

    def forget(self, request: Request[int]) -> None:
        assert self.waiting.pop(request.number) is request, "each request ends once"
        self.gone.append(request)

    @invariant()
    def rows_are_those_that_wait(self) -> None:
        if hasattr(self, "queue"):
            assert self.queue.rows == sum(each.rows for each in self.waiting.values()) <= self.queue.queue_max
            assert 0.5 <= self.queue.slowdown <= SLOWEST


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestLife = Life.TestCase
