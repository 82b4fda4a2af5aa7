"""Time of collective operations by the α–β model.

Sources: R. Hockney, "The communication challenge for MPP" (Parallel Computing 20, 1994) for α + bytes/β; R. Thakur,
R. Rabenseifner, W. Gropp, "Optimization of Collective Communication Operations in MPICH" (IJHPCA 19, 2005), section
4, for the ring and the tree; P. Patarasuk and X. Yuan (JPDC 69, 2009) for the ring's 2(n - 1)/n optimum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from planner.performance.checks import fraction, not_negative, positive, whole
from planner.performance.chip import Chip

LINKS_FROM_BYTES_PER_S = 100e9
"""Chips whose links carry more in one direction have links of their own (NVLink, ICI, Infinity Fabric); others share the
host's PCIe."""
FAST_LINKS_FROM_BYTES_PER_S = 600e9
LINK_SHARES = ((2, 0.62), (4, 0.71), (10**9, 0.85))
FAST_LINK_SHARES = ((2, 0.53), (4, 0.62), (10**9, 0.62))
PCIE_SHARES = ((2, 0.6), (4, 0.26), (10**9, 0.17))
"""Most devices, and the share of one direction's bandwidth that a large all-reduce reaches, in the ring's count of bytes:
about the geometric means over the chips of ``benchmarks/data/all_reduce_measured.csv``. Links of Blackwell's speed are
filled less."""
INSIDE_START_S, INSIDE_LATENCY_S = 4.5e-6, 2.3e-6
"""Launch of a collective in a node, and of one of its messages: set by hand with the same rows in sight."""


@dataclass(frozen=True, slots=True)
class Link:
    """One device's way to its neighbours: `latency_s` a message and bytes/s in one direction."""

    bytes_per_s: float
    latency_s: float
    efficiency: float = 0.8
    """Share of the bandwidth that large messages reach; NCCL's bus bandwidth is about 0.8 of the links'."""
    start_s: float = 0.0
    """Launch of a collective, whatever its size."""

    def __post_init__(self) -> None:
        positive("link bytes_per_s", self.bytes_per_s)
        not_negative("link latency_s", self.latency_s)
        not_negative("link start_s", self.start_s)
        positive("link efficiency", fraction("link efficiency", self.efficiency))

    @property
    def rate(self) -> float:
        """Bytes by second that large messages reach."""
        return self.bytes_per_s * self.efficiency


def inside_link(chip: Chip, devices: int) -> Link:
    """A chip's way to the others of its node, when that many of them exchange."""
    shares = PCIE_SHARES
    if chip.link_bytes_per_s > LINKS_FROM_BYTES_PER_S:
        shares = FAST_LINK_SHARES if chip.link_bytes_per_s > FAST_LINKS_FROM_BYTES_PER_S else LINK_SHARES
    share = next(share for most, share in shares if devices <= most)
    return Link(chip.link_bytes_per_s, INSIDE_LATENCY_S, share, INSIDE_START_S)


def ring_all_reduce_s(size_bytes: float, devices: int, link: Link) -> float:
    """2(n - 1)·α + 2(n - 1)/n · bytes/β (Thakur et al., section 4.5)."""
    n = _devices(size_bytes, devices)
    return 0.0 if n == 1 else link.start_s + 2 * (n - 1) * link.latency_s + 2 * (n - 1) / n * size_bytes / link.rate


def tree_all_reduce_s(size_bytes: float, devices: int, link: Link) -> float:
    """2⌈log₂ n⌉·α + 2·bytes/β: a pipelined reduction and broadcast along a double tree (NCCL 2.4; Sanders et al.
    2009)."""
    n = _devices(size_bytes, devices)
    return 0.0 if n == 1 else link.start_s + 2 * math.ceil(math.log2(n)) * link.latency_s + 2 * size_bytes / link.rate


def all_reduce_s(size_bytes: float, devices: int, link: Link) -> float:
    """The faster of ring and tree, as NCCL chooses."""
    return min(ring_all_reduce_s(size_bytes, devices, link), tree_all_reduce_s(size_bytes, devices, link))


def all_gather_s(size_bytes: float, devices: int, link: Link) -> float:
    """(n - 1)·α + (n - 1)/n · bytes/β, where `size_bytes` is what each has afterwards (Thakur et al., section 4.1)."""
    n = _devices(size_bytes, devices)
    return 0.0 if n == 1 else link.start_s + (n - 1) * link.latency_s + (n - 1) / n * size_bytes / link.rate


def reduce_scatter_s(size_bytes: float, devices: int, link: Link) -> float:
    """As all-gather, the other way round (Thakur et al., section 4.2)."""
    return all_gather_s(size_bytes, devices, link)


def send_s(size_bytes: float, link: Link) -> float:
    """One message to a neighbour: α + bytes/β (Hockney 1994)."""
    return link.latency_s + not_negative("size_bytes", size_bytes) / link.rate


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
