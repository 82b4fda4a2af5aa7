"""Guardrails of capacity: those on the plan that also judge what is declared beside it, in AWS and Google Cloud.

Where a type of resource names machines, accelerators and slices of TPUs is data (`MACHINES`, `ACCELERATORS`,
`NODE_POOLS`, `TPU_TYPES`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from planner.catalog.instances import (
    accelerator_not_sold,
    gcp_accelerators,
    not_sold,
    unknown_accelerator,
    unknown_type,
)
from planner.catalog.tpus import slice_of_type
from planner.guardrails.capacity import (
    impossible_slices,
    no_such_accelerator_config,
    no_such_accelerator_type,
    no_such_topology,
    not_sold_there,
    unknown_instance_types,
)
from policies.guardrail import guardrail
from policies.plan import PLAN_TYPE, registered_plan
from policies.resource import Props, Resource, said
from policies.update import Update

Paths = tuple[tuple[str, ...], ...]

BATCH = "aws:batch/computeEnvironment:ComputeEnvironment"
GKE_POOL, GKE = "gcp:container/nodePool:NodePool", "gcp:container/cluster:Cluster"
TPU_VM, TPU_QUEUE = "gcp:tpu/v2Vm:V2Vm", "gcp:tpu/v2QueuedResource:V2QueuedResource"

_OVERRIDES = ("launchTemplateConfigs", "overrides", "instanceType")
MACHINES: Mapping[str, Paths] = {
    "aws:ec2/instance:Instance": (("instanceType",),),
    "aws:ec2/spotInstanceRequest:SpotInstanceRequest": (("instanceType",),),
    "aws:ec2/launchTemplate:LaunchTemplate": (("instanceType",),),
    "aws:ec2/launchConfiguration:LaunchConfiguration": (("instanceType",),),
    "aws:ec2/capacityReservation:CapacityReservation": (("instanceType",),),
    "aws:ec2/dedicatedHost:DedicatedHost": (("instanceType",),),
    "aws:ec2/fleet:Fleet": (_OVERRIDES,),
    "aws:ec2/spotFleetRequest:SpotFleetRequest": (("launchSpecifications", "instanceType"), _OVERRIDES),
    "aws:autoscaling/group:Group": (("mixedInstancesPolicy", "launchTemplate", "overrides", "instanceType"),),
    "aws:eks/nodeGroup:NodeGroup": (("instanceTypes",),),
    BATCH: (("computeResources", "instanceTypes"),),
    "gcp:compute/instance:Instance": (("machineType",),),
    "gcp:compute/instanceTemplate:InstanceTemplate": (("machineType",),),
    "gcp:compute/regionInstanceTemplate:RegionInstanceTemplate": (("machineType",),),
    "gcp:compute/instanceFromTemplate:InstanceFromTemplate": (("machineType",),),
    "gcp:compute/instanceFromMachineImage:InstanceFromMachineImage": (("machineType",),),
    "gcp:compute/reservation:Reservation": (("specificReservation", "instanceProperties", "machineType"),),
    "gcp:workbench/instance:Instance": (("gceSetup", "machineType"),),
    GKE_POOL: (("nodeConfig", "machineType"),),
    GKE: (("nodeConfig", "machineType"), ("nodePools", "nodeConfig", "machineType")),
}
"""Where instance types are named; lists on the way are gone through."""
ACCELERATORS: Mapping[str, Paths] = {
    "gcp:compute/instance:Instance": (("guestAccelerators", "type"),),
    "gcp:compute/instanceTemplate:InstanceTemplate": (("guestAccelerators", "type"),),
    "gcp:compute/regionInstanceTemplate:RegionInstanceTemplate": (("guestAccelerators", "type"),),
    "gcp:compute/instanceFromTemplate:InstanceFromTemplate": (("guestAccelerators", "type"),),
    "gcp:compute/reservation:Reservation": (
        ("specificReservation", "instanceProperties", "guestAccelerators", "acceleratorType"),
    ),
    GKE_POOL: (("nodeConfig", "guestAccelerators", "type"),),
    GKE: (("nodeConfig", "guestAccelerators", "type"), ("nodePools", "nodeConfig", "guestAccelerators", "type")),
}
"""Where GPUs of Google Cloud are named."""
NODE_POOLS: Mapping[str, tuple[str, ...]] = {GKE_POOL: (), GKE: ("nodePools",)}
"""Where node pools of GKE are declared."""
TPU_TYPES: Mapping[str, Paths] = {
    TPU_VM: (("acceleratorType",),),
    TPU_QUEUE: (("tpu", "nodeSpecs", "node", "acceleratorType"),),
}
"""Where accelerator types of Cloud TPU are named."""
ZONE = re.compile(r"(?P<region>[a-z]+-[a-z]+[0-9]+)-[a-z]")


@guardrail("instance-types", PLAN_TYPE, *MACHINES)
def instance_types(resource: Resource, update: Update) -> Iterator[str]:
    """Every instance type is known to its cloud and still sold.

    In the plan, and wherever else a machine or a GPU is named.
    """
    if resource.type == PLAN_TYPE:
        yield from unknown_instance_types(registered_plan(resource), update.settings, update.catalog)
        return
    cloud = _cloud(resource)
    for named in _named(resource, MACHINES):
        if reason := unknown_type(cloud, _last(named), update.catalog):
            yield f"{said(named.path)}: {_last(named)} {reason}"
    for named in _named(resource, ACCELERATORS):
        if reason := unknown_accelerator(_last(named)):
            yield f"{said(named.path)}: {_last(named)} {reason}"


@guardrail("sold-in-region", PLAN_TYPE, *MACHINES, *TPU_TYPES)
def sold_in_region(resource: Resource, update: Update) -> Iterator[str]:
    """Accelerators are asked for only where they are sold.

    In the plan, and wherever else a machine, a GPU or a TPU is named.
    """
    if resource.type == PLAN_TYPE:
        yield from not_sold_there(registered_plan(resource), update.settings, update.catalog)
        return
    cloud, region = _cloud(resource), _region(resource)
    for named in _named(resource, MACHINES):
        if reason := not_sold(cloud, region, _last(named), update.catalog):
            yield f"{said(named.path)}: {_last(named)} {reason}"
    for named in (*_named(resource, ACCELERATORS), *_named(resource, TPU_TYPES)):
        known = gcp_accelerators().get(_last(named))
        asked = known or slice_of_type(_last(named))
        if asked and (reason := accelerator_not_sold(cloud, region, asked.accelerator, update.catalog)):
            yield f"{said(named.path)}: {_last(named)} {reason}"


@guardrail("tpu-topology", PLAN_TYPE, *NODE_POOLS, *TPU_TYPES)
def tpu_topology(resource: Resource, update: Update) -> Iterator[str]:
    """Every slice of TPUs is one that exists.

    In the plan, and of node pools of GKE, TPU VMs and queued resources that are declared beside it.
    """
    if resource.type == PLAN_TYPE:
        yield from impossible_slices(registered_plan(resource), update.settings, update.catalog)
        return
    for pool in resource.props.every(*NODE_POOLS.get(resource.type, ("no pools",))):
        yield from _pool(pool, update)
    for named in _named(resource, TPU_TYPES):
        if reason := no_such_accelerator_type(_last(named), update.catalog):
            yield f"{said(named.path)}: {reason}"
    if resource.type == TPU_VM and resource.props.has("acceleratorConfig"):
        kind, topology = (str(resource.props.get("acceleratorConfig", key)) for key in ("type", "topology"))
        if reason := no_such_accelerator_config(kind, topology, update.catalog):
            yield f"acceleratorConfig: {reason}"


def _pool(pool: Props, update: Update) -> Iterator[str]:
    topology = pool.get("placementPolicy", "tpuTopology")
    if topology is None:
        return
    nodes = pool.get("nodeCount", default=pool.get("initialNodeCount"))
    machine_type = pool.get("nodeConfig", "machineType")
    reason = no_such_topology(
        str(topology),
        None if machine_type is None else str(machine_type),
        int(nodes) if re.fullmatch(r"[0-9]{1,6}", str(nodes)) else None,  # GKE refuses what is no number
        update.catalog,
    )
    if reason:
        yield f"{said(pool.part('placementPolicy', 'tpuTopology').path)}: {reason}"


def _named(resource: Resource, table: Mapping[str, Paths]) -> Iterator[Props]:
    """What a resource names where the table says."""
    for path in table.get(resource.type, ()):
        for found in resource.props.every(*path):
            found.require_known()
            # AWS Batch also takes families and its own words
            if found.value and not (resource.type == BATCH and "." not in str(found.value)):
                yield found


def _last(named: Props) -> str:
    """A name without the URL that Google Cloud may write before it."""
    return str(named.value).rpartition("/")[2]


def _cloud(resource: Resource) -> str:
    return resource.type.partition(":")[0]


def _region(resource: Resource) -> str:
    """The region of what Google Cloud places in a zone; else the one that is known already."""
    for key in ("zone", "location"):
        if resource.props.has(key):
            place = str(resource.props.get(key)).rpartition("/")[2]
            zone = ZONE.fullmatch(place)
            return zone["region"] if zone else place
    return resource.region


GUARDRAILS = [instance_types, sold_in_region, tpu_topology]
