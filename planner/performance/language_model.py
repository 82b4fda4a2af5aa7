"""Serving of decoder language models with continuous batching: time to first token, time by output token, limits.

Sources: R. Pope et al., "Efficiently Scaling Transformer Inference" (arXiv 2211.05102), sections 2–3: prefill is
bound by compute, decode by reading weights and the key–value cache; G.-I. Yu et al., "Orca" (OSDI 2022):
iteration-level batching; W. Kwon et al., "PagedAttention" (SOSP 2023): what the memory left over holds; M. Reiser, S.
Lavenberg, "Mean-Value Analysis of Closed Multichain Queuing Networks" (JACM 27, 1980) and P. Schweitzer's approximation
of it (1979): how many prompts are found waiting; J. Little (1961) for concurrency and rate; J. Shah et al.,
"FlashAttention-3" (arXiv 2407.08608), section 3: a prompt's attention takes as much of the exponentials' units as of
the products'.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

from planner.performance.checks import DoesNotFit, PerformanceError, not_negative, positive, whole
from planner.performance.chip import BYTES, GIB, Chip
from planner.performance.collectives import inside_link, send_s
from planner.performance.gemm import GemmParameters, gemm_time
from planner.profiles.decoder import DecoderConfig

MEMORY_USED_FRACTION = 0.9
"""Serving engines leave 10 % of the device memory for activations and fragments (vLLM's gpu_memory_utilization
default)."""
WORKSPACE_BYTES = 3 * GIB
"""Activations, captured graphs and the communication library's buffers of one device."""
KV_BYTES: Mapping[str, float] = {"fp8": 1.0, "int8": 1.0, "fp4": 1.0}
"""Of one key or value by the precision of the weights, otherwise two: who serves 8-bit weights keeps an 8-bit cache (as
most measured deployments did)."""
HEAD_BYTES = 2.0
"""Embedding and vocabulary head stay in 16 bits also when the layers are quantised."""
EXPONENTIALS_PER_CYCLE = 16.0
"""Of one compute unit: NVIDIA's CUDA programming guide, throughput of arithmetic instructions (special functions)."""
ATTENTION_TIME = 1.2
"""Time of a prompt's attention over that of its products and exponentials one after another: between 0.95 and 1.5 in
the attention kernels of H100 and B200 that aiconfigurator-core 0.12.0 measured (8 to 64 heads of 64 and of 128, 4,096
tokens and more)."""
SLOWER_SHARPNESS = 12.0
"""How sharply the slower of chips and serving process decides: users are a constant number, so that little waits for
chance."""
USUAL_REQUESTS_BY_USER = 10.0
"""Of a benchmark with constant concurrency: InferenceMAX sends ten requests by user, all users starting at once."""


