"""A pool of accelerator nodes of one offer: what every cloud builds from the same args."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import pulumi

from infra.errors import require
from infra.names import NodeAutoscalerName
from infra.network import check_zones
from planner.workloads import Bought

TaintEffect = Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]

SYSTEM_GIB = 20
"""Kept on every root disk for the operating system, the drivers and the logs."""
UNPACKED_IMAGE_COPIES = 2
"""While an image is pulled, its layers and their unpacked files lie side by side."""
POOL_LABEL = "fusion.dev/pool"
"""On every node of a pool, with the pool's name; what workloads select their nodes by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taint:
    """Keeps pods off a pool's nodes unless they tolerate it."""

    key: str
    value: str
    effect: TaintEffect = "NoSchedule"


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorPoolArgs:
    """Nodes of one offer, bought one way, between two bounds.

    Attributes:
        pool: the pool's name within the stack; workloads select it by the label `fusion.dev/pool`.
        region: the cloud's name of the region.
        zones: where nodes may be made; one zone where they must be close to each other.
        instance_type: the offer's instance (machine) type.
        accelerator: the catalog's name of the chip, or None for a pool of CPUs.
        accelerator_count: chips a node; a fraction for a shared chip.
        price_model: `on_demand`, `spot` (may be taken back by the cloud), `capacity_block` (reserved for a time), or
            `flex_start` (nodes come when there is room for them, and go after a time that is known).
        nodes_min: the autoscaler's lower bound.
        nodes_desired: the size at creation; the autoscaler's from then on. Defaults to `nodes_min`.
        nodes_max: the autoscaler's upper bound; what cost limits are judged on.
        image_gib: the largest container image that will run here, unpacked.
        disk_gib: root disk of each node.
        reservation_id: a capacity reservation of yours to launch into.
        max_run_hours: with flex_start, after how long a node goes; the cloud's longest time unless it is said.
        queued: with flex_start, a job's nodes come all at once or not at all; whoever queues the jobs asks for them
            (a ProvisioningRequest, as Kueue makes it).
        fast_interconnect: network adapters for collectives (EFA on AWS, GPUDirect on Google Cloud), which reach within
            one zone. None: where the offer has them, nodes_max > 1 and there is one zone.
        compact_placement: nodes close together. None: with the fast interconnect, in one zone, without a reservation.
        labels: more labels for the nodes.
        taints: more taints for the nodes, besides the one that keeps other pods off accelerators.
        tags: put on every resource that can carry tags.
        vcpus: of a node, as the offer has them.
        node_autoscaler: who makes the nodes above `nodes_min`; `none` where the cloud's own node pool does.
        stands_in_for: the pool whose workloads run here too, while spot is away; nodes carry its label.
        device_resource: what containers ask for to get an accelerator, where that is for your own device plugin to say:
            FPGAs, of which no vendor's has a name. None: as the vendor's plugin calls it.
        fabric_images: of the daemons that pods need beside them to use the fast interconnect, by its kind: `TCPX` and
            `TCPXO` of Google Cloud. Such pods see paths of their node. None: they use what any pod may.

    Raises:
        ArgumentError: no cloud could build the combination.
    """

    pool: str
    region: str
    zones: tuple[str, ...]
    instance_type: str
    nodes_max: int
    nodes_min: int = 0
    nodes_desired: int | None = None
    accelerator: str | None = None
    accelerator_count: float = 0
    price_model: Bought = "on_demand"
    image_gib: int = 20
    disk_gib: int = 100
    reservation_id: str | None = None
    max_run_hours: int | None = None
    queued: bool = False
    fast_interconnect: bool | None = None
    compact_placement: bool | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    stands_in_for: str | None = None
    vcpus: float = 0
    node_autoscaler: NodeAutoscalerName = "none"
    device_resource: str | None = None
    fabric_images: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        check_zones(self.region, self.zones, at_least=1)
        self._check_bounds()
        self._check_accelerator()
        self._check_purchase()
        self._check_placement()
        needed = SYSTEM_GIB + UNPACKED_IMAGE_COPIES * self.image_gib
        require(
            self.disk_gib >= needed,
            f"pool {self.pool}: disk_gib {self.disk_gib} is too small for an image of {self.image_gib} GiB, which "
            f"takes {needed} with the system; use {needed} or more.",
        )

    @property
    def nodes_at_creation(self) -> int:
        """Nodes that are made first."""
        return self.nodes_min if self.nodes_desired is None else self.nodes_desired

    @property
    def is_taken_back(self) -> bool:
        """Whether what runs on it must reckon with the cloud's taking a node back: spot, or what stands in for that."""
        return self.price_model == "spot" or self.stands_in_for is not None

    @property
    def nodes_beyond(self) -> int:
        """Nodes that an autoscaler in the cluster may add to those of the cloud's own node pool."""
        return 0 if self.node_autoscaler == "none" else self.nodes_max - self.nodes_min

    def _check_bounds(self) -> None:
        require(
            0 <= self.nodes_min <= self.nodes_max and self.nodes_max >= 1,
            f"pool {self.pool}: nodes_min {self.nodes_min} and nodes_max {self.nodes_max} are not bounds; "
            "use 0 or more for nodes_min, and at least 1 and nodes_min for nodes_max.",
        )
        require(
            self.nodes_min <= self.nodes_at_creation <= self.nodes_max,
            f"pool {self.pool}: nodes_desired {self.nodes_desired} is outside of nodes_min {self.nodes_min} to "
            f"nodes_max {self.nodes_max}; move it inside, or move the bound.",
        )

    def _check_accelerator(self) -> None:
        require(
            (self.accelerator is None) == (self.accelerator_count == 0) and self.accelerator_count >= 0,
            f"pool {self.pool}: accelerator {self.accelerator} does not go with accelerator_count "
            f"{self.accelerator_count:g}; name both from the offer, or neither for a pool of CPUs.",
        )

    def _check_purchase(self) -> None:
        require(
            not (self.price_model == "spot" and self.reservation_id),
            f"pool {self.pool}: spot nodes can't come from the reservation {self.reservation_id}; "
            "use price_model on_demand, or remove reservation_id.",
        )
        require(
            not (self.price_model == "capacity_block" and not self.reservation_id),
            f"pool {self.pool}: price_model capacity_block needs the block that you bought; "
            "set reservation_id to its id, or use price_model on_demand.",
        )
        require(
            not (self.reservation_id and len(self.zones) > 1),
            f"pool {self.pool}: reservation {self.reservation_id} lies in one zone, but zones names {len(self.zones)}; "
            "name only the reservation's zone.",
        )

        self._check_flex_start()

    def _check_flex_start(self) -> None:
        is_flexible = self.price_model == "flex_start"
        require(
            is_flexible or not (self.queued or self.max_run_hours is not None),
            f"pool {self.pool}: queued and max_run_hours are of price_model flex_start, and it is {self.price_model}; "
            "leave them out, or use flex_start.",
        )
        require(
            not (is_flexible and self.reservation_id),
            f"pool {self.pool}: flex_start takes no nodes from the reservation {self.reservation_id}; use price_model "
            "on_demand, or remove reservation_id.",
        )
        require(
            not (is_flexible and self.nodes_at_creation),
            f"pool {self.pool}: nodes of flex_start come when pods wait for them, so it can't start with "
            f"{self.nodes_at_creation}; use nodes_min 0 and nodes_desired 0.",
        )
        require(
            self.max_run_hours is None or self.max_run_hours >= 1,
            f"pool {self.pool}: max_run_hours {self.max_run_hours}; use 1 hour or more.",
        )

    def _check_placement(self) -> None:
        require(
            not (self.fast_interconnect and len(self.zones) > 1),
            f"pool {self.pool}: fast_interconnect does not reach from zone to zone, but zones names {len(self.zones)}; "
            "name one zone, or leave fast_interconnect out.",
        )
        require(
            not (self.compact_placement and len(self.zones) > 1),
            f"pool {self.pool}: compact_placement is only possible within one zone, but zones names {len(self.zones)}; "
            "name one zone, or leave compact_placement out.",
        )
        require(
            not (self.compact_placement and self.reservation_id),
            f"pool {self.pool}: reservation {self.reservation_id} already fixes where its nodes are; "
            "leave compact_placement out, or remove reservation_id.",
        )


