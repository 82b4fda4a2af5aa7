"""The profile of any `torch.nn.Module`, from a forward pass of shapes alone: nothing is computed, no memory is taken.

FLOPs come from PyTorch's own formulas (`torch.utils.flop_counter`); bytes and what autograd keeps are counted here. The
pass is made with two batch sizes: what grows with the batch is by sample, what doesn't is read once by pass. A module
that reads values (`.item()`, branches on data) is run on the CPU instead, with made-up data, and its profile says so.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from planner.performance.checks import PerformanceError
from planner.profiles.model import Layer, ModelProfile, OperationClass, Product

BATCHES = (2, 4)
"""Samples of the two passes; one sample alone is refused by batch normalisation."""
CLASSES: Mapping[OperationClass, tuple[str, ...]] = {
    "conv": ("convolution",),
    "attention": ("scaled_dot_product",),
    "gemm": ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "_trilinear"),
    "normalisation": ("norm", "softmax"),
    "reduction": ("pool", "mean", "sum", "amax"),
    "embedding": ("embedding",),
}
CONSTANTS = ("empty", "arange", "zeros", "ones", "full", "new_", "scalar_tensor")
"""Made from nothing: a compiler folds them."""
FLOPS_BY_NUMBER: Mapping[str, int] = {"mv": 0, "addmv": 1, "dot": 0, "_trilinear": -1}
"""Products that PyTorch's counter does not know: 2 FLOPs for each number of this argument; of all, broadcast, at -1."""

Inputs = Callable[[int], Sequence[Tensor] | Mapping[str, Tensor]]
"""Arguments of a batch of that size, by place or by name; the first dimension of each is the batch."""


def trace(module: nn.Module, inputs: Inputs, *, name: str, source: str) -> ModelProfile:
    """The profile of a module in the mode that it is in; the module itself stays as it is.

    Raises:
        PerformanceError: the module can't be run on these inputs; says what failed.
    """
    try:
        passes = [_pass(module, inputs, batch, real=False) for batch in BATCHES]
    except Exception:  # whatever a module raises without data: with data it may run
        source = f"{source}; run with made-up data, since it reads values"
        try:
            passes = [_pass(module, inputs, batch, real=True) for batch in BATCHES]
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise PerformanceError(f"{name} can't be traced: {reason[:300]}; check it with these inputs") from error
    first, second = passes
    rows = [row.layer(BATCHES[0]) for row in first.rows]
    if [row.name for row in first.rows] == [row.name for row in second.rows]:
        rows = [row.layer_with(other) for row, other in zip(first.rows, second.rows, strict=True)]
    if not rows or not any(row.flops for row in rows):
        raise PerformanceError(f"{name} has no matrix product, convolution or attention; there is nothing to predict")
    return ModelProfile(
        name=name,
        source=source,
        input_numbers=first.input_numbers / BATCHES[0],
        output_numbers=first.output_numbers / BATCHES[0],
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        layers=tuple(rows),
    )


@dataclass(slots=True)
class _Row:
    """One operation of a pass, in numbers of the whole batch."""

    name: str
    operation: OperationClass
    flops: float
    read: float
    written: float
    weights: float
    product: Product | None
    kept: float = 0.0
    kept_bytes: float = 0.0
    crossing: float = 0.0

    def layer(self, batch: int) -> Layer:
        """By sample, as if all of it grew with the batch."""
        return self._layer(1 / batch, _Row(self.name, self.operation, 0, 0, 0, 0, None))

    def layer_with(self, larger: _Row) -> Layer:
        """By sample, from this pass and one of a larger batch: the growth is by sample, the rest is by pass."""
        return self._layer(1 / (BATCHES[1] - BATCHES[0]), self, larger)

    def _layer(self, scale: float, less: _Row, more: _Row | None = None) -> Layer:
        more = more or self
        flops, read, written, kept, kept_bytes, crossing = (
            (getattr(more, field) - getattr(less, field)) * scale
            for field in ("flops", "read", "written", "kept", "kept_bytes", "crossing")
        )
        by_pass = max(0.0, self.read - BATCHES[0] * read) if less is self else 0.0
        if less is self and flops == 0:  # the same for every batch: a single sample pays for all of it
            flops = self.flops
        product = self.product
        if product is not None and not math.isclose(2 * product.m * product.n * product.k * product.count, flops):
            product = None
        return Layer(
            name=self.name,
            operation=self.operation,
            flops=flops,
            read_numbers=max(0.0, read),
            written_numbers=max(0.0, written),
            weight_numbers=self.weights + by_pass,
            kept_numbers=max(0.0, kept),
            kept_bytes=max(0.0, kept_bytes),
            product=product,
            crossing_numbers=max(0.0, crossing),
        )


