"""Decoder language models, analytically from their configuration: parameters, FLOPs, bytes and key–value cache.

Source of the counts: J. Kaplan et al., "Scaling Laws for Neural Language Models" (arXiv 2001.08361), table 1 (2 FLOPs
by parameter and token, attention apart), with grouped key–value heads as in J. Ainslie et al., "GQA" (arXiv
2305.13245), gated feed-forward as in N. Shazeer, "GLU Variants Improve Transformer" (arXiv 2002.05202), and experts
as in A. Jiang et al., "Mixtral of Experts" (arXiv 2401.04088).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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
        if self.heads % self.kv_heads:
            raise PerformanceError(
                f"{self.name}: kv_heads is {self.kv_heads}; it must divide the number of heads, {self.heads}"
            )
        if self.active_experts > self.experts:
            raise PerformanceError(
                f"{self.name}: active_experts is {self.active_experts}; it must be at most experts, {self.experts}"
            )

    @property
    def attention_parameters_per_layer(self) -> int:
        """Query, key, value and output projections."""
        return 2 * self.hidden_size * self.head_dim * (self.heads + self.kv_heads)

    @property
    def expert_parameters(self) -> int:
        """One gated feed-forward block: gate, up and down."""
        return 3 * self.hidden_size * self.intermediate_size

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
        layer = self.attention_parameters_per_layer + self.router_parameters_per_layer + 2 * self.hidden_size
        return (
            self.layers * (layer + self.experts * self.expert_parameters)
            + self.head_parameters * (1 if self.tied_embeddings else 2)
            + self.hidden_size
        )

    @property
    def active_parameters(self) -> int:
        """Those that multiply one token: without the embedding's look-up and without idle experts."""
        layer = self.attention_parameters_per_layer + self.router_parameters_per_layer
        return self.layers * (layer + self.active_experts * self.expert_parameters) + self.head_parameters

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
        """Keys and values of one sequence of that many tokens, in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * bytes_each * self.attended(context)

    def attention_flops(self, new_tokens: float, context: float) -> float:
        """Scores and weighted sums of that many tokens, each against `context` earlier ones on average."""
        return 4 * self.layers * self.heads * self.head_dim * new_tokens * self.attended(context)


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
