"""Serving of decoder language models with continuous batching: time to first token, time by output token, limits.

Sources: R. Pope et al., "Efficiently Scaling Transformer Inference" (arXiv 2211.05102), sections 2–3: prefill is
bound by compute, decode by reading weights and the key–value cache; G.-I. Yu et al., "Orca" (OSDI 2022):
iteration-level batching; W. Kwon et al., "PagedAttention" (SOSP 2023): what the memory left over holds; J. Little
(1961) for concurrency and rate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from planner.performance.checks import DoesNotFit, PerformanceError, positive, whole
from planner.performance.chip import BYTES, GIB, Chip
from planner.profiles.decoder import DecoderConfig

MEMORY_USED_FRACTION = 0.9
"""Serving engines leave 10 % of the device memory for activations and fragments (vLLM's gpu_memory_utilization
default)."""
WORKSPACE_BYTES = 3 * GIB
"""Activations, captured graphs and the communication library's buffers of one device."""
KV_BYTES: Mapping[str, float] = {"fp8": 1.0, "int8": 1.0, "fp4": 1.0}
"""Of one key or value by the precision of the weights, otherwise two: who serves 8-bit weights keeps an 8-bit cache (as
the measured deployments did)."""
HEAD_BYTES = 2.0
"""Embedding and vocabulary head stay in 16 bits also when the layers are quantised."""


@dataclass(frozen=True, slots=True)
class DecoderParameters:
    """Fitted constants of serving engines; shared by every chip unless a calibration was measured on it."""

    compute_efficiency: float
    """Share of the peak in prefill."""
    weights_bandwidth_efficiency: float
    """Share of the memory bandwidth while weights are streamed."""
    kv_bandwidth_efficiency: float
    """Share of it while keys and values are gathered."""
    kv_small_time: float
    """Time to gather 8-bit keys and values over that of as many 16-bit ones: half the bytes, but to be widened."""
    layer_s: float
    """Kernels' launches and tails of one layer in a decode step."""
    host_layer_s: float
    """What an engine driven from Python adds to that; none in TensorRT-LLM."""
    all_reduce_s: float
    """Latency of one tensor-parallel all-reduce of a few kilobytes, by doubling of the devices."""
    sequence_s: float
    """Scheduling, sampling and detokenising of one sequence in one step."""
    request_s: float
    """What a request takes before its prompt is read, whatever its length: parsing, tokenising, scheduling."""
    prompts_ahead: float
    """Prompts that are found waiting ahead when concurrency is kept constant: the fixed part."""
    burst_share: float
    """... and the part of the other users (starting together, finishing together)."""
    link_efficiency: float
    """Share of the links' bandwidth in all-reduces of prefill."""
    prefill_overlap: float
    """Share of a prefill that hides behind decode steps in mixed batches (one reading of the weights serves both)."""
    host_token_s: float
    """Of the serving process, which hands on all sequences' tokens one after another."""
    host_request_s: float
    """... and takes in requests one after another."""
    admission_gap: float
    """Gaps between two answers that a new prompt waits for when the engine admits at most `concurrency` sequences."""


@dataclass(frozen=True, slots=True)
class DecoderTraffic:
    """What the users send, tokens by request; either `concurrency` (closed loop) or `requests_per_s` (open loop)."""

    input_tokens: int
    output_tokens: int
    concurrency: int | None = None
    requests_per_s: float | None = None

    def __post_init__(self) -> None:
        whole("input_tokens", self.input_tokens, at_most=10**8)
        whole("output_tokens", self.output_tokens, at_most=10**8)
        if (self.concurrency is None) == (self.requests_per_s is None):
            raise PerformanceError("give either concurrency or requests_per_s, not both and not neither")
        if self.concurrency is not None:
            whole("concurrency", self.concurrency, at_most=10**7)
        if self.requests_per_s is not None:
            positive("requests_per_s", self.requests_per_s)


@dataclass(frozen=True, slots=True)
class DecoderTiming:
    """Mean seconds, before intervals; `running` sequences are in the batch, the others wait for memory."""

    time_to_first_token_s: float
    time_per_output_token_s: float
    requests_per_s: float
    output_tokens_per_s: float
    running: float
    most_sequences: int
    prefill_s: float
    decode_step_s: float
    bound_by: str


def kv_bytes(config: DecoderConfig, precision: str, tensor_parallel: int) -> float:
    """Bytes of one token's keys and values on one device; heads are not cut."""
    return config.kv_bytes_per_token(KV_BYTES.get(precision, 2.0)) / min(tensor_parallel, config.kv_heads)


