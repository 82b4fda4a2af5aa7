"""Applies the methods that were asked for, one after the other, and publishes the package only if it is good enough."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from workloads import models
from workloads.optimization.measure import Measured, measure
from workloads.optimization.quantization import QUANTIZATIONS, Quantization
from workloads.optimization.sparsity import prune_channels, zero_two_of_four
from workloads.optimization.tuning import Tuning, from_teacher, tune
from workloads.serving.backends import Runtime
from workloads.serving.export import export
from workloads.serving.package import Format, Manifest, Package, Tolerance, publish, refuse_published
from workloads.serving.sources import SELF_TEST_ROWS, Trained

LOGITS_TOLERANCE = 0.05
"""Of the largest output: quantized formats round in other places, by a step of 8 bits here and there."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is done to a model, in this order.

    Attributes:
        student: a smaller model's name and its factory's arguments, which learns the model's answers.
        prune: share of the channels that go; 0 for none.
        sparse: two of each four weights become zero.
        quantize: to what; None stays at fp32.
        tuning: of the student, and after pruning, sparsity and while numbers are rounded (`int8-qat`).
    """

    student: tuple[str, dict[str, Any]] | None = None
    prune: float = 0.0
    sparse: bool = False
    quantize: Quantization | None = None
    tuning: Tuning = field(default_factory=Tuning)


@dataclass(frozen=True, slots=True)
class Floor:
    """The accuracy below which nothing is published; each from 0 to 1."""

    least: float = 0.0
    drop_max: float = 1.0

    def missed_by(self, before: float, after: float) -> str:
        """Why an accuracy is too low; empty where it is not."""
        if after < self.least:
            return f"accuracy {after:.2%} is below the least allowed, {self.least:.2%} (--accuracy-min)"
        if before - after > self.drop_max:
            return (
                f"accuracy fell by {(before - after) * 100:.2f} points, from {before:.2%} to {after:.2%}; allowed are "
                f"{self.drop_max * 100:.2f} (--accuracy-drop-max)"
            )
        return ""


@dataclass(frozen=True, slots=True)
class Result:
    """Before and after, as measured on this machine.

    Attributes:
        parameters: of the model before and after.
        zeros: share of the parameters after that are zero.
        before: by backend, the fastest first.
        after: the same.
        problem: why it is not published; empty where it is.
    """

    parameters: tuple[int, int]
    zeros: float
    before: tuple[Measured, ...]
    after: tuple[Measured, ...]
    problem: str

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def optimize(
    trained: Trained,
    asked: Asked,
    url: str,
    *,
    version: str,
    floor: Floor,
    batch: int,
    threads: int,
    formats: Sequence[Format],
    say: Callable[[str], object] = lambda _: None,
) -> Result:
    """Make, measure and publish an optimized package.

    Args:
        trained: the model and its data.
        asked: the methods.
        url: of the package; nothing is there yet.
        version: of the package.
        floor: nothing is published where any of its formats answers less accurately.
        batch: rows of the batch whose latency is measured.
        threads: of the model, while it is measured.
        formats: that the package has, where the quantization can be said in them.
        say: called with a line for each step.

    Raises:
        OptimizationError: a method can't be applied.
        PackageError: the model, or what became of it, can't be exported.
        ModelError: there is no such student, or it refuses the data or its arguments.
        StorageError: the bucket refused.
    """
    refuse_published(url)
    torch.manual_seed(asked.tuning.seed)
    module, sized = apply(trained, asked, say)
    runtime = Runtime(threads=threads)
    with tempfile.TemporaryDirectory(prefix="optimize-") as folder:
        place = Path(folder)
        say("export and measure the model as it was")
        before = _exported(trained, trained.module, place / "before", version, formats, Tolerance())
        say("export and measure what became of it")
        possible = formats if asked.quantize is None else QUANTIZATIONS[asked.quantize].formats
        wanted = [each for each in formats if each in possible]
        after = _exported(trained, module, place / "after", version, wanted, _tolerance(trained, module, asked))
        measured = [measure(each, trained, runtime, batch=batch) for each in (before, after)]
        accuracy, worst = measured[0][0].accuracy, min(measured[1], key=lambda each: each.accuracy)
        problem = floor.missed_by(accuracy, worst.accuracy)
        result = Result(
            parameters=(_count(trained.module), _count(sized)),
            zeros=_zeros(sized),
            before=measured[0],
            after=measured[1],
            problem=problem and f"{worst.backend}: {problem}",
        )
        if not result.problem:
            publish(after.folder, url, after.manifest)
    return result


def apply(trained: Trained, asked: Asked, say: Callable[[str], object]) -> tuple[nn.Module, nn.Module]:
    """The model after all methods, and the same before its numbers were quantized; the given one stays as it is.

    Raises:
        OptimizationError: a method can't be applied.
        ModelError: there is no such student, or it refuses the data or its arguments.
    """
    example = torch.from_numpy(trained.held_out(SELF_TEST_ROWS))
    module = trained.module
    if asked.student is not None:
        name, arguments = asked.student
        module = models.build(name, trained.index, arguments)
        say(f"teach {name} the model's answers for {asked.tuning.epochs} epochs")
        tune(module.train(), trained, asked.tuning, loss=from_teacher(trained.module, trained))
    module = copy.deepcopy(module).eval()
    again: Callable[[], None] = _nothing
    if asked.prune:
        say(f"prune {asked.prune:.0%} of the channels")
        module = prune_channels(module, example, asked.prune)
    if asked.sparse:
        say("zero two of each four weights")
        again = zero_two_of_four(module, example)
    if asked.prune or asked.sparse:
        say(f"train on for {asked.tuning.epochs} epochs")
        tune(module.train(), trained, asked.tuning, after_step=again)
    module.eval()
    if asked.quantize is None:
        return module, module
    say(f"quantize: {QUANTIZATIONS[asked.quantize].says}")
    return QUANTIZATIONS[asked.quantize].apply(module, trained, asked.tuning), module


def _nothing() -> None:
    """No weights must stay zero."""


def _exported(
    trained: Trained, module: nn.Module, folder: Path, version: str, formats: Sequence[Format], tolerance: Tolerance
) -> Package:
    manifest: Manifest = export(
        trained.source(module),
        f"file://{folder}",
        name=trained.name,
        version=version,
        formats=formats,
        tolerance=tolerance,
    )
    return Package(manifest, folder)


def _tolerance(trained: Trained, module: nn.Module, asked: Asked) -> Tolerance:
    if asked.quantize is None:
        return Tolerance()
    with torch.no_grad():
        largest = module(*map(torch.from_numpy, trained.source().self_test.values())).abs().max().item()
    return Tolerance(absolute=LOGITS_TOLERANCE * largest)


def _count(module: nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())


def _zeros(module: nn.Module) -> float:
    zeros = sum(int((each == 0).sum()) for each in module.parameters())
    return zeros / max(1, _count(module))
