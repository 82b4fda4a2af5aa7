"""The attention block that the vision transformer and the text encoder share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel

INITIAL_STD = 0.02
"""Of every weight of a transformer (BERT, GPT-2 and ViT alike)."""


class Attention(nn.Module):
    """Multi-head self-attention; each projection is its own layer, so that tensor parallelism splits by head."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.head_width = width // heads
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(batch, tokens, width) → the same; ``mask`` is True where a token may be attended to."""
        q, k, v = (by_head(part(x), self.head_width) for part in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        projected: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return projected


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, mlp_width: int, dropout: float) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.norm_2 = nn.LayerNorm(width, eps=1e-6)
        self.up = nn.Linear(width, mlp_width)
        self.down = nn.Linear(mlp_width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, tokens, width) → the same."""
        x = x + self.dropout(self.attention(self.norm_1(x), mask))
        changed: Tensor = x + self.dropout(self.down(F.gelu(self.up(self.norm_2(x)))))
        return changed


def make_blocks(layers: int, width: int, heads: int, mlp_width: int, dropout: float) -> nn.ModuleList:
    """The stack of blocks.

    Raises:
        ValueError: the heads don't divide the width.
    """
    require_divides("heads", heads, "width", width)
    return nn.ModuleList(Block(width, heads, mlp_width, dropout) for _ in range(layers))


def tensor_parallel_plan(layers: int, heads: int, size: int) -> dict[str, ParallelStyle]:
    """Heads and the mlp's hidden columns are split over the ranks; each block costs two all-reduces forward.

    The scheme of Megatron-LM (Shoeybi et al. 2019, figure 3).
    """
    require_divides("tensor_parallel", size, "heads", heads)
    plan: dict[str, ParallelStyle] = {}
    for layer in range(layers):
        for part in ("attention.q", "attention.k", "attention.v", "up"):
            plan[f"blocks.{layer}.{part}"] = ColwiseParallel()
        for part in ("attention.out", "down"):
            plan[f"blocks.{layer}.{part}"] = RowwiseParallel()
    return plan


def initialize(module: nn.Module) -> None:
    """Normal weights, zero biases; for `Module.apply`."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INITIAL_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def require_divides(name: str, value: int, of: str, whole: int) -> None:
    """Refuse a number that does not divide another."""
    if whole % value:
        raise ValueError(f"{name} is {value} and {of} {whole}; {name} must divide {of}")


def by_head(x: Tensor, head_width: int) -> Tensor:
    """(batch, tokens, heads × head width) → (batch, heads, tokens, head width); a rank may hold some heads only."""
    heads = x.shape[-1] // head_width  # not -1, which says nothing where a rank has no sample of a small last batch
    return x.view(*x.shape[:-1], heads, head_width).transpose(1, 2)
