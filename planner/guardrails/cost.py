"""What a stack may cost: the monthly limit on a plan, and the running total of what is registered."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from planner.catalog import Catalog
from planner.cost import HOURS_PER_MONTH, CostItem, Tariff, netted, price_usd_per_month, to_the_cent, total
from planner.guardrails.settings import GuardrailSettings
from planner.plan import Plan, PoolPlan

LARGEST_ITEMS_SHOWN = 4
Bound = Literal["expected", "max"]
WHEN: dict[Bound, str] = {"expected": "at the expected load", "max": "at the autoscaler's maximum"}


@dataclass(frozen=True, slots=True)
class MonthlyLimit:
    """What the whole stack may cost by month, and the setting that says so."""

    usd: float
    setting: str = "monthly_cost_limit_usd"

    def __str__(self) -> str:
        return f"limit of {usd(self.usd)} (fusion:guardrails {self.setting})"

    def raised_to(self, total_usd: float) -> str:
        """The setting that such a bill would pass."""
        return f"{self.setting} to at least {math.ceil(total_usd)}"


@dataclass(frozen=True, slots=True)
class IncreaseLimit:
    """How many percent more than the deployed stack, of more than $0, the whole stack may cost by month."""

    deployed_usd: float
    percent: float

    @property
    def usd(self) -> float:
        """USD by month, to the cent."""
        return to_the_cent(self.deployed_usd * (1 + self.percent / 100))

    def __str__(self) -> str:
        return (
            f"limit of {usd(self.usd)}, {self.percent:g} % more than the {usd(self.deployed_usd)} of the deployed "
            "stack (fusion:guardrails monthly_cost_increase_max_percent)"
        )

    def raised_to(self, total_usd: float) -> str:
        """The setting that such a bill would pass."""
        percent = math.ceil((total_usd / self.deployed_usd - 1) * 100)
        return f"monthly_cost_increase_max_percent to at least {percent}"


def over_the_monthly_limit(plan: Plan, settings: GuardrailSettings, catalog: Catalog) -> Iterator[str]:
    """The whole stack's bill at the autoscaler's maximum, to the cent."""
    if settings.monthly_cost_limit_usd is not None:
        yield from over(MonthlyLimit(settings.monthly_cost_limit_usd), plan, catalog)


def over(limit: MonthlyLimit | IncreaseLimit, plan: Plan, catalog: Catalog) -> Iterator[str]:
    """A plan's bill at the autoscaler's maximum, to the cent, against a limit; with the nearest change that fits."""
    costs_usd = monthly_cost_usd(plan, catalog, "max")
    if costs_usd > limit.usd:
        yield (
            f"the plan costs {usd(costs_usd)} a month at the autoscaler's maximum, {usd(costs_usd - limit.usd)} over "
            f"the {limit}. Largest: {largest(plan.items)}. Nearest change that fits: "
            f"{_nearest_change(plan, catalog, limit, costs_usd)}."
        )


def over_the_expected_limit(plan: Plan, settings: GuardrailSettings, catalog: Catalog) -> Iterator[str]:
    """The whole stack's bill at the expected load, to the cent."""
    limit_usd = settings.expected_monthly_cost_limit_usd
    if limit_usd is None:
        return
    costs_usd = monthly_cost_usd(plan, catalog, "expected")
    if costs_usd > limit_usd:
        yield (
            f"the plan costs {usd(costs_usd)} a month at the expected load, {usd(costs_usd - limit_usd)} over the "
            f"limit of {usd(limit_usd)} (fusion:guardrails expected_monthly_cost_limit_usd). Largest: "
            f"{largest(plan.items, 'expected')}. It would pass with a limit of {math.ceil(costs_usd)}, or with fewer "
            "nodes or replicas that are desired."
        )


def without_a_budget(plan: Plan, settings: GuardrailSettings, catalog: Catalog) -> Iterator[str]:
    """The budget that the stack's file declares; a plan that does not say is judged by its resources alone."""
    if settings.budget_required and plan.platform.budget_alarms == 0:
        yield "the stack declares no budget; name whom it tells under fusion:budget_alarms emails"


def monthly_cost_usd(plan: Plan, catalog: Catalog, bound: Bound) -> float:
    """USD by month, priced anew from the catalog, to the cent."""
    amounts = ((getattr(each.quantity, bound), each.tariff) for each in plan.items)
    total_usd: float = sum(amount * price_usd_per_month(catalog, tariff) for amount, tariff in amounts)
    return to_the_cent(total_usd)


def largest(items: Iterable[CostItem], bound: Bound = "max") -> str:
    """The dearest components of a bill, in words."""
    by_component: dict[str, float] = {}
    for each in items:
        by_component[each.component] = by_component.get(each.component, 0.0) + getattr(each.monthly_usd, bound)
    ranked = sorted(by_component.items(), key=lambda pair: -pair[1])[:LARGEST_ITEMS_SHOWN]
    return ", ".join(f"{component} {usd(amount)}" for component, amount in ranked)


def usd(amount: float) -> str:
    """An amount as people write it: $1,234.50."""
    return f"${to_the_cent(amount):,.2f}"


