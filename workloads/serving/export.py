"""From a PyTorch module to a package: `fusion export`.

The module is traced once by `torch.export` with a free batch; the other formats are made from that program. Each is
run on the self-test's inputs before the package exists, and refused where its outputs are not the reference's.
"""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from workloads.serving.backends import BACKENDS, Runtime
from workloads.serving.package import (
    NUMPY_TYPES,
    SELF_TEST,
    Array,
    Artifact,
    Datatype,
    Format,
    Manifest,
    Operators,
    Package,
    PackageError,
    TensorSpec,
    Tolerance,
    describe,
    error_of,
    publish,
    refuse_published,
)

FORMATS: tuple[Format, ...] = ("pytorch", "onnx", "openvino", "aotinductor")
"""What is made unless formats are named."""
EVERY_FORMAT: tuple[Format, ...] = (*FORMATS, "stablehlo")
XLA_PYTHON = "FUSION_XLA_PYTHON"
"""The variable that names a Python with torchax: it goes with an older PyTorch than this one."""
CHECKED_BY: Mapping[Format, str] = {
    "pytorch": "eager",
    "onnx": "onnxruntime",
    "openvino": "openvino",
    "aotinductor": "aotinductor",
    "stablehlo": "xla",
}
"""The backend that runs a format's check."""
BATCH_LIMIT = 4096


class Unsayable(PackageError):
    """A format's exporter can't say one of the model's operations."""


@dataclass(frozen=True, slots=True)
class Source:
    """What is exported.

    Attributes:
        module: maps the inputs, in their order, to one tensor or a tuple of tensors; batch first in all.
        inputs: (batch, *shape) by name, at least two rows.
        output_names: of the module's outputs, in their order.
        classes: names of the first output's columns, where it has such.
        text: where it comes from, for people.
        name: of the model, where it has one.
        labels: (batch,) the right classes of `inputs`, where they are known.
        scale: by which 8-bit pixels were divided to be `inputs`, where these are images.
        made_up: what the package keeps in place of `inputs`, where these are somebody's data.
    """

    module: nn.Module
    inputs: Mapping[str, Array]
    output_names: tuple[str, ...] = ("output",)
    classes: tuple[str, ...] = ()
    text: str = ""
    name: str = "model"
    labels: Array | None = None
    scale: float | None = None
    made_up: Mapping[str, Array] | None = None

    @property
    def self_test(self) -> Mapping[str, Array]:
        """The rows that a package keeps, each format is tried on, and a server at its start."""
        return self.inputs if self.made_up is None else self.made_up


def export(
    source: Source,
    url: str,
    *,
    name: str,
    version: str,
    formats: Sequence[Format] = FORMATS,
    tolerance: Tolerance | None = None,
    say: Callable[[str], object] = lambda _: None,
    leave_out: Callable[[str], object] | None = None,
) -> Manifest:
    """Make a package and publish it.

    Args:
        source: the module and its self-test's inputs.
        url: the package's folder; must not hold one.
        name: of the model.
        version: of the package, which never changes once it is published.
        formats: what to make.
        tolerance: how far outputs may be from the module's own.
        say: called with a line for each format.
        leave_out: called with the reason for each format but PyTorch's that can't say the model; None where all are
            wanted.

    Raises:
        PackageError: the module can't be traced, or a format can't be made or does not give the module's outputs.
        StorageError: the bucket refused.
    """
    refuse_published(url)
    tolerance = tolerance or Tolerance()
    inputs = [np.ascontiguousarray(each) for each in source.self_test.values()]
    reference = _reference(source, inputs)
    with tempfile.TemporaryDirectory(prefix="export-") as place:
        folder = Path(place)
        named = {f"input.{key}": value for key, value in zip(source.inputs, inputs, strict=True)}
        named |= {f"output.{key}": value for key, value in zip(source.output_names, reference, strict=True)}
        np.savez(folder / SELF_TEST, allow_pickle=False, **named)
        program = traced(source, inputs)
        unchecked = Manifest(
            name=name,
            version=version,
            source=source.text,
            inputs=tuple(_spec(key, each) for key, each in zip(source.inputs, inputs, strict=True)),
            outputs=tuple(_spec(key, each) for key, each in zip(source.output_names, reference, strict=True)),
            classes=source.classes,
            tolerance=tolerance,
            self_test=describe(folder / SELF_TEST),
            artifacts=tuple(_made(formats, program, source, folder, leave_out)),
        )
        package = Package(unchecked, folder)
        checked = tuple(_checked(each, package, inputs, reference, say) for each in unchecked.artifacts)
        manifest = unchecked.model_copy(update={"artifacts": checked})
        publish(folder, url, manifest)
    return manifest


