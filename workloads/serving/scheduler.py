"""Which requests run together, in what order, and which are refused at once.

One batch runs at a time. While it runs, the requests that come gather; when it ends, the next batch is taken at once.
A batch never waits for more requests while the chip is idle: waiting makes the first request later and, as the requests
that come during a batch fill the next one by themselves, does not raise the rate at which the queue stays bounded.

Requests of one priority are served in the order in which they came. Between priorities it is start-time fair queueing
(Goyal, Vin and Cheng, SIGCOMM 1996) with `WEIGHTS` so far apart that a higher priority goes first, but for the small
share that keeps a lower one from starving: a request at the head of its priority waits for at most as many rows of the
others as the weights say, however many come. A request that can't be answered by its own deadline, by the measured
latency curve and what goes before it, is refused when it comes; one that lost its chance since is refused instead of
run.

Nothing here knows of HTTP, threads or clocks: time comes in as an argument, in seconds.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from workloads.serving.choosing import Curve

Work = TypeVar("Work")

HIGH, NORMAL, LOW = 1, 2, 3
"""Priorities; the smaller number is served first, as in Triton."""
WEIGHTS: Mapping[int, int] = {HIGH: 100, NORMAL: 10, LOW: 1}
"""Rows of each priority that are served in turn while all of them wait."""
LEARNING_RATE = 0.1
"""Of how much slower batches are now than when they were measured, and of how many rows overtake a request."""
DEVIATIONS, DEVIATION_MIN = 3.0, 0.05
"""How many deviations of the batches' times a promise leaves room for, and the least deviation that is believed. A
queue that is a little shorter than it could be costs no throughput; a little longer, it breaks half of the promises."""
FASTEST, SLOWEST = 0.5, 10.0
"""Bounds of both: a single hiccup must not close the server."""


class Refused(Exception):
    """A request that is not served now."""

    def __init__(self, reason: str, retry_after_s: float) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


@dataclass(slots=True)
class Request(Generic[Work]):
    """One request.

    Attributes:
        work: what the caller needs back.
        rows: of its batch dimension.
        deadline_s: when its answer is worthless.
        arrival_s: when it came.
        priority: of `WEIGHTS`.
        number: counts the requests of its queue.
        ahead: rows that were to be served before it when it came.
        served_before: rows that its queue had served by then.
    """

    work: Work
    rows: int
    deadline_s: float
    arrival_s: float
    priority: int
    number: int
    ahead: float
    served_before: int


@dataclass(slots=True)
class Taken(Generic[Work]):
    """What `Queue.take` gives: the requests of one batch, and those that came to nothing."""

    batch: list[Request[Work]] = field(default_factory=list)
    late: list[Request[Work]] = field(default_factory=list)
    rows: int = 0


@dataclass(slots=True)
class Lane(Generic[Work]):
    """The requests of one priority that wait.

    Attributes:
        weight: of `WEIGHTS`.
        requests: by number, in the order in which they came.
        rows: of all of them.
        start: the moment of the first one's turn, in the queue's virtual time.
        overtaken: rows that are served before a request of this priority, for each that was to be when it came.
    """

    weight: int
    requests: OrderedDict[int, Request[Work]] = field(default_factory=OrderedDict)
    rows: int = 0
    start: float = 0.0
    overtaken: float = 1.0


class Queue(Generic[Work]):
    """The requests of one model that wait, and when its batches end."""

    def __init__(self, curve: Curve, *, batch_max: int, slo_s: float, queue_max: int) -> None:
        """A queue for a model with this latency curve.

        Args:
            curve: seconds of a batch by rows, as measured.
            batch_max: rows of the largest batch.
            slo_s: within which each request should be answered.
            queue_max: rows that may wait, whatever the deadlines say: it bounds the memory.
        """
        self.curve = curve
        self.batch_max = batch_max
        self.slo_s = slo_s
        self.queue_max = queue_max
        self.usual_rows = min(batch_max, curve.best_rows(slo_s))
        self.slowdown = 1.0
        self.deviation = DEVIATION_MIN
        """Of single batches from `slowdown`, on average."""
        self.rows = 0
        """Rows that wait."""
        self._lanes: Mapping[int, Lane[Work]] = {priority: Lane(weight) for priority, weight in WEIGHTS.items()}
        self._virtual_time = 0.0
        self._numbers = itertools.count()
        self._served_rows = 0
        self._running_until_s: float | None = None
        self._large = 0
        """Requests that wait and are larger than a usual batch."""

    def busy_s(self, now_s: float) -> float:
        """Until the batch that runs ends; one that should have ended already is taken to need as long again."""
        return 0.0 if self._running_until_s is None else abs(self._running_until_s - now_s)

    def seconds_of(self, rows: int) -> float:
        """What a batch takes now."""
        return self.curve.at(rows) * self.slowdown

    def drain_s(self, rows: float, largest: int = 0) -> float:
        """How long it takes to serve so many rows in usual batches, or in larger ones where the largest request is."""
        batch = max(self.usual_rows, largest)
        whole, rest = divmod(math.ceil(rows), batch)
        return whole * self.seconds_of(batch) + (self.seconds_of(rest) if rest else 0.0)

    def batches(self, rows: float) -> int:
        """In how many usual batches so many rows are served."""
        return math.ceil(rows / self.usual_rows)

    def _largest(self) -> int:
        """Rows of the largest request that waits and is not split into usual batches; 0 where there is none."""
        if not self._large:
            return 0
        return max(each.rows for lane in self._lanes.values() for each in lane.requests.values())

    def check(
        self,
        rows: int,
        now_s: float,
        *,
        priority: int = NORMAL,
        timeout_s: float | None = None,
        others_s: float = 0.0,
    ) -> None:
        """Pass where a request can be answered in time.

        Args:
            rows: of the request.
            now_s: the time.
            priority: of `WEIGHTS`.
            timeout_s: the request's own limit, where it is shorter than the SLO.
            others_s: what other models' batches take of the chip before each batch of this one.

        Raises:
            Refused: too much waits, or its deadline can't be met; with the seconds after which it could.
        """
        busy_s = self.busy_s(now_s)
        if self.rows + rows > self.queue_max:
            raise Refused(f"the queue is full ({self.rows} rows wait)", busy_s + self.drain_s(self.rows // 2))
        if not self.rows and not busy_s:
            return
        allowed_s = min(timeout_s or self.slo_s, self.slo_s)
        expected = self._ahead(priority) * self._lanes[priority].overtaken + rows
        caution = 1 + DEVIATIONS * max(self.deviation, DEVIATION_MIN) / self.slowdown
        largest = max(rows, self._largest())
        needed_s = caution * (busy_s + self.drain_s(expected, largest) + self.batches(expected) * others_s)
        if needed_s > allowed_s:
            raise Refused(
                f"it would take {needed_s * 1e3:.0f} ms, and {allowed_s * 1e3:.0f} ms are allowed", needed_s - allowed_s
            )

    def _ahead(self, priority: int) -> float:
        """Rows that wait and go before a request of this priority that comes now."""
        own = self._lanes[priority]
        start = self._start_of(own) + own.rows / own.weight
        return own.rows + sum(
            min(float(lane.rows), max(0.0, start - lane.start) * lane.weight)
            for lane in self._lanes.values()
            if lane is not own and lane.rows
        )

    def _start_of(self, lane: Lane[Work]) -> float:
        return lane.start if lane.requests else max(lane.start, self._virtual_time)

    def add(
        self, work: Work, rows: int, now_s: float, *, priority: int = NORMAL, timeout_s: float | None = None
    ) -> Request[Work]:
        """Let a request wait that `check` has passed."""
        allowed_s = min(timeout_s or self.slo_s, self.slo_s)
        lane, number = self._lanes[priority], next(self._numbers)
        ahead = self._ahead(priority)
        request = Request(work, rows, now_s + allowed_s, now_s, priority, number, ahead, self._served_rows)
        lane.start = self._start_of(lane)
        lane.requests[number] = request
        lane.rows += rows
        self.rows += rows
        self._large += rows > self.usual_rows
        return request

    def cancel(self, request: Request[Work]) -> None:
        """Drop a request that nobody waits for any more; without effect on one that was taken already."""
        if request.number in self._lanes[request.priority].requests:
            self._remove(request)

    def _remove(self, request: Request[Work]) -> None:
        lane = self._lanes[request.priority]
        del lane.requests[request.number]
        lane.rows -= request.rows
        self.rows -= request.rows
        self._large -= request.rows > self.usual_rows

    def expire(self, now_s: float) -> list[Request[Work]]:
        """Drop and give those whose deadline is over: a batch may take longer than all that waits has time for."""
        lanes = self._lanes.values()
        expired = [each for lane in lanes for each in lane.requests.values() if now_s > each.deadline_s]
        for request in expired:
            self._remove(request)
        return expired

    def take(self, now_s: float) -> Taken[Work]:
        """The next batch. It is as large as what waits, but no larger than the first of it has time for.

        A request alone in an idle server is run however late it will be: to refuse it would gain nothing.
        """
        taken: Taken[Work] = Taken()
        limit = self.batch_max
        while self.rows:
            lane = self._next_lane()
            request = next(iter(lane.requests.values()))
            if taken.batch and taken.rows + request.rows > limit:
                break
            self._remove(request)
            self._learn_order(lane, request)
            if self._is_lost(request, now_s):
                taken.late.append(request)
                continue
            if not taken.batch:
                limit = self._rows_in_time(request, now_s)
            taken.batch.append(request)
            taken.rows += request.rows
            self._served_rows += request.rows
            self._virtual_time = lane.start
            lane.start += request.rows / lane.weight
        if taken.batch:
            self._running_until_s = now_s + self.seconds_of(taken.rows)
        if not self.rows:  # what one was given while no other wanted it, it need not pay back
            self._virtual_time = max(lane.start for lane in self._lanes.values())
        return taken

    def _next_lane(self) -> Lane[Work]:
        return min((lane for lane in self._lanes.values() if lane.requests), key=lambda lane: lane.start)

    def _learn_order(self, lane: Lane[Work], request: Request[Work]) -> None:
        if request.ahead:
            ratio = min(max((self._served_rows - request.served_before) / request.ahead, 1.0), SLOWEST)
            lane.overtaken += LEARNING_RATE * (ratio - lane.overtaken)

    def _is_lost(self, request: Request[Work], now_s: float) -> bool:
        if now_s == request.arrival_s:
            return False
        batch_s = (
            self.seconds_of(max(request.rows, min(self.usual_rows, request.rows + self.rows))) if self.rows else 0.0
        )
        return now_s + batch_s > request.deadline_s

    def _rows_in_time(self, first: Request[Work], now_s: float) -> int:
        left_s = first.deadline_s - now_s
        rows = self.batch_max
        while rows > self.usual_rows and self.seconds_of(rows) > left_s:
            rows = max(self.usual_rows, rows // 2)
        return max(rows, first.rows)

    def ended(self, rows: int, seconds: float) -> None:
        """A batch ended; what it took corrects what the next ones are expected to take."""
        ratio = min(max(seconds / self.curve.at(rows), FASTEST), SLOWEST)
        self.deviation += LEARNING_RATE * (abs(ratio - self.slowdown) - self.deviation)
        self.slowdown += LEARNING_RATE * (ratio - self.slowdown)
        self._running_until_s = None
