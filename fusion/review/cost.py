"""What the stack costs by month before and after: the registered plans, and what resources add to them.

Both sides are priced from the same catalog, so that a difference is the change's and not a price list's. A resource
that the plan foresaw adds nothing; what goes beyond the plan adds its own price, as the guardrail counts it
(`planner.guardrails.cost.CostLedger`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError

from fusion.review.changes import states
from fusion.review.events import Preview, State, Step
from planner.catalog import Catalog, UnknownOffer
from planner.cost import CostItem, Quantity, Tariff, netted, price_usd_per_month, repriced
from planner.errors import PlanError
from planner.plan import Plan
from policies.objects import objects_of
from policies.plan import PLAN_TYPE
from policies.pricing import Place, Registered, UnpricedResource, cluster_place, quantities
from policies.resource import Resource, read

OUTSIDE = "outside the plan"
NOTHING = Quantity.fixed(0.0)
L = TypeVar("L", bound="Line")


@dataclass(frozen=True, slots=True)
class Line:
    """USD by month of one component or resource; None where it is not there."""

    name: str
    before: Quantity | None
    after: Quantity | None

    @property
    def difference(self) -> Quantity:
        """After less before."""
        return (self.after or NOTHING) + (self.before or NOTHING) * -1

    @property
    def is_changed(self) -> bool:
        """By a cent or more."""
        change = self.difference
        return any(abs(amount) >= 0.005 for amount in (change.min, change.expected, change.max))


@dataclass(frozen=True, slots=True)
class ResourceLine(Line):
    """Of one resource, with its type and URN."""

    type: str
    urn: str


@dataclass(frozen=True, slots=True)
class CostChange:
    """The bill of the stack before and after.

    Attributes:
        total: the whole stack.
        components: as the plan names them, and what resources add to it; the largest difference first.
        resources: those that have a price of their own.
        notes: what is not in these numbers, one sentence each.
    """

    total: Line
    components: tuple[Line, ...]
    resources: tuple[ResourceLine, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plans:
    """The deployed plan and the new one; None where there is none."""

    before: Plan | None
    after: Plan | None
    notes: tuple[str, ...] = ()


def plans(preview: Preview) -> Plans:
    """The plans that the stack had and will have."""
    notes: list[str] = []
    found: list[Plan | None] = []
    for after in (False, True):
        registered = [state for step, state in states(preview, after=after) if step.type == PLAN_TYPE]
        found.append(_plan(registered[-1], notes, "new" if after else "deployed") if registered else None)
    return Plans(found[0], found[1], tuple(notes))


def _plan(state: State, notes: list[str], which: str) -> Plan | None:
    try:
        return Plan.from_props(state.inputs)
    except ValidationError:
        notes.append(f"the {which} plan was written by another version of Fusion and can't be read")
        return None


def cost_change(preview: Preview, both: Plans, catalog: Catalog) -> CostChange | None:
    """The bill before and after; None where the file holds nothing that has a price."""
    notes = list(both.notes)
    sides = []
    for plan, after in ((both.before, False), (both.after, True)):
        billed = {step.urn: each for step, each in _billed(preview, plan, after, catalog, notes)}
        sides.append(_Side(repriced(plan.items if plan else (), catalog), billed, catalog))
    old, new = sides
    if old.total is None and new.total is None:
        return None
    if not preview.has_all:
        notes.append(
            "the file holds only what changes: what stays as it is counts neither before nor after (write it with "
            "`fusion preview`, or with --show-sames)"
        )
    total = Line("whole stack", old.total, new.total)
    names = dict.fromkeys([*old.components, *new.components])
    components = [Line(name, old.components.get(name), new.components.get(name)) for name in names]
    resources = [
        ResourceLine(step.name, old.of(step.urn), new.of(step.urn), step.type, step.urn)
        for step in preview.steps
        if step.urn in old.billed or step.urn in new.billed
    ]
    return CostChange(total, _largest_first(components), _largest_first(resources), tuple(dict.fromkeys(notes)))


@dataclass(frozen=True)
class _Side:
    """The stack at one time: what its plan allows, component by component, and what each resource is billed for."""

    planned: tuple[CostItem, ...]
    billed: Mapping[str, Mapping[Tariff, Quantity]]
    catalog: Catalog

    @property
    def components(self) -> dict[str, Quantity]:
        found: dict[str, Quantity] = {}
        for each in self.planned:
            found[each.component] = found.get(each.component, NOTHING) + each.monthly_usd
        beyond = self._beyond_the_plan()
        return found | {OUTSIDE: beyond} if beyond.max >= 0.005 else found

    @property
    def total(self) -> Quantity | None:
        components = self.components
        return _sum(components.values()) if components or self.billed else None

    def of(self, urn: str) -> Quantity | None:
        """USD by month of a resource."""
        return self._usd(self.billed[urn]) if urn in self.billed else None

    def _beyond_the_plan(self) -> Quantity:
        allowed: dict[Tariff, Quantity] = {}
        taken: dict[Tariff, Quantity] = {}
        for each in self.planned:
            allowed[each.tariff] = allowed.get(each.tariff, NOTHING) + each.quantity
        for amounts in self.billed.values():
            for tariff, amount in amounts.items():
                taken[tariff] = taken.get(tariff, NOTHING) + amount
        billed = netted(taken, NOTHING, Quantity.or_more)
        return self._usd({tariff: _excess(amount, allowed.get(tariff, NOTHING)) for tariff, amount in billed.items()})

    def _usd(self, amounts: Mapping[Tariff, Quantity]) -> Quantity:
        return _sum(amount * price_usd_per_month(self.catalog, tariff) for tariff, amount in amounts.items())


def _excess(taken: Quantity, allowed: Quantity) -> Quantity:
    """What is taken beyond the plan; a plan that foresaw the maximum foresaw what is below it."""
    most = max(0.0, taken.max - allowed.max)
    return Quantity(
        min(most, max(0.0, taken.min - allowed.min)), min(most, max(0.0, taken.expected - allowed.expected)), most
    )


def _sum(amounts: Iterable[Quantity]) -> Quantity:
    total = NOTHING
    for each in amounts:
        total = total + each
    return total


def _billed(
    preview: Preview, plan: Plan | None, after: bool, catalog: Catalog, notes: list[str]
) -> Iterator[tuple[Step, Mapping[Tariff, Quantity]]]:
    regions = _regions(preview, after)
    cluster_in = Place(plan.cloud, plan.region) if plan else cluster_place(preview.config)
    found = [
        (step, Resource(step.type, step.name, read(state.inputs), step.urn, region, state.parent))
        for step, state in states(preview, after=after)
        for region in [_region(step, state, regions, preview.config, after)]
    ]
    registered = Registered()
    for _, resource in found:
        for each in objects_of(resource):
            registered.take(each)
    for step, resource in found:
        try:
            amounts = _amounts(resource, catalog, cluster_in, registered)
            for tariff in amounts:
                price_usd_per_month(catalog, tariff)
        except (UnpricedResource, PlanError, UnknownOffer, TypeError, ValueError) as error:
            notes.append(f"{step.name} ({step.type}) is not priced: {error}")
            continue
        if amounts:
            yield step, amounts


def _amounts(
    resource: Resource, catalog: Catalog, cluster_in: Place, registered: Registered
) -> Mapping[Tariff, Quantity]:
    """What a resource is billed for at the autoscaler's minimum, as it starts, and at its maximum."""
    found: dict[Tariff, Quantity] = {}
    for each in objects_of(resource):
        for tariff, amount in quantities(each, catalog, cluster_in, registered).items():
            found[tariff] = found.get(tariff, NOTHING) + amount
    return found


def _regions(preview: Preview, after: bool) -> Mapping[str, str]:
    """By provider, the region that it is, or was, set to."""
    found = {}
    for step in preview.steps:
        state = (step.new or step.old) if after else (step.old or step.new)
        if step.type.startswith("pulumi:providers:") and state and isinstance(state.inputs.get("region"), str):
            found[step.urn] = state.inputs["region"]
    return found


def _region(step: Step, state: State, regions: Mapping[str, str], config: Mapping[str, str], after: bool) -> str:
    """The resource's own, else its provider's, else the stack's; as the guardrail takes it.

    Of what is deployed, its provider told where it is; the stack's config is that of the change.
    """
    own = state.inputs.get("region") or (None if after else state.outputs.get("region"))
    package = step.type.partition(":")[0]
    of_provider = regions.get(state.provider.rpartition("::")[0], "")
    return own if isinstance(own, str) and own else of_provider or config.get(f"{package}:region", "")


def _largest_first(lines: list[L]) -> tuple[L, ...]:
    return tuple(
        sorted(
            lines, key=lambda each: (-abs(each.difference.max), -(each.after or each.before or NOTHING).max, each.name)
        )
    )
