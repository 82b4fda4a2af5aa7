"""The plan of a stack: which offer each workload runs on, in which pools, and what all of it costs.

A workload with a target gets the cheapest offer that is predicted to keep it (`planner.targets`); one without gets the
cheapest that has what it needs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from planner.catalog import Catalog, Offer
from planner.cost import CostItem, Quantity, Tariff, item, total
from planner.errors import PlanError
from planner.prediction import WorkloadPrediction
from planner.workloads import AnyWorkload, ExpectedUsage, InferenceService, Needs, PriceModel, TrainingJob

NODE_RESERVED_VCPUS = 0.5
"""Kept for the kubelet, the system pods and the device plugin on every node."""
NODE_RESERVED_MEMORY_FRACTION = 0.15
"""EKS and GKE reserve 255 MiB + 11 MiB a pod, and eviction room; 15 % bounds it on the smallest GPU nodes (16 GiB)."""


@dataclass(frozen=True, slots=True)
class PlatformShape:
    """What the platform itself has, besides the pools; the components build exactly this."""

    zones: tuple[str, ...]
    nat_gateways: int
    interface_endpoints: int
    """Endpoint network interfaces: services × zones."""
    encryption_keys: int
    system_instance_type: str
    system_nodes: int
    system_disk_gib: int


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """Everything that a plan is made from, beside the catalog."""

    stack: str
    cloud: str
    region: str
    platform: PlatformShape
    workloads: tuple[AnyWorkload, ...]
    usage: ExpectedUsage
    not_built: frozenset[str] = frozenset()
    """Instance types that the catalog has and the components can't build; chosen only where the user names one."""


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """Nodes of one offer, bought one way, shared by the workloads that it was chosen for."""

    name: str
    instance_type: str
    price_model: PriceModel
    accelerator: str | None
    accelerators_per_node: float
    vcpus_per_node: float
    memory_gib_per_node: float
    nodes_min: int
    nodes_expected: int
    nodes_max: int
    disk_gib: int
    price_usd_per_hour: float
    price_source: str
    workloads: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be provisioned and what it is predicted to cost. Prices are predictions from the catalog's date."""

    stack: str
    cloud: str
    region: str
    platform: PlatformShape
    pools: tuple[PoolPlan, ...]
    items: tuple[CostItem, ...]
    predictions: tuple[WorkloadPrediction, ...] = ()
    """Of the workloads that have a target."""

    @property
    def monthly_usd(self) -> Quantity:
        """Predicted USD by month at the autoscaler's minimum, the expected load and the maximum."""
        return total(self.items)

    def pool_of(self, workload: str) -> PoolPlan:
        """The pool that a workload runs on."""
        return next(pool for pool in self.pools if workload in pool.workloads)

    def as_props(self) -> dict[str, Any]:
        """Plain values for the registered plan, from which policies judge it."""
        monthly = self.monthly_usd
        props: dict[str, Any] = finite(dataclasses.asdict(self))
        return props | {
            "monthly_cost_min_usd": round(monthly.min, 2),
            "monthly_cost_expected_usd": round(monthly.expected, 2),
            "monthly_cost_max_usd": round(monthly.max, 2),
        }


def plan(request: PlanRequest, catalog: Catalog) -> Plan:
    """Choose an offer for each workload, share pools among those with the same one, and price the result.

    Raises:
        PlanError: a workload's needs fit no offer, or an offer has no price; names the workload and the way out.
    """
    placed: dict[tuple[str, PriceModel], list[AnyWorkload]] = {}
    offers: dict[str, Offer] = {}
    predictions: list[WorkloadPrediction] = []
    for workload in request.workloads:
        if workload.target is None:
            offer = choose_offer(workload, request.cloud, request.region, catalog, request.not_built)
        else:
            from planner.targets import best_of, prediction_of  # numpy: only where something is predicted

            answer = best_of(workload, catalog, (request.cloud, request.region), request.not_built)
            offer = answer.best.offer
            predictions.append(prediction_of(workload.name, answer))
        offers[offer.instance_type] = offer
        placed.setdefault((offer.instance_type, workload.price_model), []).append(workload)
    pools = tuple(
        _pool(offers[instance_type], price_model, workloads)
        for (instance_type, price_model), workloads in placed.items()
    )
    items = (*_platform_items(request, catalog), *_pool_items(request, pools, catalog), *_usage_items(request, catalog))
    return Plan(request.stack, request.cloud, request.region, request.platform, pools, items, tuple(predictions))


