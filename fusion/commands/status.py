"""`fusion status`: what a stack's cluster runs, what waits, on which nodes, and what it costs now."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from dataclasses import dataclass
from typing import Any

import click

from fusion.errors import FusionError
from fusion.stack import Stack
from fusion.status.reading import State, read
from fusion.status.slo import Slo, slos
from fusion.status.spending import Spending, spending_of
from localcloud.provider import ProviderError
from planner.catalog import Catalog, CatalogError, UnknownOffer, load
from planner.plan import Plan, finite

PLAN_TYPE = "fusion:platform:Plan"
PIPE_WIDTH = 160
LOOK_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class Status:
    """All that the command says."""

    state: State
    spending: Spending | None
    slos: tuple[Slo, ...]

    def as_json(self) -> dict[str, Any]:
        """Every field."""
        plan = dataclasses.asdict(self.spending) if self.spending else None
        return {
            "workloads": [dataclasses.asdict(each) for each in self.state.workloads],
            "nodes": [dataclasses.asdict(each) for each in self.state.nodes],
            "slos": [{**dataclasses.asdict(each), "burn": each.burn, "state": each.state} for each in self.slos],
            "usd_per_hour": {"now": self.state.usd_per_hour, "plan": plan, "unpriced": self.state.unpriced},
        }


@click.command(name="status")
@click.option("--stack", "name", default="local", show_default=True, help="A stack of stacks/.")
@click.option("--watch", is_flag=True, help="Look again every two seconds until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Every field, as JSON.")
@click.option("--prometheus", metavar="URL", help="Where the services' metrics are, such as http://localhost:9090.")
def command(name: str, watch: bool, as_json: bool, prometheus: str | None) -> None:
    """Say what runs, what waits, on which nodes, and what it costs now."""
    if watch and as_json:
        raise FusionError("--watch and --json exclude each other; give one of them")
    stack = Stack.find(name)
    plan = registered_plan(stack)
    look = _Looking(stack, plan, prometheus)
    if as_json:
        click.echo(json.dumps(finite(look.status().as_json()), indent=2))
        return
    _show(look, watch)


def _show(look: _Looking, watch: bool) -> None:
    from rich.console import Console, Group
    from rich.live import Live

    from fusion.status.table import tables

    def drawn() -> Any:
        found = look.status()
        return tables(found.state, found.spending, found.slos)

    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)
    if not watch:
        console.print(drawn())
        return
    last = drawn()
    try:
        with Live(last, console=console, auto_refresh=False) as live:
            while True:
                time.sleep(LOOK_EVERY_S)
                try:
                    last = shown = drawn()
                except FusionError as error:  # a server that restarts answers the next time
                    shown = Group(last, f"as it was before: {error}")
                live.update(shown, refresh=True)
    except KeyboardInterrupt:
        return


class _Looking:
    """Reads a stack's cluster, as often as it is asked."""

    def __init__(self, stack: Stack, plan: Plan | None, prometheus: str | None) -> None:
        self._catalog = _catalog()
        self._plan, self._prometheus = plan, prometheus
        self._cluster = stack.cluster()
        self._place = (plan.cloud, plan.region) if plan else ("aws", stack.region("aws"))

    def status(self) -> Status:
        """The cluster as it is now.

        Raises:
            FusionError: the cluster or Prometheus can't be asked.
        """
        try:
            state = read(self._cluster, self._catalog, *self._place)
        except ProviderError as error:
            raise FusionError(str(error)) from None
        if self._plan is None:
            return Status(state, None, ())
        try:
            spending = spending_of(self._plan, self._catalog)
        except UnknownOffer as error:
            raise FusionError(str(error)) from None
        return Status(state, spending, tuple(slos(self._plan, self._prometheus)))


def registered_plan(stack: Stack) -> Plan | None:
    """The plan that the last update registered; None before the first."""
    found = [each for each in stack.resources() if each["type"] == PLAN_TYPE]
    return Plan.from_props(found[0]["inputs"]) if found else None


def _catalog() -> Catalog:
    try:
        return load()
    except CatalogError as error:
        raise FusionError(str(error)) from None
