"""One version of a model at work: its queue, and the thread that runs its batches."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np

from workloads.serving.backends import Forward
from workloads.serving.choosing import Choice
from workloads.serving.metrics import ModelMetrics
from workloads.serving.package import Array, Manifest
from workloads.serving.scheduler import NORMAL, Queue, Refused, Request

Answer = list[Array]

HANGS_AFTER_S = 120.0
"""No batch of a service with an SLO takes so long: its runtime hangs, and only a restart helps."""


class BatchError(RuntimeError):
    """The runtime raised an error on a batch; every request of the batch gets this."""


@dataclass(slots=True)
class Job:
    """What a request brings to its batch, and where its answer goes."""

    inputs: Sequence[Array]
    future: asyncio.Future[Answer]


@dataclass(frozen=True, slots=True)
class Limits:
    """How a model is served."""

    batch_max: int
    slo_s: float
    queue_max: int


class ServedModel:
    """Serves requests of one version; all methods are called on the event loop's thread."""

    def __init__(self, manifest: Manifest, choice: Choice, limits: Limits, metrics: ModelMetrics) -> None:
        self.manifest = manifest
        self.choice = choice
        self.limits = limits
        self.metrics = metrics
        self.queue: Queue[Job] = Queue(
            choice.curve, batch_max=limits.batch_max, slo_s=limits.slo_s, queue_max=limits.queue_max
        )
        self._loop = asyncio.get_running_loop()
        self._is_busy = False
        self._is_draining = False
        self._running_since_s = math.inf
        self._idle = asyncio.Event()
        self._idle.set()
        self._batches: SimpleQueue[list[Request[Job]] | None] = SimpleQueue()
        self._buffers = [np.empty((limits.batch_max, *each.shape), each.dtype) for each in manifest.inputs]
        name = f"{manifest.name}-{manifest.version}"
        self._thread = threading.Thread(target=self._run, args=(choice.forward,), name=name, daemon=True)
        self._thread.start()

    def check(self, rows: int, *, priority: int = NORMAL, timeout_s: float | None = None) -> None:
        """Pass where a request can be answered in time.

        Raises:
            Refused: it can't, or the model is on its way out.
        """
        if self._is_draining:
            self.metrics.refused["drain"].inc()
            raise Refused("this version is being replaced", 1.0)
        try:
            self.queue.check(rows, time.monotonic(), priority=priority, timeout_s=timeout_s)
        except Refused:
            self.metrics.refused["overload"].inc()
            raise

    def submit(
        self, inputs: Sequence[Array], *, priority: int = NORMAL, timeout_s: float | None = None
    ) -> Request[Job]:
        """Queue a request that `check` has passed; its answer comes in `request.work.future`.

        The future ends with `Refused` where the request lost its chance since, and with `BatchError` where the runtime
        raised an error.
        """
        job = Job(inputs, self._loop.create_future())
        request = self.queue.add(job, len(inputs[0]), time.monotonic(), priority=priority, timeout_s=timeout_s)
        self._idle.clear()
        if not self._is_busy:
            self._is_busy = True
            self._loop.call_soon(self._next)  # what else has arrived by now goes along
        return request

    def _next(self) -> None:
        taken = self.queue.take(time.monotonic())
        for request in taken.late:
            self.metrics.refused["late"].inc()
            if not request.work.future.done():
                request.work.future.set_exception(Refused("others came first, and its time is over", self.limits.slo_s))
        self.metrics.waiting.set(self.queue.rows)
        if taken.batch:
            self._running_since_s = time.monotonic()
            self._batches.put(taken.batch)
        else:
            self._running_since_s = math.inf
            self._is_busy = False
            self._idle.set()

    def _run(self, forward: Forward) -> None:
        """The thread: forward releases the interpreter's lock while it computes."""
        while (batch := self._batches.get()) is not None:
            rows = sum(request.rows for request in batch)
            start = time.monotonic()
            try:
                outputs = self._apart(forward(self._gathered(batch, rows)))
            except Exception as error:  # whatever a runtime raises, the next batch is served
                reason = BatchError(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
                self._loop.call_soon_threadsafe(self._failed, batch, rows, reason)
            else:
                self._loop.call_soon_threadsafe(self._done, batch, rows, outputs, start, time.monotonic())

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
        self.queue.ended(rows, end_s - start_s, end_s)
        self._next()
        row = 0
        waited, computed = self.metrics.seconds["queue"], end_s - start_s
        for request in batch:
            future = request.work.future
            if not future.done():  # a caller that went away has cancelled it
                future.set_result([each[row : row + request.rows] for each in outputs])
            row += request.rows
            waited.observe(start_s - request.arrival_s)
            self.metrics.seconds["compute"].observe(computed)
        self.metrics.rows.observe(rows)
        self.metrics.busy.inc(computed)

    def _failed(self, batch: Sequence[Request[Job]], rows: int, reason: BatchError) -> None:
        self.queue.ended(rows, self.queue.curve.at(rows), time.monotonic())
        self._next()
        self.metrics.failed.inc(len(batch))
        for request in batch:
            if not request.work.future.done():
                request.work.future.set_exception(reason)

    def is_alive(self, now_s: float) -> bool:
        """False where its thread ended, or a batch runs so much longer than measured that it hangs."""
        return self._thread.is_alive() and now_s < self._running_since_s + HANGS_AFTER_S

    async def drain(self) -> None:
        """Refuse what comes, answer what waits, and end the thread."""
        self._is_draining = True
        await self._idle.wait()
        self._batches.put(None)
