"""Efficiency profiles: the built-in one and those that `fusion calibrate` writes.

`planner.calibration.fit` makes the built-in one from the measured rows in ``benchmarks/data``.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from planner.performance.checks import PerformanceError
from planner.performance.chip import Chip, architectures
from planner.performance.gemm import GemmParameters
from planner.performance.host import HostCosts
from planner.performance.language_model import DecoderParameters
from planner.profiles.model import ModelProfile

BUILTIN = Path(__file__).with_name("builtin.json")
NEAREST_PRECISION: Mapping[str, str] = {"fp16": "bf16", "tf32": "bf16", "fp32": "bf16", "int8": "fp8"}
"""Whose measurements stand in for a precision that nobody measured."""

UNMEASURED_CONVOLUTION = 1.6
"""How much wider intervals are where the share of convolutions is general knowledge."""

Positive = Annotated[float, Field(gt=0, le=1e30, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Interval:
    """A predicted value; nine of ten measured cases lie from `low` to `high`."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Interval:
        """Times a positive factor."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)

    def later(self, amount: float) -> Interval:
        """With a known amount added, which has no interval of its own."""
        return Interval(self.value + amount, self.low + amount, self.high + amount)

    def inverse(self, numerator: float) -> Interval:
        """A positive numerator divided by it; low and high change places."""
        return Interval(numerator / self.value, numerator / self.high, numerator / self.low)


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Parameters for one chip and precision, with the measured ÷ predicted range and what it rests on."""

    parameters: GemmParameters
    low: float
    high: float
    note: str

    def interval(self, value: float) -> Interval:
        """The range around a predicted time."""
        return Interval(value, value * self.low, value * self.high)


class Stored(BaseModel):
    """Immutable, and no field that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Ratios(Stored):
    """5 % and 95 % quantiles of measured ÷ predicted."""

    low: Positive
    high: Positive


class GemmFit(Stored):
    """One precision's parameters: of a chip that `fusion calibrate` measured, of a generation, and for all others."""

    shared: dict[str, NotNegative]
    """Of all generations, each counting the same."""
    by_generation: dict[str, dict[str, NotNegative]] = {}
    by_chip: dict[str, dict[str, NotNegative]] = {}
    measured_ratio: dict[str, Ratios]
    """By chip with rows, of the parameters that it gets."""
    sibling_ratio: Ratios | None = None
    """Of chips that were left out of their generation's fit."""
    transferred_ratio: Ratios
    """Of generations that were left out of the shared fit."""


class ServingRatios(Stored):
    """Measured ÷ predicted of the models and chips that were left out of the fit."""

    first_token: Ratios
    output_token: Ratios


NEARLY_FULL = 0.5
"""Share of the sequences that fit, from which on the cache may be full now and then: all start together and grow."""


class DecoderFit(Stored):
    """Serving constants by engine and the error on models and chips that were left out of the fit."""

    engines: dict[str, dict[str, NotNegative]]
    measured_chips: tuple[str, ...]
    ratios: dict[str, ServingRatios]
    """By engine, where the cache has room."""
    nearly_full_ratios: ServingRatios
    """Of all engines, where it may be full."""

    @model_validator(mode="after")
    def _every_engine_has_its_ratios(self) -> DecoderFit:
        if self.engines.keys() != self.ratios.keys():
            raise ValueError(f"engines are {', '.join(self.engines)} and ratios those of {', '.join(self.ratios)}")
        return self

    def ratios_of(self, engine: str, cache_used: float) -> ServingRatios:
        """Those of an engine whose sequences take `cache_used` of the cache."""
        return self.nearly_full_ratios if cache_used >= NEARLY_FULL else self.ratios[engine]


class MeasuredChip(Stored):
    """A machine that `fusion calibrate` measured: what it reaches takes the place of peaks."""

    name: str
    peak_flops: dict[str, Positive]
    memory_bandwidth_bytes_per_s: Positive
    memory_bytes: Positive
    compute_units: Annotated[int, Field(ge=1)] = 1
    l2_bytes: NotNegative = 0
    l2_bandwidth_bytes_per_s: NotNegative = 0
    link_bytes_per_s: Positive = 1e9

    def chip(self) -> Chip:
        """For the performance model."""
        return Chip(**self.model_dump())


