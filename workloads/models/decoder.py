"""A decoder language model of Llama's shape: RMSNorm, rotary positions, grouped-query attention, SwiGLU."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel

from workloads.models.arguments import Base, Layers, Size
from workloads.models.transformer import INITIAL_STD, by_head, initialize, require_divides


class Attention(nn.Module):
    """Causal attention; several query heads share one key and value head (Ainslie et al. 2023)."""

    def __init__(self, width: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.head_width = width // heads
        self.q = nn.Linear(width, heads * self.head_width, bias=False)
        self.k = nn.Linear(width, kv_heads * self.head_width, bias=False)
        self.v = nn.Linear(width, kv_heads * self.head_width, bias=False)
        self.out = nn.Linear(heads * self.head_width, width, bias=False)

    def forward(self, x: Tensor, rotation: Tensor) -> Tensor:
        """(batch, tokens, width) → the same."""
        q, k, v = (by_head(part(x), self.head_width) for part in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(
            rotate(q, rotation), rotate(k, rotation), v, is_causal=True, enable_gqa=True
        )
        projected: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return projected


class Block(nn.Module):
    """x + attention(norm(x)), then x + SwiGLU(norm(x)) (Shazeer 2020)."""

    def __init__(self, width: int, heads: int, kv_heads: int, mlp_width: int) -> None:
        super().__init__()
        self.norm_1 = nn.RMSNorm(width, eps=1e-5)
        self.attention = Attention(width, heads, kv_heads)
        self.norm_2 = nn.RMSNorm(width, eps=1e-5)
        self.gate = nn.Linear(width, mlp_width, bias=False)
        self.up = nn.Linear(width, mlp_width, bias=False)
        self.down = nn.Linear(mlp_width, width, bias=False)

    def forward(self, x: Tensor, rotation: Tensor) -> Tensor:
        """(batch, tokens, width) → the same."""
        x = x + self.attention(self.norm_1(x), rotation)
        normed = self.norm_2(x)
        changed: Tensor = x + self.down(F.silu(self.gate(normed)) * self.up(normed))
        return changed


class Decoder(nn.Module):
    """Token embedding → blocks → norm → the logits of the token that follows each; no dropout, as in Llama."""

    rotation: Tensor

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        vocabulary: int,
        width: Size = 512,
        layers: Layers = 8,
        heads: Size = 8,
        kv_heads: Size = 2,
        mlp_width: Size | None = None,
        rope_base: Base = 10_000.0,
    ) -> None:
        super().__init__()
        require_divides("heads", heads, "width", width)
        require_divides("kv_heads", kv_heads, "heads", heads)
        require_divides("heads × 2", heads * 2, "width", width)
        self.layers, self.heads, self.kv_heads = layers, heads, kv_heads
        self.tokens = nn.Embedding(vocabulary, width)
        hidden = (
            mlp_width or math.ceil(width * 8 / 3 / 64) * 64
        )  # SwiGLU's three matrices weigh what a 4 × mlp's two do
        self.blocks = nn.ModuleList(Block(width, heads, kv_heads, hidden) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.register_buffer("rotation", rotations(shape[0], width // heads, rope_base), persistent=False)
        self.apply(initialize)
        for name, weight in self.named_parameters():  # GPT-2: what each block adds to the stream shrinks with the depth
            if name.endswith(("out.weight", "down.weight")):
                nn.init.normal_(weight, std=INITIAL_STD / math.sqrt(2 * layers))

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) numbers → (batch, tokens, vocabulary) logits."""
        x = self.tokens(tokens)
        rotation = self.rotation[:, : tokens.shape[1]]
        for block in self.blocks:
            x = block(x, rotation)
        logits: Tensor = self.head(self.norm(x))
        return logits

    def tensor_parallel_plan(self, size: int) -> dict[str, ParallelStyle]:
        """Query and key-value heads, the mlp's hidden columns and the vocabulary are split over ``size`` ranks."""
        require_divides("tensor_parallel", size, "kv_heads", self.kv_heads)
        plan: dict[str, ParallelStyle] = {
            "tokens": RowwiseParallel(input_layouts=Replicate()),
            "head": ColwiseParallel(output_layouts=Replicate()),
        }
        for layer in range(self.layers):
            for part in ("attention.q", "attention.k", "attention.v", "gate", "up"):
                plan[f"blocks.{layer}.{part}"] = ColwiseParallel()
            for part in ("attention.out", "down"):
                plan[f"blocks.{layer}.{part}"] = RowwiseParallel()
        return plan


def rotations(tokens: int, head_width: int, base: float) -> Tensor:
    """(2, tokens, head width): the cosines and sines of each place's angles (Su et al. 2021, RoPE), halves repeated."""
    frequencies = base ** (-torch.arange(0, head_width, 2, dtype=torch.float32) / head_width)
    angles = torch.outer(torch.arange(tokens, dtype=torch.float32), frequencies).repeat(1, 2)
    return torch.stack((angles.cos(), angles.sin()))


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn each pair (i, i + half) of (batch, heads, tokens, head width) by its place's angle, in fp32."""
    cosine, sine = rotation
    first, second = x.float().chunk(2, dim=-1)
    turned: Tensor = x.float() * cosine + torch.cat((-second, first), dim=-1) * sine
    return turned.to(x.dtype)
