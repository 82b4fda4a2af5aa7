"""What a plan costs: tariffs from the catalog, items of a bill, and their sums by month.

An item is a quantity of one tariff at the autoscaler's minimum, at the expected load and at its maximum. Plans and
provisioned resources are priced in the same items, so that the two can be compared tariff by tariff.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

from planner.catalog import Catalog, UnknownOffer
from planner.errors import PlanError
from planner.workloads import PriceModel

HOURS_PER_MONTH = 730
Amount = TypeVar("Amount", float, "Quantity")


@dataclass(frozen=True, slots=True)
class Tariff:
    """One line of a cloud's price list, in one region.

    ``item`` is an instance type (``price_model`` says how it is bought) or a service of ``services.csv``
    (``price_model`` is None). A quantity counts nodes, hourly services, or the service's own unit for a month.
    """

    cloud: str
    region: str
    item: str
    price_model: PriceModel | None = None
    reservation: Literal["reserved", "used"] | None = None
    """Of nodes: capacity that is reserved, or nodes that run in such capacity and are billed with it (`netted`)."""

    def __str__(self) -> str:
        return self.item if self.price_model is None else f"{self.item} ({self.price_model.replace('_', ' ')})"


@dataclass(frozen=True, slots=True)
class Quantity:
    """How much of a tariff, at the autoscaler's minimum, the expected load and its maximum."""

    __pydantic_config__: ClassVar[Mapping[str, bool]] = {"allow_inf_nan": False}

    min: float
    expected: float
    max: float

    @classmethod
    def fixed(cls, amount: float) -> Quantity:
        """The same amount whatever the autoscaler does."""
        return cls(amount, amount, amount)

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity(self.min + other.min, self.expected + other.expected, self.max + other.max)

    def or_more(self, other: Quantity) -> Quantity:
        """The larger of both, bound by bound."""
        return Quantity(max(self.min, other.min), max(self.expected, other.expected), max(self.max, other.max))

    def __mul__(self, factor: float) -> Quantity:
        return Quantity(self.min * factor, self.expected * factor, self.max * factor)


@dataclass(frozen=True, slots=True)
class CostItem:
    """A line of the predicted bill: ``quantity`` units of ``tariff`` for ``component``."""

    component: str
    tariff: Tariff
    quantity: Quantity
    price_usd_per_month: float
    """Of one unit."""

    @property
    def monthly_usd(self) -> Quantity:
        """The line's sum by month."""
        return self.quantity * self.price_usd_per_month


def to_the_cent(amount_usd: float) -> float:
    """Half a cent goes up, as on a bill, also where the nearest float lies a hair below it."""
    return math.floor(amount_usd * 100 + 0.5 + 1e-6) / 100


def price_usd_per_month(catalog: Catalog, tariff: Tariff) -> float:
    """Price of one unit of a tariff for a month of 730 h.

    Raises:
        PlanError: the catalog has no such price.
        planner.catalog.UnknownOffer: no such instance type in that region.
    """
    if tariff.price_model is None:
        service = catalog.service_price(tariff.cloud, tariff.region, tariff.item)
        per_hour = service.unit.startswith("hour") or service.unit.endswith("hour")
        return service.price_usd * HOURS_PER_MONTH if per_hour else service.price_usd
    offer = catalog.offer(tariff.cloud, tariff.region, tariff.item)
    hourly = offer.price_usd_per_hour if tariff.price_model == "on_demand" else offer.spot_price_usd_per_hour
    if hourly is None:
        raise PlanError(
            f"{tariff.item} has no {tariff.price_model.replace('_', '-')} price in {tariff.cloud} {tariff.region}; "
            "choose another instance type or price model, or run `fusion catalog refresh`"
        )
    return hourly * HOURS_PER_MONTH


def item(catalog: Catalog, component: str, tariff: Tariff, quantity: Quantity) -> CostItem:
    """A cost item at the catalog's price; raises as `price_usd_per_month`."""
    return CostItem(component, tariff, quantity, price_usd_per_month(catalog, tariff))


def netted(
    taken: Mapping[Tariff, Amount], nothing: Amount, larger: Callable[[Amount, Amount], Amount]
) -> dict[Tariff, Amount]:
    """What is billed of what resources take: nodes in reserved capacity with that capacity, and not beside it.

    As many as are reserved; those beyond it (of another stack's reservation) as themselves.
    """
    found: dict[Tariff, Amount] = {}
    for each in dict.fromkeys(dataclasses.replace(tariff, reservation=None) for tariff in taken):
        reserved = taken.get(dataclasses.replace(each, reservation="reserved"), nothing)
        used = taken.get(dataclasses.replace(each, reservation="used"), nothing)
        found[each] = taken.get(each, nothing) + larger(reserved, used)
    return found


def repriced(items: Iterable[CostItem], catalog: Catalog) -> tuple[CostItem, ...]:
    """Items of an earlier plan at the catalog's prices; at their own where the catalog no longer has one."""
    found = []
    for each in items:
        try:
            price = price_usd_per_month(catalog, each.tariff)
        except (PlanError, UnknownOffer):
            price = each.price_usd_per_month
        found.append(CostItem(each.component, each.tariff, each.quantity, price))
    return tuple(found)


def total(items: Iterable[CostItem]) -> Quantity:
    """The sum of items in USD by month, at minimum, expected and maximum."""
    result = Quantity.fixed(0.0)
    for each in items:
        result = result + each.monthly_usd
    return result
