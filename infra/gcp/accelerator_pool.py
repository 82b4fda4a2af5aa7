"""Node pools of one offer: GPUs with their drivers, or slices of TPUs that come and go as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pulumi
import pulumi_gcp as gcp

from infra.accelerator_pool import (
    POOL_LABEL,
    AcceleratorPool,
    AcceleratorPoolArgs,
    Hosts,
    Taint,
    node_labels,
    pool_facts,
)
from infra.errors import require
from infra.gcp.cluster import GcpCluster
from infra.gcp.gpudirect import (
    DRANET_KUBERNETES_MIN,
    DRANET_LABEL,
    NETWORKS,
    PROFILE_LABEL,
    RDMA,
    GpuNetwork,
    fabric,
)
from infra.gcp.machines import Machine, machine_of
from infra.gcp.nodes import NODE_POOL_NAME_MAX, node_config
from infra.names import versioned_name

TAINT_EFFECTS = {"NoSchedule": "NO_SCHEDULE", "PreferNoSchedule": "PREFER_NO_SCHEDULE", "NoExecute": "NO_EXECUTE"}
GPU, TPU = "nvidia.com/gpu", "google.com/tpu"
"""What GKE calls its chips; also the key of the taint that it puts on their nodes by itself."""
NODE_POOL_LABEL = "cloud.google.com/gke-nodepool"
TPU_ENVIRONMENT = {"PJRT_DEVICE": "TPU"}
"""By which torch_xla, and with it the training program, knows its device ("PJRT Runtime", PyTorch/XLA)."""
TPU_ACCELERATORS = {
    "TPUv4": "tpu-v4-podslice",
    "TPUv5e": "tpu-v5-lite-podslice",
    "TPUv5p": "tpu-v5p-slice",
    "TPUv6e": "tpu-v6e-slice",
}
"""The label `cloud.google.com/gke-tpu-accelerator`, which a pod with TPUs must select ("Plan TPUs in GKE")."""
FLEX_START_HOURS_MAX = 7 * 24
FLEX_START_LABEL = "cloud.google.com/gke-flex-start"
"""On the nodes of flex-start, and selected by the pods that are to have such ("Flex-start", GKE)."""
QUEUED_TAINT = Taint(key="cloud.google.com/gke-queued", value="true")
"""GKE puts it on the nodes that a ProvisioningRequest asked for ("Flex-start with queued provisioning", GKE)."""


class GcpAcceleratorPool(AcceleratorPool):
    """A NodePool; of slices with several hosts one NodePool each, as GKE makes and removes those whole.

    `nodes_min` and `nodes_max` count slices then, and `pool_name` has the names of all, with commas between.

    With the fast interconnect its nodes have an interface in each of the networks of GPUDirect: those of RDMA are made
    by GKE, those of TCPX and TCPXO by the cluster. `fabric` is what a pod does to join them.

    Makes: one or more NodePools; of the first pool with TCPX or TCPXO, four or eight Networks with their Subnetwork and
    Firewall, which are the cluster's.

    Example:
        >>> args = AcceleratorPoolArgs(
        ...     pool="train", region="us-central1", zones=("us-central1-a",), instance_type="tpu-v5e-16chip",
        ...     accelerator="TPUv5e", accelerator_count=16, nodes_max=1,
        ... )
        >>> pool = GcpAcceleratorPool("prod-train", args, cluster)
    """

    def __init__(
        self, name: str, args: AcceleratorPoolArgs, cluster: GcpCluster, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        check(args)
        super().__init__("fusion:gcp:AcceleratorPool", name, facts(args), opts)
        self.args = args
        self._name = name
        self._cluster = cluster
        self._machine = _machine(args)
        self.device_resource = device_resource(self._machine)
        self.interconnect_resource, self.interconnects_per_node = None, 0
        self.node_selector = node_selector(args, self._machine)
        if self._machine.slice:
            self.pod_environment = TPU_ENVIRONMENT
        if self._machine.hosts > 1:
            self.hosts = Hosts(self._machine.hosts, NODE_POOL_LABEL)
        self.taints = taints(args, self.device_resource)
        kind = gpudirect(args)
        self._networks = cluster.gpu_networks(NETWORKS.get(kind, 0))
        if kind and args.fabric_images is not None:
            self._check_claims(kind)
            self.fabric = fabric(kind, args.instance_type, args.fabric_images)
        names = [self._make_pool(f"{name}{suffix}", fields).name for suffix, fields in pools(args).items()]
        self.pool_name = pulumi.Output.all(*names).apply(", ".join)
        self.register_outputs({"pool_name": self.pool_name})

    def _check_claims(self, kind: str) -> None:
        version = self._cluster.args.kubernetes_version
        require(
            kind != RDMA or tuple(int(part) for part in version.split(".")) >= DRANET_KUBERNETES_MIN,
            f"pool {self.args.pool}: pods claim the interfaces of GPUDirect-RDMA, which Kubernetes {version} does not "
            f"serve; use {'.'.join(str(part) for part in DRANET_KUBERNETES_MIN)} or newer.",
        )

    def _make_pool(self, name: str, fields: dict[str, Any]) -> gcp.container.NodePool:
        args = self.args
        zones = fields["node_locations"]
        return gcp.container.NodePool(
            name,
            name=versioned_name(name, NODE_POOL_NAME_MAX, args.instance_type, args.price_model, *zones),
            cluster=self._cluster.cluster_name,
            # The size is the autoscaler's once the pool exists.
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[self._cluster, *(each for network in self._networks for each in network.made)],
                ignore_changes=["initialNodeCount"],
            ),
            **node_pool(args, fields, self._cluster.disk_key, self._cluster.node_account, self._networks),
        )


def node_pool(
    args: AcceleratorPoolArgs,
    fields: Mapping[str, Any],
    key: pulumi.Input[str],
    service_account: pulumi.Input[str],
    networks: Sequence[GpuNetwork] = (),
) -> dict[str, Any]:
    """One of a pool's node pools, but for its name and its cluster.

    Args:
        fields: its place, placement and bounds, from `pools`.
        key: of the nodes' disks.
        service_account: the nodes'.
        networks: of their further interfaces.
    """
    machine = _machine(args)
    return {
        "location": args.region,
        "node_config": node_config(
            machine.machine_type,
            disk_gib=args.disk_gib,
            disk_type=machine.disk_type,
            key=key,
            service_account=service_account,
            tags=args.tags,
            more=_of_node(args, machine),
        ),
        # GKE repairs no nodes of flex-start: it has none to put in their place.
        "management": gcp.container.NodePoolManagementArgs(
            auto_repair=args.price_model != "flex_start", auto_upgrade=True
        ),
        "network_config": _networks(args, networks),
        "queued_provisioning": gcp.container.NodePoolQueuedProvisioningArgs(enabled=True) if args.queued else None,
        **fields,
    }


def pools(args: AcceleratorPoolArgs) -> dict[str, dict[str, Any]]:
    """By what follows the pool's name: the node pools, with place, placement, and bounds in nodes."""
    machine = _machine(args)
    if machine.hosts == 1:
        return {"": _pool(args, args.zones, args.nodes_min, args.nodes_at_creation, args.nodes_max, machine)}
    hosts = machine.hosts
    return {
        f"-{index}": _pool(
            args,
            # A slice lies in one zone; several are spread.
            (args.zones[index % len(args.zones)],),
            hosts * (index < args.nodes_min),
            hosts * (index < args.nodes_at_creation),
            hosts,
            machine,
        )
        for index in range(args.nodes_max)
    }


