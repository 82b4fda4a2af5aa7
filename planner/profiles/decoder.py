"""Decoder language models, analytically from their configuration: parameters, FLOPs, bytes and key–value cache.

Source of the counts: J. Kaplan et al., "Scaling Laws for Neural Language Models" (arXiv 2001.08361), table 1 (2 FLOPs
by parameter and token, attention apart), with grouped key–value heads as in J. Ainslie et al., "GQA" (arXiv
2305.13245), gated feed-forward as in N. Shazeer, "GLU Variants Improve Transformer" (arXiv 2002.05202), experts as in
A. Jiang et al., "Mixtral of Experts" (arXiv 2401.04088), shared experts as in D. Dai et al., "DeepSeekMoE" (arXiv
2401.06066), and multi-head latent attention as in DeepSeek-AI, "DeepSeek-V2" (arXiv 2405.04434), section 2.1.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.performance.checks import PerformanceError, whole

PRESETS = Path(__file__).with_name("data") / "decoders.json"
ROUTING_EVENNESS = 0.8
"""Shape of the Gamma distribution that experts' popularity follows; infinite is even routing. With it, batches of 16 and
of 64 tokens touch 0.79 and 0.7 of the experts that even routing would, which is what kernels took less under
aiconfigurator-core 0.12.0's skewed routing (``power_law_1.01`` against ``balanced`` of its moe_perf tables)."""


