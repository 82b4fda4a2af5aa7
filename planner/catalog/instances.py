"""What may be named as an instance type at all: the clouds' own names, besides the offers with their prices.

`offers.csv` has prices of what accelerates and of the main CPU families; the clouds sell more than that. A name is
known here if it is an offer or is of ``instance_families.csv``, and gone if ``retired.csv`` says so.
"""

from __future__ import annotations

import csv
import fnmatch
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from planner.catalog.catalog import Catalog, near

DATA = Path(__file__).parent / "data"
FAMILIES = DATA / "instance_families.csv"
RETIRED = DATA / "retired.csv"
GCP_ACCELERATORS = DATA / "gcp_accelerators.csv"
SEPARATOR = {"aws": ".", "gcp": "-"}
CUSTOM = re.compile(r"(?P<series>[a-z][a-z0-9]*)-custom(-[0-9]+){2}(-ext)?|custom-[0-9]+-[0-9]+")
"""Machine types of Google Cloud with vCPUs and memory of one's own choice."""
VARIANT = re.compile(r"-(lssd|standardlssd|highlssd|nolssd|metal)$")
"""Of a machine type: local SSDs, or no hypervisor."""
WORKSTATION = "-vws"
"""Ends the name of an accelerator that is licensed for graphics."""
REGIONS_SHOWN = 4
OF_SOME_REGIONS = ("karpenter-provider-aws", "coroot/cloud-pricing")
"""Sources that list some regions of a cloud and not all: that they lack an accelerator elsewhere says nothing."""


@dataclass(frozen=True, slots=True)
class Retired:
    """Something that is not sold any more (``retired.csv``)."""

    cloud: str
    names: str
    """A pattern: `f1.*`."""
    since: str
    successor: str
    source: str


@dataclass(frozen=True, slots=True)
class GcpAccelerator:
    """How Google Cloud calls an accelerator (``gcp_accelerators.csv``)."""

    name: str
    """In `guestAccelerators`."""
    accelerator: str
    """In the catalog."""
    source: str


def unknown_type(cloud: str, instance_type: str, catalog: Catalog) -> str | None:
    """Why nobody can buy an instance type, in words that follow its name; None where it is known and not retired."""
    for each in _retired(cloud):
        if fnmatch.fnmatchcase(instance_type, each.names):
            return f"was retired on {each.since}; {each.successor} follows it"
    if _is_named(cloud, instance_type) or instance_type in _offered(catalog, cloud):
        return None
    return f"is no instance type of {cloud}{near(instance_type, _nearby(cloud, instance_type, catalog))}"


def unknown_accelerator(name: str) -> str | None:
    """Why Google Cloud attaches no such GPU to a machine, in words that follow its name; None where it does."""
    for each in _retired("gcp"):
        if fnmatch.fnmatchcase(name, each.names):
            return f"was retired on {each.since}; {each.successor} follows it"
    known = gcp_accelerators()
    return None if name in known else f"is no accelerator of gcp{near(name, sorted(known))}"


def not_sold(cloud: str, region: str, instance_type: str, catalog: Catalog) -> str | None:
    """Why a region has no such accelerators, in words that follow the type's name; None for types without any.

    Only where the catalog has all regions of the accelerator, and the region itself: of others it knows nothing.
    """
    accelerator = next((each.accelerator for each in catalog.find(cloud=cloud, instance_type=instance_type)), None)
    if accelerator is None:
        named = (each.accelerator for each in catalog.tpu_topologies if each.machine_type == instance_type)
        accelerator = next(named, None)
    return accelerator_not_sold(cloud, region, accelerator, catalog) if accelerator else None


def accelerator_not_sold(cloud: str, region: str, accelerator: str, catalog: Catalog) -> str | None:
    """The same of an accelerator that is named by itself."""
    offers = catalog.find(cloud=cloud, accelerator=accelerator)
    regions = {each.region for each in offers}
    sources = {each.price_source or each.spot_source for each in offers}
    if region in regions or (cloud, region) not in catalog.places or all(map(_is_of_some_regions, sources)):
        return None
    shown = ", ".join(sorted(regions)[:REGIONS_SHOWN])
    return f"({accelerator}) is not sold in {region}; it is in {shown}{' and others' * (len(regions) > REGIONS_SHOWN)}"


def _is_of_some_regions(source: str) -> bool:
    return source.startswith(OF_SOME_REGIONS)


@functools.cache
def gcp_accelerators() -> Mapping[str, GcpAccelerator]:
    """By the name that Google Cloud gives it, that of its virtual workstations included."""
    rows = [GcpAccelerator(**row) for row in table(GCP_ACCELERATORS)]
    return {f"{each.name}{suffix}": each for each in rows for suffix in ("", WORKSTATION)}


def table(path: Path) -> Sequence[dict[str, str]]:
    """The rows of a file of this folder."""
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _is_named(cloud: str, instance_type: str) -> bool:
    if cloud == "gcp" and (custom := CUSTOM.fullmatch(instance_type)):
        series = custom["series"] or "n1"
        return any(family.partition("-")[0] == series for family in _families(cloud))
    family, _, size = VARIANT.sub("", instance_type).rpartition(SEPARATOR.get(cloud, "."))
    sizes = _families(cloud).get(family, frozenset())
    return size in sizes or ("*" in sizes and size.isdecimal())


def _nearby(cloud: str, instance_type: str, catalog: Catalog) -> list[str]:
    """Names to look for the nearest in: those of its family, else all that have a price."""
    separator = SEPARATOR.get(cloud, ".")
    family = instance_type.rpartition(separator)[0]
    named = [f"{family}{separator}{size}" for size in sorted(_families(cloud).get(family, ())) if size != "*"]
    return named or sorted(_offered(catalog, cloud))


@functools.cache
def _retired(cloud: str) -> tuple[Retired, ...]:
    return tuple(Retired(**row) for row in table(RETIRED) if row["cloud"] == cloud)


@functools.cache
def _families(cloud: str) -> dict[str, frozenset[str]]:
    return {row["family"]: frozenset(row["sizes"].split()) for row in table(FAMILIES) if row["cloud"] == cloud}


@functools.lru_cache(maxsize=8)
def _offered(catalog: Catalog, cloud: str) -> frozenset[str]:
    return frozenset(_names(catalog, cloud))


def _names(catalog: Catalog, cloud: str) -> Iterator[str]:
    for offer in catalog.find(cloud=cloud):
        yield offer.instance_type
        yield offer.instance_type.partition("+")[0]  # Google Cloud's `n1-standard-8+T4x1` is two things to it
