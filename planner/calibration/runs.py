"""Training runs that were measured on what a plan chose for them: `fusion calibrate --run` makes a row of each.

A row says by how much a run's steps took longer than the model predicted; a prediction of the same model, machine and
precision is then corrected by it, and shows the row's date and place as its calibration.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from planner.calibration.store import Interval, MeasuredRun
from planner.performance.checks import PerformanceError

RUN_TO_RUN = 1.1
"""How much one run's step time differs from another's on the same machines: general knowledge, not measured."""


@dataclass(frozen=True, slots=True)
class Correction:
    """What the rows of one model, machine and precision say together."""

    ratio: float
    low: float
    high: float
    note: str

    def interval(self, step_s: float) -> Interval:
        """Around a corrected step time."""
        return Interval(step_s, step_s * self.low / self.ratio, step_s * self.high / self.ratio)


def correction(rows: Sequence[MeasuredRun], profile: str, precision: str) -> Correction | None:
    """Of the rows of one machine; None where none is of that model and precision."""
    fitting = [row for row in rows if (row.profile, row.precision) == (profile, precision)]
    if not fitting:
        return None
    ratios = [row.step_ratio for row in fitting]
    last = max(fitting, key=lambda row: row.measured_at)
    several = f" and {len(fitting) - 1} more" if len(fitting) > 1 else ""
    return Correction(
        ratio=statistics.geometric_mean(ratios),
        low=min(ratios) / RUN_TO_RUN,
        high=max(ratios) * RUN_TO_RUN,
        note=f"run of {last.measured_at} ({last.place}){several}",
    )


def read_run(path: Path) -> MeasuredRun:
    """A stored row.

    Raises:
        PerformanceError: it can't be read or is wrong; names the file and the field.
    """
    try:
        return MeasuredRun.model_validate_json(path.read_bytes())
    except OSError as error:
        raise PerformanceError(f"measured run {path} can't be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise PerformanceError(f"measured run {path}: {where}: {first['msg']}") from None
