"""From the plan's pools to what jobs queue for: flavors of a cluster, and each queue's share of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from infra.accelerator_pool import POOL_LABEL, SYSTEM_GIB, AcceleratorPool
from infra.errors import require
from infra.kubernetes import pods
from infra.kubernetes.pods import PodArgs
from infra.kubernetes.queue import Amounts, FlavorArgs, FlavorsArgs, Provisioning, QueueArgs, shares_of

QUEUED_CLASS = "queued-provisioning.gke.io"
"""The autoscaler's class ("Run a large-scale workload with flex-start with queued provisioning", GKE)."""
PRICE_MODEL_LABEL = "fusion.dev/price-model"
"""On every node of a pool: it tells a pool's own nodes from those that stand in for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSpec:
    """A queue of the stack; the fields are those of QueueArgs, but for its quotas.

    Attributes:
        share: of what each pool has at its maximum.
    """

    name: str
    share: float = 1
    weight: float = 1
    borrows: bool = True
    lends: bool = True
    preempts: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRoom:
    """What one node leaves for workloads."""

    cpus: float
    memory_gib: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueingSpec:
    """How the stack's training jobs wait for nodes.

    Attributes:
        queues: at least one; together they share out no more than all.
        rooms: by pool, what a node leaves; the pools of training jobs, with those that stand in for them.
        topology_levels: node labels, the widest domain first; empty where nodes carry none.

    Raises:
        ArgumentError: shares above the whole, or names that are used twice.
    """

    queues: tuple[QueueSpec, ...]
    rooms: Mapping[str, NodeRoom] = field(default_factory=dict)
    topology_levels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [each.name for each in self.queues]
        require(bool(names), "queueing: no queue; name one.")
        require(len(names) == len(set(names)), f"queueing: of the queues {', '.join(names)} two have one name.")
        total = sum(each.share for each in self.queues)
        require(total <= 1 + 1e-9, f"queueing: the queues' shares add up to {total:g}; use 1 or less.")


def flavors(
    spec: QueueingSpec, pools: Mapping[str, AcceleratorPool], others: Iterable[tuple[str, int, PodArgs]], *, stack: str
) -> FlavorsArgs:
    """The pools of training jobs as flavors, each followed by the pool that stands in for it.

    Args:
        spec: of the stack.
        pools: all of the stack's.
        others: what else runs on them at most, such as an inference service: pool, pods at its maximum, and a pod.
        stack: its name begins those of the flavors.
    """
    rest = list(others)
    ordered = sorted(
        (pool for name, pool in pools.items() if name in spec.rooms),
        key=lambda pool: (pool.args.stands_in_for or pool.args.pool, pool.args.stands_in_for is not None),
    )
    return FlavorsArgs(
        stack=stack,
        topology_levels=spec.topology_levels,
        flavors=tuple(
            FlavorArgs(
                name=f"{stack}-{pool.args.pool}",
                node_labels={
                    **pool.node_selector,  # a gang's pods carry none but the flavor's, and GKE wants the TPUs' there
                    POOL_LABEL: pool.args.stands_in_for or pool.args.pool,
                    PRICE_MODEL_LABEL: pool.args.price_model.replace("_", "-"),
                },
                taints=pool.taints,
                amounts=_at_most(
                    spec.rooms[pool.args.pool], pool, [each for each in rest if each[0] == pool.args.pool]
                ),
                is_topology_aware=pool.device_resource is not None,
                provisioning=_provisioning(pool),
            )
            for pool in ordered
        ),
    )


def queues(spec: QueueingSpec, of: FlavorsArgs, *, namespace: str, cohort: str) -> tuple[QueueArgs, ...]:
    """Each queue with its share of each flavor."""
    shares = {flavor.name: shares_of(flavor.amounts, [each.share for each in spec.queues]) for flavor in of.flavors}
    return tuple(
        QueueArgs(
            name=queue.name,
            namespace=namespace,
            cohort=cohort,
            quotas={flavor: cut[index] for flavor, cut in shares.items()},
            weight=queue.weight,
            borrows=queue.borrows,
            lends=queue.lends,
            preempts=queue.preempts,
            asked_for=tuple(flavor.name for flavor in of.flavors if flavor.provisioning),
        )
        for index, queue in enumerate(spec.queues)
    )


def _provisioning(pool: AcceleratorPool) -> Provisioning | None:
    """Of nodes that come all at once; a node goes with its request, after the pool's time."""
    hours = pool.args.max_run_hours
    if not pool.args.queued or pool.device_resource is None:
        return None
    return Provisioning(
        class_name=QUEUED_CLASS,
        resources=(pool.device_resource,),
        parameters={"maxRunDurationSeconds": str(hours * 3_600)} if hours else {},
    )


def _at_most(room: NodeRoom, pool: AcceleratorPool, others: Iterable[tuple[str, int, PodArgs]]) -> Amounts:
    devices: dict[str, int] = {}
    if pool.device_resource:
        devices[pool.device_resource] = math.ceil(pool.args.accelerator_count)  # a part of a chip is one device
    if pool.interconnect_resource:
        devices[pool.interconnect_resource] = pool.interconnects_per_node
    node = Amounts(
        cpus=room.cpus, memory_gib=room.memory_gib, disk_gib=pool.args.disk_gib - SYSTEM_GIB, devices=devices
    )
    left = node.times(pool.args.nodes_max)
    for _, count, pod in others:
        taken = {pool.device_resource: pod.devices} if pool.device_resource else {}
        each = Amounts(cpus=pod.cpus, memory_gib=pod.memory_gib, disk_gib=pods.disk_gib(pod), devices=taken)
        left = left.minus(each.times(count))
    return left
