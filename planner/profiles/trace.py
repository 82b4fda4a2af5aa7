"""The profile of any `torch.nn.Module`, from one pass on the meta device: nothing is computed, no memory is taken.

FLOPs come from PyTorch's own formulas (`torch.utils.flop_counter`); bytes and kept activations are counted here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from planner.performance.checks import PerformanceError
from planner.profiles.model import Layer, ModelProfile, OperationClass, Product

BATCH = 2
"""Samples of the traced pass; what grows with it is by sample, what doesn't are weights."""
CLASSES: Mapping[OperationClass, tuple[str, ...]] = {
    "conv": ("convolution",),
    "attention": ("scaled_dot_product",),
    "gemm": ("mm", "addmm", "bmm", "baddbmm", "matmul", "linear"),
    "normalisation": ("norm", "softmax"),
    "reduction": ("pool", "mean", "sum", "amax"),
    "embedding": ("embedding",),
}


def trace(module: nn.Module, inputs: Callable[[int], Sequence[Tensor]], *, name: str, source: str) -> ModelProfile:
    """The profile of a module that takes `inputs(batch)`, tensors whose first dimension is the batch.

    Raises:
        PerformanceError: the module can't run on the meta device (it reads values); says what failed.
    """
    module = module.to("meta").train()
    given = [tensor.to("meta") for tensor in inputs(BATCH)]
    recorder = _Recorder(module.parameters())
    try:
        with torch.autograd.graph.saved_tensors_hooks(recorder.keep, lambda kept: kept), recorder:
            result = module(*given)
    except (RuntimeError, NotImplementedError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise PerformanceError(f"{name} can't be traced without data: {reason}; give a part of it that can") from error
    outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
    return ModelProfile(
        name=name,
        source=source,
        input_numbers=sum(tensor.numel() for tensor in given) / BATCH,
        output_numbers=sum(tensor.numel() for tensor in outputs) / BATCH,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        layers=tuple(recorder.layers()),
    )


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves __init_subclass__ untyped
    """Sees every operation below autograd, after fused ones were taken apart as the device would."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.weights = {_storage(parameter) for parameter in parameters}
        self.seen: set[int] = set(self.weights)
        self.alive: list[Tensor] = []
        self.rows: list[dict[str, Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        taken = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.alive += made  # a freed storage's number could come back as another's
        if str(func).startswith(("aten.empty", "aten.arange", "aten.zeros_like")):
            return result
        if (
            made
            and made[0].numel() >= BATCH
            and {_storage(tensor) for tensor in made} - {_storage(tensor) for tensor in taken}
        ):
            self._record(func, args, kwargs or {}, taken, made, result)
        return result

    def _record(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        taken: list[Tensor],
        made: list[Tensor],
        result: Any,
    ) -> None:
        operation = str(func.overloadpacket).removeprefix("aten.")
        count = flop_registry.get(func.overloadpacket)
        weights = [tensor for tensor in taken if _storage(tensor) in self.weights]
        self.rows.append(
            {
                "name": f"{len(self.rows)}:{operation}",
                "operation": _class_of(operation),
                "flops": (count(*args, **kwargs, out_val=result) if count else 0) / BATCH,
                "read_numbers": sum(tensor.numel() for tensor in taken if _storage(tensor) not in self.weights) / BATCH,
                "written_numbers": sum(tensor.numel() for tensor in made) / BATCH,
                "weight_numbers": sum(tensor.numel() for tensor in weights),
                "kept_numbers": 0.0,
                "product": _product(operation, args, made[0]),
            }
        )

    def keep(self, tensor: Tensor) -> Tensor:
        """Count what autograd saves, once by storage and never the parameters."""
        if _storage(tensor) not in self.seen and self.rows:
            self.seen.add(_storage(tensor))
            self.alive.append(tensor)
            self.rows[-1]["kept_numbers"] += tensor.numel() / BATCH
        return tensor

    def layers(self) -> Iterable[Layer]:
        """What was recorded."""
        return (Layer(**row) for row in self.rows)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _class_of(operation: str) -> OperationClass:
    for name, words in CLASSES.items():
        if any(operation == word or (name != "gemm" and word in operation) for word in words):
            return name
    return "elementwise"


def _product(operation: str, args: tuple[Any, ...], out: Tensor) -> Product | None:
    """The matrix product of an operation, by sample."""
    if operation in ("mm", "addmm"):
        left, right = args[-2:]
        return Product(m=max(1, left.shape[0] // BATCH), n=right.shape[1], k=left.shape[1])
    if operation == "bmm":
        left, right = args[:2]
        return Product(m=left.shape[1], n=right.shape[2], k=left.shape[2], count=max(1, left.shape[0] // BATCH))
    if operation == "convolution":
        weight = args[1]
        return Product(m=math.prod(out.shape[2:]), n=weight.shape[0], k=math.prod(weight.shape[1:]))
    if "scaled_dot_product" in operation:
        query, key = args[:2]
        return Product(m=query.shape[2], n=key.shape[2], k=query.shape[3], count=2 * query.shape[1])
    return None
