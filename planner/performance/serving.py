"""The facade of language-model serving: timing with a calibration, an interval and reasons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from planner.calibration.store import NEARLY_FULL, Calibration, Interval, Ratios, widened
from planner.performance.checks import PerformanceError, whole
from planner.performance.chip import Chip
from planner.performance.language_model import (
    DecoderTiming,
    DecoderTraffic,
    FirstTokenParts,
    Products,
    Server,
    closed_loop,
    open_loop,
)
from planner.profiles.decoder import DecoderConfig

UNMEASURED_CHIP = 1.3
"""How much wider the interval is on a chip that has no rows: as the matrix products of chips that were left out
show."""


@dataclass(frozen=True, slots=True)
class LanguageModelPrediction:
    """Mean times and rates of one replica (`tensor_parallel` × `pipeline_parallel` devices of one node)."""

    time_to_first_token_s: Interval
    time_per_output_token_s: Interval
    requests_per_s: Interval
    output_tokens_per_s: Interval
    running: float
    most_sequences: int
    """What the key–value cache holds."""
    bound_by: str
    reasons: tuple[str, ...]
    calibration: str
    first_token: FirstTokenParts
    network_s: float = 0.0
    """Of the time to the first token, beside its parts."""


def predict_language_model(
    chip: Chip,
    config: DecoderConfig,
    traffic: DecoderTraffic,
    calibration: Calibration,
    *,
    precision: str = "bf16",
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    engine: str = "vllm",
) -> LanguageModelPrediction:
    """Time to first token and by output token of a decoder model under continuous batching.

    Raises:
        DoesNotFit: the weights and one sequence; says by how much.
        PerformanceError: a number is wrong, or the rate is above what is sustained.
    """
    whole("tensor_parallel", tensor_parallel, at_most=1024)
    if config.heads % tensor_parallel:
        raise PerformanceError(
            f"tensor_parallel is {tensor_parallel}; it must divide the {config.heads} heads of {config.name}"
        )
    whole("pipeline_parallel", pipeline_parallel, at_most=config.layers)
    parameters, fit, note = calibration.decoder(chip.name, engine)
    server = Server(
        chip,
        config,
        precision,
        tensor_parallel,
        _products(chip, precision, calibration),
        parameters,
        pipeline_parallel=pipeline_parallel,
    )
    timing = (closed_loop if traffic.concurrency is not None else open_loop)(server, traffic)
    wider = 1.0 if chip.name in fit.measured_chips else UNMEASURED_CHIP
    used = _cache_used(timing)
    ratios = fit.ratios_of(engine, used)
    first, token = widened(ratios.first_token, wider), widened(ratios.output_token, wider)
    by_token = _interval(timing.time_per_output_token_s, token)
    lifetime = timing.running / timing.requests_per_s
    rate = Interval(timing.requests_per_s, timing.requests_per_s, timing.requests_per_s)
    if traffic.concurrency is not None:
        rate = _interval(lifetime, token).inverse(timing.running)
    return LanguageModelPrediction(
        time_to_first_token_s=_interval(timing.time_to_first_token_s, first),
        time_per_output_token_s=by_token,
        requests_per_s=rate,
        output_tokens_per_s=rate.scaled(traffic.output_tokens),
        running=timing.running,
        most_sequences=timing.most_sequences,
        bound_by=timing.bound_by,
        reasons=tuple(_reasons(timing)),
        calibration=note,
        first_token=timing.first_token,
    )


def _cache_used(timing: DecoderTiming) -> float:
    """Share of the key–value cache."""
    return timing.running / timing.most_sequences


def _reasons(timing: DecoderTiming) -> Iterator[str]:
    yield f"{timing.running:.3g} sequences run at once of {timing.most_sequences} that fit; bound by {timing.bound_by}"
    yield f"a prompt takes {timing.prefill_s * 1e3:.3g} ms to read, a decode step {timing.decode_step_s * 1e3:.3g} ms"
    if _cache_used(timing) >= NEARLY_FULL:
        yield (
            f"{_cache_used(timing):.0%} of the key–value cache is taken: how long requests wait for a place in it is "
            "not known well, so the interval is that of measured servers whose cache was as full"
        )


def _products(chip: Chip, precision: str, calibration: Calibration) -> Products:
    """The chip's matrix-product constants.

    Raises:
        PerformanceError: the chip multiplies neither at the precision nor in 16 bits.
    """
    if not chip.peak_flops.keys() & {precision, "bf16", "fp16"}:
        chip.peak(precision)
    own = calibration.gemm(chip.name, precision).parameters
    return Products(own, calibration.gemm(chip.name, "fp8").parameters, calibration.gemm(chip.name, "bf16").parameters)


def _interval(value: float, ratio: Ratios) -> Interval:
    return Interval(value, value * ratio.low, value * ratio.high)
