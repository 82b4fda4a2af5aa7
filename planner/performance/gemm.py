"""Time of one matrix product from its shape: tiles, waves, split-k, caches, write-back; few parameters.

Sources: S. Williams, A. Waterman, D. Patterson, "Roofline" (CACM 52(4), 2009); NVIDIA, "Matrix Multiplication
Background User's Guide" (DU-09799), sections "Tile Quantization" and "Wave Quantization"; H. Zhang et al., "LLMCompass"
(ISCA 2024) for the tile's way through shared memory and last-level cache; J. Little, "A Proof for the Queuing Formula
L = λW" (1961) for the bandwidth that a few compute units can draw.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

from planner.performance.chip import BYTES, REFERENCE_GHZ, REFERENCE_SHARED_MEMORY_BYTES, Chip

TILES = ((256, 128), (128, 256), (128, 128), (64, 256), (256, 64), (128, 64), (64, 128), (64, 64), (32, 64), (16, 64))
SPLITS = (1, 2, 4, 8, 16)
"""What vendor libraries (cuBLAS and its like) choose from."""
QUANTISED = ("fp8", "int8", "fp4")
"""Precisions whose activations are rounded by a kernel of their own, and whose products run in templates (CUTLASS) that
choose the tile by the number of rows and never split k."""
ANY = 10**18
ROW_TILES: Mapping[str, tuple[tuple[int, int, int], ...]] = {
    "ada": ((16, 16, 64), (32, 32, 64), (64, 64, 64), (128, 64, 128), (256, 128, 64), (ANY, 128, 128)),
    "hopper": ((16, 16, 64), (64, 64, 64), (128, 64, 128), (ANY, 128, 128)),
    "blackwell": ((16, 32, 64), (64, 64, 64), (256, 64, 128), (ANY, 128, 128)),
    "blackwell-rtx": ((16, 16, 64), (32, 32, 64), (256, 64, 64), (ANY, 128, 128)),
}
"""Most rows of the product, and rows and columns of one unit's tile, by generation: the ladders of vLLM's fp8
dispatchers (csrc/quantization/…/scaled_mm_sm89, sm90, sm100 and sm120, read 2026-11-25). On Blackwell with HBM a pair of
units shares a tile, of which each has half."""
OTHER_ROW_TILES = ROW_TILES["ada"]
"""Of generations whose ladder is not known."""
BLOCKS = 8
"""Blocks of 256 threads that a compute unit of 2,048 holds."""


@dataclass(frozen=True, slots=True)
class GemmParameters:
    """The fitted constants of one precision; the same for every chip unless a calibration was measured on it."""

    compute_efficiency: float
    """Share of the sustained peak that a large tile reaches; above 1 where the power limit binds less than thought."""
    tile_overhead: float
    """Numbers of tile edge at which loading operands costs as much as the product itself; nothing where the hardware
    copies tiles on its own beside the product."""
    latency_s_per_k: float
    """Least time that a tile needs for one element of k, whatever its size: the pipeline's latency over the stages that
    the reference's shared memory holds."""
    bandwidth_efficiency: float
    """Share of the memory bandwidth that a long stream reaches."""
    unit_bandwidth_share: float
    """How many times its equal share of the bandwidth one compute unit can draw alone."""
    cache_efficiency: float
    """Share of the last-level cache's bandwidth that is reached."""
    launch_s: float
    """Launch and drain of the kernel (of all kernels that one product takes)."""
    wave_s: float
    """Prologue and epilogue of one wave of tiles."""
    split_s: float
    """The extra reduction when k is split among compute units."""
    sharpness: float
    """Exponent p of (compute^p + reading^p)^(1/p): infinite is perfect overlap, 1 is none."""
    exposed_write: float
    """Share of the write-back that nothing hides: a tile is written when its product is done."""
    write_cost: float
    """Time of a byte written over that of a byte read."""
    last_wave: float
    """How much of a full wave the last, partly filled one takes beyond its share: 1 is all, 0 nothing."""
    repacking: float = 0.0
    """How many times the right-hand matrix is moved beside being read, where products of several rows copy it into a
    layout of their own: CPU libraries do."""
    quantise_row_s: float = 0.0
    """Rounding activations to 8 bits: of each row's block of threads."""
    quantise_s_per_k: float = 0.0
    """... and of one row's element, where few rows keep few compute units busy."""
    quantise_bandwidth: float = 1.0
    """... and the share of a product's bandwidth that it reaches."""


@dataclass(frozen=True, slots=True)
class GemmTime:
    """Seconds of a matrix product, and its parts if each ran alone."""

    total_s: float
    compute_s: float
    memory_s: float
    launch_s: float


