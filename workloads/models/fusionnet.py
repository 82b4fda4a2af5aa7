"""FusionNet: the small convolutional net that every stack can train within a minute."""

from __future__ import annotations

from torch import Tensor, nn

from workloads.models.arguments import Dropout, Size


class FusionNet(nn.Module):
    """conv channels→64 3×3, ReLU, max-pool 2, fc → 256, ReLU, dropout 0.25, fc → classes."""

    def __init__(self, *, shape: tuple[int, ...], classes: int, hidden: Size = 256, dropout: Dropout = 0.25) -> None:
        super().__init__()
        if len(shape) != 3 or min(shape[1:]) < 2:
            raise ValueError(f"it needs images of channels × height × width, at least 2 × 2; the data's are {shape}")
        channels, height, width = shape
        self.features = nn.Sequential(
            nn.Conv2d(channels, 64, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64 * (height // 2) * (width // 2), hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(batch, channels, height, width) → (batch, classes) logits."""
        logits: Tensor = self.classifier(self.features(images))
        return logits
