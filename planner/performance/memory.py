"""Memory that training and inference take on each device, and whether it fits.

Source: S. Rajbhandari et al., "ZeRO" (arXiv 1910.02054), section 3.1 (mixed precision with Adam: 2 + 2 + 12 bytes a
parameter) and section 5 (what each stage divides by the number of devices); T. Chen et al., "Training Deep Nets with
Sublinear Memory Cost" (arXiv 1604.06174) for checkpointed activations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from planner.performance.checks import DoesNotFit, not_negative, positive, whole
from planner.performance.chip import BYTES, GIB, Chip
from planner.profiles.model import ModelProfile

Optimizer = Literal["sgd", "momentum", "adam"]
STATE_BYTES = {"sgd": 0.0, "momentum": 4.0, "adam": 8.0}
"""Bytes of optimizer state by parameter, in fp32."""
RESERVED_FRACTION = 0.06
"""Context, allocator fragments and communication buffers."""


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes on one device by what holds them."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    kv_cache: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.kv_cache


def training_memory(
    profile: ModelProfile,
    precision: str,
    batch_per_device: int,
    *,
    optimizer: Optimizer = "adam",
    zero_stage: int = 0,
    data_parallel: int = 1,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    checkpoint_activations: bool = False,
) -> MemoryUse:
    """Bytes on each device in a training step; the ZeRO stage divides optimizer (1), gradients (2) and weights (3), and
    of pipeline stages the one with most weights counts. All microbatches' activations are kept (GPipe, section 2.3)."""
    whole("batch_per_device", batch_per_device)
    whole("zero_stage", zero_stage, at_least=0, at_most=3)
    whole("data_parallel", data_parallel)
    stages = profile.stages(whole("pipeline_parallel", pipeline_parallel))
    each = profile.parameters * stages.largest_share / whole("tensor_parallel", tensor_parallel)
    size = BYTES[precision]
    master = 4.0 if size < 4 else 0.0
    activations = profile.activation_bytes(size) * batch_per_device / (tensor_parallel * pipeline_parallel)
    if checkpoint_activations:
        activations = 2 * activations / max(1.0, math.sqrt(len(profile.layers)))
    return MemoryUse(
        weights=each * size / (data_parallel if zero_stage >= 3 else 1),
        gradients=each * size / (data_parallel if zero_stage >= 2 else 1),
        optimizer=each * (STATE_BYTES[optimizer] + master) / (data_parallel if zero_stage >= 1 else 1),
        activations=activations,
    )


def inference_memory(profile: ModelProfile, precision: str, batch: int) -> MemoryUse:
    """Bytes on a device that serves batches; only the two largest neighbouring activations live at once."""
    whole("batch", batch)
    size = BYTES[precision]
    peak = max(layer.read_numbers + layer.written_numbers for layer in profile.layers)
    return MemoryUse(profile.parameters * size, 0.0, 0.0, peak * size * batch)


def check_fit(use: MemoryUse, chip: Chip, what: str) -> float:
    """Share of the usable memory that is taken.

    Raises:
        DoesNotFit: more than there is; names the largest part and by how much it is too much.
    """
    usable = positive("memory_bytes", chip.memory_bytes) * (1 - RESERVED_FRACTION)
    missing = not_negative("memory use", use.total) - usable
    if missing > 0:
        parts = {name: getattr(use, name) for name in ("weights", "gradients", "optimizer", "activations", "kv_cache")}
        largest = max(parts, key=lambda name: parts[name])
        raise DoesNotFit(
            f"{what} needs {use.total / GIB:.1f} GiB of each {chip.name}, which has {usable / GIB:.1f} GiB to give: "
            f"{missing / GIB:.1f} GiB are missing, and {largest.replace('_', ' ')} take most "
            f"({parts[largest] / GIB:.1f} GiB); "
            "take a smaller batch, a lower precision, more devices with sharding, or a larger accelerator",
            missing / GIB,
        )
    return use.total / usable
