"""What the deployed stack costs by month: its state, read with the CLI that runs the update, at the catalog's prices.

The engine tells a pack what will be and not what is, and a program can't hand it over as an input: that would differ
from one preview to the next, and a stack without changes would have one.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from planner.catalog import Catalog, UnknownOffer
from planner.cost import CostItem, Tariff, price_usd_per_month, to_the_cent, total
from planner.errors import PlanError
from planner.guardrails.cost import CostLedger
from planner.plan import items_in
from policies.objects import objects_of
from policies.plan import PLAN_TYPE
from policies.pricing import Place, Registered, UnpricedResource, cluster_place, quantities
from policies.resource import NotKnown, Resource, read
from policies.update import Update

State = Sequence[Mapping[str, Any]]
READ_WITHIN_S = 120
DEFAULT_ORGANIZATION = "organization"
"""Of every stack in a backend of the team's own."""


class StateNotRead(Exception):
    """The state of the stack can't be read; says why."""


@dataclass(slots=True)
class DeployedBill:
    """What is deployed.

    Attributes:
        monthly_usd: at the autoscaler's maximum; 0 where nothing with a price is deployed.
        unread: why nobody knows; empty where it is known.
    """

    monthly_usd: float = 0.0
    unread: str = ""
    _is_told: bool = False

    def told_once(self) -> Iterator[str]:
        """Why it is not known, at the first call only."""
        if not self._is_told:
            self._is_told = True
            yield (
                f"what the deployed stack costs can't be known: {self.unread}. Mend that, or leave "
                "monthly_cost_increase_max_percent out of fusion:guardrails for this update"
            )


def deployed_bill(update: Update) -> DeployedBill:
    """The bill of the stack as it is deployed: of the plan in its state, and of what goes beyond that plan."""
    try:
        return DeployedBill(monthly_usd(update, _state(update)))
    except StateNotRead as error:
        return DeployedBill(unread=str(error))


def monthly_usd(update: Update, state: State) -> float:
    """What the resources of a state cost by month at the autoscaler's maximum, as the guardrails count new ones.

    One whose price can't be known counts nothing, so that the limit errs towards the stricter side.
    """
    ledger = CostLedger(update.catalog)
    standing = [each for each in state if not each.get("delete")]
    regions = {each["urn"]: region for each in standing if (region := each.get("inputs", {}).get("region"))}
    plans = [each for each in standing if each["type"] == PLAN_TYPE]
    planned = [item for each in plans for item in _items(each)]
    ledger.allow(each for each in planned if _is_sold(each.tariff, update.catalog))
    no_longer_sold = total(each for each in planned if not _is_sold(each.tariff, update.catalog))
    resources: list[Resource] = []
    registered = Registered()
    for each in standing:
        resource = _resource(each, regions, update)
        for one in objects_of(resource):
            registered.take(one, each.get("id"))
            resources.append(one)
    cluster_in = _place(plans[-1]) if plans else cluster_place(update.config)
    for one in resources:
        try:
            billed = quantities(one, update.catalog, cluster_in, registered)
            most = {tariff: amount.max for tariff, amount in billed.items()}
            ledger.add(one.key, most, math.inf)
        except (UnpricedResource, NotKnown, PlanError, UnknownOffer):
            continue
    return to_the_cent(ledger.total_usd + no_longer_sold.max)


def _is_sold(tariff: Tariff, catalog: Catalog) -> bool:
    try:
        price_usd_per_month(catalog, tariff)
    except (PlanError, UnknownOffer):
        return False
    return True


def _items(plan: Mapping[str, Any]) -> tuple[CostItem, ...]:
    try:
        return items_in(plan.get("inputs", {}))
    except ValidationError:
        raise StateNotRead("the plan in its state was written by another version of Fusion") from None


def _place(plan: Mapping[str, Any]) -> Place:
    """Where the stack is deployed; its config is that of the change."""
    inputs = plan.get("inputs", {})
    return Place(str(inputs.get("cloud", "")), str(inputs.get("region", "")))


def _resource(state: Mapping[str, Any], regions: Mapping[str, str], update: Update) -> Resource:
    inputs = state.get("inputs", {})
    package = state["type"].partition(":")[0]
    of_provider = regions.get(state.get("provider", "").rpartition("::")[0])
    region = inputs.get("region") or of_provider or update.config.get(f"{package}:region", "")
    return Resource(
        type=state["type"],
        name=state["urn"].rpartition("::")[2],
        props=read(inputs),
        urn=state["urn"],
        region=region if isinstance(region, str) else "",
        parent=state.get("parent", ""),
    )


def _state(update: Update) -> State:
    """The stack's resources as its backend has them now; secrets stay encrypted."""
    pulumi = shutil.which("pulumi")
    if pulumi is None:
        raise StateNotRead("the pulumi command is not on PATH")
    is_own = update.organization in ("", DEFAULT_ORGANIZATION)
    name = update.stack if is_own else f"{update.organization}/{update.stack}"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PULUMI_OPTION_")}
    command = [pulumi, "stack", "export", "--stack", name, "--non-interactive"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=READ_WITHIN_S, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StateNotRead(str(error)) from None
    if done.returncode != 0:
        raise StateNotRead(f"`pulumi stack export` says {' '.join(done.stderr.split())}")
    deployment = json.loads(done.stdout).get("deployment") or {}
    resources: State = deployment.get("resources") or ()
    return resources
