"""The catalog: offers found through an index, made into objects only where they are looked at.

Rows stay as the file's text, grouped by cloud and region, until a look-up needs them: a plan looks at one region or one
accelerator, and most rows of the file are never converted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Literal

from planner.catalog.model import Accelerator, Offer, ServicePrice, TpuTopology, UnknownOffer, UnknownService

PriceModel = Literal["on_demand", "spot"]
Place = tuple[str, str]
Row = Sequence[str]


class Catalog:
    """Everything that can be bought and what it costs; immutable, shared by whoever plans.

    Look-ups by cloud, region, instance type and accelerator go through indexes; the others test each offer left.
    """

    def __init__(
        self,
        offers: Iterable[Offer],
        accelerators: Mapping[str, Accelerator],
        services: Iterable[ServicePrice] = (),
        topologies: Iterable[TpuTopology] = (),
    ) -> None:
        self.accelerators: Mapping[str, Accelerator] = accelerators
        self.services: Mapping[tuple[str, str, str], ServicePrice] = {
            (price.cloud, price.region, price.service): price for price in services
        }
        self._topologies = topologies
        self._rows: dict[Place, list[Row]] = {}
        self._make: Callable[[Row], Offer] | None = None
        self._made: dict[Place, tuple[Offer, ...]] = _grouped(offers)

    @classmethod
    def of_rows(
        cls,
        rows: Iterable[Row],
        make: Callable[[Row], Offer],
        accelerators: Mapping[str, Accelerator],
        services: Iterable[ServicePrice],
        topologies: Iterable[TpuTopology],
    ) -> Catalog:
        """A catalog over rows of text, which ``make`` converts when they are first looked at."""
        catalog = cls((), accelerators, services, topologies)
        catalog._make = make
        waiting = catalog._rows
        for row in rows:
            place = (row[0], row[1])
            if place in waiting:
                waiting[place].append(row)
            else:
                waiting[place] = [row]
        return catalog

    @property
    def places(self) -> tuple[Place, ...]:
        """Every (cloud, region) with an offer, in the file's order."""
        return tuple(self._rows) or tuple(self._made)

    @functools.cached_property
    def offers(self) -> tuple[Offer, ...]:
        """Every offer, in the file's order."""
        return self.offers_of(self.places)

    def offers_of(self, places: Collection[Place]) -> tuple[Offer, ...]:
        """The offers of some places, in the file's order; no others are made into objects."""
        return tuple(offer for place in self.places if place in places for offer in self._at(place))

    @functools.cached_property
    def tpu_topologies(self) -> tuple[TpuTopology, ...]:
        """Every slice that GKE can make, smallest first by generation."""
        return tuple(self._topologies)

    def find(
        self,
        *,
        cloud: str | None = None,
        region: str | None = None,
        instance_type: str | None = None,
        accelerator: str | None = None,
        min_accelerators: float | None = None,
        min_accelerator_memory_gib: float | None = None,
        min_vcpus: float | None = None,
        min_memory_gib: float | None = None,
        architecture: str | None = None,
        price_model: PriceModel | None = None,
        max_price_usd_per_hour: float | None = None,
    ) -> tuple[Offer, ...]:
        """The offers that pass every given filter, in the file's order.

        ``price_model`` keeps the offers that have such a price; ``max_price_usd_per_hour`` is of that price, or of the
        on-demand price where no ``price_model`` is given.
        """
        found = self._indexed(cloud, region, instance_type, accelerator)
        for field, least in (
            ("accelerator_count", min_accelerators),
            ("accelerator_memory_gib", min_accelerator_memory_gib),
            ("vcpus", min_vcpus),
            ("memory_gib", min_memory_gib),
        ):
            if least is not None:
                found = [offer for offer in found if (getattr(offer, field) or 0.0) >= least]
        if architecture is not None:
            found = [offer for offer in found if offer.architecture == architecture]
        return tuple(_priced(found, price_model, max_price_usd_per_hour))

    def offer(self, cloud: str, region: str, instance_type: str) -> Offer:
        """The offer of an instance type in a region.

        Raises:
            UnknownOffer: there is none; names the nearest instance types, regions or clouds.
        """
        try:
            return self._by_type(cloud, region)[instance_type]
        except KeyError:
            raise UnknownOffer(self._no_offer(cloud, region, instance_type)) from None

    def service_price(self, cloud: str, region: str, service: str) -> ServicePrice:
        """The price of a service in a region, or the one that stands in for regions without a price of their own.

        Raises:
            UnknownService: the catalog has no such price; names the nearest services.
        """
        found = self.services.get((cloud, region, service)) or self.services.get((cloud, "*", service))
        if found is None:
            known = sorted({price.service for price in self.services.values() if price.cloud == cloud})
            raise UnknownService(
                f"the catalog has no price of the service {service} in {cloud} {region}{near(service, known)}"
            )
        return found

    def topologies(self, accelerator: str, chips: float | None = None) -> tuple[TpuTopology, ...]:
        """The slices that a TPU generation can be had in, or those of that many chips; smallest first."""
        return tuple(
            each for each in self.tpu_topologies if each.accelerator == accelerator and chips in (None, each.chips)
        )

    def _at(self, place: Place) -> tuple[Offer, ...]:
        made = self._made.get(place)
        if made is None:
            rows = self._rows.get(place)
            if rows is None or self._make is None:
                return ()
            made = self._made[place] = tuple(map(self._make, rows))
        return made

    def _indexed(
        self, cloud: str | None, region: str | None, instance_type: str | None, accelerator: str | None
    ) -> Sequence[Offer]:
        if cloud is not None and region is not None:
            found: Sequence[Offer] = self._at((cloud, region))
            found = found if accelerator is None else [offer for offer in found if offer.accelerator == accelerator]
        elif accelerator is not None:
            found = self._by_accelerator.get(accelerator, ())
        else:
            found = [
                offer
                for place in self.places
                if cloud in (None, place[0]) and region in (None, place[1])
                for offer in self._at(place)
            ]
        if accelerator is not None and (cloud is None) != (region is None):
            found = [offer for offer in found if cloud in (None, offer.cloud) and region in (None, offer.region)]
        if instance_type is not None:
            found = [offer for offer in found if offer.instance_type == instance_type]
        return found

    @functools.cached_property
    def _by_accelerator(self) -> Mapping[str, Sequence[Offer]]:
        index: dict[str, list[Offer]] = {}
        for offer in self.offers:
            if offer.accelerator is not None:
                index.setdefault(offer.accelerator, []).append(offer)
        return index

    @functools.cached_property
    def _types(self) -> dict[Place, dict[str, Offer]]:
        return {}

    def _by_type(self, cloud: str, region: str) -> dict[str, Offer]:
        place = (cloud, region)
        if place not in self._types:
            self._types[place] = {offer.instance_type: offer for offer in self._at(place)}
        return self._types[place]

    def _no_offer(self, cloud: str, region: str, instance_type: str) -> str:
        clouds = sorted({place[0] for place in self.places})
        if cloud not in clouds:
            return f"the catalog has no cloud {cloud}; it has {', '.join(clouds)}"
        regions = [place[1] for place in self.places if place[0] == cloud]
        if region not in regions:
            return f"the catalog has no offer in {cloud} {region}{near(region, regions)}"
        here = list(self._by_type(cloud, region))
        elsewhere = sorted(o.region for o in self.find(cloud=cloud, instance_type=instance_type))
        if elsewhere:
            where = ", ".join(elsewhere[:4]) + (" and others" if len(elsewhere) > 4 else "")
            return f"the catalog has no {instance_type} in {cloud} {region}; it is offered in {where}"
        return f"the catalog has no {instance_type} in {cloud} {region}{near(instance_type, here)}"


def _grouped(offers: Iterable[Offer]) -> dict[Place, tuple[Offer, ...]]:
    groups: dict[Place, list[Offer]] = {}
    for offer in offers:
        groups.setdefault((offer.cloud, offer.region), []).append(offer)
    return {place: tuple(group) for place, group in groups.items()}


def _priced(offers: Sequence[Offer], price_model: PriceModel | None, max_usd: float | None) -> Iterable[Offer]:
    if price_model == "spot":
        limit = float("inf") if max_usd is None else max_usd
        return [o for o in offers if (price := o.spot_price_usd_per_hour) is not None and price <= limit]
    if price_model == "on_demand" or max_usd is not None:
        limit = float("inf") if max_usd is None else max_usd
        return [o for o in offers if (price := o.price_usd_per_hour) is not None and price <= limit]
    return offers


def near(name: str, known: Sequence[str]) -> str:
    """The nearest known names as the end of a sentence."""
    import difflib  # 4 ms to import, and only errors need it

    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"; nearest: {', '.join(near)}" if near else f"; known: {', '.join(sorted(known)[:8])}" if known else ""
