"""What a run measures of itself while it trains."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

T = TypeVar("T")
_RECENT_STEPS = 10_000
"""Step times kept for the percentiles, so that a long run's memory is bounded."""


@dataclass
class Meter:
    """Step times, and how much of them went into waiting for data; saving and evaluating are not counted."""

    samples: int = 0
    seconds: float = 0.0
    data_wait_seconds: float = 0.0
    _step_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT_STEPS))
    _step_started: float = 0.0

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches, with the time that each made the loop wait."""
        iterator = iter(batches)
        while True:
            self._step_started = time.perf_counter()
            batch = next(iterator, None)
            self.data_wait_seconds += time.perf_counter() - self._step_started
            if batch is None:
                return
            yield batch

    def step_done(self, samples: int) -> None:
        """A step over ``samples`` (of all ranks) has ended."""
        elapsed = time.perf_counter() - self._step_started
        self.samples += samples
        self.seconds += elapsed
        self._step_seconds.append(elapsed)

    def summary(self) -> dict[str, object]:
        """The measured numbers under the names they have everywhere; None where no step was made."""
        if not self._step_seconds:
            return {"samples_per_second": None, "step_time_ms": None, "data_wait_share": None}
        p50, p90, p99 = np.percentile(self._step_seconds, (50, 90, 99)) * 1_000
        return {
            "samples_per_second": round(self.samples / self.seconds, 1),
            "step_time_ms": {"p50": round(p50, 3), "p90": round(p90, 3), "p99": round(p99, 3)},
            "data_wait_share": round(min(1.0, self.data_wait_seconds / self.seconds), 4),
        }
