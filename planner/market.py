"""Everything that is sold, as numpy columns: an offer is a row for each way of buying it.

Spot: while its node is away, either nothing runs, or, with `spot_fallback`, it is bought on demand: the expected price
is then (1 - f)·spot + f·on demand, f = λh/(1 + λh), with h = `AWAY_HOURS` (an assumption: no cloud publishes how long
spot stays away) and λ of the interruption rate.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from planner.catalog import Catalog, Offer
from planner.machines import Machine, chips_of, machine_of
from planner.quotas import is_in, is_of
from planner.workloads import PriceModel, Quota

Buying = Literal["on_demand", "spot", "spot_fallback"]
BUYINGS: tuple[Buying, ...] = ("on_demand", "spot", "spot_fallback")
MONTHLY_RECLAIM: Mapping[str | None, float] = {"<5%": 0.05, "5-10%": 0.1, "10-15%": 0.15, "15-20%": 0.2, ">20%": 0.3}
"""The upper end of each bucket of AWS Spot Advisor; beyond 20 % it states none, and 30 % is taken."""
UNKNOWN_RECLAIM = 0.3
"""Where a cloud publishes no rate, the worst is taken."""
AWAY_HOURS = 1.0

Column = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Value = TypeVar("Value")
Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Where:
    """Which rows may be taken; None is any."""

    places: frozenset[tuple[str, str]] | None = None
    """(cloud, region)."""
    accelerators: frozenset[str] | None = None
    """Empty: CPUs only."""
    counts: frozenset[int] | None = None
    """Accelerators of one node; None is any whole number, or part of one."""
    min_count: float = 0.0
    min_accelerator_memory_gib: float = 0.0
    instance_types: frozenset[str] | None = None
    buyings: tuple[Buying, ...] = ("on_demand",)
    min_vcpus: float = 0.0
    min_memory_gib: float = 0.0
    architecture: str | None = None
    not_built: Collection[str] = ()
    """Instance types that can't be provisioned."""
    predicted: bool = True
    """Only rows of which something can be predicted."""


