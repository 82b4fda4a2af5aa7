"""Amounts and intervals as a review writes them, the same in the comment and on the page."""

from __future__ import annotations

import math
from collections.abc import Callable

from fusion.report.units import usd
from fusion.review.cost import NOTHING, CostChange
from planner.calibration.store import Interval
from planner.cost import Quantity


def difference(amount: float) -> str:
    """+$12.00, −$3.50, $0.00."""
    if abs(amount) < 0.005:
        return "$0.00"
    return f"+{usd(amount)}" if amount > 0 else f"−{usd(-amount)}"


def range_of(amount: Quantity, said: Callable[[float], str] = usd) -> str:
    """Minimum / expected / maximum; one number where they are the same."""
    values = [said(each) for each in (amount.min, amount.expected, amount.max)]
    return values[0] if len(set(values)) == 1 else " / ".join(values)


def number(value: float, unit: str) -> str:
    """Three digits and the unit; dollars with cents."""
    if unit == "USD":
        return usd(value)
    if not math.isfinite(value):
        return "no bound"
    return f"{value:,.0f} {unit}" if abs(value) >= 1000 else f"{value:.3g} {unit}"


def interval_of(value: Interval) -> str:
    """From low to high."""
    low, high = (
        "no bound" if not math.isfinite(end) else f"{end:,.0f}" if abs(end) >= 1000 else f"{end:.3g}"
        for end in (value.low, value.high)
    )
    return f"{low} to {high}"


def sum_of(cost: CostChange) -> str:
    """The bill in one sentence."""
    before, after, change = cost.total.before, cost.total.after or NOTHING, cost.total.difference
    was = f" from {usd(before.max)}" if before else ""
    return (
        f"{usd(after.max)} a month at the autoscaler's maximum{was} ({difference(change.max)}), "
        f"{usd(after.expected)} expected ({difference(change.expected)})"
    )
