"""The findings as one page that needs nothing else: no script, no font, no request."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

import jinja2

from fusion.report.charts import Picture, bill_picture, frontier_picture, parts_picture
from fusion.report.findings import TIME, USD_BY, Difference, Findings, WorkloadFindings
from fusion.report.units import interval, seconds, usd


def page(findings: Findings, asked: Sequence[str], changes: Sequence[Difference], earlier: str | None) -> str:
    """The page's HTML.

    Args:
        asked: what `--what-if` was given.
        changes: what that changed.
        earlier: why there was no plan before the change.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"usd": usd, "seconds": seconds, "interval": interval}
    pictures = {found.name: _pictures(found) for found in findings.workloads}
    if findings.bill is not None:
        pictures[""] = {"bill": bill_picture("The stack's bill by component, USD a month", findings.bill)}
    return environment.get_template("page.html").render(
        findings=findings,
        asked=asked,
        changes=changes,
        earlier=earlier,
        pictures=pictures,
        usd_by=USD_BY,
        time=TIME,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )


def _pictures(found: WorkloadFindings) -> dict[str, Picture]:
    pictures = {"frontier": frontier_picture(found)}
    if found.time_parts:
        title = f"What the {TIME[found.kind]} of {found.name} is made of"
        pictures["time"] = parts_picture(title, found.time_parts, seconds)
    if found.cost_parts:
        pictures["cost"] = parts_picture(f"What the cost of {found.name} pays for", found.cost_parts, usd)
    return pictures