class ThreadCosts(Stored):
    """Processor time that one kind of the server's threads takes."""

    batch_s: NotNegative
    request_s: NotNegative
    request_s_per_byte: NotNegative

    def of_request(self, request_bytes: float) -> float:
        """Seconds of a request of that size."""
        return self.request_s + self.request_s_per_byte * request_bytes


class ServingCosts(Stored):
    """What `fusion serve` costs beside its model."""

    wake_ups_s: NotNegative
    """Of a lone request on loopback: its response time less all that is computed meanwhile."""
    http: ThreadCosts
    """Of the threads that read and write HTTP."""
    loop: ThreadCosts
    """Of the event loop, which every request passes."""
    model: ThreadCosts
    """Of the model's thread, beside the model: a batch is gathered and handed over."""


class MeasuredOn(Stored):
    """What `fusion calibrate` ran on."""

    processor: str
    """As the system calls it."""
    processors: Annotated[int, Field(ge=1)]
    accelerator: str | None
    """As its driver calls it; None of the machine's own processors."""
    torch: str


class MeasuredRun(Stored):
    """One run's row, as it is stored."""

    machine: str
    """The accelerator, or the CPU instance type, as the catalog names it."""
    devices: int
    vcpus: float
    """Of a pod on processors; 0 on accelerators."""
    profile: str
    precision: str
    step_ratio: Positive
    """Measured ÷ predicted step time; predicted without any row."""
    samples_per_s: Positive
    measured_at: str
    place: str
    """Where the run's report lies, and on what it ran."""
    measured_on: MeasuredOn

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")


class Calibration(Stored):
    """An efficiency profile. Written as JSON; every prediction shows its name, date and place."""

    name: str
    measured_at: str
    place: str
    source: str
    split: str
    """How rows were kept out of the fit for the intervals."""
    gemms: dict[str, GemmFit]
    convolution_share: Positive = 0.75
    """Rate of a convolution over that of the matrix product of the same shape; general knowledge until measured."""
    convolution_share_few_channels: Positive | None = None
    """Likewise of a convolution of 3 channels (k = 27); between it and k = 576 the share grows with log k."""
    class_bandwidth_share: dict[str, Positive] = {}
    """Bytes/s that operations of a class reach over the memory bandwidth, where that was measured."""
    convolution_measured: bool = False
    pass_overhead_s: NotNegative = 0.0
    """Of one whole pass: the framework's own."""
    decoders: DecoderFit | None = None
    machine: MeasuredChip | None = None
    measured_on: MeasuredOn | None = None
    """None of the built-in one."""
    host: dict[str, HostCosts] = {}
    """By precision, where `machine` is this machine's own processors."""
    serving: ServingCosts | None = None
    runs: tuple[MeasuredRun, ...] = ()
    """Training runs that were measured on the machine that this is used for; not stored with it."""

    def host_costs(self, chip: str, precision: str) -> HostCosts | None:
        """Those of the chip, if it is the measured machine's own processors.

        Raises:
            PerformanceError: it is, and the precision was not measured.
        """
        if self.machine is None or chip != self.machine.name or not self.host:
            return None
        if precision not in self.host:
            raise PerformanceError(
                f"precision is {precision!r}, which calibration {self.name} did not measure; it has "
                f"{', '.join(self.host)}"
            )
        return self.host[precision]

    def gemm(self, chip: str, precision: str) -> Efficiency:
        """The parameters for a chip and precision; wider intervals, and a note, where they are transferred.

        Raises:
            PerformanceError: nothing near the precision was measured.
        """
        key = precision if precision in self.gemms else NEAREST_PRECISION.get(precision, "")
        if key not in self.gemms:
            raise PerformanceError(
                f"precision is {precision!r}, which calibration {self.name} says nothing about; it has "
                f"{', '.join(self.gemms)}"
            )
        return _efficiency(self.name, self.measured_at, self.place, key, precision, chip, _Frozen(self.gemms[key]))

    def model(self, chip: str, precision: str, profile: ModelProfile) -> Efficiency:
        """As `gemm`, with a wider interval for models whose work is convolutions that were never measured."""
        efficiency = self.gemm(chip, precision)
        if self.convolution_measured or profile.convolution_flops < profile.flops / 2:
            return efficiency
        return dataclasses.replace(
            efficiency,
            low=efficiency.low / UNMEASURED_CONVOLUTION,
            high=efficiency.high * UNMEASURED_CONVOLUTION,
            note=f"{efficiency.note}, convolutions not measured: the interval is wider",
        )

    def convolution(self, k: int) -> float:
        """Rate of a convolution with k numbers in each filter, over that of the matrix product of its shape."""
        few = self.convolution_share_few_channels
        if few is None:
            return self.convolution_share
        at = min(1.0, max(0.0, math.log(k / 27) / math.log(576 / 27)))
        return float(few * (self.convolution_share / few) ** at)

    def decoder(self, chip: str, engine: str) -> tuple[DecoderParameters, DecoderFit, str]:
        """Serving constants of an engine, the fit they are of, and a note.

        Raises:
            PerformanceError: the calibration has none of that engine.
        """
        if self.decoders is None or engine not in self.decoders.engines:
            known = ", ".join(self.decoders.engines) if self.decoders else "none"
            raise PerformanceError(f"engine is {engine!r}; calibration {self.name} knows {known}")
        measured = chip in self.decoders.measured_chips
        where = "measured on this chip" if measured else "transferred to this chip: the interval is widened"
        note = f"{self.name} of {self.measured_at} ({self.place}), {engine}, {where}"
        return DecoderParameters(**self.decoders.engines[engine]), self.decoders, note

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True, eq=False)
class _Frozen:
    """Lets a fit be an argument of a cached function: compared by identity of what it holds."""

    fit: GemmFit

    def __hash__(self) -> int:
        return id(self.fit)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Frozen) and other.fit is self.fit


