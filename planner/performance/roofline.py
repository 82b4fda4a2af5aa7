"""Time of a model's forward pass on one chip, layer by layer.

Source: S. Williams, A. Waterman, D. Patterson, "Roofline: An Insightful Visual Performance Model" (CACM 52(4), 2009),
by layer, with the launch overhead of each kernel; matrix products by shape as in `planner.performance.gemm`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from planner.calibration.store import Calibration
from planner.performance.checks import whole
from planner.performance.chip import BYTES, Chip
from planner.performance.gemm import GemmParameters, gemm_time
from planner.performance.host import host_time
from planner.profiles.model import Layer, ModelProfile

_product_time = functools.lru_cache(maxsize=65_536)(gemm_time)
"""A search asks for the same layers on the same chip again and again."""


@dataclass(frozen=True, slots=True)
class PassTime:
    """Seconds of one pass, and how many of them are bound by what."""

    total_s: float
    compute_bound_s: float
    memory_bound_s: float
    launch_s: float

    @property
    def bound_by(self) -> str:
        """What most of the time goes to: compute, memory bandwidth or launches."""
        parts = {"compute": self.compute_bound_s, "memory bandwidth": self.memory_bound_s, "launches": self.launch_s}
        return max(parts, key=lambda name: parts[name])


@dataclass(frozen=True, slots=True, eq=False)
class _Pass:
    """The arguments of `forward_time`, equal where they are the same objects: profiles are long, and don't change."""

    chip: Chip
    profile: ModelProfile
    calibration: Calibration
    precision: str
    batch: int

    def _key(self) -> tuple[object, ...]:
        return id(self.chip), id(self.profile), id(self.calibration), self.precision, self.batch

    def __hash__(self) -> int:
        return hash(self._key())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Pass) and self._key() == other._key()


def forward_time(
    chip: Chip,
    profile: ModelProfile,
    precision: str,
    batch: int,
    calibration: Calibration,
) -> PassTime:
    """Seconds of one forward pass of a batch: Σ over layers of max(FLOPs/(peak·eff), bytes/(bandwidth·eff)) +
    launch. On processors that were measured themselves: `planner.performance.host`.
    """
    return _forward_time(_Pass(chip, profile, calibration, precision, batch))


@functools.lru_cache(maxsize=16_384)
def _forward_time(asked: _Pass) -> PassTime:
    chip, profile, calibration = asked.chip, asked.profile, asked.calibration
    precision, batch = asked.precision, asked.batch
    whole("batch", batch, at_most=10**7)
    if (host := calibration.host_costs(chip.name, precision)) is not None:
        time = host_time(host, profile, precision, batch)
        return PassTime(time.total_s, time.compute_s, time.memory_s, time.launch_s)
    parameters = calibration.gemm(chip.name, precision).parameters
    total = compute_bound = memory_bound = launches = 0.0
    touched = sum(count * (layer.weight_numbers + batch * layer.written_numbers) for layer, count in profile.distinct)
    for layer, count in profile.distinct:
        compute_s, memory_s = _layer_parts(chip, layer, touched, precision, batch, parameters, calibration)
        work = max(compute_s, memory_s) * count
        total += work + parameters.launch_s * count
        launches += parameters.launch_s * count
        if compute_s > memory_s:
            compute_bound += work
        else:
            memory_bound += work
    total += calibration.pass_overhead_s
    return PassTime(total, compute_bound, memory_bound, launches + calibration.pass_overhead_s)


def _layer_parts(
    chip: Chip,
    layer: Layer,
    touched: float,
    precision: str,
    batch: int,
    parameters: GemmParameters,
    calibration: Calibration,
) -> tuple[float, float]:
    """Seconds that a layer computes, and that it moves data; a product's partial overlap counts as the larger.

    `touched` are all numbers of a pass, weights and results: what the cache must hold to have this layer's next time.
    """
    size = BYTES[precision]
    reads = layer.read_numbers * (2 if layer.operation == "normalisation" else 1)  # statistics first, then the values
    moved = size * (batch * (reads + layer.written_numbers) + layer.weight_numbers)
    bandwidth = chip.memory_bandwidth_bytes_per_s * parameters.bandwidth_efficiency
    if chip.l2_bytes > 0 and moved < chip.l2_bytes / 2:
        bandwidth = max(bandwidth, chip.l2_bandwidth_bytes_per_s * parameters.cache_efficiency)
    share = calibration.class_bandwidth_share.get(layer.operation)
    memory_s = moved / (chip.memory_bandwidth_bytes_per_s * share if share else bandwidth)
    if layer.product is None:
        return layer.flops * batch / (chip.peak(precision) * parameters.compute_efficiency), memory_s
    product = layer.product
    if product.count > 1:
        m, count = product.m, product.count * batch
    else:
        m, count = product.m * batch, 1
    copies = max(1.0, touched / (product.n * product.k)) if count == 1 else math.inf
    time = _product_time(chip, precision, m, product.n, product.k, parameters, count=count, weight_copies=copies)
    if layer.operation == "gemm":
        work = time.total_s - time.launch_s
        return (work, 0.0) if time.compute_s > time.memory_s else (0.0, work)
    # a convolution or fused attention reads its input once, not the unrolled matrix
    relative = calibration.convolution(product.k) if layer.operation == "conv" else 1.0
    return time.compute_s / relative, memory_s
