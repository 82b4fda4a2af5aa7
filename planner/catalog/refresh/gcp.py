"""Google Cloud's prices, from the Cloud Billing Catalog API.

The catalog prices parts: a core, a GiB of memory, a GPU, a TPU chip, a GiB of local SSD, each by region. An instance
type costs the sum of its parts, so that every price here includes the host. Which parts a type has is in
``gcp_skus.csv``; rows of types that it does not have are left as they are.
"""

from __future__ import annotations

import csv
import dataclasses
import datetime
import functools
import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import urllib3

from planner.catalog.model import Offer
from planner.catalog.reading import SHIPPED
from planner.catalog.refresh.base import CloudPrices, JsonClient, RefreshError, price

ENDPOINT = "https://cloudbilling.googleapis.com"
ENDPOINT_VARIABLE = "FUSION_GCP_BILLING_ENDPOINT"
KEY_VARIABLE = "FUSION_GCP_API_KEY"
SCOPE = "https://www.googleapis.com/auth/cloud-billing.readonly"
COMPUTE_ENGINE = "6F81-5844-456A"
LOCAL_SSD_SKU = "SSD backed Local Storage"
HOURS_PER_MONTH = 730
MAX_PAGES = 1000
SOURCE = "Google Cloud Billing Catalog API"

Usage = Literal["OnDemand", "Preemptible"]
Part = tuple[str, Usage, str]
"""(the SKU's description without its place, usage type, region)"""


@dataclasses.dataclass(frozen=True, slots=True)
class Machine:
    """A row of ``gcp_skus.csv``: the parts of the instance types whose names begin alike."""

    instance_types: str
    accelerator: str
    core_sku: str
    ram_sku: str
    accelerator_sku: str
    local_ssd_gib_per_accelerator: str
    source: str


def fetch(old: Sequence[Offer], *, regions: Sequence[str], today: datetime.date) -> CloudPrices:
    """Prices, on demand and spot, of the old offers' instance types in every region that sells all their parts.

    Raises:
        RefreshError: no credentials, or the API can't be read.
    """
    parts = _parts(JsonClient(os.environ.get(ENDPOINT_VARIABLE, ENDPOINT)))
    sold_in = sorted({region for _, _, region in parts if not regions or region in regions})
    offers: list[Offer] = []
    asked: set[tuple[str, str]] = set()
    unknown: set[str] = set()
    for instance_type, shape in sorted({offer.instance_type: offer for offer in old}.items()):
        machine = machine_of(shape)
        if machine is None:
            unknown.add(instance_type)
            continue
        asked |= {(o.region, instance_type) for o in old if o.instance_type == instance_type}
        offers += [offer for region in sold_in if (offer := _offer(shape, machine, region, parts, today))]
    if not offers:
        raise RefreshError(
            "the Billing Catalog has none of the parts in gcp_skus.csv; its descriptions may have changed"
        )
    note = (
        f"{len(unknown)} instance types are not in gcp_skus.csv and keep their prices: {', '.join(sorted(unknown))}",
    )
    kept = frozenset(key for key in asked if not regions or key[0] in regions)
    return CloudPrices(tuple(offers), kept, note if unknown else ())


@functools.cache
def machines() -> tuple[Machine, ...]:
    """The rows of ``gcp_skus.csv``."""
    with (SHIPPED / "gcp_skus.csv").open(encoding="utf-8", newline="") as file:
        return tuple(Machine(**row) for row in csv.DictReader(file))


def machine_of(offer: Offer) -> Machine | None:
    """The row for an offer, or None."""
    for machine in machines():
        if offer.instance_type.startswith(machine.instance_types) and (offer.accelerator or "") == machine.accelerator:
            return machine
    return None