def choose_offer(
    workload: AnyWorkload, cloud: str, region: str, catalog: Catalog, not_built: Collection[str] = ()
) -> Offer:
    """The cheapest offer that has what one node or replica of the workload needs.

    Raises:
        PlanError: nothing fits; says which offer comes nearest and what it lacks.
    """
    needs = workload.needs
    if needs.instance_type is not None:
        offer = catalog.offer(cloud, region, needs.instance_type)
        if lacks := _lacks(offer, needs):
            raise PlanError(f"workload {workload.name}: {offer.instance_type} {lacks[0]}; choose another instance_type")
        _price(offer, workload.price_model, workload.name)
        return offer
    candidates = [each for each in catalog.find(cloud=cloud, region=region) if each.instance_type not in not_built]
    fitting = [
        offer for offer in candidates if not _lacks(offer, needs) and _offered(offer, workload.price_model) is not None
    ]
    if not fitting:
        raise PlanError(_nothing_fits(workload, cloud, region, candidates))
    return min(fitting, key=lambda offer: (_offered(offer, workload.price_model), offer.instance_type))


def replicas_per_node(pool: PoolPlan, needs: Needs) -> int:
    """How many replicas of an inference service fit a node of the pool, by accelerators, CPU and memory."""
    by_cpu = (pool.vcpus_per_node - NODE_RESERVED_VCPUS) / needs.vcpus
    by_memory = pool.memory_gib_per_node * (1 - NODE_RESERVED_MEMORY_FRACTION) / needs.memory_gib
    by_accelerator = pool.accelerators_per_node / needs.accelerators if needs.accelerators else math.inf
    return int(min(by_cpu, by_memory, by_accelerator))