class Market:
    """The rows of a catalog, or of some of its places: row `buying · offers + offer`."""

    def __init__(self, catalog: Catalog, places: Collection[tuple[str, str]] | None = None) -> None:
        self.chips = chips_of(catalog.accelerators)
        self.offers = catalog.offers if places is None else catalog.offers_of(places)
        offers = self.offers
        on_demand = _numbers(offers, "price_usd_per_hour", math.inf)
        spot = _numbers(offers, "spot_price_usd_per_hour", math.inf)
        self.buckets, bucket = _numbered(offers, "spot_interruption_bucket")
        rates = np.array([interruptions_per_hour(each) for each in self.buckets] or [0.0])
        rate = rates[bucket] if offers else np.zeros(0)
        away = rate * AWAY_HOURS / (1 + rate * AWAY_HOURS)
        # inf - inf would be nan where a price is missing: such an offer is not sold on spot with a fallback
        with np.errstate(invalid="ignore"):
            blended = (1 - away) * spot + away * on_demand
        self.price: Column = np.concatenate([on_demand, spot, np.where(np.isfinite(blended), blended, np.inf)])
        self.places, self.place = _numbered(offers, "cloud", "region")
        self.types, self.type = _numbered(offers, "cloud", "instance_type")
        names, self.name = _numbered(offers, "accelerator")
        self.names = [name or "" for name in names]
        self.architectures, self.architecture = _numbered(offers, "architecture")
        self.count = _numbers(offers, "accelerator_count", 0.0)
        of_chip = np.array([_memory_gib(name, catalog) for name in names] or [0.0])
        self.accelerator_memory_gib = _numbers(offers, "accelerator_memory_gib", math.nan)
        missing = np.isnan(self.accelerator_memory_gib)
        self.accelerator_memory_gib[missing] = of_chip[self.name[missing]]
        self.vcpus = _numbers(offers, "vcpus", 0.0)
        self.memory_gib = _numbers(offers, "memory_gib", 0.0)
        templates, template = self._templates()
        known = np.array([each is not None for each in templates], dtype=np.bool_)
        self._known: Mask = known[template] if offers else np.zeros(0, dtype=np.bool_)
        self.machines, self.machine = self._machines(templates, template, bucket, rates)

    def _templates(self) -> tuple[list[Machine | None], Index]:
        """The machines of all offers on demand, and the number of each offer's: alike offers are looked at once."""
        alike, number = _numbered(self.offers, "cloud", "instance_type", "accelerator", "accelerator_count")
        _, first = np.unique(number, return_index=True)
        templates, of_alike = _distinct([machine_of(self.offers[at], self.chips) for at in first])
        return templates, of_alike[number] if alike else number

    def _machines(
        self, templates: list[Machine | None], template: Index, bucket: Index, rates: Column
    ) -> tuple[list[Machine | None], Index]:
        """A machine for each template, bucket and way of buying, and the number of each row's."""
        machines: list[Machine | None] = []
        kinds = len(self.buckets)
        for buying in BUYINGS:
            for each in templates:
                for rate in rates if kinds else []:
                    if each is None or buying == "on_demand":
                        machines.append(each)
                        continue
                    away = AWAY_HOURS if buying == "spot" else 0.0
                    machines.append(replace(each, interruptions_per_node_hour=float(rate), away_hours=away))
        one = template * kinds + bucket
        by_buying = [one + number * len(templates) * kinds for number in range(len(BUYINGS))]
        # on demand, buckets don't matter: one machine for all of them, so that only its cheapest offer is looked at
        by_buying[0] = template * kinds
        return machines, np.concatenate(by_buying)

    def offer(self, row: int) -> Offer:
        """The offer of a row."""
        return self.offers[row % len(self.offers)]

    def buying(self, row: int) -> Buying:
        """How a row buys its offer."""
        return BUYINGS[row // len(self.offers)]

    @functools.cached_property
    def size(self) -> Index:
        """Tells apart the rows whose nodes have other accelerators, vCPUs or memory."""
        return self.of_rows(_numbered(self.offers, "accelerator_count", "vcpus", "memory_gib")[1])

    def of_rows(self, column: npt.NDArray[Number]) -> npt.NDArray[Number]:
        """A column of offers as one of rows."""
        return np.tile(column, len(BUYINGS))

    def rows(self, where: Where) -> Index:
        """The rows that may be taken."""
        if not self.offers:
            return np.zeros(0, dtype=np.int64)
        allowed = (self.vcpus >= where.min_vcpus) & (self.memory_gib >= where.min_memory_gib)
        allowed &= (self.count >= where.min_count) & (self.accelerator_memory_gib >= where.min_accelerator_memory_gib)
        if where.predicted:
            allowed &= self._known
        if where.places is not None:
            allowed &= _chosen(self.places, self.place, lambda place: place in (where.places or ()))
        if where.accelerators is not None:
            wanted = where.accelerators or {""}
            allowed &= _chosen(self.names, self.name, lambda name: name in wanted)
        if where.counts is not None:
            allowed &= np.isin(self.count, list(where.counts))
        if where.architecture is not None:
            allowed &= _chosen(self.architectures, self.architecture, lambda name: name == where.architecture)
        if where.instance_types is not None:
            allowed &= _chosen(self.types, self.type, lambda each: each[1] in (where.instance_types or ()))
        if where.not_built:
            allowed &= _chosen(self.types, self.type, lambda each: each[1] not in where.not_built)
        offers = np.flatnonzero(allowed)
        rows = np.concatenate([offers + BUYINGS.index(each) * len(self.offers) for each in where.buyings])
        return np.asarray(rows[np.isfinite(self.price[rows])], dtype=np.int64)

    def use(self, quota: Quota) -> Column:
        """What a node of each row takes of a quota; of spot with a fallback, of the quotas of both price models."""
        matches = _chosen(self.places, self.place, lambda place: is_in(quota, *place))
        matches &= _chosen(self.types, self.type, lambda each: is_of(quota, each[1]))
        if quota.accelerator is not None:
            matches &= _chosen(self.names, self.name, lambda name: name == quota.accelerator)
        unit = (
            self.vcpus
            if quota.vcpus is not None
            else self.count
            if quota.accelerators is not None
            else np.ones(len(self.offers))
        )
        each = np.where(matches, unit, 0.0)
        models = [price_models(buying) for buying in BUYINGS]
        counted = [any(quota.price_model in (None, model) for model in every) for every in models]
        return np.concatenate([each * one for one in counted])


def price_models(buying: Buying) -> tuple[PriceModel, ...]:
    """What a way of buying may be billed as."""
    return ("spot", "on_demand") if buying == "spot_fallback" else (buying,)


def interruptions_per_hour(bucket: str | None) -> float:
    """λ of a Poisson process that takes a node within a month (730 h) with the bucket's probability."""
    return -math.log1p(-MONTHLY_RECLAIM.get(bucket, UNKNOWN_RECLAIM)) / 730


def _memory_gib(name: str | None, catalog: Catalog) -> float:
    accelerator = None if name is None else catalog.accelerators.get(name)
    return (accelerator.memory_gib if accelerator else None) or 0.0


def _chosen(values: list[Value], column: Index, test: Callable[[Value], bool]) -> Mask:
    return np.asarray(np.array([test(value) for value in values], dtype=np.bool_)[column])


def _numbers(offers: Sequence[Offer], field: str, missing: float) -> Column:
    """A field of every offer; `missing` where it is None."""
    column = np.array(list(map(attrgetter(field), offers)), dtype=np.float64)
    column[np.isnan(column)] = missing
    return column


def _numbered(offers: Sequence[Offer], *fields: str) -> tuple[list[Any], Index]:
    """The values of a field, or of several together, each once, and the number of each offer's."""
    return _distinct(list(map(attrgetter(*fields), offers)))


def _distinct(values: Sequence[Value]) -> tuple[list[Value], Index]:
    each = list(dict.fromkeys(values))
    number = dict(zip(each, range(len(each)), strict=True))
    return each, np.fromiter(map(number.__getitem__, values), dtype=np.int64, count=len(values))
