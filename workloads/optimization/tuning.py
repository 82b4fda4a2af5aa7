"""Trains a changed model for some more epochs, so that it wins back what the change cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads.data.loader import Loader
from workloads.serving.sources import Trained

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""The sum of the losses of a batch, given the model, its inputs and the targets."""

TEMPERATURE = 4.0
"""Softens both models' answers (Hinton et al. 2015, arXiv 1503.02531, section 2, tries 2.5 to 20)."""
SHARE_OF_TEACHER = 0.7
"""Of the loss; the rest is the labels'."""

LEAST_SAMPLES = 2
"""Of a step: layers that normalize by batch can't learn from one."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a changed model is trained on.

    Attributes:
        epochs: over the training split.
        learning_rate: AdamW's at first; it falls to 0 on a straight line.
        batch_size: samples of a step.
        seed: of the order of samples and of dropout.
    """

    epochs: int = 5
    learning_rate: float = 1e-3
    batch_size: int = 64
    seed: int = 0


def tune(
    module: nn.Module,
    trained: Trained,
    tuning: Tuning,
    *,
    loss: Loss | None = None,
    after_step: Callable[[], None] = lambda: None,
) -> None:
    """Train a module in place, in the mode that it is in.

    Args:
        module: what is trained.
        trained: whose data and task it learns.
        tuning: how long and how fast.
        loss: of a batch; by default the task's own.
        after_step: called after each step; what must hold of the weights is put right there.

    Raises:
        StorageError: the data can't be read.
    """
    torch.manual_seed(tuning.seed)
    task = trained.task
    loader = Loader(trained.split("train"), tuning.batch_size, tuning.seed)
    optimizer = torch.optim.AdamW(module.parameters(), lr=tuning.learning_rate)
    steps = tuning.epochs * loader.batches
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / steps))
    of_batch = loss or (lambda model, inputs, targets: task.loss(model(inputs), targets))
    for epoch in range(tuning.epochs):
        for batch in loader.epoch(epoch):
            if len(batch.labels) < LEAST_SAMPLES:
                continue
            inputs, targets = task.inputs_and_targets(batch)
            optimizer.zero_grad(set_to_none=True)
            mean = of_batch(module, inputs, targets) / targets.numel()
            mean.backward()
            optimizer.step()
            falling.step()
            after_step()


def from_teacher(teacher: nn.Module, trained: Trained) -> Loss:
    """The loss of a student that learns a teacher's answers beside the labels (Hinton et al. 2015)."""
    task = trained.task

    def loss(student: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = teacher(inputs)
        logits = student(inputs)
        soft = F.kl_div((logits / TEMPERATURE).log_softmax(-1), (wanted / TEMPERATURE).softmax(-1), reduction="sum")
        return SHARE_OF_TEACHER * TEMPERATURE**2 * soft + (1 - SHARE_OF_TEACHER) * task.loss(logits, targets)

    return loss
