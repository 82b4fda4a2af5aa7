"""Fit the built-in calibration to the measured rows: `python -m planner.calibration.fit`. Needs scipy (the dev extra).

The errors it states are of rows that were left out by chip (matrix products) or by model (language models), never
in-sample.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from planner.calibration.store import BUILTIN, NEARLY_FULL, Calibration, DecoderFit, GemmFit, Ratios, ServingRatios
from planner.performance.chip import Chip
from planner.performance.gemm import QUANTISED, GemmParameters, gemm_time
from planner.performance.language_model import (
    DecoderParameters,
    DecoderTiming,
    DecoderTraffic,
    Products,
    Server,
    closed_loop,
)
from planner.profiles.decoder import DecoderConfig, decoder

MEASURED_AT = "2026-11-25"
"""When the rows were taken from the package and fitted."""
DATA = Path(__file__).parents[2] / "benchmarks" / "data"
SYSTEMS = {
    "a100_sxm": "A100-80GB",
    "b200_sxm": "B200",
    "b300_sxm": "B300",
    "gb200": "GB200",
    "gb300": "GB300",
    "h100_sxm": "H100",
    "h200_sxm": "H200",
    "l40s": "L40S",
    "rtx_pro_6000_server": "RTXPRO6000",
}
"""The measured systems' names in the catalog."""
MODELS = {
    "MiniMaxAI/MiniMax-M2.5": "minimax-m2.5",
    "Qwen/Qwen3-235B-A22B-FP8": "qwen3-235b-a22b",
    "Qwen/Qwen3-32B": "qwen3-32b",
    "deepseek-ai/DeepSeek-R1": "deepseek-v3",
    "deepseek-ai/DeepSeek-V3": "deepseek-v3",
    "meta-llama/Llama-3.1-70B": "llama-3.1-70b",
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "moonshotai/Kimi-K2.5": "kimi-k2",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "llama-3.1-8b",
    "nvidia/Qwen3-32B-NVFP4": "qwen3-32b",
    "openai/gpt-oss-120b": "gpt-oss-120b",
}
PRECISIONS = {"bfloat16": "bf16", "fp8": "fp8", "nvfp4": "fp4"}
WEIGHT_COPIES = 6.0
"""Right-hand matrices that the measuring program uses in turn, so that those of small products stay in the cache:
`outside_loop_count` in aiconfigurator's collector/vllm/collect_gemm.py."""
MEAN_LENGTH = 0.9
"""Mean length over the nominal one of InferenceMAX's requests, which are drawn evenly from 0.8 to 1 of it
(RANDOM_RANGE_RATIO in its README)."""
UNKNOWN_CLIENT = "unknown"
"""Rows whose load can't be told from what their small source says (users of one or of all replicas, cached prompts); that
may have guessed tokens ahead, by the images and dates of InferenceMAX's published configurations; whose server took
more of the memory than engines usually do; or where a first token takes seven seconds whatever the prompt: never
fitted, only predicted."""


class Client(TypedDict, total=False):
    """What `DecoderTraffic` has to know of the client that measured a row."""

    same_lengths: bool
    requests_by_user: float
    admits_users_only: bool
    held_back_steps: float
    polled_steps: float
    stream_interval: float


CLIENTS: Mapping[str, Client] = {
    "inferencemax": {"stream_interval": 10.0},
    "inferencemax, held back": {"stream_interval": 10.0, "held_back_steps": 20.0},
    "inferencemax, held back 40": {"stream_interval": 10.0, "held_back_steps": 40.0},
    "inferencemax, polled 10": {"stream_interval": 10.0, "polled_steps": 10.0},
    "inferencemax, polled 30": {"stream_interval": 10.0, "polled_steps": 30.0},
    "same-lengths": {"same_lengths": True},
    "same-lengths, once": {"same_lengths": True, "requests_by_user": 1.0},
    "same-lengths, users only": {"same_lengths": True, "admits_users_only": True},
    UNKNOWN_CLIENT: {},
}
"""What the measuring client and server did, by the file's column `client`: InferenceMAX's is published, as is that its
TensorRT-LLM held prompts of Llama-3.1-70B back (batch_wait_timeout_iters: 20 for 1,024 tokens in and out on fewer than
eight chips; 40 for DeepSeek-R1 in 8 bits), that its SGLang looked for DeepSeek-R1's new requests every 10 or 30 steps
(scheduler_recv_interval), and that tokens were handed on by ten or twenty (stream_interval;
SemiAnalysisAI/InferenceX@b89047d5f^ benchmarks/70b_fp8_h200_trt_slurm.sh and its siblings, @843c6254f
benchmarks/single_node/…/gptoss_fp4_b200_trt.sh, dsr1_fp8_b200_trt.sh, dsr1_fp8_b200.sh); the others follow from how the
rows themselves grow with the users."""

