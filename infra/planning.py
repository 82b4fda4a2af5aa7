"""From a stack's config to its plan, and the guardrails that the program itself keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infra.aws.instance_shapes import can_build as can_build_on_aws
from infra.aws.instance_shapes import shape_of
from infra.aws.lustre import lustre_gib
from infra.config import Cloud, StackConfig
from infra.gcp.fuse import node_cache_gib
from infra.gcp.machines import can_build as can_build_on_gcp
from infra.gcp.machines import disk_service as disk_service_on_gcp
from infra.gcp.machines import hosts_of as hosts_on_gcp
from planner import sold_out
from planner.catalog import Catalog, Offer, UnknownOffer
from planner.cost import CostItem, to_the_cent
from planner.errors import PlanError
from planner.plan import DISK_SERVICE, Plan, Planned, PlanRequest, PlatformShape, joined, planned
from planner.profiles import FOLDERS
from planner.sold_out import SoldOut
from planner.workloads import AnyWorkload, Bought, TrainingJob

if TYPE_CHECKING:
    from planner.guardrails.rules import Violation

INTERFACE_ENDPOINT_SERVICES = ("ecr.api", "ecr.dkr", "sts")
"""What private nodes need on AWS without the NAT gateway: pulling images and taking their identity."""
SYSTEM_VCPUS, SYSTEM_MEMORY_GIB = 2, 8
ENCRYPTION_KEYS = 4
"""One each for the cluster's secrets (on AWS with its logs), the nodes' disks, the bucket and the registry."""
BUDGET_ALARMS = 2
"""One on what was spent, one on what is forecast."""


@dataclass(frozen=True, slots=True)
class CloudFacts:
    """What a plan must know of a cloud's components; no Pulumi, so that `fusion plan` is quick.

    Attributes:
        sells_as: what a node may be asked for as.
        can_build: whether they can build pools of an offer.
        hosts: machines of a node of an offer, which come and go as one.
        disk_service: what a node's disk is billed as.
        system_instance_type: the usual machine for the system's pods.
        encrypts_logs: whether each log has a key of its own.
        has_zonal_nat: whether each zone may have a NAT gateway of its own.
        interface_endpoints: in each zone.
        file_cache: from the size of a file cache to that of a file system of its own, and of each training node's disk.
    """

    sells_as: frozenset[Bought]
    can_build: Callable[[Offer], bool]
    hosts: Callable[[Offer], int]
    disk_service: Callable[[Offer], str]
    system_instance_type: str
    encrypts_logs: bool
    has_zonal_nat: bool
    interface_endpoints: int
    file_cache: Callable[[int], tuple[int, int]]


CLOUDS: Mapping[str, CloudFacts] = {
    "aws": CloudFacts(
        sells_as=frozenset({"on_demand", "spot", "capacity_block"}),
        can_build=lambda offer: can_build_on_aws(offer.instance_type),
        hosts=lambda _: 1,
        disk_service=lambda _: DISK_SERVICE,
        system_instance_type="m6i.large",
        encrypts_logs=True,
        has_zonal_nat=True,
        interface_endpoints=len(INTERFACE_ENDPOINT_SERVICES),
        file_cache=lambda gib: (lustre_gib(gib), 0),
    ),
    "gcp": CloudFacts(
        sells_as=frozenset({"on_demand", "spot", "flex_start"}),
        can_build=can_build_on_gcp,
        hosts=hosts_on_gcp,
        disk_service=disk_service_on_gcp,
        system_instance_type="e2-standard-2",
        encrypts_logs=False,
        has_zonal_nat=False,
        interface_endpoints=0,
        file_cache=lambda gib: (0, node_cache_gib(gib)),
    ),
}


def plan_stack(config: StackConfig, stack: str, catalog: Catalog) -> Plan:
    """The plan of a stack alone; errors as `planned_stack`."""
    return planned_stack(config, stack, catalog).plan


def planned_stack(config: StackConfig, stack: str, catalog: Catalog) -> Planned:
    """The plan of a stack, with the search's answer: what the Pulumi program builds and `fusion plan` shows.

    A stack is whole on one cloud, or has its services on both at once (`others`). Where its config leaves the choice of
    the cloud, it is planned on each: those are taken that come first by time or latency, for workloads that minimise
    it, and then by expected USD a month.

    Raises:
        PlanError: a workload fits no offer, or a price is missing; one sentence with the way out.
    """
    if config.cloud == "both":
        return _planned_on_both(config, stack, catalog)
    found: list[Planned] = []
    refused: dict[str, PlanError] = {}
    for cloud, region in config.places:
        try:
            found.append(_planned_on(cloud, config, stack, catalog))
        except PlanError as error:
            refused[f"{cloud} {region}"] = error
    if not found:
        if len(refused) == 1:
            raise next(iter(refused.values()))
        reasons = "; ".join(f"{place}: {error}" for place, error in refused.items())
        raise PlanError(f"a stack is whole on one cloud, and it fits neither: {reasons}")
    best = min(found, key=lambda each: _rank(each, found))
    notes = [_compared(best.plan, each.plan) for each in found if each is not best]
    where = f"on {best.plan.cloud} {best.plan.region}"
    notes += [f"{where}, as {place} can't have it: {why}" for place, why in refused.items()]
    return dataclasses.replace(best, plan=dataclasses.replace(best.plan, notes=(*best.plan.notes, *notes)))


def _planned_on_both(config: StackConfig, stack: str, catalog: Catalog) -> Planned:
    """A plan for each cloud, of the load that it must bear by itself where the other one fails; the primary's first."""
    assert config.failover is not None
    primary = config.failover.primary
    found: list[Planned] = []
    places = sorted(config.places, key=lambda place: place[0] != primary)
    for cloud, region in places:
        try:
            on_cloud = _planned_on(cloud, config.borne_by(cloud), stack, catalog)
        except PlanError as error:
            raise PlanError(f"fusion:cloud both: {cloud} {region} can't have its part: {error}") from None
        items = tuple(dataclasses.replace(each, component=_said_of(cloud, each)) for each in on_cloud.plan.items)
        found.append(dataclasses.replace(on_cloud, plan=dataclasses.replace(on_cloud.plan, items=items)))
    whole = joined([each.plan for each in found])
    notes = tuple(dict.fromkeys(sentence for each in found for sentence in each.plan.notes))
    shares = (f"{cloud} {config.failover.bears.get(cloud, 1.0):.0%}" for cloud, _ in places)
    borne = f"fusion:cloud both: of the declared load each must bear by itself: {', '.join(shares)}"
    plan = dataclasses.replace(whole, notes=(borne, *notes))
    return dataclasses.replace(found[0], plan=plan, others=tuple(found[1:]))


