"""`fusion profile`: what a PyTorch module asks of a chip, traced into the JSON that a workload's target names."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fusion.errors import FusionError
from planner.performance.checks import PerformanceError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from planner.profiles.model import ModelProfile

DTYPES = ("float32", "float64", "bfloat16", "float16", "int64", "int32", "uint8", "bool")
INPUT = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<shape>\d+(?:x\d+)*)?(?::(?P<dtype>\w+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Input:
    """One argument of the module: its shape by sample and its type; by place where it has no name."""

    name: str | None
    shape: tuple[int, ...]
    dtype: str


class _InputType(click.ParamType[Input]):
    """``3x224x224``, ``128:int64``, ``mask=128:bool``, ``:int64`` for one number by sample."""

    name = "input"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Input:
        """The input, or click's error."""
        if isinstance(value, Input):
            return value
        found = INPUT.fullmatch(str(value))
        if found is None or not str(value):
            self.fail(f"{value!r} is no shape; expected one such as 3x224x224, 128:int64 or mask=128:bool", param, ctx)
        dtype = found["dtype"] or "float32"
        if dtype not in DTYPES:
            self.fail(f"{value!r} has the type {dtype}; known are {', '.join(DTYPES)}", param, ctx)
        shape = tuple(int(size) for size in found["shape"].split("x")) if found["shape"] else ()
        if any(not 1 <= size <= 10**7 for size in shape):
            self.fail(f"{value!r} has a size outside 1 to 10,000,000", param, ctx)
        return Input(found["name"], shape, dtype)


@click.command(name="profile")
@click.argument("factory", metavar="MODULE:FACTORY")
@click.option(
    "--input",
    "inputs",
    type=_InputType(),
    multiple=True,
    required=True,
    metavar="[NAME=]SHAPE[:TYPE]",
    help="An argument of forward, by sample, without the batch: 3x224x224, 128:int64, mask=128:bool; repeatable.",
)
@click.option("--name", help="The profile's name.  [default: the factory's]")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="[default: NAME.json here]"
)
def command(factory: str, inputs: tuple[Input, ...], name: str | None, output: Path | None) -> None:
    """Trace a PyTorch module into a profile, so that it can be planned for without PyTorch.

    FACTORY is a function without arguments that returns a torch.nn.Module, a module class, or a module; MODULE is
    imported from the current folder or the environment. The batch is the first dimension of each input. Nothing is
    computed unless the module's forward reads values. A workload names the file: target: {profile: FILE}.
    """
    try:
        from planner.profiles.trace import trace
    except ModuleNotFoundError as error:
        raise FusionError(f"tracing needs {error.name}, which is not installed; install fusion[train]") from None
    _refuse_mixed(inputs)
    made = _made(factory)
    called = name or factory.rpartition(":")[2].rpartition(".")[2].replace("_", "-").lower()
    if not called.isprintable():
        raise FusionError(f"--name is {called!r}; expected text without control characters, in the terminal's encoding")
    try:
        found = trace(made, lambda batch: _tensors(inputs, batch), name=called, source=f"fusion profile {factory}")
    except PerformanceError as error:
        raise FusionError(str(error)) from None
    path = output or Path(f"{called}.json")
    try:
        found.write(path)
    except OSError as error:
        raise FusionError(f"--output {path}: can't be written: {error.strerror}") from None
    for line in _summary(found):
        click.echo(line)
    click.echo(f"wrote {path}; a workload names it: target: {{profile: {path}}}")


def _refuse_mixed(inputs: Sequence[Input]) -> None:
    names = [each.name for each in inputs if each.name is not None]
    if names and len(names) < len(inputs):
        raise FusionError("--input: some have names and some have none; name all of them or none")
    if len(set(names)) < len(names):
        raise FusionError(f"--input: the name {next(x for x in names if names.count(x) > 1)} is given twice")


def _made(factory: str) -> nn.Module:
    """The module of `package.module:attribute`."""
    from torch import nn

    module_name, colon, attribute = factory.partition(":")
    if not colon or not module_name or not attribute:
        raise FusionError(f"{factory}: expected MODULE:FACTORY, such as models.resnet:resnet50")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: object = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # an import runs the user's code, which may raise anything, and leave
        raise FusionError(f"{module_name} can't be imported: {_said(error)}") from None
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise FusionError(f"{module_name} has no {attribute}; expected a function that returns a torch.nn.Module")
        found = getattr(found, part)
    if not isinstance(found, nn.Module):
        if not callable(found):
            raise FusionError(f"{factory} is a {type(found).__name__}; expected a function or a torch.nn.Module")
        try:
            found = found()
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            raise FusionError(f"{factory}() can't be built: {_said(error)}; it must need no arguments") from None
    if not isinstance(found, nn.Module):
        raise FusionError(f"{factory}() is a {type(found).__name__}; expected a torch.nn.Module")
    return found


def _said(error: Exception | SystemExit) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}" if str(error) else type(error).__name__


def _tensors(inputs: Sequence[Input], batch: int) -> Sequence[Tensor] | Mapping[str, Tensor]:
    """Arguments of a batch: floats at random, everything else zero, which is a valid token and index."""
    import torch

    def one(each: Input) -> Tensor:
        dtype: torch.dtype = getattr(torch, each.dtype)
        shape = (batch, *each.shape)
        return torch.randn(shape, dtype=dtype) if dtype.is_floating_point else torch.zeros(shape, dtype=dtype)

    if inputs[0].name is None:
        return [one(each) for each in inputs]
    return {each.name or "": one(each) for each in inputs}


def _summary(found: ModelProfile) -> list[str]:
    """Totals, then the operations by class."""
    by_class: dict[str, list[float]] = {}
    for layer in found.layers:
        row = by_class.setdefault(layer.operation, [0, 0.0, 0.0])
        row[0] += 1
        row[1] += layer.flops
        row[2] += layer.read_numbers + layer.written_numbers
    lines = [
        f"{found.name}: {found.parameters:,.0f} parameters, {found.flops / 1e9:,.4g} GFLOPs forward by sample "
        f"(a multiply and an add are 2), {found.activation_bytes(2) / 1e6:,.4g} MB of activations by sample in bf16"
    ]
    for name, (count, flops, moved) in sorted(by_class.items(), key=lambda each: -each[1][1]):
        lines.append(
            f"  {name:14}{count:6.0f} operations {flops / 1e9:12,.4g} GFLOPs {moved / 1e6:12,.4g} M numbers moved"
        )
    if "made-up data" in found.source:
        lines.append("  its forward reads values, so it was run with made-up data; other data may take another path")
    return lines