@dataclass(frozen=True)
class DecoderConfig:
    """The shape of a decoder language model, in the words of its published ``config.json``."""

    name: str
    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    """With latent attention: the part of a query or key without position (`qk_nope_head_dim`)."""
    intermediate_size: int
    """Of one feed-forward block; of one expert where there are experts."""
    vocabulary: int
    experts: int = 1
    active_experts: int = 1
    tied_embeddings: bool = False
    windowed_layers: int = 0
    """Layers that attend to the last `window` tokens only."""
    window: int = 0
    query_key_norm: bool = False
    """Queries and keys are normalised before attention: more kernels a layer."""
    fp8_blocks: bool = False
    """Its published 8-bit weights have a scale for each block of 128 × 128, not for each matrix."""
    sixteen_bit_attention: bool = False
    """Of its published 4-bit weights: only the feed-forward's are narrow."""
    weight_only_fp4: bool = False
    """Its 4-bit weights (MXFP4) are multiplied with wider activations: in 8 bits where the chip has 4-bit products,
    otherwise in 16."""
    kv_lora_rank: int = 0
    """Latent attention: the numbers of one token that all heads' keys and values are made from; 0 is none of it."""
    q_lora_rank: int = 0
    """... and those that queries are made from; 0 where they come from the hidden state itself."""
    qk_rope_head_dim: int = 0
    """... and what a query has beside `head_dim` for its position, whose key all heads share."""
    v_head_dim: int = 0
    """... and of one head's value."""
    shared_intermediate_size: int = 0
    """Of the experts that every token visits, all together."""
    dense_layers: int = 0
    """Layers that have one feed-forward of `dense_intermediate_size` in place of experts."""
    dense_intermediate_size: int = 0
    source: str = ""

    def __post_init__(self) -> None:
        for field in [
            "layers",
            "hidden_size",
            "heads",
            "kv_heads",
            "head_dim",
            "intermediate_size",
            "vocabulary",
            "experts",
            "active_experts",
        ]:
            whole(f"{self.name}: {field}", getattr(self, field), at_most=10**8)
        whole(f"{self.name}: windowed_layers", self.windowed_layers, at_least=0, at_most=self.layers)
        whole(f"{self.name}: window", self.window, at_least=1 if self.windowed_layers else 0, at_most=10**9)
        self._check_latent()
        self._check_dense_and_shared()
        if self.heads % self.kv_heads:
            raise PerformanceError(
                f"{self.name}: kv_heads is {self.kv_heads}; it must divide the number of heads, {self.heads}"
            )
        if self.active_experts > self.experts:
            raise PerformanceError(
                f"{self.name}: active_experts is {self.active_experts}; it must be at most experts, {self.experts}"
            )

    def _check_latent(self) -> None:
        parts = ("q_lora_rank", "qk_rope_head_dim", "v_head_dim")
        for field in ("kv_lora_rank", *parts):
            whole(f"{self.name}: {field}", getattr(self, field), at_least=0, at_most=10**6)
        if not self.kv_lora_rank:
            for field in parts:
                if getattr(self, field):
                    raise PerformanceError(
                        f"{self.name}: {field} is {getattr(self, field)} and kv_lora_rank is 0; latent attention takes "
                        "both"
                    )
        elif not self.v_head_dim:
            raise PerformanceError(f"{self.name}: v_head_dim is 0; latent attention (kv_lora_rank) takes at least 1")
        elif self.windowed_layers:
            raise PerformanceError(
                f"{self.name}: windowed_layers is {self.windowed_layers}; with latent attention (kv_lora_rank) it must "
                "be 0"
            )

    def _check_dense_and_shared(self) -> None:
        whole(f"{self.name}: shared_intermediate_size", self.shared_intermediate_size, at_least=0, at_most=10**8)
        whole(f"{self.name}: dense_layers", self.dense_layers, at_least=0, at_most=self.layers)
        least = 1 if self.dense_layers else 0
        whole(f"{self.name}: dense_intermediate_size", self.dense_intermediate_size, at_least=least, at_most=10**8)
        if self.experts == 1 and (self.shared_intermediate_size or self.dense_layers):
            field = "dense_layers" if self.dense_layers else "shared_intermediate_size"
            raise PerformanceError(
                f"{self.name}: {field} is {getattr(self, field)} and experts is 1; it is of models with experts"
            )

    @property
    def attention_parameters_per_layer(self) -> int:
        """Query, key, value and output projections."""
        if not self.kv_lora_rank:
            return 2 * self.hidden_size * self.head_dim * (self.heads + self.kv_heads)
        queries = self.heads * (self.head_dim + self.qk_rope_head_dim) * (self.q_lora_rank or self.hidden_size)
        made_from_latent = self.heads * (self.head_dim + self.v_head_dim) * self.kv_lora_rank
        output = self.heads * self.v_head_dim * self.hidden_size
        return self.latent_parameters_per_layer + queries + made_from_latent + output

    @property
    def latent_parameters_per_layer(self) -> int:
        """Projections to the latents, which every device of a tensor-parallel group has whole."""
        width = self.q_lora_rank + self.kv_lora_rank + self.qk_rope_head_dim
        return self.hidden_size * width if self.kv_lora_rank else 0

    @property
    def expert_layers(self) -> int:
        """Layers whose feed-forward is `experts` (or the one) of `intermediate_size`."""
        return self.layers - self.dense_layers

    @property
    def expert_parameters(self) -> int:
        """One gated feed-forward block: gate, up and down."""
        return 3 * self.hidden_size * self.intermediate_size

    @property
    def always_active_parameters(self) -> int:
        """Feed-forward that multiplies every token, in all layers: of dense layers, and of shared experts."""
        dense, shared = self.dense_layers * self.dense_intermediate_size, self.shared_intermediate_size
        return 3 * self.hidden_size * (dense + self.expert_layers * shared)

    @property
    def router_parameters_per_layer(self) -> int:
        """Scores of the experts; none where there is one."""
        return self.hidden_size * self.experts if self.experts > 1 else 0

    @property
    def head_parameters(self) -> int:
        """The projection onto the vocabulary (the embedding itself where tied)."""
        return self.vocabulary * self.hidden_size

    @property
    def parameters(self) -> int:
        """All of them."""
        experts = self.router_parameters_per_layer + self.experts * self.expert_parameters
        return (
            self.layers * (self.attention_parameters_per_layer + 2 * self.hidden_size)
            + self.expert_layers * experts
            + self.always_active_parameters
            + self.head_parameters * (1 if self.tied_embeddings else 2)
            + self.hidden_size
        )

    @property
    def active_parameters(self) -> int:
        """Those that multiply one token: without the embedding's look-up and without idle experts."""
        experts = self.router_parameters_per_layer + self.active_experts * self.expert_parameters
        return (
            self.layers * self.attention_parameters_per_layer
            + self.expert_layers * experts
            + self.always_active_parameters
            + self.head_parameters
        )

    def experts_touched(self, tokens: float) -> float:
        """Expected number of a layer's experts whose weights are read for that many tokens.

        Visits of an expert whose popularity is drawn from a Gamma distribution are negative binomial (Greenwood and
        Yule 1920); an idle one has none.
        """
        if self.experts == self.active_experts:
            return float(self.experts)
        visits = tokens * self.active_experts / self.experts
        touched = self.experts * (1 - (1 + visits / ROUTING_EVENNESS) ** -ROUTING_EVENNESS)
        return float(min(max(touched, self.active_experts), tokens * self.active_experts, self.experts))

    def attended(self, context: float) -> float:
        """Tokens that one of `context` earlier ones is left with, averaged over the layers."""
        share = self.windowed_layers / self.layers
        return context * (1 - share) + min(context, float(self.window)) * share if share else context

    def kv_bytes(self, context: float, bytes_each: float) -> float:
        """Keys and values of one sequence of that many tokens, in all layers; with latent attention the latent and the
        shared key of the position (DeepSeek-V2, table 1)."""
        numbers = self.kv_lora_rank + self.qk_rope_head_dim if self.kv_lora_rank else 2 * self.kv_heads * self.head_dim
        return self.layers * numbers * bytes_each * self.attended(context)

    def attention_scores(self, new_tokens: float, context: float) -> float:
        """Pairs of a query and a key, in all heads and layers, of that many tokens, each against `context` earlier ones
        on average."""
        return self.layers * self.heads * new_tokens * self.attended(context)

    def attention_flops(self, new_tokens: float, context: float) -> float:
        """... and the FLOPs of their scores and weighted sums, with each head's own keys and values."""
        value = self.v_head_dim or self.head_dim
        return 2 * (self.head_dim + self.qk_rope_head_dim + value) * self.attention_scores(new_tokens, context)

    def gathered_flops(self, new_tokens: float, context: float) -> float:
        """... against what the cache holds. With latent attention the up-projections are absorbed into query and output,
        so each head multiplies the latent itself, twice (DeepSeek-V2, section 2.1.2 and appendix C)."""
        if not self.kv_lora_rank:
            return self.attention_flops(new_tokens, context)
        return 2 * (2 * self.kv_lora_rank + self.qk_rope_head_dim) * self.attention_scores(new_tokens, context)


