"""Smaller layers (whole channels go) and 2:4 sparsity (two of each four weights are zero)."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from workloads.models.transformer import Attention

GROUP, KEPT = 4, 2
ROUND_CHANNELS_TO = 8
"""Vector units of CPUs and matrix units of GPUs work on eight numbers at a time, or more."""


_INSTEAD = "leave --prune out, or distill a smaller model (--distill)"


class OptimizationError(RuntimeError):
    """A method can't be applied; one sentence with the way out."""


def parameters_of(module: nn.Module) -> int:
    """How many numbers a module learns."""
    return sum(each.numel() for each in module.parameters())


def prune_channels(module: nn.Module, inputs: Tensor, share: float) -> nn.Module:
    """A copy without a share of each layer's channels, those of the least L2 norm, and of what depends on them.

    Which layers' channels hang together is found by torch-pruning's dependency graph (Fang et al. 2023, arXiv
    2301.12900). The outputs stay.

    Args:
        module: what is pruned; stays as it is.
        inputs: (batch, *shape) that the module takes.
        share: of the channels that go, over 0 and below 1.

    Raises:
        OptimizationError: the module's structure can't be followed, no channel can go, or the outputs would change
            their shape.
    """
    import torch_pruning

    pruned = copy.deepcopy(module).eval()
    wanted, last = pruned(inputs).shape, _last_layer(pruned, inputs)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it tells of weights outside layers, which it finds by itself
            pruner = torch_pruning.pruner.BasePruner(
                pruned,
                inputs,
                importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
                pruning_ratio=share,
                ignored_layers=[last],
                round_to=ROUND_CHANNELS_TO,
                num_heads=_heads(pruned),
            )
            pruner.step()
    except Exception as error:  # the graph's walk raises whatever it meets
        raise OptimizationError(
            f"--prune: torch-pruning can't follow the channels of {type(module).__name__} from layer to layer, as "
            f"where heads share keys and values, or through a recurrent layer; {_INSTEAD}"
        ) from error
    try:
        found = pruned(inputs).shape
    except Exception as error:  # the model's own code
        raise OptimizationError(
            f"--prune: with fewer channels the forward of {type(module).__name__} fails, as where it holds their "
            f"number; {_INSTEAD}"
        ) from error
    if parameters_of(pruned) == parameters_of(module):
        raise OptimizationError(
            f"--prune: no layer of {type(module).__name__} can lose that share of its channels, which go in groups of "
            f"{ROUND_CHANNELS_TO} (and, of a grouped convolution, the same number from each of its groups); {_INSTEAD}"
        )
    if found != wanted:
        raise OptimizationError(f"--prune: the outputs would be {tuple(found)} instead of {tuple(wanted)}")
    return pruned


def zero_two_of_four(module: nn.Module, inputs: Tensor) -> Callable[[], None]:
    """Zero the two smaller of each four weights along the inputs of every layer but the last, in place.

    Args:
        module: has linear layers or convolutions whose inputs are a multiple of four.
        inputs: (batch, *shape) that the module takes.

    Returns:
        What zeroes the same weights again: to be called after each step of training.

    Raises:
        OptimizationError: no layer has such weights.
    """
    last = _last_layer(module, inputs)
    masks = [
        (layer.weight, _mask(layer.weight.detach()))
        for layer in module.modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer is not last and layer.weight.shape[1] % GROUP == 0
    ]
    if not masks:
        raise OptimizationError("--sparse-2-4: no layer but the last has a multiple of four inputs; leave it out")

    @torch.no_grad()
    def again() -> None:
        for weight, mask in masks:
            weight.mul_(mask)

    again()
    return again


def _mask(weight: Tensor) -> Tensor:
    """1 where a weight is among the larger two of its four; (out, in, ...), in groups along `in`."""
    by_input = weight.movedim(1, -1)
    groups = by_input.reshape(-1, GROUP)
    largest = groups.abs().topk(KEPT, dim=1).indices
    mask = torch.zeros_like(groups).scatter_(1, largest, 1.0)
    return mask.view(by_input.shape).movedim(-1, 1).contiguous()


def _heads(module: nn.Module) -> dict[nn.Module, int]:
    """Which layers' channels are heads side by side, of which every head must keep the same number."""
    parts = [each for each in module.modules() if isinstance(each, Attention)]
    return {layer: layer.out_features // part.head_width for part in parts for layer in (part.q, part.k, part.v)}


def _last_layer(module: nn.Module, inputs: Tensor) -> nn.Module:
    """The layer that runs last: its channels are the answer's, and its weights decide most."""
    ran: list[nn.Module] = []
    layers = [each for each in module.modules() if isinstance(each, nn.Linear | nn.Conv2d)]
    hooks = [each.register_forward_hook(lambda layer, *_: ran.append(layer)) for each in layers]
    try:
        with torch.no_grad():
            module(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if not ran:
        raise OptimizationError("the model has no linear layer and no convolution; there is nothing to make smaller")
    return ran[-1]
