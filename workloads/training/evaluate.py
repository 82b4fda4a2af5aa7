"""Shows the model samples that it was never trained on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from workloads.data.loader import Loader
from workloads.training.tasks import Evaluation, Task
from workloads.training.world import World


def evaluate(model: nn.Module, held_out: Loader, world: World, task: Task) -> Evaluation | None:
    """Judge the model; each rank predicts its part, the first rank gets the verdict and the others None."""
    model.eval()
    observed: list[Tensor] = []
    with torch.no_grad():
        for batch in held_out.once():
            inputs, targets = task.inputs_and_targets(batch)
            observed.append(task.observe(model(inputs), targets))
    model.train()
    gathered = world.gather(torch.cat(observed))
    if gathered is None:
        return None
    return task.judge(torch.cat(gathered[:: world.size // world.data_size]))  # of each tensor group, the first