def weight_bytes(config: DecoderConfig, precision: str) -> float:
    """Bytes of all weights; the layers at the precision, embedding and head in 16 bits."""
    ends = config.head_parameters * (1 if config.tied_embeddings else 2)
    return (config.parameters - ends) * BYTES[precision] + ends * max(HEAD_BYTES, BYTES[precision])


def most_sequences(chip: Chip, config: DecoderConfig, precision: str, tensor_parallel: int, tokens_each: float) -> int:
    """How many sequences of that many tokens the memory left over by the weights holds.

    Raises:
        DoesNotFit: not even one; says by how many GiB a device.
    """
    held = weight_bytes(config, precision) / tensor_parallel
    left = chip.memory_bytes * MEMORY_USED_FRACTION - WORKSPACE_BYTES - held
    one = kv_bytes(config, precision, tensor_parallel) * tokens_each
    if left < one:
        missing = (one - left) / GIB
        raise DoesNotFit(
            f"{config.name} in {precision} on {tensor_parallel} × {chip.name}: {missing:.1f} GiB a device are "
            "missing for the weights "
            f"({held / GIB:.1f} GiB) and one sequence of {tokens_each:.0f} tokens; take more devices or a "
            "lower precision",
            missing,
        )
    return int(left / one)


def prefill_s(
    chip: Chip, config: DecoderConfig, precision: str, tensor_parallel: int, tokens: int, p: DecoderParameters
) -> float:
    """Seconds to read one prompt of that many tokens on `tensor_parallel` devices (Pope et al., section 2)."""
    head = config.head_parameters
    flops = 2.0 * (config.active_parameters - head) * tokens + 2.0 * head + config.attention_flops(tokens, tokens / 2)
    compute = flops / (tensor_parallel * chip.peak(precision) * p.compute_efficiency)
    if precision in ("fp8", "int8", "fp4"):
        sixteen = chip.peak_flops.get("bf16", chip.peak_flops.get("fp16", chip.peak(precision)))
        attention = config.attention_flops(tokens, tokens / 2) / (tensor_parallel * p.compute_efficiency)
        compute += attention * (1 / sixteen - 1 / chip.peak(precision))
    touched = config.experts_touched(tokens) / config.experts
    memory = weight_bytes(config, precision) * touched / tensor_parallel
    memory_s = memory / (chip.memory_bandwidth_bytes_per_s * p.weights_bandwidth_efficiency)
    sent = 2 * config.layers * tokens * config.hidden_size * 2.0
    links = _ring_share(tensor_parallel) * sent / (chip.link_bytes_per_s * p.link_efficiency)
    launches = config.layers * _layer_s(tensor_parallel, p)
    return max(compute, memory_s, launches) + links


def decode_step_s(
    chip: Chip,
    config: DecoderConfig,
    precision: str,
    tensor_parallel: int,
    sequences: float,
    context: float,
    p: DecoderParameters,
) -> float:
    """Seconds of one decode step of that many sequences with `context` tokens each (Pope et al., section 2)."""
    embedding = config.head_parameters * HEAD_BYTES * (0 if config.tied_embeddings else 1)
    idle_experts = (config.experts - config.experts_touched(sequences)) * config.expert_parameters * config.layers
    read = weight_bytes(config, precision) - embedding - idle_experts * BYTES[precision]
    bandwidth = chip.memory_bandwidth_bytes_per_s
    weights_s = read / tensor_parallel / (bandwidth * p.weights_bandwidth_efficiency)
    kv = config.kv_bytes_per_token(2.0) / min(tensor_parallel, config.kv_heads) * context * sequences
    kv *= p.kv_small_time if precision in KV_BYTES else 1.0
    flops = 2.0 * config.active_parameters * sequences
    compute_s = flops / (tensor_parallel * chip.peak(precision) * p.compute_efficiency)
    sent = 2 * config.layers * sequences * config.hidden_size * 2.0
    links = _ring_share(tensor_parallel) * sent / (chip.link_bytes_per_s * p.link_efficiency)
    return (
        math.hypot(weights_s, compute_s)
        + kv / (bandwidth * p.kv_bandwidth_efficiency)
        + links
        + config.layers * _layer_s(tensor_parallel, p)
        + sequences * p.sequence_s
    )