@dataclass(frozen=True, slots=True)
class DecoderParameters:
    """Fitted constants of a serving engine; shared by every chip. Matrix products come from the chip's own fit."""

    prefill_time: float
    """Time of a prompt's matrix products over their sum measured one by one."""
    decode_time: float
    """... and of a decode step's."""
    experts_time: float
    """Factor on a decode step's products of experts where they are multiplied as they are: one kernel takes all that
    are touched, and mostly reads."""
    experts_prefill_time: float
    """... and on a prompt's, which mostly multiply."""
    block_scaled_time: float
    """Factor on a decode step's products of weights with a scale for each block."""
    widened_prefill_time: float
    """Time of a prompt's products of experts over that at the sustained peak, where the chip has to widen their weights
    before it multiplies."""
    widened_decode_time: float
    """Factor on a decode step's products of such experts ..."""
    widened_layer_s: float
    """... and what widening adds to one layer, however few the tokens."""
    elementwise_time: float
    """Time of a prompt's norms, positions and gates over that of moving their bytes once at the full bandwidth."""
    copies_time: float
    """... and of sorting its tokens by expert, with their copies in and out and the experts' gates."""
    kv_bandwidth_efficiency: float
    """Share of the memory bandwidth while keys and values are gathered."""
    kv_small_time: float
    """Time to gather 8-bit keys and values over that of as many bytes in 16 bits: they have to be widened."""
    query_key_norm_s: float
    """Norms of queries and keys, of one layer of a model that has them."""
    prefill_layer_s: float
    """What else one layer of a prompt takes, whatever its length."""
    all_reduce_s: float
    """Wait for each other in a tensor-parallel all-reduce of a decode step, by doubling of the devices."""
    prefill_overlap: float
    """Share of a decode step's products that a prefill beside it saves: one reading of the weights serves both."""
    steps_before: float
    """Decode steps that a prompt waits for beside its own: until the running one ends, and until the first token is
    sampled and handed on."""
    prompts_ahead: float
    """Prompts that one waits for where all have the same length: who started together returns together."""
    layer_s: float
    """Kernels' launches and tails of one layer in a decode step, beside the products."""
    step_s: float
    """Scheduling of one step."""
    sequence_s: float
    """Scheduling, sampling and detokenising of one sequence in one step."""
    request_s: float
    """What a request takes before its prompt is read, whatever its length: parsing, tokenising, scheduling."""
    host_token_s: float
    """Of the serving process, which hands on all sequences' tokens one after another, for each time that it does."""
    host_request_s: float
    """... and takes in requests one after another."""
    host_late_first: float
    """Of the time by which it lags behind the chips, the share before the first token; the rest is between tokens."""
    answer_held: float
    """Share of the answer for which memory is held on average: 1 where all of it is reserved beforehand."""


@dataclass(frozen=True, slots=True)
class Products:
    """The matrix-product constants of the chip at the weights' precision, in 8 and in 16 bits."""

    own: GemmParameters
    eight: GemmParameters
    sixteen: GemmParameters


@dataclass(frozen=True, slots=True)
class PassProducts:
    """Seconds of the matrix products of one pass, measured one by one."""

    attention_s: float
    """Projections of queries, keys, values and outputs, and the routing to experts."""
    feed_forward_s: float
    """Of the experts where there are any."""
    every_token_s: float
    """The feed-forward that every token visits beside experts: of shared ones, and of layers without."""
    head_s: float
    """Scores of the vocabulary."""


@dataclass(frozen=True, slots=True)
class DecoderTraffic:
    """What the users send, mean tokens by request; either `concurrency` (closed loop) or `requests_per_s` (open
    loop)."""

    input_tokens: int
    output_tokens: int
    concurrency: int | None = None
    requests_per_s: float | None = None
    requests_by_user: float = USUAL_REQUESTS_BY_USER
    """In a closed loop, whose users start at once: their first requests wait for each other; infinite for ever after."""
    same_lengths: bool = False
    """All requests of a closed loop have exactly these lengths."""
    admits_users_only: bool = False
    """The server admits `concurrency` sequences, and a place is free only when the next answer ends: a prompt waits for
    that, and then finds no other one waiting."""
    stream_interval: float = 1.0
    """Tokens of one answer that the server hands on together (TensorRT-LLM's option of that name)."""
    polled_steps: float = 0.0
    """Decode steps between two looks of the server for new requests (SGLang's scheduler_recv_interval)."""
    held_back_steps: float = 0.0
    """Decode steps for which a server of a closed loop keeps a prompt back, so that others may join it (TensorRT-LLM's
    batch_wait_timeout_iters)."""

    def __post_init__(self) -> None:
        whole("input_tokens", self.input_tokens, at_most=10**8)
        whole("output_tokens", self.output_tokens, at_most=10**8)
        if (self.concurrency is None) == (self.requests_per_s is None):
            raise PerformanceError("give either concurrency or requests_per_s, not both and not neither")
        if self.concurrency is not None:
            whole("concurrency", self.concurrency, at_most=10**7)
        if self.requests_per_s is not None:
            positive("requests_per_s", self.requests_per_s)
        if not self.requests_by_user >= 1:
            raise PerformanceError(f"requests_by_user is {self.requests_by_user!r}; it must be at least 1")
        not_negative("held_back_steps", self.held_back_steps)
        not_negative("polled_steps", self.polled_steps)
        if not 1 <= self.stream_interval < math.inf:
            raise PerformanceError(f"stream_interval is {self.stream_interval!r}; it must be at least 1, and finite")


