"""A service whose clients run the first layers themselves, on an edge device, and send what is between to the cloud.

Source: Y. Kang et al., "Neurosurgeon" (ASPLOS 2017). A cut is behind a layer in the order in which they run. Of these only
cuts that send less than every earlier one can be best where the edge is no faster than the cloud: any other moves work to
the edge and sends no less. What is sent has 8 bits a number (`workloads/partition` measures what that loses).
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from planner.calibration.store import Calibration
from planner.performance.checks import PerformanceError
from planner.performance.chip import GIB, Chip
from planner.performance.link import Link
from planner.performance.roofline import forward_time
from planner.profiles.model import ModelProfile

EDGE_DEVICES = Path(__file__).parents[1] / "edge_devices.csv"
SENT_BYTES, ANSWERED_BYTES = 1, 4
"""Of one number."""


@dataclass(frozen=True, eq=False)
class EdgeSide:
    """What runs the first layers of a model, one sample at a time, and the link to the rest."""

    chip: Chip
    link: Link
    calibration: Calibration

    @property
    def precision(self) -> str:
        """16 bits where the chip has them."""
        return "fp16" if "fp16" in self.chip.peak_flops else "fp32"


@dataclass(frozen=True, eq=False)
class Split:
    """The best cut of a model between an edge device and one chip of the cloud, for one sample."""

    device: str
    after: str
    """The last layer on the edge; empty where all run in the cloud."""
    layers_on_edge: int
    edge_s: float
    link_s: float
    sent_bytes: float
    edge_alone_s: float
    """Of the whole model on the edge, with nothing sent."""
    rest: ModelProfile
    """What the cloud runs."""

    @property
    def reason(self) -> str:
        """In one sentence."""
        where = f"the first {self.layers_on_edge} layers (to {self.after})" if self.after else "no layer"
        alone = f"{self.device} alone would take {self.edge_alone_s * 1e3:.3g} ms"
        return (
            f"{self.device} runs {where} in {self.edge_s * 1e3:.3g} ms and sends {self.sent_bytes / 1e3:.3g} kB, "
            f"{self.link_s * 1e3:.3g} ms on its link; {alone}"
        )


@functools.cache
def edge_devices() -> Mapping[str, Chip]:
    """Devices that a stack may name, from data sheets; none was measured."""
    with EDGE_DEVICES.open(encoding="utf-8", newline="") as file:
        return {row["name"]: _chip(row) for row in csv.DictReader(file)}


def _chip(row: Mapping[str, str]) -> Chip:
    return Chip(
        name=row["name"],
        peak_flops={precision: float(row[f"{precision}_tflops"]) * 1e12 for precision in ("fp32", "fp16")},
        memory_bandwidth_bytes_per_s=float(row["memory_gb_per_s"]) * 1e9,
        memory_bytes=float(row["memory_gib"]) * GIB,
        compute_units=int(row["compute_units"]),
        generation="ampere",
    )


def best_split(edge: EdgeSide, profile: ModelProfile, chip: Chip, precision: str, calibration: Calibration) -> Split:
    """The cut with the least time of one sample that nothing waits for.

    Raises:
        PerformanceError: the profile does not say what a cut would send.
    """
    return min(
        _splits(edge, profile),
        key=lambda cut: cut.edge_s + cut.link_s + forward_time(chip, cut.rest, precision, 1, calibration).total_s,
    )


@functools.lru_cache(maxsize=64)
def _splits(edge: EdgeSide, profile: ModelProfile) -> tuple[Split, ...]:
    """Every cut that sends less than all before it."""
    if any(layer.crossing_numbers is None for layer in profile.layers):
        raise PerformanceError(
            f"the profile {profile.name} does not say what each layer leaves to the later ones (crossing_numbers), so it "
            "can't be split; make it anew with `fusion profile`"
        )
    found: list[Split] = []
    for count, sent in enumerate([profile.input_numbers, *(layer.crossing_numbers or 0 for layer in profile.layers)]):
        rest = profile.layers[count:]
        if not sent or (found and sent * SENT_BYTES >= found[-1].sent_bytes) or not any(each.flops for each in rest):
            continue
        found.append(
            Split(
                device=edge.chip.name,
                after=profile.layers[count - 1].name if count else "",
                layers_on_edge=count,
                edge_s=_edge_s(edge, profile, count),
                link_s=edge.link.exchange_s(sent * SENT_BYTES, profile.output_numbers * ANSWERED_BYTES),
                sent_bytes=sent * SENT_BYTES,
                edge_alone_s=_edge_s(edge, profile, len(profile.layers)),
                rest=_layers(profile, count, len(profile.layers)),
            )
        )
    return tuple(found)


def _edge_s(edge: EdgeSide, profile: ModelProfile, count: int) -> float:
    if not count:
        return 0.0
    return forward_time(edge.chip, _layers(profile, 0, count), edge.precision, 1, edge.calibration).total_s


def _layers(profile: ModelProfile, first: int, last: int) -> ModelProfile:
    """A part of the model; what is cached of the whole one does not come along."""
    kept = profile.layers[first:last]
    return ModelProfile.model_construct(
        **{
            **{name: getattr(profile, name) for name in ModelProfile.model_fields},
            "layers": kept,
            "parameters": sum(layer.weight_numbers for layer in kept),
        }
    )
