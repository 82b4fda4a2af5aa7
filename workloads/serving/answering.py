"""What every protocol does with a request: find its model, admit it, run it, or say in a status why not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from workloads.serving.bodies import Room
from workloads.serving.config import ServingConfig
from workloads.serving.metrics import Metrics
from workloads.serving.model import Answer, BatchError, ServedModel
from workloads.serving.models import Models
from workloads.serving.package import Array
from workloads.serving.pipelines import BadInput, Step, StepError
from workloads.serving.protocol import InferRequest
from workloads.serving.scheduler import Refused

if TYPE_CHECKING:
    from workloads.serving.traces import RequestTrace, Traces

EXTENSIONS = ["binary_tensor_data", "model_repository"]
WATCH_AFTER_S = 0.05
"""Whether a client is still there is looked at where its request may wait longer than this; below it costs more than it
saves."""
NO_ROOM_S = 1.0
"""After which a body that found no room is worth sending again."""

LEAST_S = 1e-6
"""Of a timeout: none at all would be no limit."""

Watch = Callable[[asyncio.Future[Answer]], Awaitable[Answer]]
"""Waits for the answer unless the client goes away, and raises `asyncio.CancelledError` then."""


class Failed(Exception):
    """A request that gets no answer, in HTTP's words; other protocols translate the status."""

    def __init__(self, status: int, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after_s = retry_after_s


class Answering:
    """The models of a server and its state; one for all its protocols."""

    def __init__(self, models: Models, metrics: Metrics, config: ServingConfig, traces: Traces | None = None) -> None:
        self.models = models
        self.traces = traces
        self.metrics = metrics
        self.config = config
        self.body_max = int(config.body_max_mib * 2**20)
        self.room = Room(int(config.bodies_max_mib * 2**20))
        self.is_ready = False
        self.is_draining = False
        self.under_way = 0
        """Requests that came and are not answered yet."""
        self.asked = 0
        """Requests for an answer that have come since the start; those of probes and of metrics are not counted."""
        metrics.tasks.set_function(lambda: len(asyncio.all_tasks()))
        metrics.body_bytes.set_function(lambda: self.room.taken)
        metrics.ready.set_function(lambda: self.is_ready and not self.is_draining)

    def raise_unless_live(self) -> None:
        """Pass where the server should go on without a restart.

        Raises:
            Failed: a runtime hangs.
        """
        if hanging := [each.manifest.name for each in self.models.everything() if each.is_hanging]:
            raise Failed(503, f"{hanging[0]} does not answer any more")

    def raise_unless_ready(self) -> None:
        """Pass where the server takes requests.

        Raises:
            Failed: it starts, or goes away.
        """
        if not self.is_ready or self.is_draining:
            raise Failed(503, "the server is going away" if self.is_draining else "models are being loaded")

    def no_room(self) -> Failed:
        """What a request is told whose body the others leave no room for."""
        return Failed(503, f"the bodies under way fill {self.config.bodies_max_mib:g} MiB (bodies_max_mib)", NO_ROOM_S)

    def find(self, name: str, version: str | None = None) -> ServedModel:
        """Who serves a model.

        Args:
            name: of the model.
            version: None where the request leaves the choice to the weights.

        Raises:
            Failed: there is no such model or version.
        """
        model = self.models.by_name.get(name)
        if model is None:
            known = ", ".join(self.models.by_name) or "no model yet"
            raise Failed(404 if self.is_ready else 503, f"{name}: no such model; this server has {known}")
        if version is None:
            return model.pick()
        if version not in model.versions:
            raise Failed(404, f"{name} {version}: no such version; there are {', '.join(model.versions)}")
        return model.versions[version]

    def check(self, served: ServedModel, rows: int, priority: int, timeout_s: float | None) -> None:
        """Pass where a request can be answered in time.

        Raises:
            Failed: it can't, or the runtime hangs.
        """
        try:
            served.check(rows, priority=priority, timeout_s=timeout_s)
        except Refused as error:
            raise Failed(429, str(error), error.retry_after_s) from None
        except BatchError as error:
            raise Failed(503, f"{served.manifest.name}: {error}") from None

    async def run(
        self,
        served: ServedModel,
        request: InferRequest,
        start_s: float,
        unless_gone: Watch | None = None,
        trace: RequestTrace | None = None,
    ) -> Answer:
        """The outputs of a request, by the manifest's order.

        Args:
            served: who answers.
            request: that fits its model.
            start_s: when it came, for the metrics.
            unless_gone: how a client is watched, where its protocol does not cancel this task.
            trace: of the request, where there is one.

        Raises:
            Failed: it was refused, at once or since, or the runtime failed.
            asyncio.CancelledError: nobody waits any more; it is out of the queue.
        """
        if trace:
            trace.serves(served.manifest.name, served.manifest.version)
        asked_s = time.monotonic()
        cache = served.cache
        key = await cache.key(request.inputs) if cache else b""
        outputs = cache.get(key) if cache else None
        if outputs is None:
            outputs = await self._through(served, request, asked_s, unless_gone, trace)
            if cache:
                cache.keep(key, outputs)
        now_s = time.monotonic()
        served.metrics.seconds["total"].observe(now_s - start_s)
        if now_s - asked_s > served.limits.slo_s:
            served.metrics.slow.inc()
        return outputs

    async def _through(
        self,
        served: ServedModel,
        request: InferRequest,
        asked_s: float,
        unless_gone: Watch | None,
        trace: RequestTrace | None,
    ) -> Answer:
        """The outputs, by way of the model's pipeline, if it has one."""
        pre, post = served.pipeline.pre, served.pipeline.post
        if pre is None and post is None:
            return await self._compute(served, request, unless_gone, trace)
        allowed_s = min(request.timeout_s or served.limits.slo_s, served.limits.slo_s)
        deadline_s = asked_s + allowed_s
        if pre is not None:
            try:
                pre.check(allowed_s)
            except Refused as error:
                served.metrics.refused["overload"].inc()
                raise Failed(429, str(error), error.retry_after_s) from None
            # Refused before it costs anything, where the model is too busy already.
            self.check(served, len(request.inputs[0]), request.priority, request.timeout_s)
            inputs = await _stepped(served, pre, request.inputs, deadline_s, unless_gone)
            left_s = max(deadline_s - time.monotonic(), LEAST_S)
            request = replace(request, inputs=inputs, timeout_s=left_s)
            if trace:
                trace.stage("pre", asked_s, time.monotonic())
        outputs = await self._compute(served, request, unless_gone, trace)
        if post is None:
            return outputs
        computed_s = time.monotonic()
        outputs = await _stepped(served, post, outputs, deadline_s, unless_gone)
        if trace:
            trace.stage("post", computed_s, time.monotonic())
        return outputs

    async def _compute(
        self, served: ServedModel, request: InferRequest, unless_gone: Watch | None, trace: RequestTrace | None
    ) -> Answer:
        """The model's outputs."""
        self.check(served, len(request.inputs[0]), request.priority, request.timeout_s)
        queued = served.submit(request.inputs, priority=request.priority, timeout_s=request.timeout_s, trace=trace)
        answer: Any = queued.work.future
        try:
            if unless_gone and served.queue.drain_s(served.queue.rows) > WATCH_AFTER_S:
                answer = unless_gone(answer)
            outputs: Answer = await answer
        except Refused as error:
            raise Failed(503, str(error), error.retry_after_s) from None
        except BatchError as error:
            raise Failed(503, f"{served.manifest.name}: the batch failed: {error}") from None
        except asyncio.CancelledError:
            served.queue.cancel(queued)
            raise
        return outputs

    def transferred(
        self, served: ServedModel, trace: RequestTrace | None, start_s: float, read_s: float, sent_s: float
    ) -> None:
        """A request was read from `start_s` to `read_s`, and its answer has been written since `sent_s`."""
        now_s = time.monotonic()
        served.metrics.seconds["transfer"].observe(read_s - start_s + now_s - sent_s)
        if trace:
            trace.stage("transfer in", start_s, read_s)
            trace.stage("transfer out", sent_s, now_s)


async def _stepped(
    served: ServedModel, step: Step, tensors: Sequence[Array], deadline_s: float, unless_gone: Watch | None
) -> Answer:
    """What a step of the pipeline makes of a request's tensors.

    Raises:
        Failed: it refused them, failed, or was not done in time.
    """
    answer: Any = step.start(tensors, deadline_s)
    if unless_gone and step.expected_s() > WATCH_AFTER_S:
        answer = unless_gone(answer)
    try:
        outputs: Answer = await answer
    except Refused as error:
        served.metrics.refused["late"].inc()
        raise Failed(503, str(error), error.retry_after_s) from None
    except BadInput as error:
        raise Failed(400, str(error)) from None
    except StepError as error:
        served.metrics.failed.inc()
        raise Failed(500, str(error)) from None
    return outputs
