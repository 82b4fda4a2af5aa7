"""Guardrails of what a stack costs."""

from __future__ import annotations

from collections.abc import Iterator

from planner.catalog import UnknownOffer
from planner.errors import PlanError
from planner.guardrails.cost import CostLedger, over_the_monthly_limit, usd
from policies.guardrail import guardrail
from policies.plan import PLAN_TYPE, registered_plan
from policies.priced_resources import UnpricedResource, quantities
from policies.resource import Resource
from policies.update import Update


def _ledger(update: Update) -> CostLedger:
    return CostLedger(update.catalog)


@guardrail("monthly-cost-limit", settings=("monthly_cost_limit_usd",))
def monthly_cost_limit(resource: Resource, update: Update) -> Iterator[str]:
    """The stack costs no more a month than its limit, at the autoscaler's maximum.

    The registered plan is judged first, before any other resource; then every priced resource, of the components or
    not, by a running total.
    """
    limit_usd = update.settings.monthly_cost_limit_usd
    if limit_usd is None:
        return
    ledger = update.remembered(_ledger)
    if resource.type == PLAN_TYPE:
        plan = registered_plan(resource)
        yield from over_the_monthly_limit(plan, update.settings, update.catalog)
        ledger.allow(plan)
        return
    try:
        billed = quantities(resource, update.catalog)
        excess = ledger.add(resource.urn, billed, limit_usd) if billed else None
    except (UnpricedResource, PlanError, UnknownOffer) as error:
        yield f"{resource.name} ({resource.type}): its cost can't be known: {error}"
        return
    if excess:
        yield (
            f"{resource.name} ({resource.type}) costs up to {usd(excess.resource_usd)} a month and would take the "
            f"stack to {usd(excess.total_usd)}, {usd(excess.total_usd - limit_usd)} over the limit of "
            f"{usd(limit_usd)} (fusion:guardrails monthly_cost_limit_usd). Remove it, make it smaller, or declare it "
            "as a workload so that it is planned."
        )
