"""Which backend serves: each is checked against the reference, measured over batch sizes, and the fastest is taken."""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

import numpy as np

from workloads.serving.backends import BACKENDS, Forward, Runtime, candidates
from workloads.serving.package import Array, Package, PackageError, error_of

RUNS = 5
SECONDS_OF_A_SIZE = 0.5
"""A size is measured `RUNS` times, or for so long where that is sooner; slow models start in reasonable time."""
TOO_SLOW, TOO_SLOW_FROM_S = 2.0, 0.1
"""A backend is given up at a batch that takes so many times what the best one's takes, and so long that its own
overhead can't be the reason: larger batches would only make the server start later."""
SHARE_OF_A_BATCH = 0.5
"""Of the SLO, that one batch may take: a request may have to wait for one and then runs in another."""
GAIN_WORTH_WAITING = 0.95
"""Beyond this share of the best throughput a larger batch only makes its first request wait longer."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Seconds of one batch by its rows, measured at some sizes, between them on a straight line."""

    rows: tuple[int, ...]
    seconds: tuple[float, ...]
    """Never falling."""

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.seconds) or not self.rows or any(a >= b for a, b in pairwise(self.rows)):
            raise ValueError("a curve needs one time for each of its sizes, in rising order")

    def at(self, rows: int) -> float:
        """Seconds of a batch of so many rows; beyond the largest measured one in proportion."""
        place = bisect_left(self.rows, rows)
        if place == len(self.rows):
            return self.seconds[-1] * rows / self.rows[-1]
        if self.rows[place] == rows or place == 0:
            return self.seconds[place]
        left, right = self.rows[place - 1], self.rows[place]
        share = (rows - left) / (right - left)
        return self.seconds[place - 1] + share * (self.seconds[place] - self.seconds[place - 1])

    def best_rows(self, slo_s: float) -> int:
        """The smallest measured batch with nearly the best throughput under an SLO; at least one row."""
        limit_s = slo_s * SHARE_OF_A_BATCH
        allowed = [(n, n / s) for n, s in zip(self.rows, self.seconds, strict=True) if s <= limit_s]
        most = max((speed for _, speed in allowed), default=0.0)
        return next((n for n, speed in allowed if speed >= GAIN_WORTH_WAITING * most), self.rows[0])

    def rows_per_second(self, slo_s: float) -> float:
        """Throughput in batches of `best_rows`."""
        rows = self.best_rows(slo_s)
        return rows / self.at(rows)


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one backend."""

    backend: str
    max_abs_error: float | None = None
    curve: Curve | None = None
    problem: str = ""
    """Why it can't serve; empty where it can."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The backend that serves, and what came of each."""

    backend: str
    forward: Forward = field(repr=False)
    curve: Curve
    trials: tuple[Trial, ...]


def choose(package: Package, runtime: Runtime, *, batch_max: int, slo_s: float, named: Sequence[str] = ()) -> Choice:
    """Load, check and measure each candidate, and take the one with the most rows a second within the SLO.

    Args:
        package: what is served.
        runtime: device, precision and threads.
        batch_max: rows of the largest batch.
        slo_s: what a request may take.
        named: the backends to try; by default all but those that compile when they are loaded.

    Raises:
        PackageError: no backend can serve the package within its tolerance; says what came of each.
    """
    best: tuple[float, str, Forward, Curve] | None = None
    trials = []
    for backend in candidates(package, runtime, named):
        trial, forward = _try(backend.name, package, runtime, batch_max, slo_s, best and best[3])
        trials.append(trial)
        if forward is None or trial.curve is None:
            continue
        speed = trial.curve.rows_per_second(slo_s)
        if best is None or speed > best[0]:
            best = (speed, backend.name, forward, trial.curve)
    if best is None:
        tried = "; ".join(f"{each.backend}: {each.problem}" for each in trials) or "there is none for its formats here"
        raise PackageError(f"no backend can serve {package.manifest.name} {package.manifest.version} ({tried})")
    _, name, forward, curve = best
    return Choice(name, forward, curve, tuple(trials))


def _try(
    name: str, package: Package, runtime: Runtime, batch_max: int, slo_s: float, best: Curve | None
) -> tuple[Trial, Forward | None]:
    inputs, reference = package.self_test()
    try:
        forward = BACKENDS[name].load(package, runtime)
        error, fits = error_of(forward(inputs), reference, package.manifest.tolerance)
        if not fits:
            return Trial(name, error, problem=f"its outputs differ from the reference by up to {error:.3g}"), None
        return Trial(name, error, measure(forward, inputs, batch_max, slo_s, best)), forward
    except TooSlow as slow:
        return Trial(name, error, problem=str(slow)), None
    except Exception as error:  # whatever a runtime raises, another one may serve
        return Trial(name, problem=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"), None


class TooSlow(Exception):
    """A backend that another one leaves far behind."""


def measure(
    forward: Forward, inputs: Sequence[Array], batch_max: int, slo_s: float = math.inf, best: Curve | None = None
) -> Curve:
    """The latency curve over batches of 1, 2, 4, … and `batch_max` rows, of real inputs repeated.

    Args:
        forward: the backend.
        inputs: (rows, *shape) each.
        batch_max: rows of the largest batch.
        slo_s: a batch that takes longer is the last that is measured; larger ones never run in time.
        best: the curve of the best backend so far.

    Raises:
        TooSlow: the best one is far ahead.
        Exception: what the runtime raises on a size.
    """
    sizes = [*(2**power for power in range(batch_max.bit_length()) if 2**power < batch_max), batch_max]
    seconds: list[float] = []
    for rows in sizes:
        batch = [np.ascontiguousarray(np.resize(each, (rows, *each.shape[1:]))) for each in inputs]
        forward(batch)  # allocations and first-use compilation
        taken = _timed(forward, batch)
        if best and taken > TOO_SLOW_FROM_S and taken > TOO_SLOW * best.at(rows):
            raise TooSlow(f"given up: {rows} rows took {taken * 1e3:.0f} ms, the best {best.at(rows) * 1e3:.0f} ms")
        seconds.append(max(taken, seconds[-1] if seconds else 0.0))
        if taken > slo_s:
            break
    return Curve(tuple(sizes[: len(seconds)]), tuple(seconds))


def _timed(forward: Forward, batch: list[Array]) -> float:
    times: list[float] = []
    end = time.perf_counter() + SECONDS_OF_A_SIZE
    while len(times) < RUNS and (not times or time.perf_counter() < end):
        start = time.perf_counter()
        forward(batch)
        times.append(time.perf_counter() - start)
    return median(times)
