"""Machines: what offers that perform alike have in common, and the chip that the performance model sees in one.

A CPU offer is a machine too. Its chip is the share of the processor that a pod asks for: cores × clock × SIMD width
(``cpus.csv``, from the makers' pages), and its share of the memory bandwidth. None of those instance types was
measured, so `cpu_calibration` states a wide interval and says so. Types whose speed the cloud does not promise
(burstable, flexible, shared cores) have no row and are not predicted.
"""

from __future__ import annotations

import csv
import fnmatch
import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from planner.calibration.store import Calibration, GemmFit, Ratios
from planner.catalog import Accelerator, Offer
from planner.performance.checks import PerformanceError
from planner.performance.chip import GIB, Chip

CPUS = Path(__file__).with_name("cpus.csv")


@dataclass(frozen=True, slots=True)
class Machine:
    """One node, as it performs: its accelerators or its pod's share of a CPU, and how often spot takes it back."""

    accelerator: str
    """A name of the catalog, or of a CPU generation."""
    count: int
    """Accelerators of a node; 1 for a CPU."""
    interruptions_per_node_hour: float = 0.0
    """Zero on demand."""
    away_hours: float = 0.0
    """Until a node comes back after an interruption, where nothing stands in for it."""
    fraction: float = 1.0
    """Of one accelerator, where a cloud sells parts of it."""
    vcpus: float = 0.0
    """Of a CPU: what the pod asks for; 0 for accelerators."""
    memory_gib: float = 0.0
    """Of a CPU: what the pod asks for."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """A row of ``cpus.csv``: one generation of processors, by vCPU."""

    name: str
    flops_per_vcpu: Mapping[str, float]
    memory_bytes_per_s_per_vcpu: float


@functools.cache
def _cpus() -> tuple[tuple[str, str, Cpu], ...]:
    with CPUS.open(encoding="utf-8", newline="") as file:
        return tuple((row["cloud"], row["instance_types"], _cpu(row)) for row in csv.DictReader(file))


def _cpu(row: Mapping[str, str]) -> Cpu:
    cycles = float(row["cores_per_vcpu"]) * float(row["clock_ghz"]) * 1e9
    flops = {
        precision: cycles * float(width)
        for precision in ("fp32", "bf16")
        if (width := row[f"{precision}_flops_per_cycle"])
    }
    return Cpu(f"{row['name']} {row['clock_ghz']} GHz", flops, float(row["memory_gb_per_s_per_vcpu"]) * 1e9)


@functools.cache
def cpu_of(cloud: str, instance_type: str) -> Cpu | None:
    """The processor of a CPU offer, where its speed is known."""
    for of_cloud, pattern, cpu in _cpus():
        if of_cloud == cloud and fnmatch.fnmatchcase(instance_type, pattern):
            return cpu
    return None


@functools.cache
def _cpu_named(name: str) -> Cpu:
    return next(cpu for _, _, cpu in _cpus() if cpu.name == name)


def machine_of(offer: Offer, chips: Mapping[str, Chip]) -> Machine | None:
    """The machine that an offer is on demand; None where nothing is known that could be predicted from."""
    if offer.accelerator is None:
        cpu = cpu_of(offer.cloud, offer.instance_type)
        return None if cpu is None else Machine(cpu.name, 1, vcpus=1.0, memory_gib=1.0)
    if offer.accelerator not in chips:
        return None
    if offer.accelerator_count < 1:
        return Machine(offer.accelerator, 1, fraction=offer.accelerator_count)
    return Machine(offer.accelerator, int(offer.accelerator_count)) if offer.accelerator_count % 1 == 0 else None


def chip_of(machine: Machine, chips: Mapping[str, Chip]) -> Chip:
    """One device of the machine."""
    if machine.vcpus:
        return _cpu_chip(machine.accelerator, machine.vcpus, machine.memory_gib)
    chip = chips[machine.accelerator]
    return chip if machine.fraction == 1 else _part(chip, machine.fraction)


_PARTS: dict[tuple[int, float], tuple[Chip, Chip]] = {}


def _part(chip: Chip, fraction: float) -> Chip:
    """The same object for the same part, as what was predicted of it is found by that."""
    whole, part = _PARTS.get((id(chip), fraction), (None, None))
    if part is None or whole is not chip:
        part = _new_part(chip, fraction)
        _PARTS[id(chip), fraction] = (chip, part)
    return part


def _new_part(chip: Chip, fraction: float) -> Chip:
    return replace(
        chip,
        peak_flops={precision: peak * fraction for precision, peak in chip.peak_flops.items()},
        memory_bandwidth_bytes_per_s=chip.memory_bandwidth_bytes_per_s * fraction,
        memory_bytes=chip.memory_bytes * fraction,
        compute_units=max(1, round(chip.compute_units * fraction)),
    )


@functools.lru_cache(maxsize=1024)
def _cpu_chip(name: str, vcpus: float, memory_gib: float) -> Chip:
    cpu = _cpu_named(name)
    return Chip(
        name=name,
        peak_flops={precision: flops * vcpus for precision, flops in cpu.flops_per_vcpu.items()},
        memory_bandwidth_bytes_per_s=cpu.memory_bytes_per_s_per_vcpu * vcpus,
        memory_bytes=memory_gib * GIB,
        link_bytes_per_s=1e9,
        generation="cpu",
    )


def chips_of(accelerators: Mapping[str, Accelerator]) -> dict[str, Chip]:
    """The accelerators of which something can be predicted."""
    found: dict[str, Chip] = {}
    for name, accelerator in accelerators.items():
        try:
            found[name] = Chip.from_accelerator(accelerator)
        except PerformanceError:
            continue  # identity only: no peak is sourced, and docs/catalog.md says so
    return found


@functools.cache
def cpu_calibration() -> Calibration:
    """For CPU offers that nobody measured: what one machine of two vCPUs reached, and a wide interval.

    `fusion calibrate` on an EPYC 9004 guest (2026-11-25) gave 102 GFLOP/s in fp32, which is half of two cores' peak;
    the form of the parameters is that of CPU calibrations (planner/calibration/measure.py).
    """
    shared = {
        "compute_efficiency": 0.6,
        "tile_overhead": 0.5,
        "latency_s_per_k": 1e-12,
        "bandwidth_efficiency": 0.7,
        "unit_bandwidth_share": 1.0,
        "cache_efficiency": 0.5,
        "launch_s": 2e-6,
        "wave_s": 0.0,
        "split_s": 1e-3,
        "sharpness": 1.0,
        "exposed_write": 0.0,
        "write_cost": 1.0,
        "last_wave": 1.0,
        "repacking": 4.0,
    }
    fit = GemmFit(shared=shared, by_chip={}, measured_ratio={}, transferred_ratio=Ratios(low=0.4, high=2.5))
    return Calibration(
        name="CPU data sheets",
        measured_at="2026-11-25",
        place="cores × clock × SIMD width, not measured on this instance type: the interval is wide",
        source="planner/cpus.csv",
        split="none",
        gemms={"fp32": fit, "bf16": fit},
        convolution_share=0.5,
        convolution_measured=True,
        pass_overhead_s=10e-6,
    )
