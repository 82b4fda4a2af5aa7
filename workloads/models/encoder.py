"""A text encoder with a classifier, of BERT's shape (Devlin et al. 2018); its defaults are the size of BERT base."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor.parallel import ParallelStyle

from workloads.data.format import PADDING
from workloads.models import transformer
from workloads.models.arguments import Dropout, Layers, Size


class Encoder(nn.Module):
    """Token and position embeddings → blocks → mean over the text's tokens → logits.

    Unlike BERT it normalizes before each layer, which trains without a warm-up, and averages the tokens, which needs no
    pre-training of a class token.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int,
        vocabulary: int,
        width: Size = 768,
        layers: Layers = 12,
        heads: Size = 12,
        mlp_width: Size = 3072,
        dropout: Dropout = 0.1,
    ) -> None:
        super().__init__()
        self.layers, self.heads = layers, heads
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(shape[0], width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = transformer.make_blocks(layers, width, heads, mlp_width, dropout)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)
        self.apply(transformer.initialize)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) numbers → (batch, classes) logits; padding is neither attended to nor averaged."""
        present = tokens != PADDING
        present[:, 0] = True  # a text of nothing but padding has no other token to look at
        places = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)  # a sample's gradient is its own
        x = self.dropout(self.tokens(tokens) + self.positions(places))
        for block in self.blocks:
            x = block(x, present[:, None, None, :])
        weights = present.unsqueeze(-1).to(x.dtype)
        logits: Tensor = self.head((self.norm(x) * weights).sum(1) / weights.sum(1))
        return logits

    def tensor_parallel_plan(self, size: int) -> dict[str, ParallelStyle]:
        """How the blocks are split over ``size`` ranks."""
        return transformer.tensor_parallel_plan(self.layers, self.heads, size)