@functools.lru_cache(maxsize=100_000)
def _tilings(m: int, n: int, ladder: str | None, whole: bool) -> tuple[tuple[float, int, int], ...]:
    """(tiles, rows, columns) of those tile shapes that are not plainly larger than the product, or of the one that a
    generation's ladder gives; `whole` is for one unit whose tiles are not known: nothing is padded."""
    if whole:
        rows, columns = min(m, TILES[0][0]), min(n, TILES[0][1])
        return ((m * n / (rows * columns), rows, columns),)
    if ladder is not None:
        steps = ROW_TILES.get(ladder, OTHER_ROW_TILES)
        shapes = [next((rows, columns) for most, rows, columns in steps if m <= most)]
    else:
        shapes = [(rows, columns) for rows, columns in TILES if rows < 2 * m + 15 and columns < 2 * n + 63]
    return tuple(
        (math.ceil(m / rows) * math.ceil(n / columns), rows, columns) for rows, columns in shapes or [TILES[-1]]
    )


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
    with the left-hand one they are read from there. Those of a large model never do; those of a small one, or of a
    benchmark that repeats a few products, may.
    """
    size = BYTES[precision]
    left, right, out = float(m) * k * size * count, float(n) * k * size * count, float(m) * n * max(size, 2.0) * count
    slow = chip.memory_bandwidth_bytes_per_s * p.bandwidth_efficiency
    fast = max(slow, chip.l2_bandwidth_bytes_per_s * p.cache_efficiency)
    near = slow if left + right + out >= chip.l2_bytes else fast
    weights = fast if left + right * weight_copies + out < chip.l2_bytes else slow
    read_s = left / near + right / weights * (1 + (p.repacking if m > 1 else 0.0))
    write_s = out * p.write_cost / near
    cycles = REFERENCE_GHZ / chip.clock_ghz
    quantised = precision in QUANTISED
    tilings = _tilings(m, n, chip.generation if quantised else None, chip.compute_units == 1)
    best, parts = _best_tiling(chip, precision, tilings, count, k, read_s, write_s, out / fast, p)
    if quantised:
        best += _quantise_s(chip, m * count, k, size, near, cycles, p)
    return GemmTime(best + p.launch_s * cycles, *parts, p.launch_s * cycles)


def _best_tiling(
    chip: Chip,
    precision: str,
    tilings: tuple[tuple[float, int, int], ...],
    count: int,
    k: int,
    read_s: float,
    write_s: float,
    partial_s: float,
    p: GemmParameters,
) -> tuple[float, tuple[float, float]]:
    """Least seconds of the tilings and splits, with (compute, memory) of that one; `partial_s` writes the result to the
    cache once."""
    units = chip.compute_units
    rate = chip.peak(precision) * min(1.0, chip.sustained * p.compute_efficiency) / units
    cycles = REFERENCE_GHZ / chip.clock_ghz
    overhead = 0.0 if chip.asynchronous_loads else p.tile_overhead
    latency = p.latency_s_per_k * cycles * REFERENCE_SHARED_MEMORY_BYTES / chip.shared_memory_bytes
    best, parts = math.inf, (0.0, 0.0)
    for one, rows, columns in tilings:
        product_s = 2.0 * rows * columns / rate * (1 + overhead * (1 / rows + 1 / columns))
        for split in SPLITS if precision not in QUANTISED else (1,):
            if split > 1 and (one * count * split > 2 * units or k < 64 * split):
                break
            tiles = one * count * split
            waves = tiles / units
            if units > 1:
                waves = 1.0 if waves < 1 else waves + p.last_wave * (math.ceil(waves) - waves)
                compute_s = waves * (max(product_s, latency) * k / split + p.wave_s * cycles)
            else:  # tiles that are not known are under way side by side: all wait for one latency
                compute_s = max(waves * product_s, latency) * k / split + p.wave_s * cycles
            drawn = min(1.0, p.unit_bandwidth_share * min(tiles, units) / units)
            total = (compute_s**p.sharpness + (read_s / drawn) ** p.sharpness) ** (1 / p.sharpness)
            total = max(total + p.exposed_write * write_s / drawn, (read_s + write_s) / drawn)
            if split > 1:
                total += 4 * split * partial_s / drawn + p.split_s * cycles
            if total < best:
                best, parts = total, (compute_s, (read_s + write_s) / drawn)
    return best, parts


def _quantise_s(
    chip: Chip, rows: int, k: int, size: float, bandwidth: float, cycles: float, p: GemmParameters
) -> float:
    """Seconds to round `rows` rows of 16-bit activations: a block of threads a row, at most `BLOCKS` at once a unit."""
    moved_s = rows * k * (2.0 + size) / (bandwidth * p.quantise_bandwidth)
    rounds = max(1.0, rows / (chip.compute_units * BLOCKS)) if chip.compute_units > 1 else 1.0
    return max(moved_s, p.quantise_s_per_k * cycles * k * rounds) + p.quantise_row_s * cycles * rows
