"""The findings as tables in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence

from rich.console import Console
from rich.table import Table

from fusion.report.findings import TIME, USD_BY, Difference, Findings, Kind, Part, Way, WorkloadFindings
from fusion.report.units import interval, seconds, usd

PIPE_WIDTH = 160
"""A pipe has no width of its own."""


def print_findings(findings: Findings, changes: Sequence[Difference], earlier: str | None) -> None:
    """Everything, workload by workload.

    Args:
        changes: what `--what-if` changed; empty without one.
        earlier: why there was no plan before the change.
    """
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)
    for each in findings.workloads:
        _print_workload(console, each)
    for name, offer in findings.without_target.items():
        console.print(f"[bold]{name}[/]: {offer}\n")
    if findings.bill is not None:
        table = _table("USD a month", right=("min", "expected", "max"))
        for name, quantity in (*findings.bill.lines, ("whole stack", findings.bill.monthly_usd)):
            table.add_row(name, *(usd(value) for value in (quantity.min, quantity.expected, quantity.max)))
        console.print(table)
    if changes:
        _print_changes(console, changes)
    elif earlier:
        console.print(f"before the change there was no plan: {earlier}")


def _print_workload(console: Console, found: WorkloadFindings) -> None:
    chosen = found.chosen
    console.print(
        f"[bold]{found.name}[/]: [green]{chosen.nodes_said}[/] {chosen.price_model} in {chosen.place}, "
        f"{usd(chosen.usd)} {USD_BY[found.kind]} ({chosen.how})"
    )
    estimates = _table("predicted", right=("value", "interval"))
    for each in found.estimates:
        estimates.add_row(f"{each.name} ({each.unit})", f"{each.value.value:.3g}", interval(each.value))
    console.print(estimates)
    _print_parts(console, f"{TIME[found.kind]} of", found.time_parts, seconds)
    _print_parts(console, "cost of", found.cost_parts, usd)
    for reason in found.reasons:
        console.print(f"  {reason}", soft_wrap=True)
    console.print(f"  rests on: {found.calibration}", soft_wrap=True)
    if found.others:
        console.print(_ways(found.kind, found.others))
    console.print()


def _print_parts(console: Console, what: str, parts: Iterable[Part], said: Callable[[float], str]) -> None:
    shown = ", ".join(f"{part.name} {said(part.value)}" for part in parts if part.value > 0)
    if shown:
        console.print(f"  {what} {shown}", soft_wrap=True)


def _ways(kind: Kind, ways: Iterable[Way]) -> Table:
    table = _table("not taken", "where", "bought", right=(f"USD {USD_BY[kind]}", TIME[kind]), last="why")
    for each in ways:
        table.add_row(each.nodes_said, each.place, each.price_model, usd(each.usd), seconds(each.seconds), each.verdict)
    return table


def _print_changes(console: Console, changes: Iterable[Difference]) -> None:
    table = _table("what if", "", "before", "after", last="difference")
    for each in changes:
        style = "bold" if each.change else "dim"
        table.add_row(each.subject, each.what, each.before, each.after, each.change or "same", style=style)
    console.print(table)


def _table(*left: str, right: Iterable[str] = (), last: str | None = None) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=True)
    for name in left:
        table.add_column(name)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    if last is not None:
        table.add_column(last)
    return table
