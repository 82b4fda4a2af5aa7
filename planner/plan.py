"""The plan of a stack: which offer each workload runs on, in which pools, and what all of it costs.

`planner.targets` chooses for all workloads at once: those with a target by what is predicted of them, the others by
what they need and cost. `fusion plan` and the Pulumi program call the same function.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.calibration.store import Interval
from planner.catalog import Catalog, Offer
from planner.catalog.catalog import near
from planner.catalog.kubernetes import control_plane
from planner.cost import CostItem, Quantity, Tariff, item, to_the_cent, total
from planner.errors import PlanError
from planner.packing import NODE_RESERVED_MEMORY_FRACTION, NODE_RESERVED_VCPUS, Demand, nodes_for, room_of
from planner.prediction import WorkloadPrediction
from planner.workloads import (
    AnyWorkload,
    Bought,
    Budget,
    ExpectedUsage,
    InferenceService,
    Needs,
    PriceModel,
    Purchase,
    Quota,
    TrainingJob,
)

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from planner.choices import Answer, Choice
    from planner.stack import StackAnswer


REGIONS_SHOWN = 6
DISK_SERVICE = "block_storage_gib"
"""What a node's disk is billed as, unless the cloud's components say otherwise."""
_INTERVAL_FIELDS = set(Interval.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class PlatformShape:
    """What the platform itself has, besides the pools; the components build exactly this."""

    zones: tuple[str, ...]
    kubernetes_version: str
    """Minor version, such as `1.35`; old ones cost more."""
    nat_gateways: int
    interface_endpoints: int
    """Endpoint network interfaces: services × zones."""
    encryption_keys: int
    system_instance_type: str
    system_nodes: int
    system_disk_gib: int
    budget_alarms: int | None = None
    """Of the stack's own budget in the cloud; None where the program does not say."""
    health_checks: int = 0
    """Of services that are served on two clouds, by HTTPS; with any there is a DNS zone."""
    file_cache_gib: int = 0
    """Of a file system of its own, through which training jobs read the bucket."""
    node_cache_gib: int = 0
    """For the same, on the disk of each node that trains."""


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
    quotas: tuple[Quota, ...] = ()
    budget: Budget | None = None
    folders: tuple[Path, ...] = (Path(),)
    """Against which the paths of profiles are looked up."""
    hosts_of: Callable[[Offer], int] = lambda _: 1
    """Machines of a node of an offer, each with a disk of its own; several only of a slice of TPUs."""
    disk_service_of: Callable[[Offer], str] = lambda _: DISK_SERVICE
    """What the disk of a node of an offer is billed as."""


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
    stands_in_for: str | None = None
    """The spot pool whose nodes this one replaces while spot is away; both may be at their maximum at once."""
    hosts_per_node: int = 1
    """Machines that come and go as one node: the hosts of a slice of TPUs."""
    disk_service: str = DISK_SERVICE
    zones: tuple[str, ...] = ()
    """Where its nodes are made; one for those of a job that exchange gradients."""
    purchase: Purchase | None = None
    """How its nodes are had, where that is neither simply on demand nor spot."""

    @property
    def bought_as(self) -> Bought:
        """What its nodes are asked for as."""
        return self.purchase.price_model if self.purchase else self.price_model

    @property
    def quota_model(self) -> PriceModel:
        """Whose quotas its nodes take from."""
        return self.purchase.quota_model if self.purchase else self.price_model


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
    workloads: tuple[AnyWorkload, ...] = ()
    """As they are declared: what guardrails predict anew from."""
    quotas: tuple[Quota, ...] = ()
    """As they were read from the cloud, of all that the plan takes from."""
    quotas_unread: str | None = None
    """Why they could not be read."""
    notes: tuple[str, ...] = ()
    """As `StackAnswer.notes`."""
    others: tuple[Plan, ...] = ()
    """Of a stack that serves on two clouds at once: the plan on the second one. `items` ends with those of these."""

    @property
    def parts(self) -> tuple[Plan, ...]:
        """The plan by cloud: one alone, unless the stack serves on two at once."""
        if not self.others:
            return (self,)
        own = len(self.items) - sum(len(each.items) for each in self.others)
        return (dataclasses.replace(self, items=self.items[:own], others=()), *self.others)

    @property
    def all_pools(self) -> tuple[PoolPlan, ...]:
        """The pools on every cloud."""
        return tuple(pool for part in self.parts for pool in part.pools)

    @property
    def monthly_usd(self) -> Quantity:
        """Predicted USD by month at the autoscaler's minimum, the expected load and the maximum."""
        return total(self.items)

    def prediction_of(self, workload: str) -> WorkloadPrediction | None:
        """Of a workload that has a target."""
        return next((each for each in self.predictions if each.workload == workload), None)

    def pool_of(self, workload: str) -> PoolPlan:
        """The pool that a workload runs on."""
        return next(pool for pool in self.pools if workload in pool.workloads)

    def as_props(self) -> dict[str, Any]:
        """Plain values for the registered plan, from which policies judge it."""
        monthly = self.monthly_usd
        plain = dataclasses.replace(self, workloads=(), quotas=(), others=())
        props: dict[str, Any] = finite(dataclasses.asdict(plain))
        del props["others"]
        further = {"others": [each.as_props() for each in self.others]} if self.others else {}
        return (
            props
            | further
            | {
                "workloads": [each.model_dump(mode="json", exclude_none=True) for each in self.workloads],
                "quotas": [each.model_dump(mode="json", exclude_none=True) for each in self.quotas],
                "monthly_cost_min_usd": to_the_cent(monthly.min),
                "monthly_cost_expected_usd": to_the_cent(monthly.expected),
                "monthly_cost_max_usd": to_the_cent(monthly.max),
            }
        )

    @classmethod
    def from_props(cls, props: Mapping[str, Any]) -> Plan:
        """The plan that `as_props` gave the plain values of.

        Raises:
            pydantic.ValidationError: they are not those of a plan.
        """
        known = {name: _bounded(value) for name, value in props.items() if name in cls.__dataclass_fields__}
        others = tuple(cls.from_props(each) for each in known.pop("others", ()))
        return dataclasses.replace(plan_reader().validate_python(known), others=others)


