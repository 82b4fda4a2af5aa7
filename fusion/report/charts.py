"""The page's pictures: static SVG by matplotlib, without fonts, scripts or links.

Each is drawn twice, for a wide and for a narrow screen, so that its letters keep their size.
"""

from __future__ import annotations

import html
import io
import math
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from fusion.report.findings import TIME, USD_BY, Bill, Part, Way, WorkloadFindings
from fusion.report.units import seconds, unit_of, usd

DOTS_PER_INCH = 72  # matplotlib's SVG counts points; one is then one CSS pixel
WIDE, NARROW = 700.0, 340.0
"""Pixels of CSS."""
ROW = 30.0
"""Pixels by bar."""
BLUE, ORANGE, GREEN, GREY, RED = "#0072b2", "#e69f00", "#009e73", "#8a8f98", "#d55e00"
"""Okabe and Ito's colours, which the colour-blind tell apart."""
PARTS = (BLUE, ORANGE, GREEN, "#cc79a7", "#56b4e9", "#f0e442")
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fusion",  # the same picture has the same ids
    "font.family": "sans-serif",
    "font.sans-serif": ["system-ui", "DejaVu Sans", "sans-serif"],
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "axes.axisbelow": True,
}
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


@dataclass(frozen=True, slots=True)
class Picture:
    """One drawing at two widths."""

    wide: str
    narrow: str


def frontier_picture(found: WorkloadFindings) -> Picture:
    """Cost and time of every choice that none beats in both, the limits, and what else was looked at."""

    others = [way for way in found.others if (way.usd, way.seconds) not in {(w.usd, w.seconds) for w in found.frontier}]
    shown = [found.chosen, *found.frontier, *others]
    unit, size = unit_of(max(way.seconds for way in shown))

    def draw(axes: Axes) -> None:
        ways = found.frontier
        at = [(way.usd, way.seconds / size) for way in ways]
        axes.step(*zip(*at, strict=True), where="post", color=BLUE, linewidth=1.2, zorder=2)
        for number, (way, place) in enumerate(zip(ways, at, strict=True), start=1):
            axes.scatter(*place, s=90 if way.verdict == "chosen" else 40, color=_colour(way), zorder=3)
            axes.annotate(str(number), place, xytext=(5, 5), textcoords="offset points", zorder=4)
        for way in others:
            axes.scatter(way.usd, way.seconds / size, s=30, color=GREY, marker="x", zorder=3)
        _scale(axes, "x", [way.usd for way in shown], usd)
        _scale(axes, "y", [way.seconds / size for way in shown], lambda value: f"{value:g} {unit}")
        _limit(axes, found, size)
        axes.set_xlabel(f"cost of {USD_BY[found.kind]}")
        axes.set_ylabel(TIME[found.kind])

    title = f"Cost and {TIME[found.kind]} of {found.name}: {len(found.frontier)} choices that none beats in both"
    return picture(title, lambda width: width * (0.5 if width == WIDE else 0.85), draw)


def parts_picture(title: str, parts: Sequence[Part], said: Callable[[float], str]) -> Picture:
    """A bar for each part of a whole."""

    def draw(axes: Axes) -> None:
        names = [part.name for part in parts]
        values = [part.value for part in parts]
        bars = axes.barh(names, values, color=[PARTS[number % len(PARTS)] for number in range(len(parts))], height=0.6)
        whole = math.fsum(values)
        labels = [f"{said(value)}, {value / whole:.0%}" if value else "0" for value in values]
        axes.bar_label(bars, labels, padding=4)
        bars_only(axes, max(values))

    return picture(title, lambda _: ROW * (len(parts) + 0.5), draw)


def bill_picture(title: str, bill: Bill) -> Picture:
    """A bar by component at the expected load, with a line from the autoscaler's minimum to its maximum."""

    def draw(axes: Axes) -> None:
        names = [name for name, _ in bill.lines]
        expected = [quantity.expected for _, quantity in bill.lines]
        below = [quantity.expected - quantity.min for _, quantity in bill.lines]
        above = [quantity.max - quantity.expected for _, quantity in bill.lines]
        axes.barh(names, expected, color=BLUE, height=0.6, xerr=[below, above], ecolor=ORANGE, capsize=3)
        for row, (_, quantity) in enumerate(bill.lines):
            axes.annotate(
                usd(quantity.expected), (quantity.max, row), xytext=(6, 0), textcoords="offset points", va="center"
            )
        bars_only(axes, max(quantity.max for _, quantity in bill.lines))

    return picture(title, lambda _: ROW * (len(bill.lines) + 0.5), draw)


def bars_only(axes: Axes, largest: float) -> None:
    """Horizontal bars from above, without a scale, with room for labels."""
    axes.invert_yaxis()
    axes.set_xlim(0, (largest or 1.0) * 1.45)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.grid(visible=False)
    axes.tick_params(axis="y", length=0)


def _colour(way: Way) -> str:
    return {"chosen": GREEN, "within the limits": BLUE}.get(way.verdict, GREY)


def _scale(axes: Axes, which: Literal["x", "y"], values: Sequence[float], said: Callable[[float], str]) -> None:
    """Logarithmic where values differ much, with room around them."""
    low, high = min(values), max(values)
    axis = axes.xaxis if which == "x" else axes.yaxis
    if high > 5 * low:
        room = (high / low) ** 0.08
        axes.set(**{f"{which}scale": "log", f"{which}lim": (low / room, high * room)})
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=7))
    else:
        room = (high - low) * 0.1 or high * 0.2
        axes.set(**{f"{which}lim": (max(0.0, low - room), high + room)})
    axis.set_major_formatter(FuncFormatter(lambda value, _: said(value)))
    axis.set_minor_formatter(NullFormatter())


def _limit(axes: Axes, found: WorkloadFindings, size: float) -> None:
    """The limits as lines, where they are within the picture."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    usd_max, time_max = found.usd_max, found.seconds_max / size
    style: dict[str, Any] = {"textcoords": "offset points", "color": RED, "ha": "right"}
    if left < usd_max < right:
        axes.axvline(usd_max, color=RED, linestyle="--", linewidth=1)
        axes.annotate(f"limit {usd(usd_max)}", (usd_max, top), xytext=(-4, -10), **style)
    if bottom < time_max < top:
        axes.axhline(time_max, color=RED, linestyle="--", linewidth=1)
        axes.annotate(f"limit {seconds(found.seconds_max)}", (right, time_max), xytext=(-4, 4), **style)


def picture(title: str, height: Callable[[float], float], draw: Callable[[Axes], None]) -> Picture:
    """A drawing at both widths; its height is that of its width."""
    return Picture(*(_svg(title, width, height(width), draw) for width in (WIDE, NARROW)))


def _svg(title: str, width: float, height: float, draw: Callable[[Axes], None]) -> str:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width / DOTS_PER_INCH, height / DOTS_PER_INCH), layout="constrained")
        draw(figure.subplots())
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata=NO_METADATA, transparent=True)
    text = file.getvalue()
    drawing = text[text.index("<svg") :]
    name = f"p{zlib.crc32(f'{title} {width}'.encode()):x}"  # ids are of the whole page
    drawing = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", drawing)
    said = html.escape(title)
    start = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{said}"'
    return re.sub(
        r"<svg[^>]*>", f'{start} xmlns:xlink="http://www.w3.org/1999/xlink"><title>{said}</title>', drawing, count=1
    )
