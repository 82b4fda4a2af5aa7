"""The vision transformer of Dosovitskiy et al. 2020; its defaults are ViT-B/16."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor.parallel import ParallelStyle

from workloads.models import transformer
from workloads.models.arguments import Dropout, Layers, Size


class VisionTransformer(nn.Module):
    """Patches → tokens with a class token and learned positions → blocks → the class token's logits."""

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int,
        patch: Size = 16,
        width: Size = 768,
        layers: Layers = 12,
        heads: Size = 12,
        mlp_width: Size = 3072,
        dropout: Dropout = 0.0,
    ) -> None:
        super().__init__()
        channels, height, image_width = shape
        if height % patch or image_width % patch:
            raise ValueError(
                f"patch is {patch} and the data's images are {height} × {image_width}; it must divide both"
            )
        self.layers, self.heads = layers, heads
        self.patches = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(
            torch.empty(1, 1 + (height // patch) * (image_width // patch), width).normal_(std=transformer.INITIAL_STD)
        )
        self.blocks = transformer.make_blocks(layers, width, heads, mlp_width, dropout)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)
        self.apply(transformer.initialize)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) → (batch, classes) logits."""
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        # Not len(tokens), which would make torch.export's free batch a number.
        first = self.class_token.expand(tokens.shape[0], -1, -1).to(tokens.dtype)
        x = torch.cat([first, tokens], dim=1) + self.positions
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x[:, 0]))
        return logits

    def tensor_parallel_plan(self, size: int) -> dict[str, ParallelStyle]:
        """How the blocks are split over ``size`` ranks."""
        return transformer.tensor_parallel_plan(self.layers, self.heads, size)
