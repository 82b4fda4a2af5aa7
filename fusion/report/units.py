"""Numbers as people read them."""

from __future__ import annotations

import math

from planner.calibration.store import Interval
from planner.cost import to_the_cent


def usd(value: float) -> str:
    """Dollars, with cents while they matter."""
    if value and abs(value) < 0.01:
        return f"${value:.2g}"
    return f"${to_the_cent(value):,.2f}" if abs(value) < 100_000 else f"${value:,.0f}"


UNITS = (("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("min", 60.0), ("h", 3600.0))


def unit_of(value_s: float) -> tuple[str, float]:
    """The largest unit of which a time has at least one, and its seconds."""
    return next((unit for unit in reversed(UNITS) if value_s >= unit[1]), UNITS[0])


def seconds(value_s: float) -> str:
    """In the largest unit of which there is at least one."""
    if not math.isfinite(value_s):
        return "no bound"
    unit, size = unit_of(value_s)
    return f"{value_s / size:.3g} {unit}" if value_s < 1000 * size else f"{value_s / size:,.0f} {unit}"


def interval(value: Interval) -> str:
    """From low to high; an end that is infinite is no bound."""
    low, high = (f"{end:.3g}" if math.isfinite(end) else "no bound" for end in (value.low, value.high))
    return f"{low} to {high}"
