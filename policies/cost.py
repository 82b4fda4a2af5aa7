"""Guardrails of what a stack costs.

The registered plan is judged first, before any other resource; then every priced resource, of the components or not,
by a running total. Prices of resources are those of `policies.pricing`.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Iterator

from planner.catalog import UnknownOffer
from planner.cost import HOURS_PER_MONTH, price_usd_per_month
from planner.errors import PlanError
from planner.guardrails.cost import (
    WHEN,
    CostLedger,
    IncreaseLimit,
    MonthlyLimit,
    over,
    over_the_expected_limit,
    usd,
)
from planner.guardrails.unit_cost import over_the_pools_limit
from planner.plan import Plan
from policies.deployed import deployed_bill
from policies.guardrail import guardrail
from policies.plan import PLAN_TYPE, registered_plan
from policies.pricing import Place, Quantities, Registered, UnpricedResource, billing_of, cluster_place, quantities
from policies.pricing.kubernetes import CAPACITY_TYPE, INSTANCE_TYPE
from policies.resource import Resource
from policies.security.hidden import STARTS_FROM
from policies.update import Update

NODE_GROUP, NODE_POOL = "aws:eks/nodeGroup:NodeGroup", "gcp:container/nodePool:NodePool"
KARPENTER_POOL = "kubernetes:karpenter.sh/v1:NodePool"
POOL_LABEL = "fusion.dev/pool"
CLOUDS = ("aws", "aws-native", "azure", "azure-native", "gcp", "google-native", "kubernetes")


def _at_most(update: Update) -> CostLedger:
    return CostLedger(update.catalog)


def _above_the_deployed(update: Update) -> CostLedger:
    return CostLedger(update.catalog)


def _as_expected(update: Update) -> CostLedger:
    return CostLedger(update.catalog, "expected")


@guardrail("monthly-cost-limit", settings=("monthly_cost_limit_usd",))
def monthly_cost_limit(resource: Resource, update: Update) -> Iterator[str]:
    """The stack costs no more a month than its limit, at the autoscaler's maximum."""
    limit_usd = update.settings.monthly_cost_limit_usd
    if limit_usd is not None:
        yield from _at_its_most(MonthlyLimit(limit_usd), _at_most, resource, update)


@guardrail("monthly-cost-increase", settings=("monthly_cost_increase_max_percent",))
def monthly_cost_increase(resource: Resource, update: Update) -> Iterator[str]:
    """The stack costs no more percent above the deployed one, by month at the autoscaler's maximum, than are allowed.

    A stack of which nothing with a price is deployed passes.
    """
    percent = update.settings.monthly_cost_increase_max_percent
    if percent is None:
        return
    deployed = update.remembered(deployed_bill)
    if deployed.unread:
        yield from deployed.told_once()
    elif deployed.monthly_usd:
        yield from _at_its_most(IncreaseLimit(deployed.monthly_usd, percent), _above_the_deployed, resource, update)


@guardrail("expected-monthly-cost", settings=("expected_monthly_cost_limit_usd",))
def expected_monthly_cost(resource: Resource, update: Update) -> Iterator[str]:
    """The stack costs no more a month than its limit for the expected load."""
    limit_usd = update.settings.expected_monthly_cost_limit_usd
    if limit_usd is None:
        return
    ledger = update.remembered(_as_expected)
    if resource.type == PLAN_TYPE:
        plan = registered_plan(resource)
        yield from over_the_expected_limit(plan, update.settings, update.catalog)
        ledger.allow(plan.items)
        update.remembered(_planned)[:] = [plan]
    else:
        limit = MonthlyLimit(limit_usd, "expected_monthly_cost_limit_usd")
        yield from _over(resource, update, ledger, limit)