def _said_of(cloud: str, item: CostItem) -> str:
    """A line of the bill of two clouds; a pool's name has its instance type, which one cloud alone has."""
    return item.component if item.component.startswith("pool ") else f"{cloud} {item.component}"


def _rank(planned: Planned, among: list[Planned]) -> tuple[float, float]:
    """By the times of the workloads that minimise them, each over the least that it has anywhere; then by cost."""
    ratio = 0.0
    for workload in planned.plan.workloads:
        if getattr(workload.target, "objective", "cost") != "cost":
            ratio += _seconds(planned, workload.name) / min(_seconds(each, workload.name) for each in among)
    return round(ratio, 9), planned.plan.monthly_usd.expected


def _seconds(planned: Planned, workload: str) -> float:
    outcome = planned.answer.answers[workload].best.outcome
    return outcome.seconds if outcome else 0.0


def _compared(best: Plan, other: Plan) -> str:
    costs = f"${to_the_cent(best.monthly_usd.expected):,.2f}", f"${to_the_cent(other.monthly_usd.expected):,.2f}"
    return (
        f"fusion:cloud auto: on {best.cloud} {best.region} for {costs[0]} a month expected; {other.cloud} "
        f"{other.region} would be {costs[1]}"
    )


def _planned_on(cloud: Cloud, config: StackConfig, stack: str, catalog: Catalog) -> Planned:
    region, gone = config.regions[cloud], sold_out.of_stack(stack)
    cannot_build = not_built(cloud, region, config, catalog)
    for workload in config.workloads:
        _check_fpgas(workload, config, catalog)
        _check_instance_type(workload, cloud, region, catalog)
        if (named := workload.needs.instance_type) in cannot_build:
            raise PlanError(
                f"workload {workload.name}: needs.instance_type {named} can't be a node of a pool: no image of "
                f"{cloud}'s Kubernetes is documented for it; name another, or an accelerator in its place"
            )
        if workload.price_model not in ("any", *CLOUDS[cloud].sells_as):
            raise PlanError(
                f"workload {workload.name}: price_model {workload.price_model} is not sold on {cloud}; expected one of "
                f"{', '.join(sorted(CLOUDS[cloud].sells_as))}, any"
            )
    facts = CLOUDS[cloud]
    request = PlanRequest(
        stack=stack,
        cloud=cloud,
        region=region,
        platform=platform_shape(config, cloud, catalog),
        workloads=tuple(_bought_otherwise(each, gone) for each in config.workloads),
        usage=config.expected_usage,
        not_built=cannot_build,
        quotas=(*config.quotas, *(quota for each in gone for quota in each.quotas)),
        budget=config.budget,
        folders=FOLDERS,
        hosts_of=facts.hosts,
        disk_service_of=facts.disk_service,
    )
    try:
        found = planned(request, catalog)
    except UnknownOffer as error:
        raise PlanError(str(error)) from None
    except PlanError as error:
        raise PlanError("; ".join([str(error), *(str(each) for each in gone)])) from None
    notes = (
        *found.plan.notes,
        *(str(each) for each in gone),
        *_counted_as_on_demand(found.plan),
        *_without_plugin(found.plan, config),
        *_on_several_tpus(found.plan),
    )
    return dataclasses.replace(found, plan=dataclasses.replace(found.plan, notes=notes))