@dataclass(frozen=True, slots=True)
class _Pass:
    rows: list[_Row]
    input_numbers: int
    output_numbers: int


def _pass(module: nn.Module, inputs: Inputs, batch: int, *, real: bool) -> _Pass:
    """One forward pass, with shapes alone or with made-up data."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # the module's own, of a run that nobody asked for
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(torch.backends.mkldnn.flags(enabled=False))  # its fused operations have no FLOP formulas
        fake = None if real else stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        held: dict[str, Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        if fake is not None:
            held = {name: fake.from_tensor(tensor) for name, tensor in held.items()}
        else:  # the run must not change the module's own statistics
            held |= {name: buffer.clone() for name, buffer in module.named_buffers()}
        given = inputs(batch)
        args = () if isinstance(given, Mapping) else tuple(given)
        named = dict(given) if isinstance(given, Mapping) else {}
        recorder = _Recorder(module, held.values(), batch)
        recorder.born |= {_storage(each): (-1, each.numel()) for each in (*args, *named.values())}
        saved = torch.autograd.graph.saved_tensors_hooks(recorder.keep, lambda kept: kept)
        with recorder.places(), saved, recorder, _FusedDropout():
            result = torch.func.functional_call(module, held, args, named)
    outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
    return _Pass(
        recorder.finished(),
        sum(tensor.numel() for tensor in (*args, *named.values())),
        sum(tensor.numel() for tensor in outputs),
    )


class _FusedDropout(TorchFunctionMode):
    """Dropout as accelerators run it: one operation that keeps a mask of bytes. The CPU takes it apart."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is nn.functional.dropout:
            return _dropout(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    return torch.native_dropout(input, p, train=True)[0] if training and p else input


class _Recorder(TorchDispatchMode):
    """Sees every operation below autograd, after fused ones were taken apart as the device would."""

    def __init__(self, module: nn.Module, held: Any, batch: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.batch = batch
        self.names = {id(each): name for name, each in module.named_modules()}
        self.inside: list[str] = []
        self.weights = {_storage(tensor) for tensor in held}
        self.seen: set[int] = set(self.weights)
        self.alive: list[Tensor] = []
        self.early: list[Tensor] = []
        self.rows: list[_Row] = []
        self.born: dict[int, tuple[int, int]] = {}
        """By storage: the row that made it (-1: an input), and its numbers."""
        self.last_read: dict[int, int] = {}
        """By storage: the last row that read it."""

    @contextlib.contextmanager
    def places(self) -> Iterator[None]:
        """While it lasts, `inside` holds the names of the modules that are running, outermost first."""
        enter = hooks.register_module_forward_pre_hook(
            lambda each, _: self.inside.append(self.names.get(id(each), type(each).__name__))
        )
        leave = hooks.register_module_forward_hook(self._leave, always_call=True)
        try:
            yield
        finally:
            enter.remove()
            leave.remove()

    def _leave(self, *_: object) -> None:
        self.inside.pop()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        taken = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.alive += made  # a freed storage's number could come back as another's
        operation = str(func.overloadpacket).removeprefix("aten.")
        if operation.startswith(CONSTANTS) or not made or made[0].numel() < self.batch:
            return result
        is_view = {_storage(tensor) for tensor in made} <= {_storage(tensor) for tensor in taken}
        if not is_view or func._schema.is_mutable:
            self._record(func, operation, args, kwargs or {}, taken, made, result)
        return result

    def _record(
        self,
        func: Any,
        operation: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        taken: list[Tensor],
        made: list[Tensor],
        result: Any,
    ) -> None:
        here = len(self.rows)
        self.last_read |= {_storage(tensor): here for tensor in taken if _storage(tensor) not in self.weights}
        for tensor in made:  # what is changed in place was born before
            self.born.setdefault(_storage(tensor), (here, tensor.numel()))
        count = flop_registry.get(func.overloadpacket)
        flops = count(*args, **kwargs, out_val=result) if count else _flops(operation, args)
        place = self.inside[-1] if self.inside else ""
        self.rows.append(
            _Row(
                name=f"{len(self.rows)}:{place}{':' if place else ''}{operation}"[:300],
                operation=_class_of(operation),
                flops=flops,
                read=sum(tensor.numel() for tensor in taken if _storage(tensor) not in self.weights),
                written=sum(tensor.numel() for tensor in made),
                weights=sum(tensor.numel() for tensor in taken if _storage(tensor) in self.weights),
                product=_product(operation, args, kwargs, made[0], self.batch),
            )
        )

    def keep(self, tensor: Tensor) -> Tensor:
        """Count what autograd saves: each storage once and whole, never parameters and buffers."""
        if _storage(tensor) not in self.seen:
            self.seen.add(_storage(tensor))
            self.alive.append(tensor)
            if self.rows:
                _keep(self.rows[-1], tensor)
            else:
                self.early.append(tensor)
        return tensor

    def finished(self) -> list[_Row]:
        """What was recorded; inputs that were saved before the first operation are kept by it."""
        for tensor in self.early[: len(self.early) if self.rows else 0]:
            _keep(self.rows[0], tensor)
        for storage, (born, numbers) in self.born.items():
            for row in self.rows[max(0, born) : self.last_read.get(storage, born)]:
                row.crossing += numbers
        return self.rows


def _keep(row: _Row, tensor: Tensor) -> None:
    size_bytes = tensor.untyped_storage().nbytes()
    if tensor.is_floating_point():
        row.kept += size_bytes / tensor.element_size()
    else:
        row.kept_bytes += size_bytes


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _class_of(operation: str) -> OperationClass:
    for name, words in CLASSES.items():
        if any(operation == word or (name != "gemm" and word in operation) for word in words):
            return name
    return "elementwise"


def _flops(operation: str, args: tuple[Any, ...]) -> float:
    if operation not in FLOPS_BY_NUMBER:
        return 0.0
    place = FLOPS_BY_NUMBER[operation]
    if place >= 0:
        return float(2 * args[place].numel())
    left, weight, right = args[:3]  # nn.Bilinear: every pair of inputs with every output
    return float(2 * weight.numel() * left.numel() / left.shape[-1]) if right is not None else 0.0


def _product(
    operation: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Tensor, batch: int
) -> Product | None:
    """The matrix product of an operation, by sample."""
    if operation in ("mm", "addmm"):
        left, right = args[-2:]
        rows, columns = left.shape[0], right.shape[1]
        return Product(m=max(1, rows // batch), n=max(1, columns), k=max(1, left.shape[1]))
    if operation in ("bmm", "baddbmm"):
        left, right = args[-2:]
        return Product(m=left.shape[1], n=right.shape[2], k=left.shape[2], count=max(1, left.shape[0] // batch))
    if operation == "convolution":
        image, weight, transposed = args[0], args[1], args[6]
        over = image if transposed else out
        return Product(
            m=math.prod(over.shape[2:]),
            n=math.prod(weight.shape[1:]) if transposed else weight.shape[0],
            k=weight.shape[0] if transposed else math.prod(weight.shape[1:]),
        )
    if "scaled_dot_product" in operation:
        query, key = args[:2]
        return Product(m=query.shape[2], n=key.shape[2], k=query.shape[3], count=2 * query.shape[1])
    return None