def published(name: str, config: Mapping[str, Any]) -> DecoderConfig:
    """The shape in a model's ``config.json`` as it is published with its weights (Hugging Face transformers' names).

    Raises:
        PerformanceError: a field is missing or wrong, or the model has layers that are not modelled; names it.
    """
    own, quantised = (config.get(field) for field in ("text_config", "quantization_config"))
    text: Mapping[str, Any] = own if isinstance(own, dict) else config

    def number(*names: str, default: int | None = None) -> int:
        for each in names:
            if text.get(each) is not None:
                return whole(f"{name}: {each}", text[each], at_least=0, at_most=10**9)
        if default is None:
            raise PerformanceError(f"{name}: {names[-1]} is missing in its published configuration")
        return default

    layers, hidden, heads = number("num_hidden_layers"), number("hidden_size"), number("num_attention_heads")
    kinds = text.get("layer_types")
    kinds = kinds if isinstance(kinds, list) else []
    if "linear_attention" in kinds or number("full_attention_interval", default=0) > 1:
        raise PerformanceError(f"{name}: has layers of linear attention, which are not modelled")
    experts = number("n_routed_experts", "num_local_experts", "num_experts", default=1) or 1
    expert = number("moe_intermediate_size", default=0) if experts > 1 else 0
    wide = number("intermediate_size_mlp", "intermediate_size")
    every = number("interleave_moe_layer_step", "decoder_sparse_step", default=1) or 1
    dense = number("first_k_dense_replace", default=layers - layers // every) if experts > 1 else 0
    shared = number("n_shared_experts", default=0) * expert
    if text.get("model_type") == "llama4_text":
        shared = number("intermediate_size")
    windowed = kinds.count("sliding_attention")
    if not kinds and (pattern := number("sliding_window_pattern", default=0)):
        windowed = layers - layers // pattern
    latent = number("kv_lora_rank", default=0)
    size = number("qk_nope_head_dim") if latent else number("head_dim", default=hidden // max(1, heads))
    return DecoderConfig(
        name=name,
        layers=layers,
        hidden_size=hidden,
        heads=heads,
        kv_heads=number("num_key_value_heads", default=heads),
        head_dim=size,
        intermediate_size=expert or number("intermediate_size"),
        vocabulary=number("vocab_size"),
        experts=experts,
        active_experts=number("num_experts_per_tok") if experts > 1 else 1,
        tied_embeddings=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
        windowed_layers=windowed,
        window=number("sliding_window") if windowed else 0,
        query_key_norm=bool(text.get("use_qk_norm", str(text.get("model_type", "")).startswith("qwen3"))),
        fp8_blocks=isinstance(quantised, dict) and bool(quantised.get("weight_block_size")),
        kv_lora_rank=latent,
        q_lora_rank=number("q_lora_rank", default=0) if latent else 0,
        qk_rope_head_dim=number("qk_rope_head_dim") if latent else 0,
        v_head_dim=number("v_head_dim") if latent else 0,
        shared_intermediate_size=number("shared_expert_intermediate_size", default=shared) if experts > 1 else 0,
        dense_layers=dense,
        dense_intermediate_size=wide if dense else 0,
        source="its published configuration",
    )


@functools.cache
def presets() -> Mapping[str, DecoderConfig]:
    """The shipped configurations, by name."""
    rows = json.loads(PRESETS.read_text(encoding="utf-8"))
    return {row["name"]: DecoderConfig(**row) for row in rows}


def decoder(name: str) -> DecoderConfig:
    """The shipped configuration of that name.

    Raises:
        PerformanceError: there is none; names those that there are.
    """
    try:
        return presets()[name]
    except KeyError:
        raise PerformanceError(
            f"model is {name!r}; shipped are {', '.join(presets())}, or give its configuration"
        ) from None