def _at_its_most(
    limit: MonthlyLimit | IncreaseLimit, ledger_of: Callable[[Update], CostLedger], resource: Resource, update: Update
) -> Iterator[str]:
    """The plan by itself, and then each resource by what the ledger has so far."""
    ledger = update.remembered(ledger_of)
    if resource.type == PLAN_TYPE:
        plan = registered_plan(resource)
        yield from over(limit, plan, update.catalog)
        ledger.allow(plan.items)
        update.remembered(_planned)[:] = [plan]
    else:
        yield from _over(resource, update, ledger, limit)


@guardrail("pool-hourly-limit", settings=("pool_hourly_limit_usd",))
def pool_hourly_limit(resource: Resource, update: Update) -> Iterator[str]:
    """No pool costs more an hour than the limit, with all its nodes.

    The pools of the plan, and whatever else is made of machines: node groups, instances, slices of TPUs.
    """
    limit_usd = update.settings.pool_hourly_limit_usd
    if limit_usd is None:
        return
    if resource.type == PLAN_TYPE:
        yield from over_the_pools_limit(registered_plan(resource), update.settings, update.catalog)
        return
    try:
        machines = {tariff: amount for tariff, amount in _billed(resource, update).items() if tariff.price_model}
        cost_usd = sum(
            amount.max * price_usd_per_month(update.catalog, tariff) / HOURS_PER_MONTH
            for tariff, amount in machines.items()
        )
    except (UnpricedResource, PlanError, UnknownOffer) as error:
        yield _unpriced(resource, error)
        return
    if round(cost_usd, 4) > limit_usd:
        yield (
            f"{resource.name} ({resource.type}) costs {usd(cost_usd)} an hour with all its machines, "
            f"{usd(cost_usd - limit_usd)} over the limit of {usd(limit_usd)} (fusion:guardrails "
            f"pool_hourly_limit_usd). {_what_fits(sum(each.max for each in machines.values()), cost_usd, limit_usd)}"
        )


def _what_fits(machines: float, cost_usd: float, limit_usd: float) -> str:
    """How many machines of such a price keep the limit of an hour."""
    fitting = math.floor(limit_usd / (cost_usd / machines) + 1e-9)
    if fitting >= 1:
        return f"{fitting} of its {machines:g} machines keep it"
    return f"Take smaller machines, or set pool_hourly_limit_usd to at least {math.ceil(cost_usd * 100) / 100:g}"


@guardrail("priced-types", settings=("unpriced_types_exempt",))
def priced_types(resource: Resource, update: Update) -> Iterator[str]:
    """Under a limit of cost, everything is of a type whose price is known, or that is free or billed by use alone.

    Whichever provider makes it. An object of Kubernetes has no price of its own, but for load balancers of Services,
    disks of claims and NodePools of Karpenter; another custom one may buy nodes too, so it must be exempted.
    """
    settings = update.settings
    if not settings.limits_the_stacks_cost:
        return
    is_made = resource.is_custom or resource.type.partition(":")[0] in CLOUDS
    if not is_made or billing_of(resource.type) != "unknown":
        return
    if not any(fnmatch.fnmatchcase(resource.type, each) for each in settings.unpriced_types_exempt):
        yield (
            f"{resource.name}: what a {resource.type} costs is not known, so no limit can count it; use another, or "
            "name the type in fusion:guardrails unpriced_types_exempt"
        )


def _planned(update: Update) -> list[Plan]:
    return []


@guardrail("spot-as-planned", PLAN_TYPE, NODE_GROUP, NODE_POOL, KARPENTER_POOL)
def spot_as_planned(resource: Resource, update: Update) -> Iterator[str]:
    """Nodes that the plan buys on spot are bought on spot."""
    plans = update.remembered(_planned)
    if resource.type == PLAN_TYPE:
        plans[:] = [registered_plan(resource)]
        return
    named, types, is_spot, to_set = _bought(resource)
    if not plans or is_spot:
        return
    pools = [each for each in plans[0].all_pools if (each.name == named if named else each.instance_type in types)]
    on_demand = {each.stands_in_for for each in plans[0].all_pools} | {
        each.name for each in plans[0].all_pools if each.price_model == "on_demand"
    }
    if pools and not any(each.name in on_demand for each in pools):
        yield (
            f"{resource.name}: pool {pools[0].name} ({', '.join(pools[0].workloads)}) is planned on spot, and this "
            f"{'node group' if resource.type == NODE_GROUP else 'node pool'} buys on demand; set {to_set}, or "
            "price_model on_demand for the workloads"
        )


