"""Applies the methods that were asked for, one after the other, and publishes the package only if it is good enough."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from workloads import models
from workloads.optimization.measure import Measured, measure
from workloads.optimization.quantization import QUANTIZATIONS, Quantization
from workloads.optimization.sparsity import (
    OptimizationError,
    parameters_of,
    prune_channels,
    zero_two_of_four,
)
from workloads.optimization.tuning import Tuning, from_teacher, tune
from workloads.serving.backends import Runtime
from workloads.serving.export import export
from workloads.serving.package import (
    Format,
    Manifest,
    Package,
    PackageError,
    Tolerance,
    publish,
    refuse_published,
)
from workloads.serving.sources import SELF_TEST_ROWS, Trained

LOGITS_TOLERANCE = 0.05
"""Of the largest output: quantized formats round in other places, by a step of 8 bits here and there."""
Aim = Literal["size", "latency"]
MOST_LEFT: Mapping[Aim, float] = {"size": 1.0, "latency": 0.95}
"""Of what was there before, for a gain."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is done to a model, in this order.

    Attributes:
        student: a smaller model's name and its factory's arguments, which learns the model's answers.
        prune: share of the channels that go; 0 for none.
        sparse: two of each four weights become zero.
        quantize: to what; each is tried by itself on what the methods before it left. Empty: it stays at fp32.
        tuning: of the student, and after pruning, sparsity and while numbers are rounded (`int8-qat`).
        aim: what is to get less: of several quantizations the one with the least is published.
    """

    student: tuple[str, dict[str, Any]] | None = None
    prune: float = 0.0
    sparse: bool = False
    quantize: tuple[Quantization, ...] = ()
    tuning: Tuning = field(default_factory=Tuning)
    aim: Aim = "size"

    @property
    def gain_is_elsewhere(self) -> bool:
        """Zeros alone are stored and computed as other numbers are, but on a chip that skips them."""
        return self.sparse and not (self.student or self.prune or self.quantize)


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
class Tried:
    """What became of the model by one quantization, or by none.

    Attributes:
        quantize: None where it stayed at fp32.
        measured: by backend, the fastest first; empty where it can't be made.
        problem: why it can't be published; empty where it can.
    """

    quantize: Quantization | None
    measured: tuple[Measured, ...]
    problem: str

    @property
    def name(self) -> str:
        """For people."""
        return self.quantize or "after"


@dataclass(frozen=True, slots=True)
class Result:
    """Before and after, as measured on this machine.

    Attributes:
        parameters: of the model before and after, not counting what quantization did.
        zeros: share of the parameters after that are zero.
        before: by backend, the fastest first.
        tried: in the order in which they were asked for.
        published: one of them; None where nothing is.
    """

    parameters: tuple[int, int]
    zeros: float
    before: tuple[Measured, ...]
    tried: tuple[Tried, ...]
    published: Tried | None

    @property
    def problem(self) -> str:
        """Why nothing is published; empty where something is."""
        if self.published is not None:
            return ""
        said = (each.problem if each.quantize is None else f"{each.name}: {each.problem}" for each in self.tried)
        return "; ".join(said)

    def document(self) -> dict[str, Any]:
        """For JSON."""
        published = None if self.published is None else self.published.name
        return {**asdict(self), "published": published, "problem": self.problem}


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
        OptimizationError: a method can't be applied, or none of the quantizations.
        PackageError: the model, or what became of it, can't be exported.
        ModelError: there is no such student, or it refuses the data or its arguments.
        StorageError: the bucket refused.
    """
    refuse_published(url)
    torch.manual_seed(asked.tuning.seed)
    module = reshaped(trained, asked, say)
    with tempfile.TemporaryDirectory(prefix="optimize-") as folder:
        bench = _Bench(trained, version, formats, Runtime(threads=threads), batch, Path(folder))
        say("export and measure the model as it was")
        before = bench.measured("before", trained.module, None)

        def attempt(quantize: Quantization | None) -> Tried:
            made = _made(trained, module, quantize, asked, say)
            say("export and measure what became of it")
            after = bench.measured(quantize or "after", made, quantize)
            return Tried(quantize, after, problem_of(before, after, floor, asked))

        tried = _each_of(asked.quantize, attempt) if asked.quantize else (attempt(None),)
        good = [each for each in tried if not each.problem]
        best = min(good, key=lambda each: least(each.measured, asked.aim), default=None)
        if best is not None:
            package = bench.packages[best.name]
            publish(package.folder, url, package.manifest)
    return Result((parameters_of(trained.module), parameters_of(module)), _zeros(module), before, tried, best)