def _bought_otherwise(workload: AnyWorkload, gone: tuple[SoldOut, ...]) -> AnyWorkload:
    """On demand, where the reservation or the block that its nodes were to come from has none: the bill counted so."""
    if not any(each.is_asked_for_by(workload) for each in gone):
        return workload
    on_demand = {"price_model": "on_demand", "reservation_id": None, "max_run_hours": None, "queued": False}
    return workload.model_copy(update=on_demand)


def _counted_as_on_demand(plan: Plan) -> list[str]:
    """Of nodes that are billed in another way than the plan counts them."""
    billed = {
        "reserved": "come from the reservation {0}, which is billed whether they run or not",
        "capacity_block": "run in the Capacity Block {0}, which was paid for in advance",
        "flex_start": "are had as flex-start, at a discount",
    }
    return [
        f"pool {pool.name}: its nodes {billed[pool.purchase.name].format(pool.purchase.reservation_id)}; they are "
        "counted as on demand, of which the catalog has the price"
        for pool in plan.pools
        if pool.purchase
    ]


def _without_plugin(plan: Plan, config: StackConfig) -> list[str]:
    """Of pods that wait for network adapters which nothing hands out, unless the cluster brings what does."""
    plugins = config.cluster.device_plugins
    if plan.cloud != "aws" or (plugins and plugins.efa_image):
        return []
    return [
        f"pool {pool.name}: its nodes have EFA, and its pods ask for vpc.amazonaws.com/efa; name the image of the "
        "plugin that hands it out in fusion:cluster device_plugins.efa_image, unless the cluster has one"
        for pool in plan.pools
        if pool.nodes_max > 1 and len(pool.zones) == 1 and shape_of(pool.instance_type).efa_interfaces_max
    ]


def _on_several_tpus(plan: Plan) -> list[str]:
    """Of training jobs for which the training program that Fusion ships is not made."""
    return [
        f"workload {workload.name}: the training program of Fusion uses one chip of a TPU so far, and "
        f"{pool.instance_type} has {pool.accelerators_per_node:g}; it needs an image with a program of yours"
        for workload in plan.workloads
        if isinstance(workload, TrainingJob) and (pool := plan.pool_of(workload.name)).accelerators_per_node > 1
        if (pool.accelerator or "").startswith("TPU")
    ]


def _check_instance_type(workload: AnyWorkload, cloud: str, region: str, catalog: Catalog) -> None:
    """Refuse a type that is not offered there.

    Raises:
        PlanError: names it and where it is.
    """
    named = workload.needs.instance_type
    try:
        if named is not None:
            catalog.offer(cloud, region, named)
    except UnknownOffer as error:
        raise PlanError(f"workload {workload.name}: needs.instance_type {named}: {error}") from None


def _check_fpgas(workload: AnyWorkload, config: StackConfig, catalog: Catalog) -> None:
    """Refuse FPGAs that nothing hands out, in words of their own.

    Raises:
        PlanError: the workload names some, and the stack does not say what they are called.
    """
    needs, regions = workload.needs, config.regions.items()
    asked = {
        each.accelerator
        for cloud, region in regions
        for each in catalog.find(cloud=cloud, region=region)
        if each.instance_type == needs.instance_type
    } | {needs.accelerator}
    if not _hands_out_fpgas(config) and any(has_fpgas(each, catalog) for each in asked):
        raise PlanError(
            f"workload {workload.name}: needs asks for FPGAs ({needs.instance_type or needs.accelerator}), which no "
            "vendor's device plugin has a name for; set fusion:cluster device_plugins.fpga_resource to what your own "
            "calls them, and put its manifest into fusion:cluster manifests"
        )