@functools.cache  # a guardrail after the other reads the plan; the schema takes longer than the reading
def plan_reader() -> TypeAdapter[Plan]:
    """What reads the plain values of a plan."""
    from pydantic import TypeAdapter

    return TypeAdapter(Plan)


def joined(plans: Sequence[Plan]) -> Plan:
    """The plan of a stack that serves on several clouds at once, from one plan each; the inverse of `Plan.parts`."""
    first, *others = plans
    items = tuple(item for each in plans for item in each.items)
    return dataclasses.replace(first, items=items, others=tuple(others))


def items_in(props: Mapping[str, Any]) -> tuple[CostItem, ...]:
    """The bill of a plan that another version of Fusion may have registered: its `items` alone are read.

    Raises:
        pydantic.ValidationError: they are no items of a bill.
    """
    from pydantic import TypeAdapter

    return TypeAdapter(tuple[CostItem, ...]).validate_python(props.get("items"))


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and the search's answer that it was made from: runners-up, reasons, totals."""

    plan: Plan
    answer: StackAnswer
    others: tuple[Planned, ...] = ()
    """Of `Plan.others`."""

    @property
    def parts(self) -> tuple[Planned, ...]:
        """By cloud, as `Plan.parts`."""
        plans = self.plan.parts
        return (dataclasses.replace(self, plan=plans[0], others=()), *self.others)


def plan(request: PlanRequest, catalog: Catalog) -> Plan:
    """The plan alone; arguments and errors as `planned`."""
    return planned(request, catalog).plan


def planned(request: PlanRequest, catalog: Catalog) -> Planned:
    """Choose for all workloads together, share pools among those with the same offer, and price the result.

    Raises:
        PlanError: a workload fits no offer, a limit can't be kept, or an offer has no price; with the way out.
    """
    from planner.targets import Scope, answer, prediction_of  # numpy: not where the pack only reads a plan

    place = (request.cloud, request.region)
    for workload in request.workloads:
        _check_named(workload, request, catalog)
    scope = Scope(frozenset({place}), request.not_built, request.quotas, request.budget, request.folders)
    found = answer(request.workloads, catalog, scope)
    placed: dict[_Kind, list[AnyWorkload]] = {}
    for workload in request.workloads:
        placed.setdefault(_kind(workload, found.answers[workload.name].best, request), []).append(workload)
    names = _names(placed)
    pools: list[PoolPlan] = []
    for kind, workloads in placed.items():
        pool = _pool(request, names[kind], kind, workloads, found.answers)
        pools.append(pool)
        if kind.spot_fallback:
            pools.append(_stand_in(pool, found.answers[workloads[0].name].best.offer, workloads[0].name))
    items = (
        *_platform_items(request, catalog),
        *_pool_items(request, pools, catalog),
        *_volume_items(request, catalog),
        *_usage_items(request, catalog),
    )
    made = Plan(
        request.stack,
        request.cloud,
        request.region,
        request.platform,
        tuple(pools),
        (*items, *_egress_items(request, found, catalog)),
        tuple(
            prediction_of(workload, each)
            for workload in request.workloads
            if (each := found.answers[workload.name]).prediction is not None
        ),
        request.workloads,
        notes=found.notes,
    )
    return Planned(made, found)