def finite(value: Any) -> Any:
    """The value with None for what is infinite (the slow end of an interval may be overload), which no JSON holds."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _offered(offer: Offer, price_model: PriceModel) -> float | None:
    return offer.price_usd_per_hour if price_model == "on_demand" else offer.spot_price_usd_per_hour


def _price(offer: Offer, price_model: PriceModel, workload: str) -> float:
    price = _offered(offer, price_model)
    if price is None:
        raise PlanError(
            f"workload {workload}: {offer.instance_type} has no {price_model.replace('_', '-')} price in {offer.cloud} "
            f"{offer.region}; choose another price_model or instance_type, or run `fusion catalog refresh`"
        )
    return price


def _lacks(offer: Offer, needs: Needs) -> list[str]:
    """What an offer lacks of the needs, one phrase each; empty when it fits."""
    vcpus = offer.vcpus - NODE_RESERVED_VCPUS
    memory_gib = offer.memory_gib * (1 - NODE_RESERVED_MEMORY_FRACTION)
    accelerator_memory_gib = offer.accelerator_memory_gib or 0.0
    checks = [
        (offer.architecture != needs.architecture, f"is {offer.architecture}, the image is {needs.architecture}"),
        (
            bool(needs.accelerator) and offer.accelerator != needs.accelerator,
            f"has {offer.accelerator or 'no accelerator'}, {needs.accelerator} is asked for",
        ),
        (
            offer.accelerator_count < needs.accelerators,
            f"has {offer.accelerator_count:g} accelerators, {needs.accelerators} are asked for",
        ),
        (
            accelerator_memory_gib < needs.accelerator_memory_gib,
            f"has {accelerator_memory_gib:g} GiB an accelerator, {needs.accelerator_memory_gib:g} are asked for",
        ),
        (vcpus < needs.vcpus, f"leaves {vcpus:g} vCPUs for workloads, {needs.vcpus:g} are asked for"),
        (
            memory_gib < needs.memory_gib,
            f"leaves {memory_gib:.1f} GiB for workloads, {needs.memory_gib:g} are asked for",
        ),
    ]
    return [phrase for failed, phrase in checks if failed]


def _nothing_fits(workload: AnyWorkload, cloud: str, region: str, candidates: Sequence[Offer]) -> str:
    where = f"workload {workload.name}: no {workload.price_model.replace('_', '-')} offer in {cloud} {region}"
    if not candidates:
        return f"{where}; the catalog has nothing there at all: see `fusion offers --cloud {cloud}` for its regions"
    nearest = min(candidates, key=lambda offer: (len(_lacks(offer, workload.needs)), offer.price_usd_per_hour or 1e9))
    if lacks := _lacks(nearest, workload.needs):
        return f"{where} fits; the nearest, {nearest.instance_type}, {' and '.join(lacks)}: lower that need"
    return f"{where} has a price; {nearest.instance_type} fits otherwise: choose the other price_model"


def _pool(offer: Offer, price_model: PriceModel, workloads: Sequence[AnyWorkload]) -> PoolPlan:
    empty = PoolPlan(
        name=f"{offer.instance_type.replace('.', '-')}-{price_model.replace('_', '-')}",
        instance_type=offer.instance_type,
        price_model=price_model,
        accelerator=offer.accelerator,
        accelerators_per_node=offer.accelerator_count,
        vcpus_per_node=offer.vcpus,
        memory_gib_per_node=offer.memory_gib,
        nodes_min=0,
        nodes_expected=0,
        nodes_max=0,
        disk_gib=max(workload.disk_gib for workload in workloads),
        price_usd_per_hour=_price(offer, price_model, workloads[0].name),
        price_source=f"{offer.price_source} {offer.price_as_of}"
        if price_model == "on_demand"
        else f"{offer.spot_source} {offer.spot_as_of}",
        workloads=tuple(workload.name for workload in workloads),
    )
    counts = [_nodes(workload, empty) for workload in workloads]
    return dataclasses.replace(
        empty,
        nodes_min=sum(count[0] for count in counts),
        nodes_expected=sum(count[1] for count in counts),
        nodes_max=sum(count[2] for count in counts),
    )


def _nodes(workload: AnyWorkload, pool: PoolPlan) -> tuple[int, int, int]:
    """Nodes that a workload takes of its pool, at minimum, expected and maximum."""
    if isinstance(workload, TrainingJob):
        return workload.nodes.min, workload.nodes.expected, workload.nodes.max
    each = replicas_per_node(pool, workload.needs)
    replicas = workload.replicas
    return math.ceil(replicas.min / each), math.ceil(replicas.expected / each), math.ceil(replicas.max / each)


def _platform_items(request: PlanRequest, catalog: Catalog) -> Iterable[CostItem]:
    shape = request.platform
    services = {
        ("cluster", "kubernetes_control_plane"): 1.0,
        ("network", "nat_gateway"): float(shape.nat_gateways),
        ("network", "public_ipv4"): float(shape.nat_gateways),
        ("network", "interface_endpoint"): float(shape.interface_endpoints),
        ("encryption", "encryption_key"): float(shape.encryption_keys),
        ("system nodes", "block_storage_gib"): float(shape.system_nodes * shape.system_disk_gib),
    }
    for (component, service), amount in services.items():
        if amount:
            yield item(catalog, component, Tariff(request.cloud, request.region, service), Quantity.fixed(amount))
    tariff = Tariff(request.cloud, request.region, shape.system_instance_type, "on_demand")
    yield item(catalog, "system nodes", tariff, Quantity.fixed(shape.system_nodes))


def _pool_items(request: PlanRequest, pools: Iterable[PoolPlan], catalog: Catalog) -> Iterable[CostItem]:
    for pool in pools:
        nodes = Quantity(pool.nodes_min, pool.nodes_expected, pool.nodes_max)
        tariff = Tariff(request.cloud, request.region, pool.instance_type, pool.price_model)
        yield item(catalog, f"pool {pool.name}", tariff, nodes)
        disk = Tariff(request.cloud, request.region, "block_storage_gib")
        yield item(catalog, f"pool {pool.name}", disk, nodes * pool.disk_gib)


def _usage_items(request: PlanRequest, catalog: Catalog) -> Iterable[CostItem]:
    for component, service, amount in (
        ("object store", "object_store_gib", request.usage.object_store_gib),
        ("registry", "registry_gib", request.usage.registry_gib),
        ("network", "nat_gb", request.usage.nat_gb),
        ("cluster", "logs_gb", request.usage.logs_gb),
        ("network", "egress_gb", request.usage.egress_gb),
    ):
        if amount:
            yield item(catalog, component, Tariff(request.cloud, request.region, service), Quantity.fixed(amount))


def workload_named(workloads: Iterable[AnyWorkload], name: str) -> TrainingJob | InferenceService:
    """The declared workload of that name."""
    return next(workload for workload in workloads if workload.name == name)
