"""The optimizer that the config names, its learning rate over time, and the length of the gradient."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn, optim
from torch.distributed.tensor import DTensor

from workloads.config import ConfigError
from workloads.training.config import TrainingConfig


def make_optimizer(config: TrainingConfig, model: nn.Module) -> optim.Optimizer:
    """The optimizer over all weights of a model that is spread over the ranks already."""
    asked = config.optimizer
    # Weights of two meshes (split over tensor ranks, and not) can't go through one multi-tensor kernel.
    foreach = False if config.parallel.tensor_parallel > 1 else None
    weights, lr, decay = model.parameters(), config.learning_rate, asked.weight_decay
    match asked.name:
        case "adam":
            return optim.Adam(weights, lr=lr, weight_decay=decay, foreach=foreach)
        case "adamw":
            return optim.AdamW(weights, lr=lr, weight_decay=decay, foreach=foreach)
        case "sgd":
            return optim.SGD(weights, lr=lr, weight_decay=decay, momentum=asked.momentum, foreach=foreach)
        case "adagrad":
            return optim.Adagrad(weights, lr=lr, weight_decay=decay, foreach=foreach)


def learning_rate_at(config: TrainingConfig, step: int, steps: int) -> float:
    """The learning rate of a step (from 0) of a run of ``steps``: a pure function, so that nothing of it is saved."""
    asked = config.optimizer
    if step < asked.warmup_steps:
        return config.learning_rate * (step + 1) / asked.warmup_steps
    if asked.schedule == "constant":
        return config.learning_rate
    done = (step - asked.warmup_steps) / max(1, steps - asked.warmup_steps)
    return config.learning_rate * (1 + math.cos(math.pi * min(1.0, done))) / 2


def set_learning_rate(optimizer: optim.Optimizer, config: TrainingConfig, step: int, steps: int) -> None:
    """Give every weight the learning rate of a step."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate_at(config, step, steps)


def clip_gradients(parameters: Iterable[nn.Parameter], norm_max: float) -> None:
    """Shorten the gradient of all weights together to ``norm_max``, whichever ranks hold its parts."""
    weights = [weight for weight in parameters if weight.grad is not None]
    by_mesh: dict[object, list[Tensor]] = defaultdict(list)
    for weight in weights:
        assert weight.grad is not None
        by_mesh[weight.grad.device_mesh if isinstance(weight.grad, DTensor) else None].append(weight.grad)
    norms = [_whole(torch.nn.utils.get_total_norm(gradients)) for gradients in by_mesh.values()]
    total = torch.linalg.vector_norm(torch.stack(norms))
    scale = (norm_max / (total + 1e-6)).clamp(max=1.0)
    for gradients in by_mesh.values():
        for gradient in gradients:
            (gradient.to_local() if isinstance(gradient, DTensor) else gradient).mul_(scale)


def _whole(norm: Tensor) -> Tensor:
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def make_embeddings_sparse(model: nn.Module) -> None:
    """Let the gradient of each embedding table be the rows that a batch looked up.

    Raises:
        ConfigError: the model has no table, or one whose weights another layer uses too.
    """
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    if not tables:
        raise ConfigError("optimizer.sparse_embeddings: this model has no embedding; leave it out")
    uses = [id(weight) for _, weight in model.named_parameters(remove_duplicate=False)]
    for table in tables:
        if uses.count(id(table.weight)) > 1:
            raise ConfigError("optimizer.sparse_embeddings: this model shares an embedding with another layer")
        table.sparse = True
    torch.sparse.check_sparse_tensor_invariants.disable()  # PyTorch makes them itself; left unsaid, it warns