GEMM_BOUNDS: Mapping[str, tuple[float, float, float]] = {
    "compute_efficiency": (0.5, 1.0, 1.3),
    "tile_overhead": (0.1, 15.0, 300.0),
    "latency_s_per_k": (1e-10, 2e-9, 2e-8),
    "bandwidth_efficiency": (0.6, 0.85, 1.0),
    "unit_bandwidth_share": (0.5, 4.0, 10.0),
    "cache_efficiency": (0.1, 0.45, 1.0),
    "launch_s": (1e-7, 2.5e-6, 2e-5),
    "wave_s": (1e-8, 2e-7, 1.5e-6),
    "split_s": (1e-8, 2e-6, 2e-5),
    "sharpness": (1.0, 2.5, 8.0),
    "exposed_write": (0.02, 0.8, 2.0),
    "write_cost": (0.3, 1.2, 3.0),
    "last_wave": (0.02, 0.3, 1.0),
}
QUANTISED_BOUNDS: Mapping[str, tuple[float, float, float]] = {
    **{name: bounds for name, bounds in GEMM_BOUNDS.items() if name != "split_s"},
    "latency_s_per_k": (1e-10, 1e-9, 2e-8),
    "launch_s": (1e-6, 4e-6, 2e-5),
    "wave_s": (1e-8, 5e-7, 1.5e-6),
    "sharpness": (1.0, 2.0, 8.0),
    "last_wave": (0.02, 0.5, 1.0),
    "quantise_row_s": (1e-9, 7e-9, 2e-8),
    "quantise_s_per_k": (1e-12, 5e-11, 1e-8),
    "quantise_bandwidth": (0.1, 0.6, 1.5),
}
"""Least, expected and most: what is physically sensible. The expected value holds where the rows say nothing."""
PRIOR_WEIGHT = 0.15
"""A parameter that is e times its expected value counts as much as a row that is wrong by this (log) error."""
DECODER_BOUNDS: Mapping[str, tuple[float, float, float]] = {
    "prefill_time": (0.7, 1.0, 2.0),
    "decode_time": (0.5, 0.9, 1.5),
    "experts_time": (0.5, 0.9, 1.6),
    "experts_prefill_time": (0.5, 0.9, 1.6),
    "block_scaled_time": (0.8, 1.2, 1.6),
    "widened_prefill_time": (1.0, 2.5, 8.0),
    "widened_decode_time": (0.7, 1.2, 4.0),
    "widened_layer_s": (1e-6, 4.5e-5, 2e-4),
    "elementwise_time": (0.1, 1.0, 4.0),
    "copies_time": (0.3, 1.2, 8.0),
    "kv_bandwidth_efficiency": (0.5, 0.85, 1.0),
    "kv_small_time": (1.0, 1.2, 2.0),
    "query_key_norm_s": (1e-7, 3e-6, 5e-5),
    "all_reduce_s": (1e-7, 3e-6, 5e-5),
    "prefill_overlap": (0.01, 0.5, 1.5),
    "prompts_ahead": (0.05, 1.0, 4.0),
}
"""Of all engines together. What is expected of widened weights, of experts and of keys and values is what the tables of
kernels in aiconfigurator-core 0.12.0 show (moe_perf and generation_attention_perf of H100, H200 and B200)."""
ENGINE_BOUNDS: Mapping[str, tuple[float, float, float]] = {
    "layer_s": (1e-6, 2e-5, 3e-4),
    "step_s": (1e-5, 5e-4, 1e-2),
    "sequence_s": (1e-7, 2e-5, 4e-4),
    "request_s": (1e-3, 3e-2, 0.3),
    "steps_before": (0.1, 1.0, 3.0),
    "prefill_layer_s": (1e-7, 2e-5, 3e-4),
}
"""Of each."""
HOST_BOUNDS: Mapping[str, tuple[float, float, float]] = {
    "host_token_s": (1e-6, 5e-5, 1e-3),
    "host_request_s": (1e-4, 2e-2, 0.1),
    "host_late_first": (0.1, 0.5, 1.0),
}
"""Of TensorRT-LLM's serving process; no row shows the others' to bind."""
ENGINES: Mapping[str, Mapping[str, float]] = {
    "vllm": {"host_token_s": 0.0, "host_request_s": 0.0, "host_late_first": 1.0, "answer_held": 0.5},
    "sglang": {"host_token_s": 0.0, "host_request_s": 0.0, "host_late_first": 1.0, "answer_held": 0.5},
    "trtllm": {"answer_held": 1.0},
}
"""What is known of an engine: TensorRT-LLM reserves the whole answer's memory (its GUARANTEED_NO_EVICT policy)."""
DECODER_PRIOR_WEIGHT = 0.1
DecoderFits = Mapping[str, DecoderParameters]
"""By engine."""
ChipProducts = Mapping[str, Mapping[str, GemmParameters]]
"""By chip and precision."""


