"""What the deployed stack costs by month: its state, read with the CLI that runs the update, at the catalog's prices.

The engine tells a pack what will be and not what is, and a program can't hand it over as an input: that would differ
from one preview to the next, and a stack without changes would have one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
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
from policies.pricing import Place, Quantities, Registered, UnpricedResource, cluster_place, machines, quantities
from policies.resource import NotKnown, Resource, read
from policies.state import State, StateNotRead
from policies.update import Update


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
        return DeployedBill(monthly_usd(update, update.state))
    except StateNotRead as error:
        return DeployedBill(unread=str(error))


def monthly_usd(update: Update, state: State) -> float:
    """What the resources of a state cost by month at the autoscaler's maximum, as the guardrails count new ones.

    One whose price can't be known counts nothing, so that the limit errs towards the stricter side.
    """
    ledger = CostLedger(update.catalog)
    standing = [each for each in state if not each.get("delete")]
    plans = [each for each in standing if each["type"] == PLAN_TYPE]
    planned = [item for each in plans for item in _items(each)]
    ledger.allow(each for each in planned if _is_sold(each.tariff, update.catalog))
    no_longer_sold = total(each for each in planned if not _is_sold(each.tariff, update.catalog))
    for one, billed in billed_in(update, state):
        ledger.add(one.key, {tariff: amount.max for tariff, amount in billed.items()}, math.inf)
    return to_the_cent(ledger.total_usd + no_longer_sold.max)


def billed_in(update: Update, state: State) -> Iterator[tuple[Resource, Quantities]]:
    """The resources of a state that have a price, and what each is billed for."""
    standing = [each for each in state if not each.get("delete")]
    regions = {each["urn"]: region for each in standing if (region := each.get("inputs", {}).get("region"))}
    plans = [each for each in standing if each["type"] == PLAN_TYPE]
    resources: list[Resource] = []
    registered = Registered()
    for each in standing:
        for one in objects_of(_resource(each, regions, update)):
            registered.take(one, each.get("id"))
            resources.append(one)
    cluster_in = _place(plans[-1]) if plans else cluster_place(update.config)
    for one in resources:
        try:
            billed = quantities(one, update.catalog, cluster_in, registered)
            machines.monthly_usd(update.catalog, billed)  # each of its tariffs has a price
        except (UnpricedResource, NotKnown, PlanError, UnknownOffer):
            continue
        yield one, billed


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