def _reference(source: Source, inputs: Sequence[Array]) -> list[Array]:
    if any(len(each) < 2 or len(each) != len(inputs[0]) for each in inputs):
        raise PackageError("the self-test needs the same number of rows of every input, at least 2")
    outputs = outputs_of(source.module, inputs)
    if len(outputs) != len(source.output_names):
        raise PackageError(
            f"the model has {len(outputs)} outputs, and {len(source.output_names)} names were given for them"
        )
    arrays = [each.contiguous().numpy() for each in outputs]
    for key, each in zip(source.output_names, arrays, strict=True):
        if each.ndim < 1 or len(each) != len(inputs[0]):
            raise PackageError(f"output {key} has the shape {each.shape}: its first dimension is not the batch")
    return arrays


def to_eval(module: nn.Module) -> None:
    """Out of training; an exported program, which has one mode, stays as it was exported."""
    with suppress(NotImplementedError):
        module.eval()


def outputs_of(module: nn.Module, inputs: Sequence[Array]) -> list[Tensor]:
    """What a model gives for inputs.

    Raises:
        PackageError: it fails on them, or gives something else than tensors.
    """
    to_eval(module)
    try:
        with torch.no_grad():
            found = module(*(torch.from_numpy(each) for each in inputs))
    except Exception as error:  # of anybody's code
        reason = " ".join(str(error).split())[:200]
        given = ", ".join(f"{each.dtype} {list(each.shape)}" for each in inputs)
        raise PackageError(f"the model fails on {given}: {type(error).__name__}: {reason}") from None
    outputs = list(found) if isinstance(found, tuple | list) else [found]
    if others := [each for each in outputs if not isinstance(each, Tensor)]:
        raise PackageError(
            f"the model gives a {type(others[0]).__name__}; expected a tensor, or a tuple of tensors: wrap it in a "
            "module that gives these"
        )
    return outputs


def _spec(name: str, array: Array) -> TensorSpec:
    datatype: Datatype | None = next((key for key, dtype in NUMPY_TYPES.items() if dtype == array.dtype), None)
    if datatype is None:
        raise PackageError(f"{name} is of type {array.dtype}; expected one of {', '.join(NUMPY_TYPES)}")
    return TensorSpec(name=name, datatype=datatype, shape=array.shape[1:])


def traced(source: Source, inputs: Sequence[Array]) -> torch.export.ExportedProgram:
    """The module as a program with a free batch.

    Raises:
        PackageError: it can't be traced so.
    """
    batch = torch.export.Dim("batch", min=1, max=BATCH_LIMIT)
    tensors = tuple(torch.from_numpy(each) for each in inputs)
    try:
        with _quiet():
            return torch.export.export(source.module, tensors, dynamic_shapes=tuple({0: batch} for _ in tensors))
    except Exception as error:  # whatever the tracer raises is about the model
        reason = " ".join(str(error).split())[:300]
        raise PackageError(
            f"torch.export can't trace the model with a free batch: {type(error).__name__}: {reason}"
        ) from None


def _made(
    formats: Sequence[Format],
    program: torch.export.ExportedProgram,
    source: Source,
    folder: Path,
    leave_out: Callable[[str], object] | None,
) -> Iterator[Artifact]:
    for each in EVERY_FORMAT:
        if each in formats or each == "pytorch":
            try:
                yield _make(each, program, source, folder)
            except Unsayable as error:
                if leave_out is None or each == "pytorch":
                    raise
                leave_out(str(error))


def _make(wanted: Format, program: torch.export.ExportedProgram, source: Source, folder: Path) -> Artifact:
    """The model in a format, not checked yet."""
    try:
        with _quiet():
            files, made_with = MAKERS[wanted](program, source, folder)
    except PackageError:
        raise
    except ImportError as error:
        raise PackageError(f"{wanted}: {error.name or error} is not installed; install fusion[serve]") from None
    except Exception as error:  # each exporter has its own kinds
        raise Unsayable(f"{wanted}: the model can't be exported: {_cause(error)}") from None
    described = tuple(describe(each) for each in files)
    needs = _needs(program) if wanted == "pytorch" else ()
    return Artifact(format=wanted, files=described, needs=needs, made_with=made_with, max_abs_error=0)


