"""A cluster's state as tables in a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table

from fusion.report.units import seconds, usd
from fusion.status.reading import State, Workload
from fusion.status.slo import Slo
from fusion.status.spending import Spending

COLORS = {"running": "green", "succeeded": "green", "queued": "yellow", "admitted": "yellow", "degraded": "yellow"}
SHOWN = 30
"""Workloads in the table; JSON has all."""
FINISHED = ("succeeded", "failed")


def tables(state: State, spending: Spending | None, slos: Sequence[Slo]) -> RenderableType:
    """Workloads, nodes, SLOs and the cost by hour."""
    parts: list[RenderableType] = [_workloads(state.workloads)]
    left = len(state.workloads) - SHOWN
    if left > 0:
        counts = Counter(each.state for each in state.workloads)
        said = ", ".join(f"{count} {name}" for name, count in counts.most_common())
        parts.append(f"{left} more workloads; of all: {said}; --json has them")
    parts += ["", _nodes(state)]
    if slos:
        parts += ["", _slos(slos)]
    parts += ["", _cost(state, spending)]
    return Group(*parts)


def _workloads(workloads: Sequence[Workload]) -> Table:
    table = _table(("workload", "state", "queue", "why"), right=("position", "pods", "restarts", "age"))
    order = sorted(workloads, key=lambda each: (each.state in FINISHED, each.position or 0, each.age_s))
    for each in order[:SHOWN]:
        color = COLORS.get(each.state, "red")
        table.add_row(
            f"{each.namespace}/{each.name}",
            f"[{color}]{each.state}[/]",
            each.queue or "-",
            each.message,
            str(each.position or "-"),
            f"{each.pods_ready}/{each.pods_wanted}",
            str(each.restarts),
            seconds(each.age_s),
        )
    return table


def _nodes(state: State) -> Table:
    table = _table(("pool", "instance type", "bought"), right=("nodes ready", "devices used", "USD/h"))
    for each in state.nodes:
        table.add_row(
            each.pool,
            each.instance_type,
            each.price_model.replace("_", " "),
            f"{each.ready}/{each.count}",
            f"{each.devices_used}/{each.devices} {each.device}" if each.device else "-",
            "?" if each.usd_per_hour is None else usd(each.usd_per_hour),
        )
    return table


def _slos(slos: Sequence[Slo]) -> Table:
    table = _table(("service", "SLO"), right=("p99 limit ms", "predicted p99 ms", "measured p99 ms", "budget burns"))
    for each in slos:
        color = {"kept": "green", "burning": "red"}.get(each.state, "yellow")
        table.add_row(
            each.service,
            f"[{color}]{each.state}[/]",
            *(_number(value) for value in (each.p99_ms_max, each.predicted_p99_ms, each.p99_ms)),
            "-" if each.burn is None else f"{each.burn:.3g} x",
        )
    return table


def _cost(state: State, spending: Spending | None) -> str:
    now = f"nodes cost {usd(state.usd_per_hour)} an hour now"
    if state.unpriced:
        now += f", without {', '.join(state.unpriced)}, which the catalog does not have"
    if spending is None:
        return f"{now}; no plan is registered to compare with"
    return f"{now}; the plan expects {usd(spending.expected)} and allows {usd(spending.min)} to {usd(spending.max)}" + (
        " [red](over the plan)[/]" if state.usd_per_hour > spending.max else ""
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _table(left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in left:
        table.add_column(name)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table