@dataclass(frozen=True, slots=True)
class Hosts:
    """The machines of one node of a pool, which come and go as one: those of a slice of TPUs.

    Attributes:
        count: how many; each takes a pod.
        label: of the machines, the same on all those of one node.
    """

    count: int
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """A container beside a workload's own, which moves data between accelerators of several nodes.

    Attributes:
        name: of the container.
        image: by digest.
        script: what its shell runs, as root.
        capabilities: beyond those of any container.
        environment: plain.
        node_paths: the node's paths by where the container sees them.
    """

    name: str
    image: str
    script: str
    capabilities: tuple[str, ...]
    environment: Mapping[str, str]
    node_paths: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fabric:
    """What a pod that has a whole node does to send past the CPU, where it takes more than a device to ask for.

    Attributes:
        annotations: of the pod.
        environment: what the libraries of collectives look for.
        node_paths: the node's paths by where the workload's container sees them.
        shared_path: a folder that the container has in common with the daemon; None for none.
        daemon: beside the container; None where none is needed.
        device_class: what interfaces are claimed from (DRA); None where none are.
        devices: how many of them.
    """

    annotations: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str]
    node_paths: Mapping[str, str]
    shared_path: str | None = None
    daemon: Daemon | None = None
    device_class: str | None = None
    devices: int = 0


