"""Quotas: what a cloud grants, what a plan takes of it, and which of the cloud's are to be read for a plan."""

from __future__ import annotations

import csv
import fnmatch
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from planner.catalog import Catalog
from planner.plan import Plan
from planner.workloads import PriceModel, Quota

DATA = Path(__file__).parent / "catalog" / "data"
AWS_QUOTAS, GCP_QUOTAS = DATA / "aws_quotas.csv", DATA / "gcp_quotas.csv"
SYSTEM_NODES = "system nodes"
"""The part of a plan that no workload asks for."""
FILE_CACHE = "file cache"


@dataclass(frozen=True, slots=True)
class AwsQuota:
    """A quota of a region (``aws_quotas.csv``) in Service Quotas: of running vCPUs, or of file systems."""

    service: str
    """What Service Quotas calls its service."""
    code: str
    name: str
    unit: Literal["vcpus", "gib"]
    price_model: PriceModel
    instance_types: tuple[str, ...]
    """Patterns."""
    source: str

    def granted(self, region: str, amount: float) -> Quota:
        """The quota as it was read."""
        return Quota(
            cloud="aws",
            region=region,
            instance_types=self.instance_types or ("*",),
            price_model=self.price_model,
            vcpus=int(amount) if self.unit == "vcpus" else None,
            gib=int(amount) if self.unit == "gib" else None,
            code=self.code,
        )


@dataclass(frozen=True, slots=True)
class GcpQuota:
    """A quota of Compute Engine (``gcp_quotas.csv``) in the Cloud Quotas API: of a region, or of all of them."""

    code: str
    """Its quota id."""
    dimension: str
    """What it is told apart by beside the region, such as `gpu_family=NVIDIA_H100`; empty where by nothing."""
    price_model: PriceModel | None
    unit: Literal["vcpus", "accelerators"]
    instance_types: tuple[str, ...]
    """Patterns."""
    accelerator: str | None
    source: str

    def is_spot_of(self, other: GcpQuota) -> bool:
        """Whether it is what the same machines take of on spot."""
        same = (self.unit, self.accelerator) == (other.unit, other.accelerator)
        bought = (self.price_model, other.price_model) == ("spot", "on_demand")
        return same and bought and set(other.instance_types) <= set(self.instance_types)

    @property
    def named(self) -> str:
        """Its id, with what it is told apart by."""
        return f"{self.code}, {self.dimension}" if self.dimension else self.code

    def granted(self, region: str, amount: float, price_model: PriceModel | None) -> Quota:
        """The quota as it was read."""
        return Quota(
            cloud="gcp",
            region=region,
            instance_types=self.instance_types,
            accelerator=self.accelerator,
            price_model=price_model,
            vcpus=int(amount) if self.unit == "vcpus" else None,
            accelerators=int(amount) if self.unit == "accelerators" else None,
            code=self.named,
        )


@dataclass(frozen=True, slots=True)
class Taken:
    """What one part of a plan takes of a quota at the autoscaler's maximum."""

    part: str
    each: float
    """A node's."""
    nodes: int

    @property
    def total(self) -> float:
        """All of its nodes'."""
        return self.each * self.nodes


@functools.cache
def aws_quotas() -> tuple[AwsQuota, ...]:
    """All of them that are known."""
    with AWS_QUOTAS.open(encoding="utf-8", newline="") as rows:
        return tuple(
            AwsQuota(
                row["service"],
                row["code"],
                row["name"],
                "gib" if row["unit"] == "gib" else "vcpus",
                "spot" if row["price_model"] == "spot" else "on_demand",
                tuple(row["instance_types"].split()),
                row["source"],
            )
            for row in csv.DictReader(rows)
        )


@functools.cache
def gcp_quotas() -> tuple[GcpQuota, ...]:
    """All of them that are known."""
    models: Mapping[str, PriceModel | None] = {"spot": "spot", "on_demand": "on_demand", "": None}
    with GCP_QUOTAS.open(encoding="utf-8", newline="") as rows:
        return tuple(
            GcpQuota(
                row["code"],
                row["dimension"],
                models[row["price_model"]],
                "vcpus" if row["unit"] == "vcpus" else "accelerators",
                tuple(row["instance_types"].split()),
                row["accelerator"] or None,
                row["source"],
            )
            for row in csv.DictReader(rows)
        )


