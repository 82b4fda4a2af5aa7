"""ResNet-50 (He et al. 2015), with the names and shapes of torchvision's weights.

Its own 80 lines and not torchvision: that package is built for one version of PyTorch each and brings image codecs
that the containers have no use for. Weights go either way by `load_state_dict`.
"""

from __future__ import annotations

from torch import Tensor, nn

EXPANSION = 4


class Bottleneck(nn.Module):
    """1 × 1, 3 × 3, 1 × 1 convolutions beside a shortcut; the stride is the 3 × 3's (ResNet v1.5), as torchvision's."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * EXPANSION
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        # one each, as the quantizer takes what the calls of one layer return for one thing
        self.relu1, self.relu2, self.relu3 = (nn.ReLU(inplace=True) for _ in range(3))
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) → (batch, 4 × width, height ÷ stride, width ÷ stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.relu2(self.bn2(self.conv2(out)))
        added: Tensor = self.relu3(self.bn3(self.conv3(out)) + shortcut)
        return added


class ResNet50(nn.Module):
    """Images of any size from 32 × 32 up → logits."""

    def __init__(self, *, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        if min(shape[1:]) < 32:
            raise ValueError(f"it needs images of at least 32 × 32; the data's are {shape}")
        self.conv1 = nn.Conv2d(shape[0], 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(64, 64, bottlenecks=3, stride=1)
        self.layer2 = _stage(256, 128, bottlenecks=4, stride=2)
        self.layer3 = _stage(512, 256, bottlenecks=6, stride=2)
        self.layer4 = _stage(1024, 512, bottlenecks=3, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * EXPANSION, classes)
        self._initialize()

    @property
    def blocks(self) -> list[nn.Module]:
        """The bottlenecks, in order."""
        return [*self.layer1, *self.layer2, *self.layer3, *self.layer4]

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) → (batch, classes) logits."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, Bottleneck):  # each block starts as its shortcut (Goyal et al. 2017, section 5.1)
                nn.init.zeros_(module.bn3.weight)


def _stage(channels: int, width: int, *, bottlenecks: int, stride: int) -> nn.Sequential:
    later = (Bottleneck(width * EXPANSION, width, 1) for _ in range(bottlenecks - 1))
    return nn.Sequential(Bottleneck(channels, width, stride), *later)
