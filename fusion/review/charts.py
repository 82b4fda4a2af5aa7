"""The pictures of a review: what each component costs before and after, and each prediction against its limit."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from fusion.report.charts import BLUE, GREEN, GREY, ORANGE, RED, ROW, Picture, bars_only, picture
from fusion.report.units import usd
from fusion.review.cost import NOTHING, CostChange
from fusion.review.predictions import Measure, WorkloadReview
from fusion.review.wording import number
from planner.cost import Quantity

COMPONENTS_DRAWN = 12
NAME_LENGTH = 28
"""A longer name would leave no room for the bars on a phone."""


def cost_picture(cost: CostChange) -> Picture:
    """By component a bar before and one after, at the expected load, with a line to the autoscaler's bounds."""
    lines = sorted(cost.components, key=lambda each: -max((each.after or NOTHING).max, (each.before or NOTHING).max))
    drawn = lines[:COMPONENTS_DRAWN]

    def draw(axes: Axes) -> None:
        for row, line in enumerate(drawn):
            for amount, offset, colour in ((line.before, -0.2, GREY), (line.after, 0.2, BLUE)):
                if amount is not None:
                    _bar(axes, row + offset, amount, colour)
        axes.set_yticks(range(len(drawn)), [_short(each.name) for each in drawn])
        bars_only(
            axes, max((amount.max for line in drawn for amount in (line.before, line.after) if amount), default=0)
        )

    return picture(
        "USD a month by component, before (grey) and after (blue)", lambda _: 2 * ROW * (len(drawn) + 0.4), draw
    )


def _bar(axes: Axes, at: float, amount: Quantity, colour: str) -> None:
    bounds = [[amount.expected - amount.min], [amount.max - amount.expected]]
    axes.barh([at], [amount.expected], color=colour, height=0.36, xerr=bounds, ecolor=ORANGE, capsize=3)
    axes.annotate(usd(amount.expected), (amount.max, at), xytext=(6, 0), textcoords="offset points", va="center")


def measures_picture(found: WorkloadReview, measures: Sequence[Measure]) -> Picture:
    """Measures of one unit: the prediction with its interval, and the limit as a line of its row."""

    def draw(axes: Axes) -> None:
        largest = max(max(each.after.value, _end(each), each.limit or 0.0) for each in measures)
        for row, each in enumerate(measures):
            value = each.after.value
            spread = [[max(0.0, value - each.after.low)], [max(0.0, _end(each) - value)]]
            colour = RED if each.is_over else GREEN
            axes.barh([row], [value], color=colour, height=0.5, xerr=spread, ecolor=ORANGE, capsize=3)
            if each.limit is not None:
                axes.vlines(each.limit, row - 0.4, row + 0.4, color="black", linestyle="--")
            at = max(value, _end(each), each.limit or 0.0)
            axes.annotate(number(value, each.unit), (at, row), xytext=(6, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(measures)), [each.name for each in measures])
        bars_only(axes, largest)

    title = f"Predicted {measures[0].unit} of {found.name} with intervals; a dashed line is the limit"
    return picture(title, lambda _: ROW * (len(measures) + 0.5), draw)


def _end(measure: Measure) -> float:
    """The interval's upper end; where it has none, twice the value, as far as is drawn."""
    high = measure.after.high
    return high if high < 10 * measure.after.value else 2 * measure.after.value


def _short(name: str) -> str:
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"