@dataclass(frozen=True, slots=True)
class _Kind:
    """What workloads must have in common to share a pool."""

    instance_type: str
    price_model: PriceModel
    spot_fallback: bool
    zones: tuple[str, ...]
    purchase: Purchase | None

    @property
    def name(self) -> str:
        """Of its pool, as far as another can't have the same."""
        bought = self.purchase.name if self.purchase else self.price_model
        named = f"{self.instance_type}-{bought}{'-with-fallback' if self.spot_fallback else ''}"
        return named.replace(".", "-").replace("_", "-").replace("+", "-").lower()


def _kind(workload: AnyWorkload, best: Choice, request: PlanRequest) -> _Kind:
    """Several nodes of a training job are in one zone: what is predicted of them rests on their being close together.

    Raises:
        PlanError: the zone that is named is not one of the network's.
    """
    zones = request.platform.zones
    if workload.zone is not None and workload.zone not in zones:
        raise PlanError(
            f"workload {workload.name}: zone {workload.zone} is none of the stack's on {request.cloud}, which are "
            f"{', '.join(zones)}; name one of those, or add it to fusion:network zones"
        )
    is_close = isinstance(workload, TrainingJob) and workload.has_several_nodes
    own = (workload.zone,) if workload.zone else zones[:1] if is_close else zones
    return _Kind(best.offer.instance_type, best.price_model, best.spot_fallback, own, workload.purchase)


def _names(kinds: Iterable[_Kind]) -> dict[_Kind, str]:
    """Pools in every zone keep their names when one of the same offer in a single zone comes beside them."""
    names: dict[_Kind, str] = {}
    for kind in sorted(kinds, key=lambda each: len(each.zones) == 1):
        wanted = [kind.name, f"{kind.name}-{kind.zones[0]}"]
        wanted += [f"{wanted[-1]}-{number}" for number in range(2, len(names) + 3)]
        names[kind] = next(each for each in wanted if each not in names.values())
    return names


def _check_named(workload: AnyWorkload, request: PlanRequest, catalog: Catalog) -> None:
    """Say in the words of the needs why nothing has them; what only a target excludes is the search's to say.

    Raises:
        PlanError: no offer of the place has what is needed, at a price.
    """
    model: PriceModel = "spot" if workload.price_model == "spot" else "on_demand"
    try:
        choose_offer(workload, request.cloud, request.region, catalog, request.not_built, model)
    except PlanError:
        if workload.price_model != "any":
            raise
        choose_offer(workload, request.cloud, request.region, catalog, request.not_built, "spot")


def choose_offer(
    workload: AnyWorkload,
    cloud: str,
    region: str,
    catalog: Catalog,
    not_built: Collection[str] = (),
    price_model: PriceModel = "on_demand",
) -> Offer:
    """The cheapest offer, bought one way, that has what one node or replica of the workload needs.

    Raises:
        PlanError: nothing fits; says which offer comes nearest and what it lacks.
    """
    needs = workload.needs
    if needs.instance_type is not None:
        offer = catalog.offer(cloud, region, needs.instance_type)
        if lacks := _lacks(offer, needs):
            raise PlanError(f"workload {workload.name}: {offer.instance_type} {lacks[0]}; choose another instance_type")
        _price(offer, price_model, workload.name)
        return offer
    candidates = [each for each in catalog.find(cloud=cloud, region=region) if each.instance_type not in not_built]
    fitting = [offer for offer in candidates if not _lacks(offer, needs) and _offered(offer, price_model) is not None]
    if not fitting:
        if unusable := _sold_unusable(needs.accelerator, cloud, region, not_built, catalog):
            raise PlanError(f"workload {workload.name}: {unusable}")
        raise PlanError(_nothing_fits(workload, price_model, cloud, region, candidates, catalog))
    return min(fitting, key=lambda offer: (_offered(offer, price_model), offer.instance_type))


