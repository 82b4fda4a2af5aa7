"""Which requests a model's next batch has in it, on a real event loop and a real thread."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import uvloop

from tests.workloads.serving.conftest import OF_ONE_NUMBER
from workloads.serving.chip import Chip
from workloads.serving.choosing import Choice, Curve
from workloads.serving.metrics import Metrics
from workloads.serving.model import Answer, Limits, ServedModel
from workloads.serving.package import Array
from workloads.serving.pipelines import Pipeline

BATCH_MAX = 4


class Doubling:
    """Doubles its inputs, and keeps the first batch until it is told to go on."""

    def __init__(self) -> None:
        self.batches: list[list[float]] = []
        self.has_begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, inputs: list[Array]) -> Answer:
        self.batches.append(inputs[0].ravel().tolist())
        self.has_begun.set()
        self.go_on.wait(30)
        return [inputs[0] * 2]


def served(forward: Doubling) -> ServedModel:
    curve = Curve((1, BATCH_MAX), (0.001, 0.001))
    metrics = Metrics().of("doubling", "1", slo_s=1, batch_max=BATCH_MAX)
    limits = Limits(BATCH_MAX, slo_s=60, queue_max=100, cores=1)
    return ServedModel(
        OF_ONE_NUMBER,
        Choice("eager", forward, curve, ()),
        limits,
        metrics,
        Chip(1),
        lambda _: None,
        Pipeline(OF_ONE_NUMBER),
    )


async def answer(model: ServedModel, number: float, turns: int = 0) -> float:
    """As a protocol asks; `turns` of the loop pass until it has read the request."""
    for _ in range(turns):
        await asyncio.sleep(0)
    with model.held():
        (doubled,) = await model.submit([np.full((1, 1), number, np.float32)]).work.future
    return float(doubled.item())


def batches(*, waiting: int, coming: int) -> list[list[float]]:
    """The batches of a model where one request runs, some wait, and others have come but are not read when it ends."""
    forward = Doubling()

    async def asked() -> list[float]:
        model = served(forward)
        running = asyncio.create_task(answer(model, 0))
        await asyncio.to_thread(forward.has_begun.wait, 30)
        waits = [asyncio.create_task(answer(model, 1 + number)) for number in range(waiting)]
        await asyncio.sleep(0)
        forward.go_on.set()
        time.sleep(0.05)  # the loop is busy while the batch ends
        comes = [asyncio.create_task(answer(model, 10 + number, turns=1)) for number in range(coming)]
        found = await asyncio.wait_for(asyncio.gather(running, *waits, *comes), 30)
        await model.drain()
        return found

    found = uvloop.run(asked())
    assert found == [2.0 * number for number in (0, *range(1, 1 + waiting), *range(10, 10 + coming))]
    return forward.batches


def test_a_request_that_has_come_when_a_batch_ends_is_in_the_next_one() -> None:
    assert batches(waiting=1, coming=2) == [[0], [1, 10, 11]]


def test_a_batch_that_is_full_does_not_wait_for_what_has_come() -> None:
    assert batches(waiting=BATCH_MAX, coming=2) == [[0], [1, 2, 3, 4], [10, 11]]


def test_requests_that_come_together_to_an_idle_model_run_together() -> None:
    forward = Doubling()
    forward.go_on.set()

    async def asked() -> list[float]:
        model = served(forward)
        found = await asyncio.gather(*(answer(model, turns, turns) for turns in (0, 1)))
        await model.drain()
        return found

    assert uvloop.run(asked()) == [0, 2]
    assert forward.batches == [[0, 1]]