def _parts(client: JsonClient) -> dict[Part, float]:
    """USD by hour and unit of every part."""
    key = os.environ.get(KEY_VARIABLE)
    headers = {"X-Goog-Api-Key": key} if key else {"Authorization": f"Bearer {_token()}"}
    parts: dict[Part, float] = {}
    token = ""
    for _ in range(MAX_PAGES):
        query = {"pageSize": "5000", "currencyCode": "USD"} | ({"pageToken": token} if token else {})
        page = client.get(f"/v1/services/{COMPUTE_ENGINE}/skus", query, headers)
        skus = page.get("skus")
        if not isinstance(skus, list):
            raise RefreshError("the Billing Catalog answered without skus; its format may have changed")
        for sku in skus:
            parts.update(_priced(sku))
        token = str(page.get("nextPageToken") or "")
        if not token:
            return parts
    raise RefreshError(f"the Billing Catalog has more than {MAX_PAGES} pages")


def _token() -> str:
    """An access token of the caller's own Google credentials, where google-auth is installed."""
    try:
        auth = importlib.import_module("google.auth")
        requests = importlib.import_module("google.auth.transport.urllib3")
        credentials, _ = auth.default(scopes=[SCOPE])
        credentials.refresh(requests.Request(urllib3.PoolManager()))
    except Exception as error:  # google-auth raises its own kinds, and may be absent: each means no credentials
        raise RefreshError(
            f"no Google credentials ({type(error).__name__}); set {KEY_VARIABLE} to a key for the Cloud Billing API, "
            "or install google-auth and run `gcloud auth application-default login`"
        ) from None
    return str(credentials.token)


def _priced(sku: Mapping[str, Any]) -> Iterator[tuple[Part, float]]:
    """The parts that a SKU prices: one for each of its regions."""
    category = sku.get("category", {})
    usage = category.get("usageType")
    if category.get("resourceFamily") not in ("Compute", "Storage") or usage not in ("OnDemand", "Preemptible"):
        return
    name = str(sku.get("description", "")).split(" running in ")[0].split(" in ")[0]
    name = name.removeprefix("Spot Preemptible ").removesuffix(" attached to Spot Preemptible VMs")
    usd = _usd_per_hour(sku)
    if usd is not None:
        for region in sku.get("serviceRegions", ()):
            yield (name, usage, region), usd


def _usd_per_hour(sku: Mapping[str, Any]) -> float | None:
    """USD by hour of the dearest tier: the first tiers of some SKUs are free."""
    try:
        expression = sku["pricingInfo"][-1]["pricingExpression"]
        rates = [rate["unitPrice"] for rate in expression["tieredRates"]]
        usd = max(int(rate.get("units") or 0) + int(rate.get("nanos") or 0) / 1e9 for rate in rates)
        unit = str(expression["usageUnit"])
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    if unit in ("h", "GiBy.h"):
        return usd
    return usd / HOURS_PER_MONTH if unit == "GiBy.mo" else None


def _offer(
    shape: Offer, machine: Machine, region: str, parts: Mapping[Part, float], today: datetime.date
) -> Offer | None:
    usd, spot_usd = price(
        _sum(shape, machine, region, parts, "OnDemand"), _sum(shape, machine, region, parts, "Preemptible")
    )
    if "not sold on demand" in shape.note:
        usd = None
    if usd is None and spot_usd is None:
        return None
    return dataclasses.replace(
        shape,
        region=region,
        price_usd_per_hour=usd,
        spot_price_usd_per_hour=spot_usd,
        price_source=SOURCE if usd else "",
        price_as_of=today.isoformat() if usd else "",
        spot_source=SOURCE if spot_usd else "",
        spot_as_of=today.isoformat() if spot_usd else "",
    )


def _sum(shape: Offer, machine: Machine, region: str, parts: Mapping[Part, float], usage: Usage) -> float | None:
    """USD by hour of all the parts of an offer; None where the region does not sell one of them."""
    ssd_gib = float(machine.local_ssd_gib_per_accelerator) * shape.accelerator_count
    needed = (
        (machine.core_sku, shape.vcpus),
        (machine.ram_sku, shape.memory_gib),
        (machine.accelerator_sku, shape.accelerator_count),
        (LOCAL_SSD_SKU if ssd_gib else "", ssd_gib),
    )
    total = 0.0
    for name, amount in needed:
        if name:
            usd = parts.get((name, usage, region))
            if usd is None:
                return None
            total += usd * amount
    return total