@dataclass(frozen=True, slots=True)
class _Change:
    """A change of one pool, how much of the pool it takes away, and what it saves by month."""

    sentence: str
    share_lost: float
    saved_usd: float


def _nearest_change(plan: Plan, catalog: Catalog, limit: MonthlyLimit | IncreaseLimit, costs_usd: float) -> str:
    """The change that gives up least: a pool on spot, else the fewest nodes of one pool, else a higher limit."""
    over_usd = costs_usd - limit.usd
    pools = [(part, pool) for part in plan.parts for pool in part.pools]
    changes = [change for part, pool in pools for change in _changes(part, pool, catalog, over_usd)]
    if changes:
        best = min(changes, key=lambda change: (change.share_lost, change.saved_usd))
        return f"{best.sentence} (then {usd(costs_usd - best.saved_usd)})"
    return f"set {limit.raised_to(costs_usd)}, or remove a workload"


def _changes(plan: Plan, pool: PoolPlan, catalog: Catalog, over_usd: float) -> Iterator[_Change]:
    own = [each for each in plan.items if each.component == f"pool {pool.name}"]
    per_node_usd = total(own).max / pool.nodes_max if pool.nodes_max else 0.0
    fewest = math.ceil(over_usd / per_node_usd - 1e-9) if per_node_usd else 0
    if 0 < fewest <= pool.nodes_max - max(pool.nodes_min, 1):
        left = pool.nodes_max - fewest
        yield _Change(
            f"lower the maximum of pool {pool.name} ({', '.join(pool.workloads)}) from {pool.nodes_max} to {left} "
            f"node{'s' if left > 1 else ''}",
            fewest / pool.nodes_max,
            fewest * per_node_usd,
        )
    spot_saving_usd = _spot_saving_usd(plan, pool, catalog)
    if spot_saving_usd >= over_usd:
        yield _Change(f"price_model spot for {', '.join(pool.workloads)}", 0.5, spot_saving_usd)


def _spot_saving_usd(plan: Plan, pool: PoolPlan, catalog: Catalog) -> float:
    """USD saved by month at the maximum when the pool is bought on spot; 0 where it can't be."""
    if pool.price_model == "spot":
        return 0.0
    spot = catalog.offer(plan.cloud, plan.region, pool.instance_type).spot_price_usd_per_hour
    if spot is None:
        return 0.0
    return (pool.price_usd_per_hour - spot) * HOURS_PER_MONTH * pool.nodes_max


@dataclass(frozen=True, slots=True)
class Excess:
    """A resource that would take the stack over its monthly limit."""

    resource_usd: float
    total_usd: float


@dataclass(slots=True)
class CostLedger:
    """The running total of a stack: what the plan allows, and what resources have taken of each tariff so far.

    A resource that the plan foresaw takes from the plan's allowance and adds nothing; what goes beyond it adds its own
    price, whatever the resource is called and whoever made it. So the total never falls below the plan's, nor below
    the sum of what was registered.
    """

    catalog: Catalog
    bound: Bound = "max"
    """Which of a plan's amounts it allows."""
    allowed: dict[Tariff, float] = field(default_factory=dict)
    taken: dict[Tariff, float] = field(default_factory=dict)
    counted: dict[str, Mapping[Tariff, float]] = field(default_factory=dict)

    def allow(self, items: Iterable[CostItem]) -> None:
        """Take a registered plan's allowance in place of any earlier one."""
        self.allowed.clear()
        for each in items:
            self.allowed[each.tariff] = self.allowed.get(each.tariff, 0.0) + getattr(each.quantity, self.bound)

    @property
    def total_usd(self) -> float:
        """USD by month, plan and resources joined."""
        taken = netted(self.taken, 0.0, max)
        return sum(
            max(self.allowed.get(each, 0.0), taken.get(each, 0.0)) * price_usd_per_month(self.catalog, each)
            for each in self.allowed.keys() | taken.keys()
        )

    def add(self, urn: str, quantities: Mapping[Tariff, float], limit_usd: float) -> Excess | None:
        """Take a resource in; if it passes the limit it is left out again and its excess is returned.

        A resource registered again (same URN: an update, a replacement) counts once.

        Raises:
            PlanError, planner.catalog.UnknownOffer: a tariff is not in the catalog; nothing of it was taken.
        """
        resource_usd = sum(amount * price_usd_per_month(self.catalog, each) for each, amount in quantities.items())
        before_usd = self.total_usd
        previous = self.counted.get(urn, {})
        self._take(previous, -1)
        self._take(quantities, 1)
        after_usd = self.total_usd
        if to_the_cent(after_usd) > limit_usd and after_usd > before_usd:
            self._take(quantities, -1)
            self._take(previous, 1)
            return Excess(resource_usd, after_usd)
        self.counted[urn] = quantities
        return None

    def _take(self, quantities: Mapping[Tariff, float], sign: int) -> None:
        for tariff, amount in quantities.items():
            self.taken[tariff] = self.taken.get(tariff, 0.0) + sign * amount
