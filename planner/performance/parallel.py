"""What many devices add to a training step: communication that overlap does not hide, and pipeline bubbles.

Sources: S. Li et al., "PyTorch Distributed" (VLDB 13, 2020), section 3.2.3 (gradients are reduced in buckets during
backward); S. Rajbhandari et al., "ZeRO" (arXiv 1910.02054), section 7 (volume 3 × parameters at stage 3); M. Shoeybi
et al., "Megatron-LM" (arXiv 1909.08053), section 3 (two all-reduces forward and two backward in a block); Y. Huang et
al., "GPipe" (arXiv 1811.06965), section 2.3 (the bubble); D. Narayanan et al., "Efficient Large-Scale Language Model
Training on GPU Clusters" (arXiv 2104.04473), sections 2.2 and 3.2 (what stages send each other).
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.performance.checks import PerformanceError, fraction, whole
from planner.performance.chip import BYTES
from planner.performance.collectives import (
    Link,
    all_gather_s,
    all_reduce_s,
    hierarchical_all_reduce_s,
    reduce_scatter_s,
    send_s,
)
from planner.profiles.model import ModelProfile

BACKWARD_OVERLAP = 0.9
"""Share of backward beside which gradients can travel: all but the first bucket."""


@dataclass(frozen=True, slots=True)
class Parallelism:
    """How a job's devices are split; `data` follows from the others."""

    devices_per_node: int = 1
    nodes: int = 1
    tensor: int = 1
    pipeline: int = 1
    microbatches: int = 1
    fsdp: bool = False

    def __post_init__(self) -> None:
        for field in ("devices_per_node", "nodes", "tensor", "pipeline", "microbatches"):
            whole(field, getattr(self, field), at_most=10**6)
        if self.devices % (self.tensor * self.pipeline):
            raise PerformanceError(
                f"tensor × pipeline is {self.tensor * self.pipeline}; it must divide the {self.devices} devices"
            )
        if self.devices_per_node % self.tensor:
            raise PerformanceError(
                f"tensor is {self.tensor}; it must divide the {self.devices_per_node} devices of a node, whose "
                "links it needs"
            )

    @property
    def devices(self) -> int:
        """All of them."""
        return self.devices_per_node * self.nodes

    @property
    def data(self) -> int:
        """Replicas that see different samples."""
        return self.devices // (self.tensor * self.pipeline)


def gradient_exchange_s(size_bytes: float, shape: Parallelism, inside: Link, between: Link) -> float:
    """All-reduce of the gradients of one replica among all replicas, by node first where there are several."""
    local = max(1, shape.devices_per_node // shape.tensor)
    if shape.data == 1:
        return 0.0
    if shape.nodes == 1 or shape.data <= 1:
        return all_reduce_s(size_bytes, shape.data, inside)
    local = min(local, shape.data)
    return hierarchical_all_reduce_s(size_bytes, local, max(1, shape.data // local), inside, between)


def fsdp_exchange_s(size_bytes: float, shape: Parallelism, inside: Link, between: Link) -> float:
    """Two all-gathers of the weights and one reduce-scatter of the gradients (ZeRO stage 3: 3 × the parameters)."""
    link = inside if shape.nodes == 1 else between
    return 2 * all_gather_s(size_bytes, shape.data, link) + reduce_scatter_s(size_bytes, shape.data, link)


def exposed_s(exchange_s: float, compute_s: float, overlap: float = BACKWARD_OVERLAP) -> float:
    """What remains of an exchange that runs beside `compute_s` seconds of work."""
    return max(exchange_s - fraction("overlap", overlap) * compute_s, exchange_s * (1 - overlap))


def tensor_parallel_s(profile: ModelProfile, precision: str, batch: int, shape: Parallelism, inside: Link) -> float:
    """All-reduces of the outputs of every second product, forward and backward (column, then row, parallel)."""
    if shape.tensor == 1:
        return 0.0
    each = batch * BYTES[precision]
    return 2 * sum(
        count * all_reduce_s(numbers * each, shape.tensor, inside) for numbers, count in profile.product_outputs
    )


def pipeline_bubble(shape: Parallelism) -> float:
    """Idle share added to a step: (stages - 1)/microbatches (GPipe, section 2.3)."""
    return (shape.pipeline - 1) / shape.microbatches


def stage_exchange_s(
    profile: ModelProfile, precision: str, batch: int, shape: Parallelism, inside: Link, between: Link
) -> float:
    """Seconds in which stages send activations forward and their gradients back, one microbatch after another: each of
    the microbatches + stages - 1 slots of a step has one of either, which nothing hides (Narayanan et al., sections 2.2
    and 3.2)."""
    if shape.pipeline == 1:
        return 0.0
    link = inside if shape.tensor * shape.pipeline <= shape.devices_per_node else between
    sent = profile.stages(shape.pipeline).sent_numbers * BYTES[precision] * batch / shape.microbatches / shape.tensor
    return 2 * (shape.microbatches + shape.pipeline - 1) * send_s(sent, link)