def _bought(resource: Resource) -> tuple[str | None, list[str], bool, str]:
    """Of nodes: their pool's label, their instance types, whether they are on spot, and what would say so."""
    props = resource.props
    if resource.type == NODE_GROUP:
        is_spot = props.get("capacityType", default="ON_DEMAND") == "SPOT"
        types = [str(each.get()) for each in props.each("instanceTypes")]
        return props.get("labels", POOL_LABEL), types, is_spot, "capacityType SPOT"
    if resource.type == KARPENTER_POOL:
        template = props.part("spec", "template")
        asked = {
            str(each.get("key")): [str(value.get()) for value in each.each("values")]
            for each in template.each("spec", "requirements")
            if each.get("operator") == "In"
        }
        bought = set(asked.get(CAPACITY_TYPE, ["on-demand"]))
        named = template.get("metadata", "labels", POOL_LABEL)
        return named, asked.get(INSTANCE_TYPE, []), "on-demand" not in bought, f"{CAPACITY_TYPE} In [spot]"
    config = props.part("nodeConfig")
    is_spot = config.get("spot", default=False) is True or config.get("preemptible", default=False) is True
    return config.get("labels", POOL_LABEL), [str(config.get("machineType"))], is_spot, "nodeConfig.spot"


def _over(resource: Resource, update: Update, ledger: CostLedger, limit: MonthlyLimit | IncreaseLimit) -> Iterator[str]:
    """A resource that would take the running total over a limit, or whose price can't be known."""
    try:
        billed = {each: getattr(amount, ledger.bound) for each, amount in _billed(resource, update).items()}
        excess = ledger.add(resource.key, billed, limit.usd) if billed else None
    except (UnpricedResource, PlanError, UnknownOffer) as error:
        yield _unpriced(resource, error)
        return
    if excess:
        yield (
            f"{resource.name} ({resource.type}) costs up to {usd(excess.resource_usd)} a month and would take the "
            f"stack to {usd(excess.total_usd)} {WHEN[ledger.bound]}, {usd(excess.total_usd - limit.usd)} over the "
            f"{limit}. Remove it, make it smaller, declare it as a workload so that it is planned, or set "
            f"{limit.raised_to(excess.total_usd)}.{_guessed(resource, update)}"
        )


def _guessed(resource: Resource, update: Update) -> str:
    """Where a machine's launch template is one of several: how to have it priced by its own."""
    registered = update.remembered(_registered)
    named = (each for path in STARTS_FROM.get(resource.type, ()) for each in resource.props.every(*path))
    if not any(registered.is_guessed(each) for each in named):
        return ""
    return (
        " Which launch template it starts from is not known here, so the dearest that it may be counts; name it by the "
        "template's name rather than its id"
    )


def _unpriced(resource: Resource, error: Exception) -> str:
    return f"{resource.name} ({resource.type}): its cost can't be known: {error}"


def _registered(_: Update) -> Registered:
    return Registered()


def _billed(resource: Resource, update: Update) -> Quantities:
    registered = update.remembered(_registered)
    registered.take(resource)
    plans = update.remembered(_planned)
    place = Place(plans[0].cloud, plans[0].region) if plans else cluster_place(update.config)
    return quantities(resource, update.catalog, place, registered)


GUARDRAILS = [
    monthly_cost_limit,
    monthly_cost_increase,
    expected_monthly_cost,
    pool_hourly_limit,
    priced_types,
    spot_as_planned,
]
