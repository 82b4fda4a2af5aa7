"""Azure's prices, from the Retail Prices API (no account needed).

The API names sizes and prices and knows no shapes: vCPUs, memory and accelerators are those of the catalog's rows, so a
size that the catalog does not have yet is not found here.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from planner.catalog.model import Offer
from planner.catalog.refresh.base import CloudPrices, JsonClient, RefreshError, price

ENDPOINT = "https://prices.azure.com"
ENDPOINT_VARIABLE = "FUSION_AZURE_PRICES_ENDPOINT"
PATH = "/api/retail/prices"
API_VERSION = "2023-01-01-preview"
MAX_PAGES = 1000
SOURCE = "Azure Retail Prices API"


def fetch(old: Sequence[Offer], *, regions: Sequence[str], today: datetime.date) -> CloudPrices:
    """Linux prices, on demand and spot, of every size in the old offers.

    ``regions`` limits the answer to those; empty is every region that sells the size.

    Raises:
        RefreshError: the API can't be read.
    """
    client = JsonClient(os.environ.get(ENDPOINT_VARIABLE, ENDPOINT))
    shapes = {offer.instance_type: offer for offer in old}
    offers: list[Offer] = []
    for size, shape in sorted(shapes.items()):
        found = _by_region(_items(client, size), size)
        kept = {region: prices for region, prices in found.items() if not regions or region in regions}
        offers += [_offer(shape, region, prices, today) for region, prices in kept.items()]
    asked = {(offer.region, offer.instance_type) for offer in old if not regions or offer.region in regions}
    if not offers and asked:
        raise RefreshError("the Retail Prices API knows none of the catalog's sizes; its format may have changed")
    return CloudPrices(tuple(offers), frozenset(asked))


def _items(client: JsonClient, size: str) -> Iterator[Mapping[str, Any]]:
    query = {
        "api-version": API_VERSION,
        "$filter": f"serviceName eq 'Virtual Machines' and priceType eq 'Consumption' and armSkuName eq '{size}'",
    }
    page = client.get(PATH, query)
    for _ in range(MAX_PAGES):
        items = page.get("Items")
        if not isinstance(items, list):
            raise RefreshError("the Retail Prices API answered without Items; its format may have changed")
        yield from items
        link = page.get("NextPageLink")
        if not link:
            return
        page = client.follow(link)
    raise RefreshError(f"the Retail Prices API has more than {MAX_PAGES} pages of {size}")


def _by_region(items: Iterator[Mapping[str, Any]], size: str) -> dict[str, dict[str, float]]:
    """Region → {"on_demand": USD by hour, "spot": USD by hour} of a size's Linux meters."""
    found: dict[str, dict[str, float]] = {}
    for item in items:
        meter, product = str(item.get("skuName", "")), str(item.get("productName", ""))
        usable = (
            item.get("armSkuName") == size
            and item.get("type") == "Consumption"
            and item.get("unitOfMeasure") == "1 Hour"
            and item.get("currencyCode") == "USD"
            and not product.endswith("Windows")
            and "Low Priority" not in meter
            and "Cloud Services" not in product
        )
        usd = item.get("retailPrice")
        if usable and isinstance(usd, int | float) and usd > 0:
            model = "spot" if meter.endswith("Spot") else "on_demand"
            found.setdefault(str(item["armRegionName"]), {})[model] = float(usd)
    return found


def _offer(shape: Offer, region: str, prices: Mapping[str, float], today: datetime.date) -> Offer:
    usd, spot_usd = price(prices.get("on_demand"), prices.get("spot"))
    return dataclasses.replace(
        shape,
        region=region,
        price_usd_per_hour=usd,
        spot_price_usd_per_hour=spot_usd,
        price_source=SOURCE if usd else "",
        price_as_of=today.isoformat() if usd else "",
        spot_source=SOURCE if spot_usd else "",
        spot_as_of=today.isoformat() if spot_usd else "",
        note=shape.note,
    )