@dataclass(frozen=True, slots=True)
class GemmRow:
    """One measured matrix product."""

    chip: Chip
    precision: str
    m: int
    n: int
    k: int
    seconds: float


@dataclass(frozen=True, slots=True)
class DecoderRow:
    """One measured serving point."""

    chip: Chip
    config: DecoderConfig
    precision: str
    tensor_parallel: int
    expert_parallel: int
    traffic: DecoderTraffic
    engine: str
    version: str
    """Of the engine; empty where the row does not say."""
    client: str
    first_token_s: float
    output_token_s: float


LeftOutRow = tuple[DecoderRow, DecoderTiming]
"""With what was predicted of it without its model or chip."""


def chips() -> Mapping[str, Chip]:
    """The measured systems, as the catalog has them."""
    from planner.catalog import load

    accelerators = load().accelerators
    return {system: Chip.from_accelerator(accelerators[name]) for system, name in SYSTEMS.items()}


def gemm_rows(known: Mapping[str, Chip]) -> list[GemmRow]:
    """Every row of ``gemm_measured.csv``."""
    with (DATA / "gemm_measured.csv").open(encoding="utf-8", newline="") as file:
        return [
            GemmRow(
                known[row["system"]],
                PRECISIONS[row["gemm_dtype"]],
                int(row["m"]),
                int(row["n"]),
                int(row["k"]),
                float(row["latency_ms"]) / 1e3,
            )
            for row in csv.DictReader(file)
        ]


def decoder_rows(known: Mapping[str, Chip]) -> list[DecoderRow]:
    """Every row of ``llm_latency_measured.csv``; its batch size is the users of one replica."""
    with (DATA / "llm_latency_measured.csv").open(encoding="utf-8", newline="") as file:
        return [
            DecoderRow(
                known[row["system"]],
                decoder(MODELS[row["model_path"]]),
                row["precision"],
                int(row["tp_size"]),
                int(row["moe_ep_size"] or 1),
                _traffic(row),
                row["backend"],
                row["backend_version"],
                row["client"],
                float(row["silicon_ttft_ms"]) / 1e3,
                float(row["silicon_tpot_ms"]) / 1e3,
            )
            for row in csv.DictReader(file)
        ]


def _traffic(row: Mapping[str, str]) -> DecoderTraffic:
    mean = MEAN_LENGTH if row["client"].startswith("inferencemax") else 1.0
    lengths = round(int(row["isl"]) * mean), round(int(row["osl"]) * mean)
    return DecoderTraffic(*lengths, int(row["batch_size"]), **CLIENTS[row["client"]])


def predicted_gemm(row: GemmRow, parameters: GemmParameters) -> float:
    """Seconds, with the cache as warm as the measuring program had it."""
    return gemm_time(row.chip, row.precision, row.m, row.n, row.k, parameters, weight_copies=WEIGHT_COPIES).total_s


def predicted_decoder(row: DecoderRow, parameters: DecoderFits, products: ChipProducts) -> DecoderTiming:
    """Timing of the row's closed loop."""
    own = products[row.chip.name]
    used = Products(own.get(row.precision, own["bf16"]), own.get("fp8", own["bf16"]), own["bf16"])
    engine = parameters[row.engine]
    server = Server(
        row.chip, row.config, row.precision, row.tensor_parallel, used, engine, expert_parallel=row.expert_parallel
    )
    return closed_loop(server, row.traffic)


def fit_gemm(rows: Sequence[GemmRow]) -> GemmParameters:
    """The parameters (of rows of one precision) whose log errors are least, large ones counting less (soft L1)."""
    bounds = QUANTISED_BOUNDS if rows[0].precision in QUANTISED else GEMM_BOUNDS

    def parameters(values: Sequence[float]) -> GemmParameters:
        return GemmParameters(**({"split_s": 0.0} | dict(zip(bounds, values, strict=True))))

    def errors(values: Sequence[float]) -> list[float]:
        own = parameters(values)
        return [math.log(predicted_gemm(row, own) / row.seconds) for row in rows]

    return parameters(_least(errors, bounds.values(), soft=0.15))


