"""How good the model is on samples that it was never trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from workloads.data.loader import Loader
from workloads.training.world import World


@dataclass(frozen=True)
class Evaluation:
    """Accuracy and scikit-learn's classification report, as text and as data."""

    accuracy: float
    samples: int
    text: str
    by_class: dict[str, Any]


def evaluate(
    model: nn.Module, held_out: Loader, world: World, to_input: Callable[[Tensor], Tensor]
) -> Evaluation | None:
    """Judge the model; each rank predicts its part, the first rank gets the result and the others None."""
    model.eval()
    predicted: list[Tensor] = []
    actual: list[Tensor] = []
    with torch.inference_mode():
        for batch in held_out.once():
            predicted.append(model(to_input(batch.inputs)).argmax(dim=1).cpu())
            actual.append(batch.labels)
    model.train()
    gathered = world.gather((torch.cat(predicted), torch.cat(actual)))
    if gathered is None:
        return None
    return _judge(
        torch.cat([part[0] for part in gathered]),
        torch.cat([part[1] for part in gathered]),
        held_out.dataset.index.classes,
    )


def _judge(predicted: Tensor, actual: Tensor, classes: tuple[str, ...]) -> Evaluation:
    from sklearn.metrics import classification_report  # its import takes over a second

    labels = list(range(len(classes)))
    arguments: dict[str, Any] = {"labels": labels, "target_names": classes, "zero_division": 0}
    return Evaluation(
        accuracy=(predicted == actual).float().mean().item(),
        samples=len(actual),
        text=classification_report(actual, predicted, digits=4, **arguments),
        by_class=classification_report(actual, predicted, output_dict=True, **arguments),
    )