@dataclass(frozen=True, slots=True)
class _Bench:
    """Makes packages in a folder of this machine and measures them there."""

    trained: Trained
    version: str
    formats: Sequence[Format]
    runtime: Runtime
    batch: int
    folder: Path
    packages: dict[str, Package] = field(default_factory=dict)

    def measured(self, name: str, module: nn.Module, quantize: Quantization | None) -> tuple[Measured, ...]:
        """By each backend that serves it here, in those of the formats that can say its numbers."""
        possible = self.formats if quantize is None else QUANTIZATIONS[quantize].formats
        manifest: Manifest = export(
            self.trained.source(module),
            f"file://{self.folder / name}",
            name=self.trained.name,
            version=self.version,
            formats=[each for each in self.formats if each in possible],
            tolerance=Tolerance() if quantize is None else _tolerance(self.trained, module),
        )
        self.packages[name] = Package(manifest, self.folder / name)
        return measure(self.packages[name], self.trained, self.runtime, batch=self.batch)


def reshaped(trained: Trained, asked: Asked, say: Callable[[str], object]) -> nn.Module:
    """The model after all methods but quantization; the given one stays as it is.

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
    return module.eval()


def _made(
    trained: Trained, module: nn.Module, quantize: Quantization | None, asked: Asked, say: Callable[[str], object]
) -> nn.Module:
    if quantize is None:
        return module
    say(f"quantize, {quantize}: {QUANTIZATIONS[quantize].says}")
    return QUANTIZATIONS[quantize].apply(module, trained, asked.tuning)


def _each_of(wanted: Sequence[Quantization], attempt: Callable[[Quantization], Tried]) -> tuple[Tried, ...]:
    """Every quantization that was asked for; one that can't be made is no reason to give the others up.

    Raises:
        OptimizationError: none can be made.
    """
    tried = []
    for quantize in wanted:
        try:
            tried.append(attempt(quantize))
        except (OptimizationError, PackageError) as error:
            tried.append(Tried(quantize, (), str(error)))
    if not any(each.measured for each in tried):
        raise OptimizationError("; ".join(each.problem for each in tried))
    return tuple(tried)


def least(measured: Sequence[Measured], aim: Aim) -> float:
    """The bytes of the smallest backend's files, or the milliseconds of the fastest one."""
    return min(each.bytes if aim == "size" else each.p50_ms for each in measured)


def problem_of(before: Sequence[Measured], after: Sequence[Measured], floor: Floor, asked: Asked) -> str:
    """Why a package may not be published; empty where it may."""
    worst = min(after, key=lambda each: each.accuracy)
    if missed := floor.missed_by(before[0].accuracy, worst.accuracy):
        return f"{worst.backend}: {missed}"
    old, new = least(before, asked.aim), least(after, asked.aim)
    if asked.gain_is_elsewhere or new < old * MOST_LEFT[asked.aim]:
        return ""
    if asked.aim == "size":
        return f"it has {new:,} bytes, before it had {old:,}: it got no smaller (--aim size)"
    return (
        f"a batch takes {new:.3f} ms by its fastest backend, before it took {old:.3f}: what is not faster by a "
        "twentieth can't be told from noise (--aim latency)"
    )


def _nothing() -> None:
    """No weights must stay zero."""


def _tolerance(trained: Trained, module: nn.Module) -> Tolerance:
    with torch.no_grad():
        largest = module(*map(torch.from_numpy, trained.source().self_test.values())).abs().max().item()
    return Tolerance(absolute=LOGITS_TOLERANCE * largest)


def _zeros(module: nn.Module) -> float:
    zeros = sum(int((each == 0).sum()) for each in module.parameters())
    return zeros / max(1, parameters_of(module))
