"""AWS's prices: the Price List for on demand, the spot price history for spot, DescribeInstanceTypes for shapes.

Regions are read one by one: one that fails (not opted in, no permission) keeps its rows and is named.
"""

from __future__ import annotations

import csv
import dataclasses
import datetime
import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from planner.catalog.model import Offer
from planner.catalog.reading import SHIPPED
from planner.catalog.refresh.base import CloudPrices, RefreshError, price

PRICE_LIST_REGION = "us-east-1"
SOURCE = "AWS Price List"
SPOT_SOURCE = "EC2 spot price history"
MIB_PER_GIB = 1024
RETRY = Config(retries={"mode": "adaptive", "max_attempts": 5}, connect_timeout=10, read_timeout=60)

LINUX_SHARED = {
    "operatingSystem": "Linux",
    "preInstalledSw": "NA",
    "tenancy": "Shared",
    "capacitystatus": "Used",
    "marketoption": "OnDemand",
}


class NoPriceList(RefreshError):
    """The Price List can't be reached at all: no region would do better."""


def fetch(old: Sequence[Offer], *, regions: Sequence[str], today: datetime.date) -> CloudPrices:
    """Prices of the regions asked for, or of all those in the old offers.

    Every type with an accelerator is taken, and the CPU types that the old offers have anywhere.

    Raises:
        RefreshError: no region could be read.
    """
    wanted = frozenset(offer.instance_type for offer in old if offer.accelerator is None)
    before = {(offer.region, offer.instance_type): offer for offer in old}
    offers: list[Offer] = []
    skipped: list[str] = []
    read: list[str] = []
    for region in regions or sorted({offer.region for offer in old}):
        try:
            found, unknown = _region(region, wanted, before, today)
        except NoPriceList:
            raise
        except (BotoCoreError, ClientError, RefreshError) as error:
            skipped.append(f"{region} can't be read and keeps its prices: {error}")
            continue
        read.append(region)
        offers += found
        skipped += unknown
    if not read:
        raise RefreshError("; ".join(skipped) or "the catalog has no AWS region; name one with --region")
    asked = frozenset(key for key in before if key[0] in read)
    return CloudPrices(tuple(offers), asked, tuple(dict.fromkeys(skipped)))


def _region(
    region: str, wanted: frozenset[str], before: Mapping[tuple[str, str], Offer], today: datetime.date
) -> tuple[list[Offer], list[str]]:
    usd = _on_demand(region)
    if not usd:
        raise RefreshError(f"the Price List has no Linux prices of {region}")
    shapes = _shapes(region)
    if not shapes:
        raise RefreshError(f"EC2 describes no instance types of {region}")
    spot = _spot(region, today)
    offers: list[Offer] = []
    skipped: list[str] = []
    for name, shape in sorted(shapes.items()):
        try:
            accelerator, count, gib = _accelerator(shape)
        except RefreshError as error:
            skipped.append(f"{name} is left out: {error}")
            continue
        if accelerator is None and name not in wanted:
            continue
        on_demand_usd, spot_usd = price(usd.get(name), spot.get(name))
        if on_demand_usd is None and spot_usd is None:
            continue
        known = before.get((region, name))
        offers.append(
            Offer(
                cloud="aws",
                region=region,
                zone=None,
                instance_type=name,
                accelerator=accelerator,
                accelerator_count=count,
                accelerator_memory_gib=gib,
                vcpus=float(shape["VCpuInfo"]["DefaultVCpus"]),
                memory_gib=shape["MemoryInfo"]["SizeInMiB"] / MIB_PER_GIB,
                price_usd_per_hour=on_demand_usd,
                spot_price_usd_per_hour=spot_usd,
                spot_interruption_bucket=known.spot_interruption_bucket if known else None,
                price_source=SOURCE if on_demand_usd else "",
                price_as_of=today.isoformat() if on_demand_usd else "",
                spot_source=SPOT_SOURCE if spot_usd else "",
                spot_as_of=today.isoformat() if spot_usd else "",
                architecture=_architecture(shape),
                note="" if count >= 1 or accelerator is None else f"fractional GPU: {count:g} of a card",
            )
        )
    return offers, skipped