def _hands_out_fpgas(config: StackConfig) -> bool:
    plugins = config.cluster.device_plugins
    return plugins is not None and plugins.fpga_resource is not None


def has_fpgas(accelerator: str | None, catalog: Catalog) -> bool:
    """Whether a chip is an FPGA."""
    chip = catalog.accelerators.get(accelerator or "")
    return chip is not None and chip.kind == "fpga"


def not_built(cloud: str, region: str, config: StackConfig, catalog: Catalog) -> frozenset[str]:
    """Instance types of a region that the catalog has and the components can't build, as the stack is configured."""
    can_build, without = CLOUDS[cloud].can_build, not _hands_out_fpgas(config)
    return frozenset(
        each.instance_type
        for each in catalog.find(cloud=cloud, region=region)
        if not can_build(each) or (without and has_fpgas(each.accelerator, catalog))
    )


def platform_shape(config: StackConfig, cloud: Cloud, catalog: Catalog) -> PlatformShape:
    """What the platform has besides its pools, as the components will build it.

    Raises:
        PlanError: no machine for the system's pods has a price in the region.
    """
    zones, facts = config.zones_of(cloud), CLOUDS[cloud]
    logs = config.network.flow_logs + config.is_confidential if facts.encrypts_logs else 0
    cache_gib = config.object_store.file_cache_gib
    file_cache_gib, node_cache_gib = facts.file_cache(cache_gib) if cache_gib else (0, 0)
    return PlatformShape(
        zones=zones,
        kubernetes_version=config.cluster.kubernetes_version,
        nat_gateways=len(zones) if facts.has_zonal_nat and config.network.nat == "per_zone" else 1,
        interface_endpoints=facts.interface_endpoints * len(zones),
        encryption_keys=ENCRYPTION_KEYS + logs + (config.node_autoscaler_on(cloud) == "karpenter"),
        system_instance_type=config.cluster.system_instance_type or _system_instance_type(config, cloud, catalog),
        system_nodes=config.cluster.system_nodes,
        system_disk_gib=config.cluster.system_disk_gib,
        budget_alarms=BUDGET_ALARMS if config.budget_alarms else 0,
        health_checks=_health_checks(config) if cloud == "aws" else 0,
        file_cache_gib=file_cache_gib,
        node_cache_gib=node_cache_gib,
    )


def _health_checks(config: StackConfig) -> int:
    """One of each service by cloud, which Route 53 makes wherever its endpoint is."""
    has_names = config.failover is not None and config.failover.dns == "route53"
    return len(CLOUDS) * len(config.workloads) if has_names else 0


def _system_instance_type(config: StackConfig, cloud: Cloud, catalog: Catalog) -> str:
    """The usual one where it is sold, else the cheapest that is as large."""
    facts, region = CLOUDS[cloud], config.regions[cloud]
    priced = {
        each.instance_type: each.price_usd_per_hour
        for each in catalog.find(cloud=cloud, region=region)
        if not each.accelerator and each.price_usd_per_hour and facts.can_build(each)
        if each.architecture == "x86_64" and each.vcpus >= SYSTEM_VCPUS and each.memory_gib >= SYSTEM_MEMORY_GIB
    }
    if facts.system_instance_type in priced:
        return facts.system_instance_type
    if not priced:
        raise PlanError(
            f"{cloud}:region {region}: the catalog has no machine for the system's pods there ({SYSTEM_VCPUS} vCPUs "
            f"and {SYSTEM_MEMORY_GIB} GiB, no accelerators): run `fusion catalog refresh`, or choose another region"
        )
    return min(priced, key=lambda each: (priced[each], each))


def violations(planned: Plan, config: StackConfig, catalog: Catalog) -> list[Violation]:
    """What the plan breaks of the stack's guardrails; the same rules that the policy pack applies."""
    from planner.guardrails.rules import check_plan  # 20 ms that `fusion plan` does without

    return check_plan(planned, config.guardrails, catalog)


def plan_outputs(planned: Plan, config: StackConfig) -> dict[str, Any]:
    """What a stack says of its plan in its outputs."""
    monthly = planned.monthly_usd
    return {
        "cloud": planned.cloud,
        "region": planned.region,
        "monthly_cost_usd": {
            "min": to_the_cent(monthly.min),
            "expected": to_the_cent(monthly.expected),
            "max": to_the_cent(monthly.max),
            "limit": config.guardrails.monthly_cost_limit_usd,
        },
    }