@dataclass(frozen=True, slots=True)
class FirstTokenParts:
    """What the mean time to the first token is made of, seconds that add up to it."""

    request_s: float
    """Parsing, tokenising, scheduling."""
    prompts_s: float
    """Waiting for other prompts, and where the server keeps a prompt back."""
    prefill_s: float
    """Reading the prompt."""
    steps_s: float
    """Decode steps until the running one ends and the token is handed on."""
    process_s: float = 0.0
    """By which the serving process lags behind the chips."""
    memory_s: float = 0.0
    """Waiting for a place in the cache."""


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
    first_token: FirstTokenParts


@dataclass(frozen=True, slots=True)
class Server:
    """A decoder on `tensor_parallel` chips, with everything that its times are made from."""

    chip: Chip
    config: DecoderConfig
    precision: str
    tensor_parallel: int
    products: Products
    parameters: DecoderParameters
    expert_parallel: int = 1
    """Groups of these chips that whole experts are divided among; the chips of a group cut each expert."""
    pipeline_parallel: int = 1
    """Stages, each of `tensor_parallel` chips and a run of layers, that sequences pass in as many groups."""

    @property
    def sixteen(self) -> str:
        """What 16-bit products run in; the precision itself where the chip has none."""
        peaks = self.chip.peak_flops
        return "bf16" if "bf16" in peaks else "fp16" if "fp16" in peaks else self.precision

    @property
    def widens(self) -> bool:
        """The chip has no products at the weights' precision."""
        return self.precision not in self.chip.peak_flops

    @property
    def kv_bytes_each(self) -> float:
        """Bytes of one key or value; the cache of weights that have to be widened stays in 16 bits too."""
        return 2.0 if self.widens else KV_BYTES.get(self.precision, 2.0)

    @property
    def largest_stage(self) -> float:
        """Share of the layers that the stage with most of them has."""
        return math.ceil(self.config.layers / self.pipeline_parallel) / self.config.layers

    @property
    def kv_split(self) -> int:
        """Devices that keys and values are divided among; heads are not cut, and a latent is of all heads."""
        return 1 if self.config.kv_lora_rank else min(self.tensor_parallel, self.config.kv_heads)


def weight_bytes(config: DecoderConfig, precision: str) -> float:
    """Bytes of all weights; the layers at the precision, embedding and head in 16 bits."""
    wide = config.head_parameters * (1 if config.tied_embeddings else 2)
    if precision == "fp4" and config.sixteen_bit_attention:
        wide += config.layers * config.attention_parameters_per_layer
    return (config.parameters - wide) * BYTES[precision] + wide * max(HEAD_BYTES, BYTES[precision])


def most_sequences(server: Server, input_tokens: float, output_tokens: float) -> int:
    """How many sequences the memory left over by the weights holds.

    Raises:
        DoesNotFit: not even one; says by how many GiB a device.
    """
    chip, config, precision, ways = server.chip, server.config, server.precision, server.tensor_parallel
    tokens = input_tokens + output_tokens * server.parameters.answer_held
    whole_bytes = weight_bytes(config, precision)
    ends = config.head_parameters * (1 if config.tied_embeddings else 2) * max(HEAD_BYTES, BYTES[precision])
    if server.pipeline_parallel > 1:  # the embedding is in the first stage, and the head in the last
        whole_bytes = (whole_bytes - ends) * server.largest_stage + config.head_parameters * max(
            HEAD_BYTES, BYTES[precision]
        )
    held = whole_bytes / ways
    left = chip.memory_bytes * MEMORY_USED_FRACTION - WORKSPACE_BYTES - held
    one = config.kv_bytes(tokens, server.kv_bytes_each) * server.largest_stage / server.kv_split
    if left < one:
        missing = (one - left) / GIB
        chips = ways * server.pipeline_parallel
        raise DoesNotFit(
            f"{config.name} in {precision} on {chips} × {chip.name}: {missing:.1f} GiB a device are missing for the "
            f"weights ({held / GIB:.1f} GiB) and one sequence of {tokens:.0f} tokens; take more devices or a "
            "lower precision",
            missing,
        )
    return int(left / one)