class AcceleratorPool(pulumi.ComponentResource):
    """A pool of nodes, whichever cloud it is on.

    Attributes:
        args: what it was made from.
        pool_name: the node pool's name in the cloud.
        device_resource: what a container asks for to get a chip, such as `nvidia.com/gpu`; None for a pool of CPUs.
        interconnect_resource: likewise for a network adapter for collectives; None where the pool has none.
        interconnects_per_node: how many of those a node has.
        node_selector: labels that select this pool's nodes.
        taints: what a pod must tolerate to run here.
        hosts: the machines of each node; None where a node is one.
        pod_environment: what the chips' own libraries look for in a pod's environment.
        fabric: how pods that train together join the fast interconnect; None where they ask for a device, or don't.
    """

    args: AcceleratorPoolArgs
    pool_name: pulumi.Output[str]
    device_resource: str | None
    interconnect_resource: str | None
    interconnects_per_node: int
    node_selector: Mapping[str, str]
    taints: tuple[Taint, ...]
    hosts: Hosts | None = None
    pod_environment: Mapping[str, str] = MappingProxyType({})
    fabric: Fabric | None = None


def node_labels(args: AcceleratorPoolArgs) -> dict[str, str]:
    """What pods and people select nodes by."""
    chip = {"fusion.dev/accelerator": args.accelerator} if args.accelerator else {}
    own = {POOL_LABEL: args.stands_in_for or args.pool, "fusion.dev/price-model": args.price_model.replace("_", "-")}
    return {**args.labels, **own, **chip}


def pool_facts(cloud: str, args: AcceleratorPoolArgs) -> dict[str, object]:
    """What guardrails judge a pool of any cloud by; plain values, known in every preview."""
    return {
        "cloud": cloud,
        "region": args.region,
        "zones": list(args.zones),
        "pool": args.pool,
        "instance_type": args.instance_type,
        "accelerator": args.accelerator,
        "accelerator_count": args.accelerator_count,
        "price_model": args.price_model,
        "nodes_min": args.nodes_min,
        "nodes_desired": args.nodes_at_creation,
        "nodes_max": args.nodes_max,
        "disk_gib": args.disk_gib,
        "reservation_id": args.reservation_id,
        "max_run_hours": args.max_run_hours,
        "queued": args.queued,
    }
