"""Make the profiles that ship: `python tools/make_profiles.py`. Models are written out here, so that no hub is
needed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from planner.profiles.model import SHIPPED
from planner.profiles.trace import trace
from workloads.models.fusionnet import FusionNet


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 convolutions with a shortcut (He et al., arXiv 1512.03385, figure 5)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.body = nn.Sequential(
            *self._convolution(channels, width, 1, 1),
            nn.ReLU(),
            *self._convolution(width, width, 3, stride),
            nn.ReLU(),
            *self._convolution(width, out, 1, 1),
        )
        same = channels == out and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*self._convolution(channels, out, 1, stride))

    @staticmethod
    def _convolution(channels: int, out: int, kernel: int, stride: int) -> tuple[nn.Module, nn.Module]:
        return nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(out)

    def forward(self, images: Tensor) -> Tensor:
        """Same batch, 4 × width channels."""
        return torch.relu(self.body(images) + self.shortcut(images))


def resnet50() -> nn.Module:
    """ResNet-50 (He et al., table 1), 1,000 classes."""
    blocks: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    channels = 64
    for width, depth, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for index in range(depth):
            blocks.append(Bottleneck(channels, width, stride if index == 0 else 1))
            channels = 4 * width
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


class Attention(nn.Module):
    """Self-attention with query, key and value in one projection."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens, hidden) → the same."""
        batch, length, hidden = tokens.shape
        query, key, value = self.qkv(tokens).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        mixed_tokens: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, hidden))
        return mixed_tokens


class Block(nn.Module):
    """A pre-norm encoder block (Vaswani et al., arXiv 1706.03762)."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.attention = Attention(hidden, heads)
        self.feed_forward = nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden))

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens, hidden) → the same."""
        tokens = tokens + self.attention(self.first(tokens))
        out: Tensor = tokens + self.feed_forward(self.second(tokens))
        return out


class VisionTransformer(nn.Module):
    """ViT-B/16 at 224 × 224 (Dosovitskiy et al., arXiv 2010.11929, table 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 768, 16, 16)
        self.class_token = nn.Parameter(torch.zeros(1, 1, 768))
        self.position = nn.Parameter(torch.zeros(1, 197, 768))
        self.body = nn.Sequential(*(Block(768, 12) for _ in range(12)), nn.LayerNorm(768))
        self.head = nn.Linear(768, 1000)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, 224, 224) → (batch, 1000)."""
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), tokens], dim=1) + self.position
        logits: Tensor = self.head(self.body(tokens)[:, 0])
        return logits


class Bert(nn.Module):
    """BERT-base with its pooler (Devlin et al., arXiv 1810.04805)."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions, self.kinds = nn.Embedding(30522, 768), nn.Embedding(512, 768), nn.Embedding(2, 768)
        self.norm = nn.LayerNorm(768)
        self.body = nn.Sequential(*(Block(768, 12) for _ in range(12)))
        self.pooler = nn.Linear(768, 768)

    def forward(self, words: Tensor) -> Tensor:
        """(batch, tokens) → (batch, 768)."""
        at = torch.arange(words.shape[1], device=words.device).expand_as(words)
        tokens = self.norm(self.words(words) + self.positions(at) + self.kinds(torch.zeros_like(words)))
        pooled: Tensor = torch.tanh(self.pooler(self.body(tokens)[:, 0]))
        return pooled


def main() -> None:
    """Trace each model and write its profile."""
    here = "tools/make_profiles.py, traced on the meta device"
    for size in (32, 8):
        net = FusionNet(shape=(3, size, size), classes=10)
        trace(
            net, lambda batch, size=size: [torch.empty(batch, 3, size, size)], name=f"fusionnet-{size}", source=here
        ).write(SHIPPED / f"fusionnet-{size}.json")

    def image(batch: int) -> list[torch.Tensor]:
        return [torch.empty(batch, 3, 224, 224)]

    def words(batch: int) -> list[torch.Tensor]:
        return [torch.zeros(batch, 128, dtype=torch.long)]

    trace(resnet50(), image, name="resnet-50", source=here).write(SHIPPED / "resnet-50.json")
    trace(VisionTransformer(), image, name="vit-b-16", source=here).write(SHIPPED / "vit-b-16.json")
    trace(Bert(), words, name="bert-base-128", source=here).write(SHIPPED / "bert-base-128.json")


if __name__ == "__main__":
    main()