def prefill_s(server: Server, tokens: float) -> float:
    """Seconds to read one prompt of that many tokens (Pope et al., section 2)."""
    config, p = server.config, server.parameters
    products = pass_products(server, tokens, 1)
    feed_forward = products.feed_forward_s
    if config.experts > 1:
        feed_forward = _widened_experts_s(server, tokens) if server.widens else feed_forward * p.experts_prefill_time
    moved_s = tokens / server.chip.memory_bandwidth_bytes_per_s
    moved_s *= _elementwise_bytes(config, server.tensor_parallel) * p.elementwise_time + (
        _copied_bytes(config, server.tensor_parallel) * p.copies_time
    )
    multiplied_s = (products.attention_s + products.every_token_s + products.head_s + feed_forward) * p.prefill_time
    return (
        max(multiplied_s, _at_the_peak_s(server, tokens))
        + _prompt_attention_s(server, tokens)
        + moved_s
        + config.layers * (2 * _exchange_s(server, tokens) + p.prefill_layer_s + _layer_s(server))
        + _stages_s(server, tokens)
    )


def _stages_s(server: Server, tokens: float) -> float:
    """Seconds in which the stages hand a pass on, each a part of the hidden state that its chips have whole (D.
    Narayanan et al., arXiv 2104.04473, sections 3.2 and 4.1)."""
    if server.pipeline_parallel == 1:
        return 0.0
    sent = tokens * server.config.hidden_size * 2.0 / server.tensor_parallel
    return (server.pipeline_parallel - 1) * send_s(sent, inside_link(server.chip, 2))


