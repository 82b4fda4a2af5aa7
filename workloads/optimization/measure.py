"""What a package costs and how good it is, by each backend that can serve it here: bytes, latency, accuracy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from workloads.data.loader import Loader
from workloads.serving.backends import Forward, Runtime, candidates
from workloads.serving.package import Array, Package
from workloads.serving.sources import Trained

WARM_UPS = 10
RUNS = 300
SECONDS = 5.0
"""A backend's batches are timed `RUNS` times, or for so long where that is sooner."""
JUDGED_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Measured:
    """One backend with one package, on this machine.

    Attributes:
        backend: the runtime.
        bytes: of the files that it opens.
        p50_ms: of a batch.
        p99_ms: of a batch.
        accuracy: on the held-out split, from 0 to 1, of the backend's own answers.
    """

    backend: str
    bytes: int
    p50_ms: float
    p99_ms: float
    accuracy: float


def measure(package: Package, trained: Trained, runtime: Runtime, *, batch: int) -> tuple[Measured, ...]:
    """Every backend that can serve the package, the fastest first.

    Args:
        package: whole, and checked by its self-test.
        trained: whose held-out data it is judged by.
        runtime: threads and device.
        batch: rows at a time whose latency is measured.

    Raises:
        StorageError: the data can't be read.
    """
    inputs = trained.held_out(batch)
    inputs = np.ascontiguousarray(np.resize(inputs, (batch, *inputs.shape[1:])))
    found = []
    for backend in candidates(package, runtime):
        artifact = package.artifact(backend.format)
        assert artifact is not None
        forward = backend.load(package, runtime)
        p50_ms, p99_ms = latency_ms(forward, [inputs])
        size = sum(file.bytes for file in artifact.files)
        found.append(Measured(backend.name, size, p50_ms, p99_ms, accuracy_of(forward, trained)))
    return tuple(sorted(found, key=lambda each: each.p50_ms))


def latency_ms(forward: Forward, inputs: Sequence[Array]) -> tuple[float, float]:
    """The median and the 99th percentile of one batch's milliseconds."""
    for _ in range(WARM_UPS):
        forward(inputs)
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(times) < RUNS and (not times or time.perf_counter() < end):
        start = time.perf_counter()
        forward(inputs)
        times.append(time.perf_counter() - start)
    p50, p99 = np.percentile(times, (50, 99)) * 1e3
    return float(p50), float(p99)


def accuracy_of(forward: Forward, trained: Trained) -> float:
    """Of a backend's answers on the held-out split, from 0 to 1."""
    task = trained.task
    observed = []
    for batch in Loader(trained.split("test"), JUDGED_AT_ONCE).once():
        inputs, targets = task.inputs_and_targets(batch)
        logits = forward([np.ascontiguousarray(inputs.numpy())])[0]
        observed.append(task.observe(torch.from_numpy(logits), targets))
    return task.scores(torch.cat(observed))["accuracy"]