def fit_decoder(rows: Sequence[DecoderRow], products: ChipProducts) -> DecoderFits:
    """Likewise for serving: both times of each row."""
    names = [("", name) for name in DECODER_BOUNDS]
    names += [(engine, name) for engine in ENGINES for name in ENGINE_BOUNDS]
    names += [("trtllm", name) for name in HOST_BOUNDS]
    every = {**DECODER_BOUNDS, **ENGINE_BOUNDS, **HOST_BOUNDS}
    bounds = [every[name] for _, name in names]

    def parameters(values: Sequence[float]) -> DecoderFits:
        found: dict[str, dict[str, float]] = {engine: dict(known) for engine, known in ENGINES.items()}
        for (engine, name), value in zip(names, values, strict=True):
            for one in (engine,) if engine else ENGINES:
                found[one][name] = value
        return {engine: DecoderParameters(**own) for engine, own in found.items()}

    by_engine = {engine: [row for row in rows if row.engine == engine] for engine in ENGINES}

    @functools.lru_cache(maxsize=8)  # most steps change the constants of one engine
    def errors_of(engine: str, own: DecoderParameters) -> tuple[float, ...]:
        timings = [(row, predicted_decoder(row, {engine: own}, products)) for row in by_engine[engine]]
        tokens = (math.log(timing.time_per_output_token_s / row.output_token_s) for row, timing in timings)
        firsts = (math.log(timing.time_to_first_token_s / row.first_token_s) for row, timing in timings)
        return (*tokens, *firsts)

    def errors(values: Sequence[float]) -> list[float]:
        fits = parameters(values)
        return [error for engine in by_engine for error in errors_of(engine, fits[engine])]

    return parameters(_least(errors, bounds, soft=0.1, prior_weight=DECODER_PRIOR_WEIGHT))


def _least(
    errors: Callable[[Sequence[float]], list[float]],
    bounds: Iterable[tuple[float, float, float]],
    *,
    soft: float,
    prior_weight: float = PRIOR_WEIGHT,
) -> list[float]:
    """Least squares over the logarithms of the parameters."""
    from scipy.optimize import least_squares

    low, start, high = ([math.log(value) for value in column] for column in zip(*bounds, strict=True))
    found = least_squares(
        lambda logs: (
            errors([math.exp(value) for value in logs])
            + [prior_weight * (value - expected) for value, expected in zip(logs, start, strict=True)]
        ),
        start,
        bounds=(low, high),
        loss="soft_l1",
        f_scale=soft,
        diff_step=1e-2,
        ftol=1e-4,
        max_nfev=40,
    )
    return [math.exp(value) for value in found.x]


def ratios(measured_over_predicted: Sequence[float]) -> Ratios:
    """Their 5 % and 95 % quantiles."""
    cuts = statistics.quantiles(measured_over_predicted, n=20, method="inclusive")
    return Ratios(low=cuts[0], high=cuts[-1])


def envelope(groups: Iterable[Sequence[float]]) -> Ratios:
    """A range that holds nine of ten of every group: a chip or model that was left out counts whole, not its rows."""
    each = [ratios(group) for group in groups]
    return Ratios(low=min(one.low for one in each), high=max(one.high for one in each))


def generations(rows: Sequence[GemmRow]) -> Mapping[str, list[GemmRow]]:
    """Rows by the chips' generation."""
    groups: dict[str, list[GemmRow]] = {}
    for row in rows:
        groups.setdefault(row.chip.generation, []).append(row)
    return groups


def shared(fits: Sequence[GemmParameters]) -> GemmParameters:
    """Parameters for a generation without rows: the geometric mean of the others', of which each counts the same, so
    that one generation's odd kernels bend no constant that the rest agree on."""

    def middle(values: Sequence[float]) -> float:
        return statistics.geometric_mean(values) if all(values) else 0.0

    each = [dataclasses.asdict(own) for own in fits]
    return GemmParameters(**{name: middle([own[name] for own in each]) for name in each[0]})


def left_out_gemm(rows: Sequence[GemmRow], chip: str) -> GemmParameters:
    """What a chip would get if it had no rows: its generation's other chips', else the shared parameters."""
    generation = next(row.chip.generation for row in rows if row.chip.name == chip)
    others = [row for row in rows if row.chip.name != chip]
    siblings = [row for row in others if row.chip.generation == generation]
    return fit_gemm(siblings) if siblings else shared([fit_gemm(own) for own in generations(others).values()])