def _pool(
    args: AcceleratorPoolArgs, zones: tuple[str, ...], least: int, first: int, most: int, machine: Machine
) -> dict[str, Any]:
    """GKE counts the first nodes by zone, and the autoscaler's bounds in total where it is told so."""
    each = -(-first // len(zones))
    return {
        "node_locations": list(zones),
        "initial_node_count": each if each * len(zones) <= most else first // len(zones),
        "autoscaling": gcp.container.NodePoolAutoscalingArgs(
            total_min_node_count=least, total_max_node_count=most, location_policy="ANY"
        ),
        "placement_policy": _placement(args, machine),
    }


def _placement(args: AcceleratorPoolArgs, machine: Machine) -> gcp.container.NodePoolPlacementPolicyArgs | None:
    if machine.slice and machine.hosts > 1:
        return gcp.container.NodePoolPlacementPolicyArgs(type="COMPACT", tpu_topology=machine.slice.topology)
    return gcp.container.NodePoolPlacementPolicyArgs(type="COMPACT") if is_compact(args) else None


def _networks(
    args: AcceleratorPoolArgs, networks: Sequence[GpuNetwork]
) -> gcp.container.NodePoolNetworkConfigArgs | None:
    config = gcp.container.NodePoolNetworkConfigArgs
    if gpudirect(args) == RDMA:
        return config(accelerator_network_profile="auto")
    further = gcp.container.NodePoolNetworkConfigAdditionalNodeNetworkConfigArgs
    each = [further(network=network.network, subnetwork=network.subnet) for network in networks]
    return config(additional_node_network_configs=each) if each else None


def _of_node(args: AcceleratorPoolArgs, machine: Machine) -> dict[str, Any]:
    """What sets a pool's nodes apart from others."""
    node = gcp.container
    driver = node.NodePoolNodeConfigGuestAcceleratorGpuDriverInstallationConfigArgs(gpu_driver_version="DEFAULT")
    guest = node.NodePoolNodeConfigGuestAcceleratorArgs(
        type=machine.guest_accelerator or "", count=machine.gpus, gpu_driver_installation_config=driver
    )
    flexible = args.price_model == "flex_start"
    return {
        "spot": args.price_model == "spot",
        "flex_start": True if flexible else None,
        "max_run_duration": f"{args.max_run_hours * 3_600}s" if args.max_run_hours else None,
        "labels": {**node_labels(args), **(DRANET_LABEL if gpudirect(args) == RDMA else {})},
        "taints": [
            node.NodePoolNodeConfigTaintArgs(key=each.key, value=each.value, effect=TAINT_EFFECTS[each.effect])
            for each in args.taints
        ],
        "guest_accelerators": [guest] if machine.guest_accelerator else None,
        "gvnic": node.NodePoolNodeConfigGvnicArgs(enabled=True) if machine.rule else None,
        "reservation_affinity": _reservation(args),
    }


def _reservation(args: AcceleratorPoolArgs) -> gcp.container.NodePoolNodeConfigReservationAffinityArgs | None:
    affinity = gcp.container.NodePoolNodeConfigReservationAffinityArgs
    if args.price_model == "flex_start":
        return affinity(consume_reservation_type="NO_RESERVATION")
    if args.reservation_id is None:
        return None
    return affinity(
        consume_reservation_type="SPECIFIC_RESERVATION",
        key="compute.googleapis.com/reservation-name",
        values=[args.reservation_id],
    )


def check(args: AcceleratorPoolArgs) -> None:
    """Refuse what Google Cloud can't build, before anything is registered.

    Raises:
        ArgumentError: names what and the way out.
    """
    machine = _machine(args)
    pool = f"pool {args.pool}: {args.instance_type}"
    require(
        args.price_model != "capacity_block",
        f"{pool}: Google Cloud sells no Capacity Blocks; use price_model on_demand with reservation_id, or spot.",
    )
    require(
        not (machine.rule and machine.rule.spot_only and args.price_model == "on_demand" and not args.reservation_id),
        f"{pool} is not sold on demand; use price_model spot or flex_start, or a machine type with all eight GPUs.",
    )
    _check_flex_start(args, machine, pool)
    require(
        args.node_autoscaler == "none",
        f"{pool}: node_autoscaler {args.node_autoscaler} makes nodes on AWS alone; leave it out, and GKE's own does.",
    )
    require(
        args.device_resource is None,
        f"{pool} has no FPGAs, and device_resource {args.device_resource} is what those are called; leave it out.",
    )
    require(
        not args.fast_interconnect or bool(machine.rule and machine.rule.gpudirect),
        f"{pool} has no GPUDirect; choose a3-highgpu-8g, a3-megagpu-8g, a3-ultragpu-8g or a4-highgpu-8g, or leave "
        "fast_interconnect out.",
    )
    kind = gpudirect(args)
    require(
        args.fabric_images is None or kind not in NETWORKS or kind in args.fabric_images,
        f"{pool}: pods use GPUDirect-{kind} with a daemon beside them, and no image of it is named; set fabric_images "
        f"({kind.lower()}_image of fusion:cluster gpudirect), or leave them all out.",
    )
    require(
        not args.compact_placement or bool(machine.rule and machine.rule.compact),
        f"{pool} can't be placed compactly; choose another machine type, or leave compact_placement out.",
    )


def _check_flex_start(args: AcceleratorPoolArgs, machine: Machine, pool: str) -> None:
    if args.price_model != "flex_start":
        return
    require(
        bool(machine.rule and machine.rule.flex_start),
        f"{pool} is not sold as flex_start; use price_model on_demand or spot, or one of A2, A3, G2, TPU v5 or v6.",
    )
    require(
        args.max_run_hours is None or args.max_run_hours <= FLEX_START_HOURS_MAX,
        f"{pool}: max_run_hours {args.max_run_hours} is longer than flex_start nodes run, which is "
        f"{FLEX_START_HOURS_MAX}; use that or less.",
    )
    require(
        not args.compact_placement,
        f"{pool}: nodes of flex_start are not placed compactly; leave compact_placement out.",
    )


def hosts_per_node(args: AcceleratorPoolArgs) -> int:
    """Machines that come and go as one node of the pool: the hosts of a slice of TPUs."""
    return _machine(args).hosts


def is_compact(args: AcceleratorPoolArgs) -> bool:
    """Whether a pool of GPUs is placed compactly: as told, else where its nodes can be and nothing forbids it."""
    if args.compact_placement is not None:
        return args.compact_placement
    machine = _machine(args)
    is_fixed = args.reservation_id is not None or args.price_model == "flex_start"
    several = args.nodes_max > 1 and len(args.zones) == 1 and not is_fixed
    return several and machine.slice is None and bool(machine.rule and machine.rule.compact)


def gpudirect(args: AcceleratorPoolArgs) -> str:
    """By which kind of GPUDirect a pool's nodes reach each other: as told, else where several nodes in one zone can.

    Empty where by none.
    """
    rule = _machine(args).rule
    several = args.nodes_max > 1 and len(args.zones) == 1
    is_fast = several if args.fast_interconnect is None else args.fast_interconnect
    return rule.gpudirect if rule and is_fast else ""


def device_resource(machine: Machine) -> str | None:
    """What a container asks for to get a chip."""
    if machine.slice:
        return TPU
    return GPU if machine.guest_accelerator else None


def node_selector(args: AcceleratorPoolArgs, machine: Machine) -> dict[str, str]:
    """Labels of the pool's nodes; GKE takes pods with TPUs only where they name generation and topology."""
    own = {POOL_LABEL: args.pool} | ({FLEX_START_LABEL: "true"} if args.price_model == "flex_start" else {})
    if gpudirect(args) == RDMA:
        own |= PROFILE_LABEL
    if machine.slice is None:
        return own
    return {
        **own,
        "cloud.google.com/gke-tpu-accelerator": TPU_ACCELERATORS[machine.slice.accelerator],
        "cloud.google.com/gke-tpu-topology": machine.slice.topology,
    }


def taints(args: AcceleratorPoolArgs, device: str | None) -> tuple[Taint, ...]:
    """What a pod must tolerate: GKE's own taints, and those that were asked for."""
    own = (Taint(key=device, value="present"),) if device else ()
    return (*own, *((QUEUED_TAINT,) if args.queued else ()), *args.taints)


def facts(args: AcceleratorPoolArgs) -> dict[str, object]:
    """What guardrails judge a pool by; plain values, known in every preview."""
    return pool_facts("gcp", args) | {"compact_placement": is_compact(args), "gpudirect": bool(gpudirect(args))}


def _machine(args: AcceleratorPoolArgs) -> Machine:
    return machine_of(args.instance_type, args.accelerator, args.accelerator_count)
