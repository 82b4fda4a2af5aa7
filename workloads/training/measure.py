"""What a run measures of itself while it trains."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
from torch import Tensor

T = TypeVar("T")
Part = Literal["data_wait", "forward_backward", "optimizer", "messages", "checkpoint"]
PARTS: tuple[Part, ...] = ("data_wait", "forward_backward", "optimizer", "messages", "checkpoint")
"""Of a step, in their order; `messages` is what the ranks tell each other at its end, `checkpoint` how long a save
stops the loop, and is not counted in the step's time."""
_RECENT_STEPS = 10_000
"""Step times kept for the percentiles, so that a long run's memory is bounded."""
_RATE_STEPS = 100
"""Over which the present rate is taken."""


@dataclass
class Meter:
    """Step times by part, in seconds of this process: on a GPU, work that was only queued is not waited for."""

    samples: int = 0
    steps: int = 0
    seconds_of: dict[Part, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    loss: Tensor | None = None
    """Of the last step, this rank's; still on the device, for who asks to wait for it."""
    _step_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT_STEPS))
    _rates: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=_RATE_STEPS))
    _step: float = 0.0
    _mark: float = 0.0

    @property
    def seconds(self) -> float:
        """Of all steps, without saves."""
        return sum(self.seconds_of.values()) - self.seconds_of["checkpoint"]

    @property
    def samples_per_second_now(self) -> float | None:
        """Of the last steps, over all ranks."""
        recent = list(self._rates)
        seconds = sum(spent for _, spent in recent)
        return sum(samples for samples, _ in recent) / seconds if seconds else None

    @property
    def part_ms(self) -> dict[Part, float]:
        """Of a step, the mean milliseconds of each part."""
        return {part: seconds / self.steps * 1_000 for part, seconds in self.seconds_of.items()}

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches, with the time that each made the loop wait."""
        iterator = iter(batches)
        while True:
            self._mark, self._step = time.perf_counter(), 0.0
            batch = next(iterator, None)
            self.ended("data_wait")
            if batch is None:
                return
            yield batch

    def ended(self, part: Part) -> None:
        """What the loop did since the part before was this one."""
        now = time.perf_counter()
        spent = now - self._mark
        self._mark = now
        self.seconds_of[part] += spent
        if part != "checkpoint":
            self._step += spent

    def step_done(self, samples: int, loss: Tensor) -> None:
        """A step over ``samples`` (of all ranks) has ended."""
        self.samples += samples
        self.steps += 1
        self.loss = loss
        self._step_seconds.append(self._step)
        self._rates.append((samples, self._step))

    def summary(self) -> dict[str, object]:
        """The measured numbers under the names they have everywhere; None where no step was made."""
        if not self._step_seconds:
            return dict.fromkeys(("samples_per_second", "step_time_ms", "step_part_ms", "data_wait_share"))
        p50, p90, p99 = np.percentile(self._step_seconds, (50, 90, 99)) * 1_000
        return {
            "samples_per_second": round(self.samples / self.seconds, 1),
            "step_time_ms": {"p50": round(p50, 3), "p90": round(p90, 3), "p99": round(p99, 3)},
            "step_part_ms": {part: round(mean, 3) for part, mean in self.part_ms.items()},
            "data_wait_share": round(min(1.0, self.seconds_of["data_wait"] / self.seconds), 4),
        }