def gemm_fit(rows: Sequence[GemmRow]) -> GemmFit:
    """Shared and by-generation parameters of one precision, with intervals."""
    by_generation = {generation: fit_gemm(own) for generation, own in generations(rows).items()}
    measured, siblings, transferred = {}, [], []
    for generation, own in generations(rows).items():
        names = sorted({row.chip.name for row in own})
        for name in names:
            rows_of = [row for row in own if row.chip.name == name]
            measured[name] = ratios(_over(rows_of, by_generation[generation]))
            if len(names) > 1:
                siblings.append(_over(rows_of, left_out_gemm(own, name)))
        transferred.append(_over(own, shared([fitted for name, fitted in by_generation.items() if name != generation])))
    return GemmFit(
        shared=_rounded(shared(list(by_generation.values()))),
        by_generation={name: _rounded(parameters) for name, parameters in by_generation.items()},
        measured_ratio=measured,
        sibling_ratio=envelope(siblings),
        transferred_ratio=envelope(transferred),
    )


def _over(rows: Sequence[GemmRow], parameters: GemmParameters) -> list[float]:
    """Measured ÷ predicted."""
    return [row.seconds / predicted_gemm(row, parameters) for row in rows]


def chip_products(fits: Mapping[str, GemmFit], known: Mapping[str, Chip]) -> ChipProducts:
    """What each measured chip's products are predicted with."""
    return {
        chip.name: {
            precision: GemmParameters(**fit.by_generation.get(chip.generation, fit.shared))
            for precision, fit in fits.items()
        }
        for chip in known.values()
    }


def left_out_products(rows: Sequence[GemmRow], chips: Iterable[str]) -> ChipProducts:
    """By chip: what its products would be predicted with if it had no rows."""
    return {
        name: {
            precision: left_out_gemm([row for row in rows if row.precision == precision], name)
            for precision in sorted({row.precision for row in rows if row.chip.name == name})
        }
        for name in chips
    }


def decoder_fit(rows: Sequence[DecoderRow], products: ChipProducts, left_out: ChipProducts) -> DecoderFit:
    """Serving constants with the intervals of models, and of chips with their products, that were left out."""
    groups: list[list[LeftOutRow]] = []
    splits: Sequence[tuple[Callable[[DecoderRow], str], ChipProducts]] = (
        (lambda row: row.config.name, products),
        (lambda row: row.chip.name, left_out),
    )
    for key, used in splits:
        for name in sorted({key(row) for row in rows}):
            fitted = fit_decoder([row for row in rows if key(row) != name], products)
            own = [row for row in rows if key(row) == name]
            groups.append([(row, predicted_decoder(row, fitted, used)) for row in own])
    return DecoderFit(
        engines={engine: _rounded(own) for engine, own in fit_decoder(rows, products).items()},
        measured_chips=tuple(sorted({row.chip.name for row in rows})),
        ratios={engine: serving_ratios(groups, engine) for engine in ENGINES},
        nearly_full_ratios=serving_ratios(groups, None),
    )


def serving_ratios(groups: Iterable[Sequence[LeftOutRow]], engine: str | None) -> ServingRatios:
    """The envelopes of each group's rows of an engine whose cache has room; None is those that have none, of any."""

    def wanted(row: DecoderRow, timing: DecoderTiming) -> bool:
        full = timing.running >= NEARLY_FULL * timing.most_sequences
        return full if engine is None else row.engine == engine and not full

    chosen = [[(row, timing) for row, timing in group if wanted(row, timing)] for group in groups]
    some = [group for group in chosen if len(group) > 1]
    return ServingRatios(
        first_token=envelope([row.first_token_s / each.time_to_first_token_s for row, each in own] for own in some),
        output_token=envelope([row.output_token_s / each.time_per_output_token_s for row, each in own] for own in some),
    )


def _rounded(parameters: GemmParameters | DecoderParameters) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in dataclasses.asdict(parameters).items()}


def main() -> None:
    """Fit everything and write the built-in calibration; takes some minutes."""
    known = chips()
    rows = gemm_rows(known)
    gemms = {p: gemm_fit([row for row in rows if row.precision == p]) for p in PRECISIONS.values()}
    served = [row for row in decoder_rows(known) if row.client != UNKNOWN_CLIENT]
    Calibration(
        name="builtin",
        measured_at=MEASURED_AT,
        place="aiconfigurator-core 0.12.0's measurements, fitted here",
        source="benchmarks/data/gemm_measured.csv and llm_latency_measured.csv",
        split="leave one chip or one generation out (matrix products), leave one model or one chip out (language models)",
        gemms=gemms,
        decoders=decoder_fit(
            served, chip_products(gemms, known), left_out_products(rows, {row.chip.name for row in served})
        ),
    ).write(BUILTIN)
    print(f"wrote {BUILTIN.name}")


if __name__ == "__main__":
    main()
