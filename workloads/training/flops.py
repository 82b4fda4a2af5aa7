"""How much a model computes for a sample, counted once."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from workloads import models
from workloads.data.format import Index, Kind
from workloads.training.config import TrainingConfig

BACKWARD_OVER_FORWARD = 2
"""A backward pass multiplies each layer's gradient by its weights and by its inputs. What activation checkpointing
computes again is not counted: it is no work of the model's (Chowdhery et al. 2022, PaLM, appendix B)."""
_MODEL_INPUTS: dict[Kind, torch.dtype] = {
    "image": torch.float32,
    "tabular": torch.float32,
    "text": torch.int32,
    "tokens": torch.int64,
}


def training_flops_per_sample(config: TrainingConfig, index: Index) -> float | None:
    """FLOPs of the products, convolutions and attentions of one sample, forward and backward; None if not countable.

    The model is built a second time, without any memory, so that neither precision nor the way in which it is spread
    over ranks or compiled changes the number.

    Raises:
        ModelError: there is no such model, or it refuses its arguments.
    """
    shape: tuple[int, ...] = models.of_data(index)["shape"]
    counter = FlopCounterMode(display=False)
    with torch.device("meta"), torch.no_grad():
        try:
            model = models.build(config.model.name, index, config.model.arguments).eval()
            with counter:
                model(torch.empty((1, *shape), dtype=_MODEL_INPUTS[index.kind]))
        except (RuntimeError, NotImplementedError):  # a team's own model that needs the numbers themselves
            return None
    return float(counter.get_total_flops()) * (1 + BACKWARD_OVER_FORWARD) or None
