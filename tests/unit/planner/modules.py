"""Modules of many kinds, with inputs by batch size, for tests of tracing."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F


class Residual(nn.Module):
    def __init__(self, channels, inplace=True):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=inplace)
        )

    def forward(self, x):
        return F.relu(x + self.body(x))


class Depthwise(nn.Module):
    """An inverted residual with depthwise and grouped convolutions, squeeze and excitation, hard-swish."""

    def __init__(self):
        super().__init__()
        self.expand = nn.Conv2d(8, 32, 1)
        self.depthwise = nn.Conv2d(32, 32, 5, stride=2, padding=2, groups=32)
        self.grouped = nn.Conv2d(32, 16, 3, padding=1, groups=4)
        self.squeeze, self.excite = nn.Conv2d(32, 4, 1), nn.Conv2d(4, 32, 1)

    def forward(self, x):
        x = F.hardswish(self.depthwise(self.expand(x)))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        return self.grouped(x * gate)


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cells = kind(12, 16, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        return self.head(self.cells(x)[0][:, -1])


class Seq2Seq(nn.Module):
    """Encoder and decoder with a causal mask, shared embedding, tied head."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(100, 32)
        self.net = nn.Transformer(32, 4, 2, 2, 64, dropout=0.0, batch_first=True)
        self.head = nn.Linear(32, 100, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, source, target):
        mask = self.net.generate_square_subsequent_mask(target.shape[1], device=target.device)
        return self.head(self.net(self.embed(source), self.embed(target), tgt_mask=mask, tgt_is_causal=True))


class Attention(nn.Module):
    """Grouped-query causal attention through SDPA, rotary positions from a buffer."""

    def __init__(self, length=16, hidden=32, heads=4):
        super().__init__()
        self.heads = heads
        self.q, self.kv, self.out = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        angles = torch.outer(torch.arange(length).float(), 1 / 10 ** torch.arange(hidden // heads // 2))
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def rotate(self, x):
        one, two = x.chunk(2, dim=-1)
        return torch.cat([one * self.cos - two * self.sin, two * self.cos + one * self.sin], dim=-1)

    def forward(self, x):
        batch, length, hidden = x.shape
        split = (batch, length, -1, hidden // self.heads)
        query = self.rotate(self.q(x).view(split).transpose(1, 2))
        key, value = self.kv(x).view(split).transpose(1, 2).chunk(2, dim=1)
        key, value = (each.repeat_interleave(2, dim=1) for each in (self.rotate(key), value))
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, hidden))


class Einsum(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 8, 6))
        self.vector = nn.Parameter(torch.randn(6))

    def forward(self, x):
        return torch.einsum("bld,hde->bhle", x, self.weight) @ self.vector


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0] * grad


