"""Node pools of one offer: GPUs with their drivers, or slices of TPUs that come and go as one."""

from __future__ import annotations

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


class GcpAcceleratorPool(AcceleratorPool):
    """A NodePool; of slices with several hosts one NodePool each, as GKE makes and removes those whole.

    `nodes_min` and `nodes_max` count slices then, and `pool_name` has the names of all, with commas between.

    Makes: one or more NodePools.

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
        own = (Taint(key=self.device_resource, value="present"),) if self.device_resource else ()
        self.taints = (*own, *args.taints)
        names = [self._make_pool(f"{name}{suffix}", fields).name for suffix, fields in pools(args).items()]
        self.pool_name = pulumi.Output.all(*names).apply(", ".join)
        self.register_outputs({"pool_name": self.pool_name})

    def _make_pool(self, name: str, fields: dict[str, Any]) -> gcp.container.NodePool:
        args, machine = self.args, self._machine
        zones = fields["node_locations"]
        return gcp.container.NodePool(
            name,
            name=versioned_name(name, NODE_POOL_NAME_MAX, args.instance_type, args.price_model, *zones),
            cluster=self._cluster.cluster_name,
            location=args.region,
            node_config=node_config(
                machine.machine_type,
                disk_gib=args.disk_gib,
                disk_type=machine.disk_type,
                key=self._cluster.disk_key,
                service_account=self._cluster.node_account,
                tags=args.tags,
                more=_of_node(args, machine),
            ),
            management=gcp.container.NodePoolManagementArgs(auto_repair=True, auto_upgrade=True),
            # The size is the autoscaler's once the pool exists.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[self._cluster], ignore_changes=["initialNodeCount"]),
            **fields,
        )


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


def _of_node(args: AcceleratorPoolArgs, machine: Machine) -> dict[str, Any]:
    """What sets a pool's nodes apart from others."""
    node = gcp.container
    driver = node.NodePoolNodeConfigGuestAcceleratorGpuDriverInstallationConfigArgs(gpu_driver_version="DEFAULT")
    guest = node.NodePoolNodeConfigGuestAcceleratorArgs(
        type=machine.guest_accelerator or "", count=machine.gpus, gpu_driver_installation_config=driver
    )
    reserved = node.NodePoolNodeConfigReservationAffinityArgs(
        consume_reservation_type="SPECIFIC_RESERVATION",
        key="compute.googleapis.com/reservation-name",
        values=[args.reservation_id or ""],
    )
    return {
        "spot": args.price_model == "spot",
        "labels": node_labels(args),
        "taints": [
            node.NodePoolNodeConfigTaintArgs(key=each.key, value=each.value, effect=TAINT_EFFECTS[each.effect])
            for each in args.taints
        ],
        "guest_accelerators": [guest] if machine.guest_accelerator else None,
        "gvnic": node.NodePoolNodeConfigGvnicArgs(enabled=True) if machine.rule else None,
        "reservation_affinity": reserved if args.reservation_id else None,
    }


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
        f"{pool} is not sold on demand; use price_model spot, or a machine type with all eight GPUs.",
    )
    require(
        args.node_autoscaler == "none",
        f"{pool}: node_autoscaler {args.node_autoscaler} makes nodes on AWS alone; leave it out, and GKE's own does.",
    )
    require(
        not args.fast_interconnect,
        f"{pool}: the networks of GPUDirect are not built here; leave fast_interconnect out.",
    )
    require(
        not args.compact_placement or bool(machine.rule and machine.rule.compact),
        f"{pool} can't be placed compactly; choose another machine type, or leave compact_placement out.",
    )


def hosts_per_node(args: AcceleratorPoolArgs) -> int:
    """Machines that come and go as one node of the pool: the hosts of a slice of TPUs."""
    return _machine(args).hosts


def is_compact(args: AcceleratorPoolArgs) -> bool:
    """Whether a pool of GPUs is placed compactly: as told, else where its nodes can be and nothing forbids it."""
    if args.compact_placement is not None:
        return args.compact_placement
    machine = _machine(args)
    several = args.nodes_max > 1 and len(args.zones) == 1 and args.reservation_id is None
    return several and machine.slice is None and bool(machine.rule and machine.rule.compact)


def device_resource(machine: Machine) -> str | None:
    """What a container asks for to get a chip."""
    if machine.slice:
        return TPU
    return GPU if machine.guest_accelerator else None


def node_selector(args: AcceleratorPoolArgs, machine: Machine) -> dict[str, str]:
    """Labels of the pool's nodes; GKE takes pods with TPUs only where they name generation and topology."""
    if machine.slice is None:
        return {POOL_LABEL: args.pool}
    return {
        POOL_LABEL: args.pool,
        "cloud.google.com/gke-tpu-accelerator": TPU_ACCELERATORS[machine.slice.accelerator],
        "cloud.google.com/gke-tpu-topology": machine.slice.topology,
    }


def facts(args: AcceleratorPoolArgs) -> dict[str, object]:
    """What guardrails judge a pool by; plain values, known in every preview."""
    return pool_facts("gcp", args) | {"compact_placement": is_compact(args)}


def _machine(args: AcceleratorPoolArgs) -> Machine:
    return machine_of(args.instance_type, args.accelerator, args.accelerator_count)