def gcp_quotas_of(plan: Plan, catalog: Catalog) -> tuple[GcpQuota, ...]:
    """Those that a plan may take from: its nodes on spot take of the others where no quota of spot is set."""
    return tuple(
        each
        for each in gcp_quotas()
        if taken(each.granted(plan.region, 0, "spot" if each.price_model == "spot" else None), plan, catalog)
    )


def aws_quotas_of(plan: Plan, catalog: Catalog) -> tuple[AwsQuota, ...]:
    """Those that a plan takes from."""
    return tuple(each for each in aws_quotas() if taken(each.granted(plan.region, 0), plan, catalog))


def taken(quota: Quota, plan: Plan, catalog: Catalog) -> tuple[Taken, ...]:
    """By pool, and of the system nodes, what a plan takes of a quota, the greediest first.

    Raises:
        planner.catalog.UnknownOffer: the catalog does not know an instance type of the plan.
    """
    if not is_in(quota, plan.cloud, plan.region):
        return ()
    if quota.gib is not None:
        cache_gib = plan.platform.file_cache_gib
        return (Taken(FILE_CACHE, cache_gib, 1),) if cache_gib else ()
    system = catalog.offer(plan.cloud, plan.region, plan.platform.system_instance_type)
    rows: list[tuple[str, str, str | None, PriceModel, float, float, int]] = [
        (SYSTEM_NODES, system.instance_type, None, "on_demand", system.vcpus, 0.0, plan.platform.system_nodes)
    ]
    for pool in plan.pools:
        size = pool.vcpus_per_node, pool.accelerators_per_node, pool.nodes_max
        rows.append((f"pool {pool.name}", pool.instance_type, pool.accelerator, pool.quota_model, *size))
    found = []
    for part, instance_type, accelerator, price_model, vcpus, accelerators, nodes in rows:
        is_counted = quota.accelerator in (None, accelerator) and quota.price_model in (None, price_model)
        if is_counted and is_of(quota, instance_type) and nodes:
            unit = vcpus if quota.vcpus is not None else accelerators if quota.accelerators is not None else 1.0
            found.append(Taken(part, unit, nodes))
    return tuple(sorted((each for each in found if each.each), key=lambda each: -each.total))


def is_in(quota: Quota, cloud: str, region: str) -> bool:
    """Whether it is of a place."""
    return cloud == quota.cloud and quota.region in (None, region)


def is_of(quota: Quota, instance_type: str) -> bool:
    """Whether an instance type is among those that it counts."""
    return quota.gib is None and any(fnmatch.fnmatchcase(instance_type, pattern) for pattern in quota.instance_types)


def amount(quota: Quota) -> int:
    """How much is granted, in its own unit."""
    return next(each for each in (quota.vcpus, quota.accelerators, quota.nodes, quota.gib) if each is not None)


def unit(quota: Quota) -> str:
    """What it counts."""
    names = {"vcpus": quota.vcpus, "accelerators": quota.accelerators, "nodes": quota.nodes, "GiB": quota.gib}
    return next(name for name, value in names.items() if value is not None)


def named(quota: Quota) -> str:
    """In the words of the stack; by its code where the cloud gave it one."""
    where = f"in {quota.cloud}" + ("" if quota.region is None else f" {quota.region}")
    if quota.code is not None:
        name = next((each.name for each in aws_quotas() if each.code == quota.code), None)
        return f"quota {quota.code}{f' ({name})' if name else ''} {where}"
    words = [
        "" if quota.price_model is None else f"{quota.price_model.replace('_', ' ')} ",
        "" if quota.instance_types == ("*",) else f"{', '.join(quota.instance_types)} ",
        "" if quota.accelerator is None else f"{quota.accelerator} ",
    ]
    if quota.nodes is not None:  # nobody grants these
        return f"number of {''.join(words)}nodes {where} that can be had"
    return f"quota of {unit(quota)}{' of ' if any(words) else ' '}{''.join(words)}{where}"
