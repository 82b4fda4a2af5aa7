"""Which requests run together, in what order, and which are refused at once.

One batch runs at a time. While it runs, the requests that come gather; when it ends, the next batch is taken at once.
A batch never waits for more requests while the chip is idle: waiting makes the first request later and, as the requests
that come during a batch fill the next one by themselves, does not raise the rate at which the queue stays bounded.

Order is by the moment until which a request of its priority should be answered, so one of low priority rises as it
waits and never starves. A request that can't be answered by its own deadline, by the measured latency curve and what is
queued before it, is refused when it comes; one that lost its chance since is refused instead of run.

Nothing here knows of HTTP, threads or clocks: time comes in as an argument, in seconds.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from workloads.serving.choosing import Curve

Work = TypeVar("Work")

HIGH, NORMAL, LOW = 1, 2, 3
"""Priorities; the smaller number is served first, as in Triton."""
PATIENCE: Mapping[int, float] = {HIGH: 0.25, NORMAL: 1.0, LOW: 4.0}
"""In SLOs: how long a request of a priority waits before it goes before a new one of the highest."""
LEARNING_RATE = 0.1
"""Of how much slower batches are now than when they were measured."""
FASTEST, SLOWEST = 0.5, 10.0
"""Bounds of that: a single hiccup must not close the server."""


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
        turn_s: what the queue is ordered by.
        arrival_s: when it came.
        priority: of `PATIENCE`.
        is_cancelled: it is dropped when its turn comes.
    """

    work: Work
    rows: int
    deadline_s: float
    turn_s: float
    arrival_s: float
    priority: int
    is_cancelled: bool = False


@dataclass(slots=True)
class Taken(Generic[Work]):
    """What `Queue.take` gives: the requests of one batch, and those that came to nothing."""

    batch: list[Request[Work]] = field(default_factory=list)
    late: list[Request[Work]] = field(default_factory=list)
    rows: int = 0


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
        self.waiting_rows: dict[int, int] = dict.fromkeys(PATIENCE, 0)
        self._heap: list[tuple[float, int, Request[Work]]] = []
        self._numbers = itertools.count()
        self._running_until_s = 0.0

    @property
    def rows(self) -> int:
        """Rows that wait."""
        return sum(self.waiting_rows.values())

    def seconds_of(self, rows: int) -> float:
        """What a batch takes now."""
        return self.curve.at(rows) * self.slowdown

    def drain_s(self, rows: int) -> float:
        """How long it takes to serve so many rows in usual batches."""
        whole, rest = divmod(rows, self.usual_rows)
        return whole * self.seconds_of(self.usual_rows) + (self.seconds_of(rest) if rest else 0.0)

    def check(self, rows: int, now_s: float, *, priority: int = NORMAL, timeout_s: float | None = None) -> None:
        """Pass where a request can be answered in time.

        Raises:
            Refused: too much waits, or its deadline can't be met; with the seconds after which it could.
        """
        ahead = sum(waiting for level, waiting in self.waiting_rows.items() if level <= priority)
        busy_s = max(0.0, self._running_until_s - now_s)
        if self.rows + rows > self.queue_max:
            raise Refused(f"the queue is full ({self.rows} rows wait)", busy_s + self.drain_s(self.rows // 2))
        allowed_s = min(timeout_s or self.slo_s, self.slo_s)
        needed_s = busy_s + self.drain_s(ahead + rows)
        if needed_s > allowed_s and (ahead or busy_s):
            raise Refused(
                f"it would take {needed_s * 1e3:.0f} ms, and {allowed_s * 1e3:.0f} ms are allowed", needed_s - allowed_s
            )

    def add(
        self, work: Work, rows: int, now_s: float, *, priority: int = NORMAL, timeout_s: float | None = None
    ) -> Request[Work]:
        """Let a request wait that `check` has passed."""
        allowed_s = min(timeout_s or self.slo_s, self.slo_s)
        turn_s = now_s + PATIENCE[priority] * self.slo_s
        request = Request(work, rows, now_s + allowed_s, turn_s, now_s, priority)
        heapq.heappush(self._heap, (turn_s, next(self._numbers), request))
        self.waiting_rows[priority] += rows
        return request

    def cancel(self, request: Request[Work]) -> None:
        """Drop a request that nobody waits for any more; without effect on one that was taken already."""
        if not request.is_cancelled and any(each is request for _, _, each in self._heap):
            request.is_cancelled = True
            self.waiting_rows[request.priority] -= request.rows

    def take(self, now_s: float) -> Taken[Work]:
        """The next batch. It is as large as what waits, but no larger than the first of it has time for.

        A request alone in an idle server is run however late it will be: to refuse it would gain nothing.
        """
        taken: Taken[Work] = Taken()
        limit = self.batch_max
        while self._heap:
            _, _, request = self._heap[0]
            if request.is_cancelled:
                heapq.heappop(self._heap)
                continue
            if taken.batch and taken.rows + request.rows > limit:
                break
            heapq.heappop(self._heap)
            self.waiting_rows[request.priority] -= request.rows
            if self._is_lost(request, now_s):
                taken.late.append(request)
                continue
            if not taken.batch:
                limit = self._rows_in_time(request, now_s)
            taken.batch.append(request)
            taken.rows += request.rows
        if taken.batch:
            self._running_until_s = now_s + self.seconds_of(taken.rows)
        return taken

    def _is_lost(self, request: Request[Work], now_s: float) -> bool:
        has_waited = now_s > request.arrival_s
        return has_waited and now_s + self.seconds_of(request.rows) > request.deadline_s and bool(self._heap)

    def _rows_in_time(self, first: Request[Work], now_s: float) -> int:
        left_s = first.deadline_s - now_s
        rows = self.batch_max
        while rows > self.usual_rows and self.seconds_of(rows) > left_s:
            rows = max(self.usual_rows, rows // 2)
        return max(rows, first.rows)

    def ended(self, rows: int, seconds: float, now_s: float) -> None:
        """A batch ended; what it took corrects what the next ones are expected to take."""
        ratio = min(max(seconds / self.curve.at(rows), FASTEST), SLOWEST)
        self.slowdown += LEARNING_RATE * (ratio - self.slowdown)
        self._running_until_s = now_s