class Custom(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        return Square.apply(self.layer(x))


class Dynamic(nn.Module):
    """Shapes decide the path, and a loop of a given number of steps."""

    def __init__(self):
        super().__init__()
        self.step, self.wide = nn.Linear(8, 8), nn.Linear(16, 8)

    def forward(self, x):
        if x.shape[-1] == 16:
            x = self.wide(x)
        for _ in range(x.shape[1]):
            x = torch.tanh(self.step(x))
        return x


class TwoTowers(nn.Module):
    """Named inputs, integers and floats, a mask, a dict as the answer."""

    def __init__(self):
        super().__init__()
        self.words = nn.EmbeddingBag(50, 16)
        self.numbers = nn.Linear(3, 16)

    def forward(self, tokens, numbers, mask):
        user, item = self.words(tokens), self.numbers(numbers)
        return {"score": (user * item).sum(-1).masked_fill(mask, 0.0), "parts": (user, item)}


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Sequential(
            nn.ConvTranspose2d(8, 12, 4, stride=2, padding=1),
            nn.InstanceNorm2d(12),
            nn.ConvTranspose2d(12, 6, 3, groups=3),
        )

    def forward(self, x):
        return self.up(x)


class Reads(nn.Module):
    """Its values decide what it does."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

    def forward(self, x):
        x = self.norm(self.layer(x))
        return x * 2 if x.sum().item() > -1e9 else x


class Bilinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.both = nn.Bilinear(3, 4, 5)

    def forward(self, left, right):
        return self.both(left, right)


@dataclass(frozen=True)
class Case:
    name: str
    make: object
    inputs: object
    flops: int
    """Forward, of one sample, by hand."""


def floats(*shape):
    return lambda batch: [torch.randn(batch, *shape)]


def frozen():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()


def encoder():
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)


LSTM_STEP = 2 * (12 + 16) * 4 * 16
"""Of one cell of 12 inputs and 16 states."""
CASES = [
    Case("mlp", lambda: nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)), floats(8), 2 * (8 * 16 + 16 * 4)),
    Case(
        "residual",
        lambda: nn.Sequential(Residual(4), Residual(4, inplace=False)),
        floats(4, 10, 10),
        2 * 2 * 9 * 16 * 100,
    ),
    Case(
        "depthwise",
        Depthwise,
        floats(8, 12, 12),
        2 * (8 * 32 * 144 + 32 * 25 * 36 + 32 * 4 + 4 * 32 + 16 * 8 * 9 * 36),
    ),
    Case(
        "lstm",
        lambda: Recurrent(nn.LSTM),
        floats(7, 12),
        2 * (7 * LSTM_STEP + 7 * 2 * (32 + 16) * 4 * 16) + 2 * 32 * 5,
    ),
    Case(
        "gru",
        lambda: Recurrent(nn.GRU),
        floats(7, 12),
        2 * 7 * (2 * (12 + 16) * 3 * 16 + 2 * (32 + 16) * 3 * 16) + 2 * 32 * 5,
    ),
    Case("encoder", encoder, floats(10, 32), 3 * 2 * 10 * (4 * 32 * 32 + 2 * 32 * 64 + 2 * 10 * 32)),
    Case(
        "encoder-decoder",
        Seq2Seq,
        lambda batch: [torch.zeros(batch, 9, dtype=torch.long), torch.zeros(batch, 6, dtype=torch.long)],
        2 * 2 * 9 * (4 * 32 * 32 + 2 * 32 * 64 + 2 * 9 * 32)
        + 2 * 2 * 6 * (4 * 32 * 32 + 2 * 32 * 64 + 2 * 6 * 32)
        + 2 * 2 * (6 * 2 * 32 * 32 + 9 * 2 * 32 * 32 + 2 * 6 * 9 * 32)
        + 2 * 6 * 32 * 100,
    ),
    Case("attention", Attention, floats(16, 32), 2 * 16 * (3 * 32 * 32 + 2 * 16 * 32)),
    Case("einsum", Einsum, floats(5, 8), 2 * 5 * 8 * 24 + 2 * 4 * 5 * 6),
    Case("custom-function", Custom, floats(8), 2 * 64),
    Case("dynamic-wide", Dynamic, floats(3, 16), 2 * 3 * 16 * 8 + 3 * 2 * 3 * 64),
    Case("dynamic-narrow", Dynamic, floats(5, 8), 5 * 2 * 5 * 64),
    Case(
        "two-towers",
        TwoTowers,
        lambda batch: {
            "tokens": torch.zeros(batch, 6, dtype=torch.long),
            "numbers": torch.randn(batch, 3),
            "mask": torch.zeros(batch, dtype=torch.bool),
        },
        2 * 3 * 16,
    ),
    Case("transposed", Generator, floats(8, 5, 5), 2 * 25 * 8 * 12 * 16 + 2 * 100 * 12 * 2 * 9),
    Case("frozen-norm", frozen, floats(3, 8, 8), 2 * (36 * 4 * 27 + 144 * 2)),
    Case("reads-values", Reads, floats(4), 2 * 16),
    Case("bilinear", Bilinear, lambda batch: [torch.randn(batch, 3), torch.randn(batch, 4)], 2 * 3 * 4 * 5),
    Case("volumes", lambda: nn.Conv3d(2, 3, 3), floats(2, 5, 5, 5), 2 * 27 * 2 * 3 * 27),
    Case("sequence", lambda: nn.Conv1d(4, 6, 3, dilation=2), floats(4, 20), 2 * 3 * 4 * 6 * 16),
]