def _on_demand(region: str) -> dict[str, float]:
    """USD by hour of every instance type, Linux on shared hosts."""
    client = boto3.Session().client("pricing", region_name=PRICE_LIST_REGION, config=RETRY)
    filters = [
        {"Type": "TERM_MATCH", "Field": field, "Value": value}
        for field, value in (LINUX_SHARED | {"regionCode": region}).items()
    ]
    found: dict[str, float] = {}
    pages = client.get_paginator("get_products").paginate(ServiceCode="AmazonEC2", Filters=filters)
    try:
        for page in pages:
            for text in page["PriceList"]:
                found.update(_product(json.loads(text)))
    except BotoCoreError as error:
        raise NoPriceList(f"the Price List can't be read: {error}; check the credentials and the network") from None
    return found


def _product(product: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """(instance type, USD by hour) of a Price List document, if it is priced by the hour."""
    name = product.get("product", {}).get("attributes", {}).get("instanceType")
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term.get("priceDimensions", {}).values():
            usd = float(dimension.get("pricePerUnit", {}).get("USD", 0))
            if name and dimension.get("unit") == "Hrs" and usd > 0:
                yield name, usd


def _shapes(region: str) -> dict[str, Mapping[str, Any]]:
    client = boto3.Session().client("ec2", region_name=region, config=RETRY)
    pages = client.get_paginator("describe_instance_types").paginate()
    return {shape["InstanceType"]: shape for page in pages for shape in page["InstanceTypes"]}


def _spot(region: str, today: datetime.date) -> dict[str, float]:
    """USD by hour of every instance type now, in the zone where it is cheapest."""
    client = boto3.Session().client("ec2", region_name=region, config=RETRY)
    now = datetime.datetime.combine(today, datetime.time(), datetime.UTC)
    pages = client.get_paginator("describe_spot_price_history").paginate(
        ProductDescriptions=["Linux/UNIX"], StartTime=now
    )
    newest: dict[tuple[str, str], tuple[Any, float]] = {}
    for page in pages:
        for entry in page["SpotPriceHistory"]:
            key = (entry["InstanceType"], entry["AvailabilityZone"])
            at = (entry["Timestamp"], float(entry["SpotPrice"]))
            newest[key] = max(newest.get(key, at), at)
    cheapest: dict[str, float] = {}
    for (name, _), (_, usd) in newest.items():
        cheapest[name] = min(usd, cheapest.get(name, usd))
    return cheapest


def _architecture(shape: Mapping[str, Any]) -> str:
    return "arm64" if "arm64" in shape.get("ProcessorInfo", {}).get("SupportedArchitectures", ()) else "x86_64"


def _devices(shape: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    yield from shape.get("GpuInfo", {}).get("Gpus", ())
    yield from shape.get("NeuronInfo", {}).get("NeuronDevices", ())
    yield from shape.get("FpgaInfo", {}).get("Fpgas", ())


def _accelerator(shape: Mapping[str, Any]) -> tuple[str | None, float, float | None]:
    """(accelerator, count, GiB of each) as the catalog names it; none for CPU types.

    Raises:
        RefreshError: a device that the catalog has no name for.
    """
    devices = list(_devices(shape))
    if not devices:
        other = shape.get("InferenceAcceleratorInfo", {}).get("Accelerators", ())
        if not other:
            return None, 0.0, None
        devices = list(other)
    device = devices[0]
    mib = device.get("MemoryInfo", {}).get("SizeInMiB")
    gib = None if not mib else round(mib / MIB_PER_GIB, 2)
    partition = device.get("GpuPartitionSize")
    count = float(device.get("LogicalGpuCount") or 1) * partition if partition else float(device.get("Count") or 1)
    for row in names():
        near = gib is None or not row.memory_gib or abs(gib / float(row.memory_gib) - 1) < 0.1
        if row.name == device.get("Name") and near:
            return row.accelerator, count, gib
    raise RefreshError(f"its device {device.get('Name')} of {gib or '?'} GiB is not in aws_accelerators.csv")


@dataclasses.dataclass(frozen=True, slots=True)
class DeviceName:
    """A row of ``aws_accelerators.csv``: what EC2 calls an accelerator of the catalog."""

    name: str
    memory_gib: str
    accelerator: str
    source: str


@functools.cache
def names() -> tuple[DeviceName, ...]:
    """The rows of ``aws_accelerators.csv``."""
    with (SHIPPED / "aws_accelerators.csv").open(encoding="utf-8", newline="") as file:
        return tuple(DeviceName(**row) for row in csv.DictReader(file))