def stage_s(server: Server, pass_s: float, head_s: float) -> float:
    """Seconds that a pass keeps the slowest stage busy: the one with most layers, or the last, which has the fewest and
    the head (as vLLM's get_pp_indices divides them)."""
    stages, layers = server.pipeline_parallel, server.config.layers
    if stages == 1:
        return pass_s
    layers_s = pass_s - head_s
    return max(layers_s * server.largest_stage, layers_s * (layers // stages) / layers + head_s)


def _at_the_peak_s(server: Server, tokens: float) -> float:
    """Seconds of a prompt's matrix products at the chips' peak: no fitted constant goes below."""
    config, chip = server.config, server.chip
    flops = 2 * (config.active_parameters - config.head_parameters) * tokens / server.tensor_parallel
    return flops / chip.peak_flops[server.sixteen if server.widens else server.precision]


def _prompt_attention_s(server: Server, tokens: float) -> float:
    """Seconds of a prompt's scores and weighted sums: the products and the exponentials, one after another."""
    chip, config = server.chip, server.config
    flops = config.attention_flops(tokens, tokens / 2) / server.tensor_parallel
    seconds = flops / (chip.peak_flops[server.sixteen] * chip.sustained)
    if chip.compute_units > 1:
        each_s = EXPONENTIALS_PER_CYCLE * chip.compute_units * chip.clock_ghz * 1e9
        seconds += config.attention_scores(tokens, tokens / 2) / server.tensor_parallel / each_s
    return seconds * ATTENTION_TIME


def _elementwise_bytes(config: DecoderConfig, ways: int) -> float:
    """Bytes that one token moves between the products of all layers: two norms with what is added (8 rows of the hidden
    size), positions and cache (4 of queries, keys and values), and the gate where every token goes (3 of the
    feed-forward)."""
    heads = (config.heads + 2 * config.kv_heads) * (config.head_dim + config.qk_rope_head_dim) / ways
    gates = (
        config.layers * config.intermediate_size
        if config.experts == 1
        else config.always_active_parameters / (3 * config.hidden_size)
    )
    return 2.0 * (config.layers * (8 * config.hidden_size + 4 * heads) + 3 * gates / ways)


def _copied_bytes(config: DecoderConfig, ways: int) -> float:
    """Bytes that one token moves for its experts in all layers: its copies in and out (4 of the hidden size for each)
    and their gates (3 of the feed-forward)."""
    if config.experts == 1:
        return 0.0
    copies = 2.0 * config.expert_layers * config.active_experts
    return copies * (4 * config.hidden_size + 3 * config.intermediate_size / ways)


def _widened_experts_s(server: Server, tokens: float) -> float:
    """Seconds of a prompt's experts whose weights the chip has to widen: blocks of as few as eight rows, so nothing is
    padded, or the reading of their narrow weights (E. Frantar et al., "MARLIN", arXiv 2408.11743)."""
    config, chip, ways = server.config, server.chip, server.tensor_parallel
    flops = 2 * config.expert_layers * config.active_experts * config.expert_parameters * tokens / ways
    multiplied_s = flops / (chip.peak_flops[server.sixteen] * chip.sustained) * server.parameters.widened_prefill_time
    touched = config.expert_layers * config.experts_touched(tokens) * config.expert_parameters / ways
    bandwidth = chip.memory_bandwidth_bytes_per_s * server.products.sixteen.bandwidth_efficiency
    return max(multiplied_s, touched * BYTES[server.precision] / bandwidth)


def _layer_s(server: Server) -> float:
    """Seconds that kernels which only some models and chips need add to one layer."""
    config, p = server.config, server.parameters
    norms = p.query_key_norm_s if config.query_key_norm else 0.0
    widening = p.widened_layer_s if server.widens and config.experts > 1 else 0.0
    return norms + widening


def decode_products_s(server: Server, sequences: float) -> float:
    """Seconds of a decode step's matrix products."""
    p, products = server.parameters, pass_products(server, sequences, sequences, cached=True)
    scaled = p.block_scaled_time if server.config.fp8_blocks and server.precision == "fp8" else 1.0
    feed_forward = products.feed_forward_s
    if server.config.experts > 1:
        feed_forward *= p.widened_decode_time if server.widens else p.experts_time
    return (products.head_s + (products.attention_s + products.every_token_s + feed_forward) * scaled) * p.decode_time


def decode_step_s(server: Server, sequences: float, context: float) -> float:
    """Seconds of one decode step of that many sequences with `context` tokens each (Pope et al., section 2)."""
    chip, config, p = server.chip, server.config, server.parameters
    size = server.kv_bytes_each
    gathered = config.kv_bytes(context, size) / server.kv_split * sequences * (p.kv_small_time if size < 2 else 1.0)
    multiplied = config.gathered_flops(sequences, context) / server.tensor_parallel
    sent = _exchange_s(server, sequences) + p.all_reduce_s * math.log2(server.tensor_parallel)
    return (
        decode_products_s(server, sequences)
        + max(
            gathered / (chip.memory_bandwidth_bytes_per_s * p.kv_bandwidth_efficiency),
            multiplied / (chip.peak_flops[server.sixteen] * chip.sustained),
        )
        + config.layers * (2 * sent + p.layer_s + _layer_s(server))
        + sequences * p.sequence_s
        + p.step_s
        + _stages_s(server, sequences)
    )


def token_s(server: Server, sequences: float, context: float) -> float:
    """Seconds between two tokens of each of that many sequences. They pass the stages in as many groups as there are
    stages, and each group waits until the slowest has done all the others (G.-I. Yu et al., "Orca", section 4.2)."""
    groups = min(float(server.pipeline_parallel), max(1.0, sequences))
    step = decode_step_s(server, sequences / groups, context)
    if groups == 1:
        return step
    head_s = pass_products(server, sequences / groups, sequences / groups).head_s * server.parameters.decode_time
    return max(step, groups * stage_s(server, step, head_s))


def _exchange_s(server: Server, tokens: float) -> float:
    """Bytes of one tensor-parallel all-reduce, without its latency: engines have kernels of their own for that."""
    ways = server.tensor_parallel
    sent = 2 * (ways - 1) / ways * tokens * server.config.hidden_size * 2.0
    return sent / inside_link(server.chip, ways).rate


def pass_products(server: Server, tokens: float, head_rows: float, *, cached: bool = False) -> PassProducts:
    """The matrix products of a pass over `tokens` tokens, of which `head_rows` get scores of the vocabulary.

    Query, key and value in one product; gate and up in one; the experts that are touched in one launch. A pass that
    attends to what is `cached` takes latents as they are, and a prompt makes keys and values from them.
    """
    rows, scored, config = max(1, round(tokens)), max(1, round(head_rows)), server.config
    return _pass_products(
        server.chip,
        config,
        server.precision,
        server.sixteen,
        server.tensor_parallel,
        server.expert_parallel,
        server.products,
        rows,
        scored,
        cached and config.kv_lora_rank > 0,
    )


@functools.lru_cache(maxsize=65_536)
def _pass_products(
    chip: Chip,
    config: DecoderConfig,
    precision: str,
    sixteen: str,
    ways: int,
    expert_ways: int,
    products: Products,
    rows: int,
    scored: int,
    absorbed: bool,
) -> PassProducts:
    own = precision if precision in chip.peak_flops else sixteen
    eight = "fp8" if "fp8" in chip.peak_flops else sixteen
    constants = {eight: products.eight, sixteen: products.sixteen}
    constants.setdefault(own, products.own)

    def seconds(stored: str, multiplied: str, m: int, n: int, k: int, count: int = 1) -> float:
        return _product_s(chip, stored, multiplied, m, max(1, n), max(1, k), count, constants[multiplied])

    hidden, inner = config.hidden_size, max(1, config.intermediate_size * expert_ways // ways)
    projection = (sixteen, sixteen) if precision == "fp4" and config.sixteen_bit_attention else (precision, own)
    shapes = _projections(config, ways, absorbed)
    attention = config.layers * sum(seconds(*projection, rows, n, k, count) for n, k, count in shapes)
    touched = max(1, round(config.experts_touched(rows)))
    each, here = math.ceil(rows * config.active_experts / touched), max(1, round(touched / expert_ways))
    expert = (precision, eight if own == "fp4" and config.weight_only_fp4 else own)
    feed_forward = seconds(*expert, each, 2 * inner, hidden, here) + seconds(*expert, each, hidden, inner, here)
    every_token = 0.0
    for size, layers in (
        (config.shared_intermediate_size, config.expert_layers),
        (config.dense_intermediate_size, config.dense_layers),
    ):
        if size and layers:
            cut = max(1, size // ways)
            every_token += layers * (
                seconds(precision, own, rows, 2 * cut, hidden) + seconds(precision, own, rows, hidden, cut)
            )
    if config.experts > 1:
        attention += config.expert_layers * seconds(sixteen, sixteen, rows, config.experts, hidden)
    head = seconds(sixteen, sixteen, scored, config.vocabulary // ways, hidden)
    return PassProducts(attention, config.expert_layers * feed_forward, every_token, head)


def _projections(config: DecoderConfig, ways: int, absorbed: bool) -> list[tuple[int, int, int]]:
    """Columns, inner size and number of the products around one layer's attention, on each of `ways` devices.

    Latents are made whole on every device. From them a prompt makes its heads' keys and values; where the latents stay
    as they are (`absorbed`), each head's query takes the keys' part of that product beforehand and its output the
    values' afterwards (DeepSeek-V2, section 2.1.2).
    """
    hidden, heads = config.hidden_size, config.heads // ways
    if not config.kv_lora_rank:
        queries, kept = heads * config.head_dim, 2 * math.ceil(config.kv_heads / ways) * config.head_dim
        return [(queries + kept, hidden, 1), (hidden, queries, 1)]
    latent, query = config.kv_lora_rank, heads * (config.head_dim + config.qk_rope_head_dim)
    narrow = latent + config.qk_rope_head_dim
    products = [(narrow + (config.q_lora_rank or query), hidden, 1)]
    if config.q_lora_rank:
        products.append((query, config.q_lora_rank, 1))
    if absorbed:
        products += [(latent, config.head_dim, heads), (config.v_head_dim, latent, heads)]
    else:
        products.append((heads * (config.head_dim + config.v_head_dim), latent, 1))
    return [*products, (hidden, heads * config.v_head_dim, 1)]


def _product_s(
    chip: Chip, stored: str, multiplied: str, m: int, n: int, k: int, count: int, parameters: GemmParameters
) -> float:
    """One product; weights of fewer bits than they are multiplied in are widened on their way: the wider compute, their
    own bytes."""
    time = gemm_time(chip, multiplied, m, n, k, parameters, count=count)
    if stored == multiplied:
        return time.total_s
    bandwidth = chip.memory_bandwidth_bytes_per_s * parameters.bandwidth_efficiency
    share = BYTES[stored] / BYTES[multiplied]
    saved = float(n) * k * count * (BYTES[multiplied] - BYTES[stored]) / bandwidth
    return max(time.total_s - saved, time.compute_s + time.launch_s, time.total_s * share)


def closed_loop(server: Server, traffic: DecoderTraffic) -> DecoderTiming:
    """Mean times when `concurrency` users each send their next request as soon as the last is answered.

    Every sequence's decode is interrupted by the prefills of those that run beside it; who finds the memory full
    waits for whole requests. All users start at once: of their first requests the i-th waits for i - 1 prompts, the
    later ones for those that mean-value analysis finds ahead.

    Raises:
        DoesNotFit: the weights and one sequence exceed the memory.
    """
    p, output = server.parameters, traffic.output_tokens
    concurrency = traffic.concurrency or 1
    most = most_sequences(server, traffic.input_tokens, output)
    running = min(concurrency, most)
    first_round = 1 / traffic.requests_by_user
    prefill = prefill_s(server, traffic.input_tokens)
    busy = stage_s(server, prefill, 0.0)
    step = token_s(server, running, traffic.input_tokens + output / 2)
    saved = p.prefill_overlap * min(decode_products_s(server, running), prefill) * busy / prefill
    interruption = (running - 1) * (1 - first_round / 2) * max(busy - saved, 0.05 * busy) / output
    token = step + interruption
    later = _waiting_s(traffic, p, running, busy, output * token) + _held_back_s(traffic, running, token)
    later += traffic.polled_steps * token / 2
    prompts = (1 - first_round) * later + first_round * busy * (running + 1) / 2 - busy
    first = p.request_s + p.steps_before * step + prefill + prompts
    lifetime = first + output * token
    late = _slower_s(lifetime, running * _host_s(traffic, p)) - lifetime
    first += p.host_late_first * late
    token += (1 - p.host_late_first) * late / output
    lifetime = first + output * token
    waiting = (concurrency - running) / running * lifetime
    rate = running / lifetime
    bound = _bound(concurrency > most, interruption > step, traffic.input_tokens + output)
    parts = FirstTokenParts(p.request_s, prompts, prefill, p.steps_before * step, p.host_late_first * late, waiting)
    return DecoderTiming(first + waiting, token, rate, rate * output, running, most, prefill, step, bound, parts)


def _waiting_s(traffic: DecoderTraffic, p: DecoderParameters, running: float, prefill: float, decode: float) -> float:
    """Mean seconds from arrival until the prompt is read, with its reading, after the first round of a closed loop.

    Where only the users' sequences are admitted, answers end `decode / running` apart, and the prompt that comes for
    the place of one is read when the next ends; otherwise it queues, behind more prompts where all have one length.
    """
    if traffic.admits_users_only:
        return prefill + decode / running
    together = min(p.prompts_ahead, running - 1) * prefill if traffic.same_lengths else 0.0
    return queued_s(prefill, decode, running) + together


def _slower_s(one: float, other: float) -> float:
    """The longer of two times that mostly overlap, a little more where they are alike: (a¹² + b¹²)^(1/12)."""
    long, short = max(one, other), min(one, other)
    return long * float((1 + (short / long) ** SLOWER_SHARPNESS) ** (1 / SLOWER_SHARPNESS))


def _held_back_s(traffic: DecoderTraffic, running: float, token_s: float) -> float:
    """Mean seconds that prompts are kept back: the first of them for all of the time, who joins later for half of it."""
    joining = traffic.held_back_steps * running / (traffic.output_tokens + traffic.held_back_steps)
    return traffic.held_back_steps * token_s * (1 + joining / 2) / (1 + joining)


def queued_s(service_s: float, elsewhere_s: float, customers: float) -> float:
    """Seconds from arrival to the end of service at the one station where `customers` queue, who then spend
    `elsewhere_s` without queueing.

    Schweitzer's approximation of mean-value analysis with a constant service time, R = S·(1 + (n - 1)·(R - S/2)/(R +
    Z)), solved for R: who arrives finds (n - 1)/n of the mean queue, and of the one in service half is left.
    """
    half = (elsewhere_s - customers * service_s) / 2
    rest = service_s * elsewhere_s - service_s**2 * (customers - 1) / 2
    return max(service_s, -half + math.sqrt(max(0.0, half * half + rest)))


def open_loop(server: Server, traffic: DecoderTraffic) -> DecoderTiming:
    """Mean times when requests arrive as a Poisson stream, whoever is still being answered.

    Concurrency follows from Little's law, solved by bisection: sequences = rate · (tokens · time by token). Prefills
    interrupt decode for the share `rate · prefill` of the time, and a prompt waits for those before it as in M/D/1
    (Kleinrock, Queueing Systems I, 5.6).

    Raises:
        DoesNotFit: the weights and one sequence exceed the memory.
        PerformanceError: the rate is above what the devices sustain; says what they do sustain.
    """
    p, rate, output = server.parameters, traffic.requests_per_s or 0.0, traffic.output_tokens
    context = traffic.input_tokens + output / 2
    most = most_sequences(server, traffic.input_tokens, output)
    prefill = prefill_s(server, traffic.input_tokens)

    occupied = stage_s(server, prefill, 0.0)

    def sustained(sequences: float) -> float:
        step = token_s(server, sequences, context)
        return sequences / max(output * step + sequences * occupied, sequences * _host_s(traffic, p))

    if rate >= sustained(most):
        raise PerformanceError(
            f"requests_per_s is {rate:g}; {server.config.name} on "
            f"{server.tensor_parallel * server.pipeline_parallel} × {server.chip.name} "
            f"sustains {sustained(most):.3g}: add replicas"
        )
    low, high = 0.0, float(most)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sustained(max(middle, 1e-9)) < rate else (low, middle)
    step = token_s(server, max(high, 1.0), context)
    busy = min(rate * occupied, 1 - 1e-9)
    token = step / (1 - busy)
    parts = FirstTokenParts(p.request_s, busy * occupied / (2 * (1 - busy)), prefill, p.steps_before * step)
    first = parts.request_s + parts.prompts_s + parts.prefill_s + parts.steps_s
    bound = _bound(False, busy > 0.5, context)
    return DecoderTiming(first, token, rate, rate * output, high, most, prefill, step, bound, parts)


def _host_s(traffic: DecoderTraffic, p: DecoderParameters) -> float:
    """Seconds that the serving process is busy with one request."""
    return max(traffic.output_tokens / traffic.stream_interval * p.host_token_s, p.host_request_s)


def _bound(full: bool, prefill_dominates: bool, tokens_each: float) -> str:
    if full:
        return f"memory: the key–value cache of {tokens_each:.0f} tokens a sequence is full"
    return "compute: prefill" if prefill_dominates else "memory bandwidth: decode"
