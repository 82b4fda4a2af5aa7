"""A residual net for rows of numbers and categories (the ResNet of Gorishniy et al. 2021, arXiv 2106.11959)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from workloads.models.arguments import Dropout, Layers, Size


class Block(nn.Module):
    """x + fc(dropout(ReLU(fc(norm(x)))))."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width) → the same."""
        changed: Tensor = x + self.layers(x)
        return changed


class TabularNet(nn.Module):
    """Numbers are normalized by the batch, each category column has an embedding; then residual blocks."""

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int,
        categories: tuple[int, ...],
        width: Size = 128,
        layers: Layers = 3,
        embedding: Size = 16,
        dropout: Dropout = 0.1,
    ) -> None:
        super().__init__()
        self.numbers = shape[0] - len(categories)
        self.norm = nn.BatchNorm1d(self.numbers, affine=False)
        self.embeddings = nn.ModuleList(nn.Embedding(count, embedding) for count in categories)
        self.first = nn.Linear(self.numbers + embedding * len(categories), width)
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(layers))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, classes))

    def forward(self, rows: Tensor) -> Tensor:
        """(batch, columns), the numbers before the categories → (batch, classes) logits."""
        numbers, categories = rows[:, : self.numbers], rows[:, self.numbers :].long()
        parts = [self.norm(numbers)] if self.numbers else []
        parts += [table(categories[:, column]) for column, table in enumerate(self.embeddings)]
        x = self.first(torch.cat(parts, dim=1))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x)
        return logits
