"""A chip as the performance model sees it: peaks, memory, links, and the shape of its compute."""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from planner.performance.checks import PerformanceError, fraction, not_negative, positive, whole

Precision = Literal["fp32", "tf32", "bf16", "fp16", "fp8", "fp4", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "bf16", "fp16", "fp8", "fp4", "int8")
BYTES: Mapping[str, float] = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "fp4": 0.5, "int8": 1}
"""Bytes of one number by precision."""

ARCHITECTURES = Path(__file__).with_name("architectures.csv")
GIB = 2**30
REFERENCE_GHZ = 1.75
REFERENCE_SHARED_MEMORY_BYTES = 164 * 1024.0
POWER_CONSTANT = 1.42
"""Sustained share = 1.42·(W/TFLOP ÷ GHz² ÷ energy scale)^⅓, at most 1: set so that the H100 has the 0.85 that was
fitted to its rows. It gives 0.76 for the L40S and 1 for the A100, of whose peaks 0.76 and 0.94 are the most that was
measured."""


class AcceleratorLike(Protocol):
    """What is read of the catalog's `Accelerator`."""

    @property
    def name(self) -> str:
        """As the catalog names it."""

    @property
    def kind(self) -> str:
        """gpu, tpu, neuron …"""

    @property
    def memory_gib(self) -> float | None:
        """Of one chip."""

    @property
    def memory_bandwidth_gb_per_s(self) -> float | None:
        """Of one chip, reading or writing."""

    @property
    def fp32_tflops(self) -> float | None:
        """Dense peak."""

    @property
    def tf32_tflops(self) -> float | None:
        """Dense peak."""

    @property
    def bf16_tflops(self) -> float | None:
        """Dense peak."""

    @property
    def fp16_tflops(self) -> float | None:
        """Dense peak."""

    @property
    def fp8_tflops(self) -> float | None:
        """Dense peak."""

    @property
    def fp4_tflops(self) -> float | None:
        """Dense peak."""

    @property
    def int8_tflops(self) -> float | None:
        """Dense peak."""

    @property
    def interconnect_gb_per_s_bidirectional(self) -> float | None:
        """All links of one chip, both directions."""

    @property
    def pcie_gb_per_s_per_direction(self) -> float | None:
        """To the host."""

    @property
    def tdp_watts(self) -> float | None:
        """The power limit."""


@dataclass(frozen=True)
class Architecture:
    """How a chip's compute is cut up (``architectures.csv``); decides tile and wave quantisation and cache hits."""

    name: str
    generation: str
    compute_units: int
    l2_mib: float
    """Up to which a data set is read at the cache's speed: less than the datasheet's where partitions keep copies."""
    l2_gb_per_s: float
    """Reading, as microbenchmarks found it."""
    shared_memory_kib: float
    """Of one compute unit: how many tiles are under way to it."""
    asynchronous_loads: bool
    """Whether tiles are copied by hardware of their own (NVIDIA's tensor memory accelerator with warp-group products),
    so that loading hides behind the product."""
    clock_ghz: float
    """Boost clock, at which the published peaks are stated."""
    energy_scale: float
    """Energy of a FLOP at equal clock over TSMC 4N's; of the process node, general knowledge."""
    source: str


