"""How many nodes replicas of several services need together.

First fit, the largest first, as the cluster autoscaler estimates it (its `BinpackingNodeEstimator`): that is how many
nodes it will buy. It is no optimal packing; it never takes more than the services apart would.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

NODE_RESERVED_VCPUS = 0.5
"""Kept for the kubelet, the system pods and the device plugin on every node."""
NODE_RESERVED_MEMORY_FRACTION = 0.15
"""EKS and GKE reserve 255 MiB + 11 MiB a pod, and eviction room; 15 % bounds it on the smallest GPU nodes (16 GiB)."""
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Demand:
    """What one replica asks of its node, or what a node has to give."""

    accelerators: float
    vcpus: float
    memory_gib: float

    def times_in(self, room: Demand) -> int:
        """How often it fits."""
        pairs = (
            (room.accelerators, self.accelerators),
            (room.vcpus, self.vcpus),
            (room.memory_gib, self.memory_gib),
        )
        return math.floor(min(has / asks for has, asks in pairs if asks) + ROUNDING)

    def share_of(self, node: Demand) -> float:
        """The largest share of a node's resources that it takes."""
        pairs = (
            (node.accelerators, self.accelerators),
            (node.vcpus, self.vcpus),
            (node.memory_gib, self.memory_gib),
        )
        return max(asks / has if has else math.inf for has, asks in pairs if asks)

    def less(self, other: Demand, times: int) -> Demand:
        """What is left after it was taken that often."""
        return Demand(
            self.accelerators - times * other.accelerators,
            self.vcpus - times * other.vcpus,
            self.memory_gib - times * other.memory_gib,
        )


def room_of(accelerators: float, vcpus: float, memory_gib: float) -> Demand:
    """What a node leaves for workloads; a part of an accelerator is one device to Kubernetes."""
    devices = 1.0 if 0 < accelerators < 1 else accelerators
    return Demand(devices, vcpus - NODE_RESERVED_VCPUS, memory_gib * (1 - NODE_RESERVED_MEMORY_FRACTION))


def nodes_for(room: Demand, replicas: Sequence[tuple[int, Demand]]) -> int | None:
    """Nodes with that room for (how many, what each asks); None where one doesn't fit at all."""
    asked = [(count, demand) for count, demand in replicas if count]
    if any(demand.times_in(room) < 1 for _, demand in asked):
        return None
    apart = sum(math.ceil(count / demand.times_in(room)) for count, demand in asked)
    if len(asked) < 2:
        return apart
    open_nodes: list[tuple[int, Demand]] = []
    for count, demand in sorted(asked, key=lambda each: -each[1].share_of(room)):
        open_nodes = _placed(room, open_nodes, count, demand)
    return min(apart, sum(nodes for nodes, _ in open_nodes))


def _placed(room: Demand, open_nodes: list[tuple[int, Demand]], count: int, demand: Demand) -> list[tuple[int, Demand]]:
    """The nodes after `count` replicas were put into the first with room; equal nodes stand together, counted."""
    result: list[tuple[int, Demand]] = []
    for nodes, left in [*open_nodes, (math.ceil(count / demand.times_in(room)), room)]:
        each = demand.times_in(left)
        filled = min(nodes, count // each) if each else 0
        rest = count - filled * each
        is_new = left is room
        if filled:
            result.append((filled, left.less(demand, each)))
        if each and rest and filled < nodes:
            result.append((1, left.less(demand, rest)))
            filled, rest = filled + 1, 0
        if not is_new and filled < nodes:
            result.append((nodes - filled, left))
        count = rest if each else count
    return result
