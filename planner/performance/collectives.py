"""Time of collective operations by the α–β model.

Sources: R. Hockney, "The communication challenge for MPP" (Parallel Computing 20, 1994) for α + bytes/β; R. Thakur,
R. Rabenseifner, W. Gropp, "Optimization of Collective Communication Operations in MPICH" (IJHPCA 19, 2005), section
4, for the ring and the tree; P. Patarasuk and X. Yuan (JPDC 69, 2009) for the ring's 2(n - 1)/n optimum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from planner.performance.checks import fraction, not_negative, positive, whole


@dataclass(frozen=True, slots=True)
class Link:
    """One device's way to its neighbours: `latency_s` a message and bytes/s in one direction."""

    bytes_per_s: float
    latency_s: float
    efficiency: float = 0.8
    """Share of the bandwidth that large messages reach; NCCL's bus bandwidth is about 0.8 of the links'."""

    def __post_init__(self) -> None:
        positive("link bytes_per_s", self.bytes_per_s)
        not_negative("link latency_s", self.latency_s)
        positive("link efficiency", fraction("link efficiency", self.efficiency))

    @property
    def rate(self) -> float:
        """Bytes by second that large messages reach."""
        return self.bytes_per_s * self.efficiency


def ring_all_reduce_s(size_bytes: float, devices: int, link: Link) -> float:
    """2(n - 1)·α + 2(n - 1)/n · bytes/β (Thakur et al., section 4.5)."""
    n = _devices(size_bytes, devices)
    return 2 * (n - 1) * link.latency_s + 2 * (n - 1) / n * size_bytes / link.rate


def tree_all_reduce_s(size_bytes: float, devices: int, link: Link) -> float:
    """2⌈log₂ n⌉·α + 2·bytes/β: a pipelined reduction and broadcast along a double tree (NCCL 2.4; Sanders et al.
    2009)."""
    n = _devices(size_bytes, devices)
    return 0.0 if n == 1 else 2 * math.ceil(math.log2(n)) * link.latency_s + 2 * size_bytes / link.rate


def all_reduce_s(size_bytes: float, devices: int, link: Link) -> float:
    """The faster of ring and tree, as NCCL chooses."""
    return min(ring_all_reduce_s(size_bytes, devices, link), tree_all_reduce_s(size_bytes, devices, link))


def all_gather_s(size_bytes: float, devices: int, link: Link) -> float:
    """(n - 1)·α + (n - 1)/n · bytes/β, where `size_bytes` is what each has afterwards (Thakur et al., section 4.1)."""
    n = _devices(size_bytes, devices)
    return (n - 1) * link.latency_s + (n - 1) / n * size_bytes / link.rate


def reduce_scatter_s(size_bytes: float, devices: int, link: Link) -> float:
    """As all-gather, the other way round (Thakur et al., section 4.2)."""
    return all_gather_s(size_bytes, devices, link)


def hierarchical_all_reduce_s(
    size_bytes: float, devices_per_node: int, nodes: int, inside: Link, between: Link
) -> float:
    """Reduce-scatter in the node, all-reduce of each shard between nodes, all-gather in the node.

    `between` is one device's share of the node's network.
    """
    whole("nodes", nodes)
    shard = size_bytes / whole("devices_per_node", devices_per_node)
    return (
        reduce_scatter_s(size_bytes, devices_per_node, inside)
        + all_reduce_s(shard, nodes, between)
        + all_gather_s(size_bytes, devices_per_node, inside)
    )


def _devices(size_bytes: float, devices: int) -> int:
    not_negative("size_bytes", size_bytes)
    return whole("devices", devices, at_most=10**7)