def finite(value: Any) -> Any:
    """The value with None for what is infinite (the slow end of an interval may be overload), which no JSON holds."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _bounded(value: Any) -> Any:
    """The inverse of `finite`: an interval's missing end is infinite."""
    if isinstance(value, Mapping):
        plain = {key: _bounded(each) for key, each in value.items()}
        if plain.keys() == _INTERVAL_FIELDS:
            return {key: math.inf if each is None else each for key, each in plain.items()}
        return plain
    return [_bounded(each) for each in value] if isinstance(value, list | tuple) else value


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
    least = 0 if needs.accelerators == "any" else needs.accelerators
    checks = [
        (offer.architecture != needs.architecture, f"is {offer.architecture}, the image is {needs.architecture}"),
        (
            needs.accelerator is not None and offer.accelerator != needs.accelerator,
            f"has {offer.accelerator or 'no accelerator'}, {needs.accelerator} is asked for",
        ),
        (
            offer.accelerator_count < least,
            f"has {offer.accelerator_count:g} accelerators, {least} are asked for",
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


def _nothing_fits(
    workload: AnyWorkload,
    price_model: PriceModel,
    cloud: str,
    region: str,
    candidates: Sequence[Offer],
    catalog: Catalog,
) -> str:
    where = f"workload {workload.name}: no {price_model.replace('_', '-')} offer in {cloud} {region}"
    accelerator = workload.needs.accelerator
    if accelerator is not None and accelerator not in catalog.accelerators:
        known = near(accelerator, list(catalog.accelerators))
        return f"workload {workload.name}: needs.accelerator {accelerator} is not in the catalog{known}"
    if candidates and accelerator is not None and all(each.accelerator != accelerator for each in candidates):
        return f"{where} has {accelerator}; {_sold_where(accelerator, cloud, catalog)}"
    if not candidates:
        return f"{where}; the catalog has nothing there at all: see `fusion offers --cloud {cloud}` for its regions"
    nearest = min(candidates, key=lambda offer: (len(_lacks(offer, workload.needs)), offer.price_usd_per_hour or 1e9))
    if lacks := _lacks(nearest, workload.needs):
        return f"{where} fits; the nearest, {nearest.instance_type}, {' and '.join(lacks)}: lower that need"
    return f"{where} has a price; {nearest.instance_type} fits otherwise: choose the other price_model"


def _sold_unusable(
    accelerator: str | None, cloud: str, region: str, not_built: Collection[str], catalog: Catalog
) -> str | None:
    """Why no pool can have an accelerator that the region sells; None where one can, or where it sells none."""
    sold = {each.instance_type for each in catalog.find(cloud=cloud, region=region) if each.accelerator == accelerator}
    if accelerator is None or not sold or not sold <= set(not_built):
        return None
    return (
        f"needs.accelerator {accelerator} is sold in {cloud} {region} as {', '.join(sorted(sold))} only, which can't "
        f"be a node of a pool: no image of {cloud}'s Kubernetes is documented for it; name another accelerator"
    )


def _sold_where(accelerator: str, cloud: str, catalog: Catalog) -> str:
    """Regions of that cloud, else the other clouds that have it."""
    offers = catalog.find(accelerator=accelerator)
    if regions := sorted({each.region for each in offers if each.cloud == cloud}):
        return f"the catalog has it in {', '.join(regions[:REGIONS_SHOWN])}"
    clouds = " and ".join(sorted({each.cloud for each in offers}))
    return f"the catalog has it in {clouds} alone" if clouds else "the catalog has it nowhere: see `fusion offers`"


def _pool(
    request: PlanRequest, name: str, kind: _Kind, workloads: Sequence[AnyWorkload], answers: Mapping[str, Answer]
) -> PoolPlan:
    choices = [answers[workload.name].best for workload in workloads]
    offer = choices[0].offer
    minimum, expected, most = _nodes(offer, list(zip(workloads, choices, strict=True)))
    price_model = kind.price_model
    on_demand = price_model == "on_demand"
    source = (offer.price_source, offer.price_as_of) if on_demand else (offer.spot_source, offer.spot_as_of)
    return PoolPlan(
        name=name,
        instance_type=offer.instance_type,
        price_model=price_model,
        accelerator=offer.accelerator,
        accelerators_per_node=offer.accelerator_count,
        vcpus_per_node=offer.vcpus,
        memory_gib_per_node=offer.memory_gib,
        nodes_min=minimum,
        nodes_expected=expected,
        nodes_max=most,
        disk_gib=max(workload.disk_gib for workload in workloads) + _node_cache_gib(request, workloads),
        price_usd_per_hour=_price(offer, price_model, workloads[0].name),
        price_source=" ".join(source),
        workloads=tuple(workload.name for workload in workloads),
        hosts_per_node=request.hosts_of(offer),
        disk_service=request.disk_service_of(offer),
        zones=kind.zones,
        purchase=kind.purchase,
    )


def _node_cache_gib(request: PlanRequest, workloads: Sequence[AnyWorkload]) -> int:
    trains = any(isinstance(workload, TrainingJob) for workload in workloads)
    return request.platform.node_cache_gib if trains else 0


def _stand_in(pool: PoolPlan, offer: Offer, workload: str) -> PoolPlan:
    """On demand, for the nodes of a spot pool while spot is away: none is expected, and all of them may be."""
    return dataclasses.replace(
        pool,
        name=pool.name.replace("-spot-with-fallback", "-fallback-on-demand"),
        price_model="on_demand",
        nodes_min=0,
        nodes_expected=0,
        price_usd_per_hour=_price(offer, "on_demand", workload),
        price_source=f"{offer.price_source} {offer.price_as_of}",
        stands_in_for=pool.name,
    )


def _nodes(offer: Offer, placed: Sequence[tuple[AnyWorkload, Choice]]) -> tuple[int, int, int]:
    """Nodes of a pool at minimum, expected and maximum: jobs have nodes of their own, services share the others."""
    jobs = [(each, choice) for each, choice in placed if isinstance(each, TrainingJob)]
    services = [(each, choice) for each, choice in placed if isinstance(each, InferenceService)]
    room = room_of(offer.accelerator_count, offer.vcpus, offer.memory_gib)
    shared = []
    for counts in (
        [(each.replicas.min, each, choice) for each, choice in services],
        [
            (choice.shape.replicas if choice.shape else each.replicas.expected, each, choice)
            for each, choice in services
        ],
        [(each.replicas.max, each, choice) for each, choice in services],
    ):
        replicas = [(count, _demand(each, choice)) for count, each, choice in counts]
        nodes = nodes_for(room, replicas)
        if nodes is None:
            raise PlanError(f"a replica of {services[0][0].name} does not fit a node of {offer.instance_type}")
        shared.append(nodes)
    whole = (
        sum(job.nodes.min for job, _ in jobs),
        sum(choice.nodes if choice.shape else job.nodes.expected for job, choice in jobs),
        sum(job.nodes.max for job, _ in jobs),
    )
    least, expected, most = itertools.accumulate(map(sum, zip(whole, shared, strict=True)), max)
    return least, expected, most


def _demand(service: InferenceService, choice: Choice) -> Demand:
    needs = service.needs
    each = choice.shape.parallelism.devices if choice.shape and needs.accelerators else needs.accelerators_least
    return Demand(each, needs.vcpus, needs.memory_gib)


def _platform_items(request: PlanRequest, catalog: Catalog) -> Iterable[CostItem]:
    shape = request.platform
    services = {
        ("cluster", control_plane(request.cloud, shape.kubernetes_version)): 1.0,
        ("network", "nat_gateway"): float(shape.nat_gateways),
        ("network", "public_ipv4"): float(shape.nat_gateways),
        ("network", "interface_endpoint"): float(shape.interface_endpoints),
        ("encryption", "encryption_key"): float(shape.encryption_keys),
        ("system nodes", DISK_SERVICE): float(shape.system_nodes * shape.system_disk_gib),
        ("file cache", "file_system_gib"): float(shape.file_cache_gib),
        ("failover", "dns_zone"): 1.0 if shape.health_checks else 0.0,
        ("failover", "health_check"): float(shape.health_checks),
        ("failover", "health_check_feature"): float(shape.health_checks),
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
        disk = Tariff(request.cloud, request.region, pool.disk_service)
        yield item(catalog, f"pool {pool.name}", disk, nodes * (pool.hosts_per_node * pool.disk_gib))


def _volume_items(request: PlanRequest, catalog: Catalog) -> Iterable[CostItem]:
    disk = Tariff(request.cloud, request.region, "block_storage_gib")
    for workload in request.workloads:
        if isinstance(workload, TrainingJob) and (volume := workload.training.checkpoint_volume):
            yield item(catalog, f"checkpoints of {workload.name}", disk, Quantity.fixed(volume.gib))


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


def _egress_items(request: PlanRequest, found: StackAnswer, catalog: Catalog) -> Iterable[CostItem]:
    """Of data that workloads read from elsewhere, as the cloud that holds it bills it."""
    from planner.targets import egress_service

    for workload in request.workloads:
        usd = found.answers[workload.name].best.egress_usd_per_month
        if workload.data is not None and usd:
            service = egress_service(workload.data, request.cloud, catalog)
            tariff = Tariff(workload.data.cloud, workload.data.region, service)
            price = catalog.service_price(workload.data.cloud, workload.data.region, service).price_usd
            yield item(catalog, f"data of {workload.name}", tariff, Quantity.fixed(usd / price))