def closed_loop(
    chip: Chip,
    config: DecoderConfig,
    precision: str,
    tensor_parallel: int,
    traffic: DecoderTraffic,
    p: DecoderParameters,
) -> DecoderTiming:
    """Mean times when `concurrency` users each send their next request as soon as the last is answered.

    Every sequence's decode is interrupted by the prefills of all others that run beside it, so
    time by token = decode step + (running - 1) · prefill ÷ output tokens; who finds the memory full waits for whole
    requests.

    Raises:
        DoesNotFit: the weights and one sequence exceed the memory.
    """
    concurrency = traffic.concurrency or 1
    tokens_each = traffic.input_tokens + traffic.output_tokens
    most = most_sequences(chip, config, precision, tensor_parallel, traffic.input_tokens + traffic.output_tokens * 0.5)
    running = min(concurrency, most)
    prefill = prefill_s(chip, config, precision, tensor_parallel, traffic.input_tokens, p)
    context = traffic.input_tokens + traffic.output_tokens / 2
    step = decode_step_s(chip, config, precision, tensor_parallel, running, context, p)
    interruption = (running - 1) * prefill * (1 - p.prefill_overlap) / traffic.output_tokens
    token = step + interruption
    ahead = min(running - 1, p.prompts_ahead) + p.burst_share * (running - 1)
    first = p.request_s + prefill * (1 + ahead) + step + p.admission_gap * traffic.output_tokens * token / running
    lifetime = first + traffic.output_tokens * token
    # requests that the host can't keep up with wait before their first token, not between tokens
    host = running * _host_s(traffic, p)
    first += max(lifetime, host) * (1 + (min(lifetime, host) / max(lifetime, host)) ** 6) ** (1 / 6) - lifetime
    lifetime = first + traffic.output_tokens * token
    waiting = (concurrency - running) / running * lifetime
    rate = running / lifetime
    bound = _bound(concurrency > most, interruption > step, tokens_each)
    return DecoderTiming(
        first + waiting, token, rate, rate * traffic.output_tokens, running, most, prefill, step, bound
    )


def open_loop(
    chip: Chip,
    config: DecoderConfig,
    precision: str,
    tensor_parallel: int,
    traffic: DecoderTraffic,
    p: DecoderParameters,
) -> DecoderTiming:
    """Mean times when requests arrive as a Poisson stream, whoever is still being answered.

    Concurrency follows from Little's law, solved by bisection: sequences = rate · (tokens · time by token). Prefills
    interrupt decode for the share `rate · prefill` of the time, and a prompt waits for those before it as in M/D/1
    (Kleinrock, Queueing Systems I, 5.6).

    Raises:
        DoesNotFit: the weights and one sequence exceed the memory.
        PerformanceError: the rate is above what the devices sustain; says what they do sustain.
    """
    rate = traffic.requests_per_s or 0.0
    context = traffic.input_tokens + traffic.output_tokens / 2
    most = most_sequences(chip, config, precision, tensor_parallel, context)
    prefill = prefill_s(chip, config, precision, tensor_parallel, traffic.input_tokens, p)

    def sustained(sequences: float) -> float:
        step = decode_step_s(chip, config, precision, tensor_parallel, sequences, context, p)
        return sequences / max(traffic.output_tokens * step + sequences * prefill, sequences * _host_s(traffic, p))

    if rate >= sustained(most):
        raise PerformanceError(
            f"requests_per_s is {rate:g}; {config.name} on {tensor_parallel} × {chip.name} sustains "
            f"{sustained(most):.3g}: add replicas"
        )
    low, high = 0.0, float(most)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sustained(max(middle, 1e-9)) < rate else (low, middle)
    running = high
    step = decode_step_s(chip, config, precision, tensor_parallel, max(running, 1.0), context, p)
    busy = min(rate * prefill, 1 - 1e-9)
    token = step / (1 - busy)
    first = p.request_s + prefill + busy * prefill / (2 * (1 - busy)) + step / 2
    bound = _bound(False, busy > 0.5, context)
    return DecoderTiming(first, token, rate, rate * traffic.output_tokens, running, most, prefill, step, bound)


def _layer_s(tensor_parallel: int, p: DecoderParameters) -> float:
    return p.layer_s + p.host_layer_s + 2 * p.all_reduce_s * math.log2(tensor_parallel)


def _host_s(traffic: DecoderTraffic, p: DecoderParameters) -> float:
    """Seconds that the serving process is busy with one request."""
    return max(traffic.output_tokens * p.host_token_s, p.host_request_s)


def _ring_share(devices: int) -> float:
    return 2 * (devices - 1) / devices


def _bound(full: bool, prefill_dominates: bool, tokens_each: float) -> str:
    if full:
        return f"memory: the key–value cache of {tokens_each:.0f} tokens a sequence is full"
    return "compute: prefill" if prefill_dominates else "memory bandwidth: decode"
