"""Time of a model's forward pass on a machine's own processors, from costs that `fusion calibrate` measured there.

A processor differs from an accelerator in what matters: a layer's weights may still be in a cache or not, the library
copies weights into a layout of its own at each call, and every call costs microseconds of the framework. Each of these
was measured as a curve; a layer's time is read from the curves of its operation class. Memory is not paid for again
at each pass: `fusion serve` keeps what it frees (`workloads.serving.allocator`), as calibration did.

Sources: S. Williams, A. Waterman, D. Patterson, "Roofline" (CACM 52(4), 2009) for time by work and bytes; K. Goto, R.
van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (ACM TOMS 34(3), 2008) for the copy of the weights
that is shared by all rows.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from planner.performance.chip import BYTES
from planner.profiles.model import Layer, ModelProfile

Cost = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]
Above = Annotated[float, Field(gt=0, le=1e30, allow_inf_nan=False)]
HEAVY = ("gelu", "tanh", "sigmoid", "silu", "exp", "erf", "hardswish", "mish", "softplus", "elu", "log", "pow")
"""Elementwise operations that compute a transcendental function: bound by it, not by the memory."""
LONE_NUMBERS, LONE_SIDE = 20_480, 3.5
PAGE_BYTES = 4096


class Curve(BaseModel):
    """A cost at several sizes; straight lines between them on logarithmic axes, constant beyond."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    at: Annotated[tuple[Above, ...], Field(min_length=1, max_length=100)]
    cost: Annotated[tuple[Above, ...], Field(min_length=1, max_length=100)]

    def __call__(self, size: float) -> float:
        """The cost at that size."""
        right = bisect_left(self.at, size)
        if right == 0 or len(self.at) == 1:
            return self.cost[0]
        if right == len(self.at):
            return self.cost[-1]
        low, high = self.at[right - 1], self.at[right]
        share = math.log(size / low) / math.log(high / low)
        return float(self.cost[right - 1] ** (1 - share) * self.cost[right] ** share)


class HostCosts(BaseModel):
    """What operations cost on one machine at one precision and number of threads."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    threads: Annotated[int, Field(ge=1, le=10_000)]
    launch_s: dict[str, Cost]
    """Of one call from the framework, its allocation of a small result included; by class, with `heavy` and `lone conv`."""
    pass_s: Cost
    """Of the modules that hold others, by pass."""
    row_s_per_byte: Curve
    """Product of one row, by byte of its weights; by bytes that are touched until the weights are needed again."""
    packing_s_per_byte: Curve
    """What products of several rows take beside their FLOPs, by byte of the weights; by bytes touched likewise."""
    aligned_packing_s_per_byte: Curve
    """Likewise where rows of the weights are whole pages long, and fall on the same lines of the caches."""
    product_flops: Curve
    """FLOP/s of products of many rows; by k."""
    attention_flops: Above
    """FLOP/s of fused attention, softmax included."""
    convolution_flops: Curve
    """FLOP/s; by k, the numbers of one filter."""
    lone_convolution_flops: Curve
    """Likewise of those of one small image, which PyTorch gives to another library; see `lone_convolution`."""
    convolution_s_per_weight_byte: Cost
    """Reordering of the filters at each call."""
    move_s_per_byte: dict[str, Curve]
    """Of operations that only move data, by byte read and written; by those bytes. `heavy` are transcendental ones."""


@dataclass(frozen=True, slots=True)
class HostTime:
    """Seconds of a pass by what bounds them."""

    compute_s: float
    memory_s: float
    launch_s: float

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.compute_s + self.memory_s + self.launch_s


def host_time(host: HostCosts, profile: ModelProfile, precision: str, batch: int) -> HostTime:
    """Seconds of one forward pass of a batch."""
    size = BYTES[precision]
    touched = size * sum(layer.weight_numbers + batch * layer.written_numbers for layer in profile.layers)
    compute, memory, launch = 0.0, 0.0, host.pass_s
    for layer in profile.layers:
        compute_s, memory_s = _layer(host, layer, size, batch, touched)
        compute, memory = compute + compute_s, memory + memory_s
        launch += host.launch_s.get(_kind(layer, batch), host.launch_s["elementwise"])
    return HostTime(compute, memory, launch)


def _layer(host: HostCosts, layer: Layer, size: float, batch: int, touched: float) -> tuple[float, float]:
    """Seconds that a layer computes, and that it moves data."""
    product, weights = layer.product, layer.weight_numbers * size
    if product is None:
        moved = size * (batch * (layer.read_numbers + layer.written_numbers) + layer.weight_numbers)
        curve = host.move_s_per_byte.get(_kind(layer, batch), host.move_s_per_byte["elementwise"])
        return 0.0, moved * curve(moved)
    if layer.operation == "conv":
        if _kind(layer, batch) == "lone conv":
            return layer.flops * batch / host.lone_convolution_flops(product.k), 0.0
        return layer.flops * batch / host.convolution_flops(product.k), weights * host.convolution_s_per_weight_byte
    if layer.operation == "attention":
        return layer.flops * batch / host.attention_flops, 0.0
    several = layer.flops * batch / host.product_flops(product.k)
    if product.count > 1:
        return several, 0.0
    weights = product.n * product.k * size
    packing = host.packing_s_per_byte if product.k * size % PAGE_BYTES else host.aligned_packing_s_per_byte
    packed = weights * packing(touched)
    one_by_one = product.m * batch * weights * host.row_s_per_byte(touched)
    return (0.0, one_by_one) if one_by_one < several + packed else (several, packed)


def lone_convolution(batch: int, numbers: float, side: float) -> bool:
    """Whether PyTorch gives a convolution of `numbers` inputs by sample and filters of that side to its own code
    instead of oneDNN (aten/src/ATen/native/Convolution.cpp, use_mkldnn)."""
    return batch == 1 and numbers <= LONE_NUMBERS and side <= LONE_SIDE


def _kind(layer: Layer, batch: int) -> str:
    """The class whose costs a layer has."""
    name = layer.name.partition(":")[2].rstrip("_")
    if layer.operation == "elementwise" and name in HEAVY:
        return "heavy"
    if layer.operation == "conv" and layer.product is not None:
        # k = channels · side², and a result of m pixels is about read ÷ channels of the input
        side = math.sqrt(layer.product.k * layer.product.m / max(1.0, layer.read_numbers))
        if lone_convolution(batch, layer.read_numbers, side):
            return "lone conv"
    return layer.operation
