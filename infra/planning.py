"""From a stack's config to its plan, and the guardrails that the program itself keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from infra.aws.instance_shapes import can_build as can_build_on_aws
from infra.config import StackConfig
from planner import sold_out
from planner.catalog import Catalog, UnknownOffer
from planner.cost import to_the_cent
from planner.errors import PlanError
from planner.plan import Plan, Planned, PlanRequest, PlatformShape, planned
from planner.profiles import FOLDERS

if TYPE_CHECKING:
    from planner.guardrails.rules import Violation

CAN_BUILD: Mapping[str, Callable[[str], bool]] = {"aws": can_build_on_aws}
"""By cloud, whether its components can build pools of an instance type; no Pulumi, so that `fusion plan` is quick."""
INTERFACE_ENDPOINT_SERVICES = ("ecr.api", "ecr.dkr", "sts")
"""What private nodes need without the NAT gateway: pulling images and taking their identity."""
SYSTEM_INSTANCE_TYPE, SYSTEM_VCPUS, SYSTEM_MEMORY_GIB = "m6i.large", 2, 8
ENCRYPTION_KEYS = 4
"""One each for the cluster's secrets and logs, the nodes' disks, the bucket and the registry."""
BUDGET_ALARMS = 2
"""One on what was spent, one on what is forecast."""


def plan_stack(config: StackConfig, stack: str, catalog: Catalog) -> Plan:
    """The plan of a stack alone; errors as `planned_stack`."""
    return planned_stack(config, stack, catalog).plan


def planned_stack(config: StackConfig, stack: str, catalog: Catalog) -> Planned:
    """The plan of a stack, with the search's answer: what the Pulumi program builds and `fusion plan` shows.

    Raises:
        PlanError: a workload fits no offer, or a price is missing; one sentence with the way out.
    """
    gone = sold_out.of_stack(stack)
    cannot_build = not_built(config.cloud, config.region, catalog)
    for workload in config.workloads:
        if (named := workload.needs.instance_type) in cannot_build:
            raise PlanError(
                f"workload {workload.name}: needs.instance_type {named} can't be a node of a pool: no image of "
                f"{config.cloud}'s Kubernetes is documented for it; name another, or an accelerator in its place"
            )
    request = PlanRequest(
        stack=stack,
        cloud=config.cloud,
        region=config.region,
        platform=platform_shape(config, catalog),
        workloads=config.workloads,
        usage=config.expected_usage,
        not_built=cannot_build,
        quotas=(*config.quotas, *(each.quota for each in gone)),
        budget=config.budget,
        folders=FOLDERS,
    )
    try:
        found = planned(request, catalog)
    except UnknownOffer as error:
        raise PlanError(str(error)) from None
    except PlanError as error:
        raise PlanError("; ".join([str(error), *(str(each) for each in gone)])) from None
    notes = (*found.plan.notes, *(str(each) for each in gone))
    return dataclasses.replace(found, plan=dataclasses.replace(found.plan, notes=notes))


def not_built(cloud: str, region: str, catalog: Catalog) -> frozenset[str]:
    """Instance types of a region that the catalog has and the components can't build."""
    can_build = CAN_BUILD[cloud]
    offers = catalog.find(cloud=cloud, region=region)
    return frozenset(each.instance_type for each in offers if not can_build(each.instance_type))


def platform_shape(config: StackConfig, catalog: Catalog) -> PlatformShape:
    """What the platform has besides its pools, as the components will build it.

    Raises:
        PlanError: no machine for the system's pods has a price in the region.
    """
    zones = config.zones
    return PlatformShape(
        zones=zones,
        kubernetes_version=config.cluster.kubernetes_version,
        nat_gateways=1 if config.network.nat == "single" else len(zones),
        interface_endpoints=len(INTERFACE_ENDPOINT_SERVICES) * len(zones),
        encryption_keys=ENCRYPTION_KEYS + config.network.flow_logs + config.is_confidential,  # each log has its own
        system_instance_type=config.cluster.system_instance_type or _system_instance_type(config, catalog),
        system_nodes=config.cluster.system_nodes,
        system_disk_gib=config.cluster.system_disk_gib,
        budget_alarms=BUDGET_ALARMS if config.budget_alarms else 0,
    )


def _system_instance_type(config: StackConfig, catalog: Catalog) -> str:
    """The usual one where it is sold, else the cheapest that is as large."""
    can_build = CAN_BUILD[config.cloud]
    priced = {
        each.instance_type: each.price_usd_per_hour
        for each in catalog.find(cloud=config.cloud, region=config.region)
        if not each.accelerator and each.price_usd_per_hour and can_build(each.instance_type)
        if each.architecture == "x86_64" and each.vcpus >= SYSTEM_VCPUS and each.memory_gib >= SYSTEM_MEMORY_GIB
    }
    if SYSTEM_INSTANCE_TYPE in priced:
        return SYSTEM_INSTANCE_TYPE
    if not priced:
        raise PlanError(
            f"the catalog has no machine for the system's pods in {config.cloud} {config.region} ({SYSTEM_VCPUS} vCPUs "
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
