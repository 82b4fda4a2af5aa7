"""One version of a model at work: its queue, and the thread that runs its batches."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np

from workloads.serving.backends import Forward
from workloads.serving.cache import AnswerCache
from workloads.serving.chip import Chip, Tenant
from workloads.serving.choosing import Choice
from workloads.serving.metrics import ModelMetrics
from workloads.serving.package import Array, Manifest
from workloads.serving.pipelines import Pipeline
from workloads.serving.scheduler import NORMAL, Queue, Refused, Request

if TYPE_CHECKING:
    from workloads.serving.traces import RequestTrace

Answer = list[Array]

SWEEP_S = 0.25
"""How often waiting requests whose time is over are answered, however long the batch takes that runs."""
HANGS_AFTER_S, HANGS_AFTER_TIMES = 10.0, 20
"""A batch that takes this long, and so many times as long as it should, never ends: only a restart helps."""
GATHERING_TURNS = 2
"""Of the event loop before a batch is taken that is not full: a request that has come needs one to start its task and
one to go on with its body, which Granian hands over in between. Without them it would wait for a whole batch."""


class BatchError(RuntimeError):
    """The runtime raised an error on a request, or hangs."""


@dataclass(slots=True)
class Job:
    """What a request brings to its batch, and where its answer goes."""

    inputs: Sequence[Array]
    future: asyncio.Future[Answer]
    trace: RequestTrace | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """How a model is served."""

    batch_max: int
    slo_s: float
    queue_max: int
    cores: int
    """That one of its batches takes."""


class ServedModel:
    """Serves requests of one version; all methods are called on the event loop's thread."""

    def __init__(
        self,
        manifest: Manifest,
        choice: Choice,
        limits: Limits,
        metrics: ModelMetrics,
        chip: Chip,
        on_hang: Callable[[ServedModel], None],
        pipeline: Pipeline,
        cache: AnswerCache | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.cache = cache
        self.manifest = manifest
        self.choice = choice
        self.limits = limits
        self.metrics = metrics
        self.queue: Queue[Job] = Queue(
            choice.curve, batch_max=limits.batch_max, slo_s=limits.slo_s, queue_max=limits.queue_max
        )
        self.is_hanging = False
        self._chip = chip
        self._tenant = Tenant(self.queue, limits.cores, self._start)
        self._on_hang = on_hang
        self._loop = asyncio.get_running_loop()
        self._is_busy = False
        self._running: Sequence[Request[Job]] = ()
        self._running_since_s = math.inf
        self._holders = 0
        self._unused = asyncio.Event()
        self._unused.set()
        self._batches: SimpleQueue[list[Request[Job]] | None] = SimpleQueue()
        self._buffers = [np.empty((limits.batch_max, *each.shape), each.dtype) for each in manifest.inputs]
        name = f"{manifest.name}-{manifest.version}"
        self._thread = threading.Thread(target=self._run, args=(choice.forward,), name=name, daemon=True)
        self._thread.start()
        self._sweeping = self._loop.call_later(SWEEP_S, self._sweep)

    @contextmanager
    def held(self) -> Iterator[None]:
        """While a request reads its body, waits or is answered: the version that it was given to does not go away."""
        self._holders += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._holders -= 1
            if not self._holders:
                self._unused.set()

    def check(self, rows: int, *, priority: int = NORMAL, timeout_s: float | None = None) -> None:
        """Pass where a request can be answered in time.

        Raises:
            Refused: it can't.
            BatchError: the runtime hangs.
        """
        if self.is_hanging:
            raise BatchError("the runtime hangs")
        try:
            others_s = self._chip.others_s(self._tenant)
            self.queue.check(rows, time.monotonic(), priority=priority, timeout_s=timeout_s, others_s=others_s)
        except Refused:
            self.metrics.refused["overload"].inc()
            raise

    def submit(
        self,
        inputs: Sequence[Array],
        *,
        priority: int = NORMAL,
        timeout_s: float | None = None,
        trace: RequestTrace | None = None,
    ) -> Request[Job]:
        """Queue a request that `check` has passed; its answer comes in `request.work.future`.

        The future ends with `Refused` where the request lost its chance since, and with `BatchError` where the runtime
        raised an error or hangs.
        """
        job = Job(inputs, self._loop.create_future(), trace)
        request = self.queue.add(job, len(inputs[0]), time.monotonic(), priority=priority, timeout_s=timeout_s)
        if not self._is_busy:
            self._is_busy = True
            self._gather(GATHERING_TURNS)
        return request

    def _gather(self, turns: int) -> None:
        """Ask for the chip, after so many turns of the loop unless the next batch is full before: what else has come by
        now goes along."""
        if turns and self.queue.rows < self.limits.batch_max:
            self._loop.call_soon(self._gather, turns - 1)
        else:
            self._chip.enter(self._tenant)

    def _start(self) -> bool:
        """Run the next batch, if any of the requests is still worth it."""
        now_s = time.monotonic()
        taken = self.queue.take(now_s)
        for request in taken.late:
            self._refuse_late(request)
        self.metrics.waiting.set(self.queue.rows)
        if not taken.batch:
            self._is_busy = False
            return False
        self._running, self._running_since_s = taken.batch, now_s
        self._batches.put(taken.batch)
        return True

    def _refuse_late(self, request: Request[Job]) -> None:
        self.metrics.refused["late"].inc()
        if not request.work.future.done():
            request.work.future.set_exception(Refused("others came first, and its time is over", self.limits.slo_s))

    def _ended(self) -> None:
        """The batch that ran ended: other models' turns come before the next one."""
        self._running, self._running_since_s = (), math.inf
        self._chip.leave(self._tenant)
        if self.queue.rows:
            self._gather(GATHERING_TURNS)
        else:
            self._is_busy = False

    def _run(self, forward: Forward) -> None:
        """The thread: forward releases the interpreter's lock while it computes."""
        while (batch := self._batches.get()) is not None:
            rows = sum(request.rows for request in batch)
            try:
                inputs = self._gathered(batch, rows)
                start = time.monotonic()
                outputs = self._apart(forward(inputs))
            except Exception as error:  # whatever a runtime raises, the next batch is served
                reason = _reason(error)
                ends: list[Answer | BatchError] = [reason]
                if len(batch) > 1:  # one client's inputs must not cost the others their answers
                    ends = [self._alone(forward, request) for request in batch]
                self._loop.call_soon_threadsafe(self._failed, batch, rows, ends, reason)
            else:
                self._loop.call_soon_threadsafe(self._done, batch, rows, outputs, start, time.monotonic())

    def _alone(self, forward: Forward, request: Request[Job]) -> Answer | BatchError:
        try:
            return forward(list(request.work.inputs))
        except Exception as error:
            return _reason(error)

    def _gathered(self, batch: Sequence[Request[Job]], rows: int) -> list[Array]:
        if len(batch) == 1:
            return list(batch[0].work.inputs)
        for number, buffer in enumerate(self._buffers):
            start = 0
            for request in batch:
                buffer[start : start + request.rows] = request.work.inputs[number]
                start += request.rows
        return [buffer[:rows] for buffer in self._buffers]

    def _apart(self, outputs: list[Array]) -> list[Array]:
        """Outputs that the next batch can't overwrite: a model may hand its input on."""
        return [
            each.copy() if any(np.may_share_memory(each, buffer) for buffer in self._buffers) else each
            for each in outputs
        ]

    def _done(
        self, batch: Sequence[Request[Job]], rows: int, outputs: list[Array], start_s: float, end_s: float
    ) -> None:
        taken_s = self._running_since_s
        self.queue.ended(rows, time.monotonic() - taken_s)
        self._ended()
        row = 0
        seconds, gathered, computed = self.metrics.seconds, start_s - taken_s, end_s - start_s
        for request in batch:
            future = request.work.future
            if not future.done():  # a caller that went away has cancelled it
                future.set_result([each[row : row + request.rows] for each in outputs])
            row += request.rows
            seconds["queue"].observe(taken_s - request.arrival_s)
            seconds["batch"].observe(gathered)
            seconds["compute"].observe(computed)
        self.metrics.rows.observe(rows)
        self.metrics.busy.inc(computed)
        self._trace(batch, rows, taken_s, start_s, end_s)

    def _trace(
        self,
        batch: Sequence[Request[Job]],
        rows: int,
        taken_s: float,
        start_s: float,
        end_s: float,
        error: BatchError | None = None,
    ) -> None:
        traces = [(trace, each.arrival_s) for each in batch if (trace := each.work.trace)]
        if not traces:
            return
        from workloads.serving.traces import trace_batch

        name, version = self.manifest.name, self.manifest.version
        trace_batch(
            traces,
            name=name,
            attributes={
                "fusion.model.name": name,
                "fusion.model.version": version,
                "fusion.backend": self.choice.backend,
                "fusion.batch.rows": rows,
                "fusion.batch.requests": len(batch),
            },
            taken_s=taken_s,
            start_s=start_s,
            end_s=end_s,
            reason=str(error) if error else None,
        )

    def _failed(
        self, batch: Sequence[Request[Job]], rows: int, ends: Sequence[Answer | BatchError], error: BatchError
    ) -> None:
        taken_s, now_s = self._running_since_s, time.monotonic()
        self.queue.ended(rows, self.queue.seconds_of(rows))
        self._ended()
        self._trace(batch, rows, taken_s, taken_s, now_s, error)
        for request, end in zip(batch, ends, strict=True):
            if isinstance(end, BatchError):
                self._fail([request], end)
            elif not request.work.future.done():
                request.work.future.set_result(end)

    def _fail(self, requests: Sequence[Request[Job]], reason: BatchError) -> None:
        self.metrics.failed.inc(len(requests))
        for request in requests:
            if not request.work.future.done():
                request.work.future.set_exception(reason)

    def _sweep(self) -> None:
        now_s = time.monotonic()
        if now_s > self._running_since_s + self._hangs_after_s():
            self._give_up()
            return
        for request in self.queue.expire(now_s):
            self._refuse_late(request)
        self._sweeping = self._loop.call_later(SWEEP_S, self._sweep)

    def _hangs_after_s(self) -> float:
        return max(HANGS_AFTER_S, HANGS_AFTER_TIMES * self.queue.seconds_of(self.limits.batch_max))

    def _give_up(self) -> None:
        """Answer everyone who waits; a thread in a runtime can't be ended, only the process can."""
        self.is_hanging = True
        reason = BatchError(f"the runtime hangs: a batch has run for {time.monotonic() - self._running_since_s:.0f} s")
        self._fail([*self._running, *self.queue.expire(math.inf)], reason)
        self._on_hang(self)

    async def drain(self) -> None:
        """Wait for the requests that hold it, and end the thread; for a version that no new request finds any more."""
        await self._unused.wait()
        while self._is_busy:  # with a batch whose clients all went away
            await asyncio.sleep(0.01)
        self._sweeping.cancel()
        self._batches.put(None)
        self.pipeline.end()


def _reason(error: Exception) -> BatchError:
    return BatchError(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