@dataclass(frozen=True)
class Chip:
    """One accelerator, or one machine's CPU. Peaks are dense FLOP/s by precision, bandwidths bytes/s."""

    name: str
    peak_flops: Mapping[str, float]
    memory_bandwidth_bytes_per_s: float
    memory_bytes: float
    compute_units: int = 1
    l2_bytes: float = 0.0
    l2_bandwidth_bytes_per_s: float = 0.0
    """Reading; 0 where it is not known, and then the cache is taken to be no faster than memory."""
    shared_memory_bytes: float = REFERENCE_SHARED_MEMORY_BYTES
    """Of one compute unit."""
    asynchronous_loads: bool = False
    """Tiles are copied beside the product, by hardware."""
    link_bytes_per_s: float = 16e9
    """One direction of all links to other chips of the node, or PCIe where there are none."""
    generation: str = ""
    clock_ghz: float = REFERENCE_GHZ
    """Launches, pipelines and waves take cycles; the calibration states them at `REFERENCE_GHZ`."""
    sustained: float = 1.0
    """Share of the peak that the power limit allows for long; 1 where it is not known."""

    def __post_init__(self) -> None:
        positive(f"{self.name}: clock_ghz", self.clock_ghz)
        positive(f"{self.name}: sustained", fraction(f"{self.name}: sustained", self.sustained))
        if not self.peak_flops:
            raise PerformanceError(f"{self.name}: peak_flops is empty; it must give FLOP/s of at least one precision")
        for precision, peak in self.peak_flops.items():
            if precision not in BYTES:
                raise PerformanceError(f"{self.name}: precision is {precision!r}; it must be one of {', '.join(BYTES)}")
            positive(f"{self.name}: peak_flops of {precision}", peak)
        positive(f"{self.name}: memory_bandwidth_bytes_per_s", self.memory_bandwidth_bytes_per_s)
        positive(f"{self.name}: memory_bytes", self.memory_bytes)
        positive(f"{self.name}: link_bytes_per_s", self.link_bytes_per_s)
        not_negative(f"{self.name}: l2_bytes", self.l2_bytes)
        not_negative(f"{self.name}: l2_bandwidth_bytes_per_s", self.l2_bandwidth_bytes_per_s)
        positive(f"{self.name}: shared_memory_bytes", self.shared_memory_bytes)
        whole(f"{self.name}: compute_units", self.compute_units, at_most=10**7)

    def __hash__(self) -> int:
        """By what tells chips apart; the peaks are a mapping, which has no hash."""
        return hash((self.name, self.memory_bandwidth_bytes_per_s, self.clock_ghz))

    def peak(self, precision: str) -> float:
        """Dense FLOP/s at the precision.

        Raises:
            PerformanceError: the chip has no peak at it; names those that it has.
        """
        if precision not in self.peak_flops:
            known = ", ".join(self.peak_flops)
            raise PerformanceError(
                f"precision is {precision!r}, at which {self.name} has no known peak; choose of {known}"
            )
        return self.peak_flops[precision]

    @classmethod
    def from_accelerator(cls, accelerator: AcceleratorLike) -> Chip:
        """The chip of a catalog row.

        Raises:
            PerformanceError: the row lacks a peak, the bandwidth or the memory, so nothing can be predicted.
        """
        peaks: dict[str, float] = {
            p: t * 1e12 for p in PRECISIONS if (t := getattr(accelerator, f"{p}_tflops")) is not None
        }
        bandwidth, memory = accelerator.memory_bandwidth_gb_per_s, accelerator.memory_gib
        if not peaks or bandwidth is None or memory is None:
            raise PerformanceError(
                f"accelerator {accelerator.name} has no sourced peak rate, memory or memory bandwidth in the "
                "catalog, so "
                "nothing can be predicted of it; choose another accelerator"
            )
        shape = architectures().get(accelerator.name)
        both_ways, pcie = accelerator.interconnect_gb_per_s_bidirectional, accelerator.pcie_gb_per_s_per_direction
        return cls(
            name=accelerator.name,
            peak_flops=peaks,
            memory_bandwidth_bytes_per_s=bandwidth * 1e9,
            memory_bytes=memory * GIB,
            compute_units=shape.compute_units if shape else 1,
            l2_bytes=shape.l2_mib * 2**20 if shape else 0.0,
            l2_bandwidth_bytes_per_s=shape.l2_gb_per_s * 1e9 if shape else 0.0,
            shared_memory_bytes=shape.shared_memory_kib * 1024 if shape else REFERENCE_SHARED_MEMORY_BYTES,
            asynchronous_loads=shape.asynchronous_loads if shape else False,
            link_bytes_per_s=(both_ways / 2 if both_ways else pcie or 16.0) * 1e9,
            generation=shape.generation if shape else accelerator.kind,
            clock_ghz=shape.clock_ghz if shape else REFERENCE_GHZ,
            sustained=sustained_share(shape, peaks.get("bf16", peaks.get("fp16", 0.0)), accelerator.tdp_watts),
        )


def sustained_share(shape: Architecture | None, peak_flops: float, tdp_watts: float | None) -> float:
    """Share of the peak that the power limit allows: dynamic power is C·V²·f, and voltage follows frequency, so f ∝
    P^⅓.

    Source: J. Hennessy, D. Patterson, "Computer Architecture", 1.5 (power and energy); the constant is
    `POWER_CONSTANT`.
    """
    if shape is None or not tdp_watts or not peak_flops:
        return 1.0
    density = tdp_watts / (peak_flops / 1e12) / shape.clock_ghz**2 / shape.energy_scale
    return float(min(1.0, POWER_CONSTANT * density ** (1 / 3)))


@functools.cache
def architectures() -> Mapping[str, Architecture]:
    """Every chip whose inner shape is known, by the catalog's name."""
    with ARCHITECTURES.open(encoding="utf-8", newline="") as file:
        return {
            row["name"]: Architecture(
                row["name"],
                row["generation"],
                int(row["compute_units"]),
                float(row["l2_mib"]),
                float(row["l2_gb_per_s"]),
                float(row["shared_memory_kib"]),
                row["asynchronous_loads"] == "yes",
                float(row["clock_ghz"]),
                float(row["energy_scale"]),
                row["source"],
            )
            for row in csv.DictReader(file)
        }