@functools.lru_cache(maxsize=1024)
def _efficiency(
    name: str, measured_at: str, place: str, key: str, precision: str, chip: str, frozen: _Frozen
) -> Efficiency:
    fit = frozen.fit
    shape = architectures().get(chip)
    generation = shape.generation if shape else ""
    own = fit.by_chip.get(chip) or fit.by_generation.get(generation)
    if own and chip in fit.measured_ratio:
        ratio, rests = fit.measured_ratio[chip], "measured on this chip"
    elif own and fit.sibling_ratio:
        ratio, rests = fit.sibling_ratio, f"measured on other {generation} chips: the interval is wider"
    else:
        ratio, rests = fit.transferred_ratio, "transferred from other generations: the interval is wider"
    notes = [f"{name} of {measured_at} ({place})", rests]
    low, high = ratio.low, ratio.high
    if key != precision:
        notes.append(f"{precision} taken from {key}: the interval is wider")
        low, high = low / 1.2, high * 1.2
    return Efficiency(GemmParameters(**(own or fit.shared)), low, high, ", ".join(notes))


@functools.cache
def builtin() -> Calibration:
    """The calibration that ships, fitted to the rows in ``benchmarks/data``."""
    return read_calibration(BUILTIN)


def read_calibration(path: Path) -> Calibration:
    """A stored calibration.

    Raises:
        PerformanceError: it can't be read or is wrong; names the file and the field.
    """
    try:
        calibration = Calibration.model_validate_json(path.read_bytes())
        for fit in calibration.gemms.values():
            for own in (fit.shared, *fit.by_generation.values(), *fit.by_chip.values()):
                GemmParameters(**own)
        for engine in calibration.decoders.engines.values() if calibration.decoders else ():
            DecoderParameters(**engine)
    except OSError as error:
        raise PerformanceError(
            f"calibration {path} can't be read: {error.strerror}; make it with `fusion calibrate`"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise PerformanceError(
            f"calibration {path}: {where}: {first['msg']}; measure again with `fusion calibrate`"
        ) from None
    except TypeError as error:
        problem = str(error).partition("__init__() ")[2]
        raise PerformanceError(f"calibration {path}: a fit's constants: {problem}; measure again") from None
    return calibration


def widened(ratio: Ratios, factor: float) -> Ratios:
    """The range with both ends moved out."""
    if not factor >= 1 or not math.isfinite(factor):
        raise PerformanceError(f"factor is {factor!r}; it must be at least 1")
    return Ratios(low=ratio.low / factor, high=ratio.high * factor)