def _cause(error: BaseException) -> str:
    """What was wrong first: ONNX's exporter names the operation only there."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())[:600]}"


def _needs(program: torch.export.ExportedProgram) -> tuple[Operators, ...]:
    """The modules that bring the program's operators, beside PyTorch's own."""
    libraries = {str(node.target).partition(".")[0] for node in program.graph.nodes if node.op == "call_function"}
    brought_by: Mapping[str, Operators] = {
        "torchao": "torchao",
        "quantized_decomposed": "torch.ao.quantization.fx._decomposed",
    }
    return tuple(module for library, module in brought_by.items() if library in libraries)


def _checked(
    artifact: Artifact,
    package: Package,
    inputs: Sequence[Array],
    reference: Sequence[Array],
    say: Callable[[str], object],
) -> Artifact:
    """With the largest error over the whole self-test and over a single row of it."""
    tolerance = package.manifest.tolerance
    forward = BACKENDS[CHECKED_BY[artifact.format]].load(package, Runtime(threads=torch.get_num_threads()))
    worst = 0.0
    for rows in (len(inputs[0]), 1):
        outputs = forward([np.ascontiguousarray(each[:rows]) for each in inputs])
        error, fits = error_of(outputs, [each[:rows] for each in reference], tolerance)
        if not fits:
            raise PackageError(
                f"{artifact.format}: outputs of {rows} rows differ from the model's by up to {error:.3g}; allowed are "
                f"{tolerance.absolute:g} + {tolerance.relative:g} of the value (--absolute, --relative)"
            )
        worst = max(worst, error)
    say(f"{artifact.format}: {sum(each.bytes for each in artifact.files):,} bytes, largest error {worst:.2g}")
    return artifact.model_copy(update={"max_abs_error": worst})


def _pytorch(program: torch.export.ExportedProgram, source: Source, folder: Path) -> tuple[list[Path], str]:
    file = folder / "program.pt2"
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # paths of this machine are nobody's business where it is served
    torch.export.save(program, file)
    return [file], f"torch {torch.__version__}"


def _onnx(program: torch.export.ExportedProgram, source: Source, folder: Path) -> tuple[list[Path], str]:
    import onnx

    file = folder / "model.onnx"
    exported = torch.onnx.export(
        program, (), input_names=list(source.inputs), output_names=list(source.output_names), verbose=False
    )
    assert exported is not None
    exported.save(str(file), external_data=False)
    return [file], f"onnx {onnx.__version__}, torch {torch.__version__}"


def _openvino(program: torch.export.ExportedProgram, source: Source, folder: Path) -> tuple[list[Path], str]:
    import openvino

    onnx_file = folder / "model.onnx"
    if not onnx_file.exists():
        _onnx(program, source, folder)
    file = folder / "model.xml"
    openvino.save_model(openvino.convert_model(str(onnx_file)), str(file), compress_to_fp16=False)
    return [file, file.with_suffix(".bin")], f"openvino {openvino.__version__}"


def _aotinductor(program: torch.export.ExportedProgram, source: Source, folder: Path) -> tuple[list[Path], str]:
    file = folder / "aotinductor.pt2"
    torch._inductor.aoti_compile_and_package(program, package_path=str(file))
    return [file], f"torch {torch.__version__}"


def _stablehlo(program: torch.export.ExportedProgram, source: Source, folder: Path) -> tuple[list[Path], str]:
    if importlib.util.find_spec("jax") is None:
        raise PackageError("stablehlo: jax is not installed, by which it is checked; install fusion[xla]")
    file, python = folder / "model.stablehlo", os.environ.get(XLA_PYTHON) or sys.executable
    script = Path(__file__).with_name("stablehlo.py")
    try:
        done = subprocess.run(
            [python, str(script), str(folder / "program.pt2"), str(file)], capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise PackageError(f"{XLA_PYTHON}: got {python}, which can't be run ({error.strerror})") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:300]
        raise PackageError(
            f"stablehlo: {reason}; it is made by a Python with torch 2.9, torchax and jax, which {XLA_PYTHON} names "
            "(docs/serving.md)"
        )
    made_with = json.loads(done.stdout.splitlines()[-1])
    return [file], ", ".join(f"{name} {number}" for name, number in made_with.items())


MAKERS: Mapping[Format, Callable[[Any, Source, Path], tuple[list[Path], str]]] = {
    "pytorch": _pytorch,
    "onnx": _onnx,
    "openvino": _openvino,
    "aotinductor": _aotinductor,
    "stablehlo": _stablehlo,
}


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters print pages about what they do; what went wrong they raise."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
