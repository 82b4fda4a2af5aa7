"""Time of one matrix product from its shape: tiles, waves, split-k, cache and bandwidth; few parameters.

Sources: S. Williams, A. Waterman, D. Patterson, "Roofline" (CACM 52(4), 2009); NVIDIA, "Matrix Multiplication
Background User's Guide" (DU-09799), sections "Tile Quantization" and "Wave Quantization"; J. Little, "A Proof for the
Queuing Formula L = λW" (1961) for the bandwidth that a few compute units can draw.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from planner.performance.chip import BYTES, REFERENCE_GHZ, Chip

TILES = ((256, 128), (128, 256), (128, 128), (64, 256), (256, 64), (128, 64), (64, 128), (64, 64), (32, 64), (16, 64))
SPLITS = (1, 2, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class GemmParameters:
    """The fitted constants of one precision; the same for every chip unless a calibration was measured on it."""

    compute_efficiency: float
    """Share of the dense peak that a large tile reaches."""
    tile_overhead: float
    """Numbers of tile edge at which operand traffic from the cache costs as much as the product itself."""
    latency_s_per_k: float
    """Least time that a tile needs for one element of k: the pipeline's latency, whatever the tile's size."""
    bandwidth_efficiency: float
    """Share of the memory bandwidth that a long stream reaches."""
    unit_bandwidth_share: float
    """How many times its equal share of the bandwidth one compute unit can draw alone."""
    cache_speedup: float
    """Bandwidth of the last-level cache over that of memory."""
    launch_s: float
    """Launch and drain of the kernel (of all kernels that one product takes)."""
    wave_s: float
    """Prologue and epilogue of one wave of tiles."""
    split_s: float
    """The extra reduction when k is split among compute units."""
    sharpness: float
    """Exponent p of (compute^p + memory^p)^(1/p): infinite is perfect overlap, 1 is none."""


@dataclass(frozen=True, slots=True)
class GemmTime:
    """Seconds of a matrix product, and its parts if each ran alone."""

    total_s: float
    compute_s: float
    memory_s: float
    launch_s: float


@functools.lru_cache(maxsize=100_000)
def _tilings(m: int, n: int) -> tuple[tuple[int, int, int], ...]:
    """(tiles, rows, columns) of those tile shapes that are not plainly larger than the product."""
    shapes = [(rows, columns) for rows, columns in TILES if rows < 2 * m + 15 and columns < 2 * n + 63] or [TILES[-1]]
    return tuple((math.ceil(m / rows) * math.ceil(n / columns), rows, columns) for rows, columns in shapes)


def gemm_time(
    chip: Chip,
    precision: str,
    m: int,
    n: int,
    k: int,
    p: GemmParameters,
    *,
    count: int = 1,
    weight_copies: float = math.inf,
) -> GemmTime:
    """Seconds of `count` products (m × k)·(k × n) in one launch: the best of the tile shapes and splits of k.

    `weight_copies` is how many different right-hand matrices are used in turn: if all fit into the last-level cache
    with the left-hand one they are read from there. A model's weights never do (infinite); a benchmark that repeats
    one shape may.
    """
    size = BYTES[precision]
    out_size = max(size, 2.0)
    units = chip.compute_units
    left, right, out = float(m) * k * size * count, float(n) * k * size * count, float(m) * n * out_size * count
    bandwidth = chip.memory_bandwidth_bytes_per_s * p.bandwidth_efficiency
    hot = chip.l2_bytes > 0 and left + right * weight_copies + out < chip.l2_bytes
    left_hot = chip.l2_bytes > 0 and left + right + out < chip.l2_bytes
    cached = (left + right + out) if hot else (left + out if left_hot else 0.0)
    stream_s = (left + right + out - cached) / bandwidth + cached / (bandwidth * p.cache_speedup)
    rate = chip.peak(precision) * chip.sustained * p.compute_efficiency / units
    cycles = REFERENCE_GHZ / chip.clock_ghz
    best, best_parts = math.inf, (0.0, 0.0)
    for one, rows, columns in _tilings(m, n):
        per_k_s = max(
            2.0 * rows * columns / rate * (1 + p.tile_overhead * (1 / rows + 1 / columns)), p.latency_s_per_k * cycles
        )
        for split in SPLITS:
            if split > 1 and (one * count * split > 2 * units or k < 64 * split):
                break
            tiles = one * count * split
            waves = math.ceil(tiles / units)
            compute_s = waves * (per_k_s * k / split + p.wave_s * cycles)
            drawn = min(1.0, p.unit_bandwidth_share * min(tiles, units) / units)
            memory_s = (stream_s + (2 * out * split * 2 / (bandwidth * p.cache_speedup) if split > 1 else 0.0)) / drawn
            total = (compute_s**p.sharpness + memory_s**p.sharpness) ** (1 / p.sharpness)
            total += p.split_s * cycles if split > 1 else 0.0
            if total < best:
                best, best_parts = total, (compute_s, memory_s)
    return GemmTime(best + p.launch_s * cycles, *best_parts, p.launch_s * cycles)
