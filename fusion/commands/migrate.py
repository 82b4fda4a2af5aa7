"""`fusion migrate`: a trained model → a package for another chip, checked over real inputs, and what changed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusion.commands.export import NEEDS_EXTRA, as_url, source_of, source_options
from fusion.commands.optimize import refuse_report, write_report
from fusion.errors import FusionError
from fusion.targets import Kind, Target, find
from planner.calibration.store import Interval, builtin
from planner.catalog import load
from planner.machines import Machine, chip_of, chips_of, cpu_calibration, cpu_of
from planner.performance.checks import PerformanceError
from planner.performance.roofline import forward_time

if TYPE_CHECKING:
    from workloads.serving.backends import Precision
    from workloads.serving.export import Source
    from workloads.serving.migration import Checked
    from workloads.serving.package import Format, Manifest, Tolerance

FORMATS: Mapping[Kind, tuple[Format, ...]] = {
    "cpu": ("pytorch", "onnx", "openvino"),
    "nvidia": ("pytorch", "onnx"),
    "tpu": ("pytorch",),
    "neuron": ("pytorch",),
}
"""What the chip's own runtimes open, or are compiled from."""
ROWS = 256
"""Held-out samples of a run that outputs are compared on."""


@click.command(name="migrate")
@click.argument("url", metavar="PACKAGE_URL")
@click.option(
    "--to", "target", required=True, metavar="NAME", help="A chip or instance type: L4, v5e, trn2, c7i.large."
)
@source_options
@click.option("--version", default="1", show_default=True, help="Of the package.")
@click.option("--batch", type=click.IntRange(1, ROWS), default=8, show_default=True, help="Rows whose time counts.")
@click.option("--threads", type=click.IntRange(1, 1024), default=1, show_default=True, help="While measuring.")
@click.option("--absolute", type=click.FloatRange(0), default=1e-4, show_default=True, help="Allowed error in fp32.")
@click.option("--relative", type=click.FloatRange(0, 1), default=1e-3, show_default=True, help="And of its value.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the report there.")
def command(
    url: str,
    target: str,
    version: str,
    batch: int,
    threads: int,
    absolute: float,
    relative: float,
    json_file: Path | None,
    **source: Any,
) -> None:
    """Move a model to another chip: make what its runtimes open, compare outputs with the model's, say what changed.

    PACKAGE_URL is a folder that holds no package yet. Give one of --run (its held-out data are the real inputs),
    --model and --program. Each format is run on this machine's CPU, in fp32 and in the precision that the chip computes
    in; where an output differs by more than is allowed, nothing is published, and the status is 1. A format that can't
    say the model is left out, and named.
    """
    chip = find(target)
    refuse_report(json_file)
    precision: Precision = "fp32" if chip.kind == "cpu" else "bf16" if peak(chip, "bf16") else "fp16"
    tolerances = {"absolute": absolute, "relative": relative}
    found, moved = tried(chip, as_url(url), source, tolerances, version, precision, batch, threads)
    predicted, why_not = predict(chip, found, precision, batch)
    compiling = compile_command(chip, moved.manifest, url, precision, batch)
    left_out = [f"left out: {each}" for each in moved.left_out]
    said = prediction_said(chip, precision, batch, predicted, why_not)
    for line in (*table(moved.ran, moved.rows, threads, batch), *left_out, *said):
        click.echo(line)
    if json_file is not None:
        document = {
            "to": chip.name,
            "batch": batch,
            "rows": moved.rows,
            "left_out": moved.left_out,
            "measured_on_this_cpu": [asdict(each) for each in moved.ran],
            "predicted_s": asdict(predicted) if predicted else None,
            "still_to_run": compiling,
        }
        write_report(json_file, document)
    if moved.wrong:
        raise FusionError(why_unpublished(moved.wrong))
    click.echo(f"{moved.manifest.name} {version} for {chip.name} is in {as_url(url)}")
    if compiling:
        click.echo(
            f"still to run in the container of workloads/containers for {chip.name}; it was not run here:\n{compiling}"
        )


def tried(
    chip: Target,
    url: str,
    source: Mapping[str, Any],
    tolerances: Mapping[str, float],
    version: str,
    precision: Precision,
    batch: int,
    threads: int,
) -> tuple[Source, Moved]:
    """The model that the command line names, and what became of it.

    Raises:
        FusionError: a library is missing, or the model, its data or the package's place can't be used.
    """
    try:
        from workloads.models import ModelError
        from workloads.serving.package import PackageError, Tolerance, refuse_published
        from workloads.storage import StorageError
    except ModuleNotFoundError as error:
        raise FusionError(NEEDS_EXTRA.format(error.name)) from None
    try:
        refuse_published(url)
        found = source_of(**source, rows=ROWS)
        moved = move(
            found,
            url,
            version=version,
            formats=formats_for(chip),
            tolerance=Tolerance(**tolerances),
            precision=precision,
            batch=batch,
            threads=threads,
        )
    except (PackageError, ModelError, StorageError) as error:
        raise FusionError(str(error)) from None
    return found, moved


@dataclass(frozen=True, slots=True)
class Moved:
    """The package that was made, and each of its formats as it ran here on so many rows."""

    manifest: Manifest
    ran: tuple[Checked, ...]
    rows: int
    left_out: tuple[str, ...]
    """Why formats are missing that can't say the model."""

    @property
    def wrong(self) -> list[Checked]:
        """Those whose outputs differ by more than is allowed."""
        return [each for each in self.ran if not each.fits]


def move(
    found: Source,
    url: str,
    *,
    version: str,
    formats: Sequence[Format],
    tolerance: Tolerance,
    precision: Precision,
    batch: int,
    threads: int,
) -> Moved:
    """Make the package and run it here, in fp32 and in the chip's precision; publish it where all outputs fit.

    Raises:
        PackageError: the model can't be exported, or a format does not run.
        StorageError: the place of the package can't be written.
    """
    from workloads.serving.export import export
    from workloads.serving.migration import check
    from workloads.serving.package import Package, publish

    left_out: list[str] = []
    with tempfile.TemporaryDirectory(prefix="migrate-") as folder:
        place = Path(folder) / "package"
        manifest = export(
            found,
            f"file://{place}",
            name=found.name,
            version=version,
            formats=formats,
            tolerance=tolerance,
            leave_out=left_out.append,
        )
        package = Package(manifest, place)
        inputs, reference = package.self_test()
        precisions = list(dict.fromkeys(("fp32", precision)))
        ran = check(package, inputs, reference, precisions, batch=batch, threads=threads)
        moved = Moved(manifest, ran, len(inputs[0]), tuple(left_out))
        if not moved.wrong:
            publish(package.folder, url, manifest)
    return moved


def formats_for(chip: Target) -> tuple[Format, ...]:
    """What is made here; XLA's program only where there is a Python that can make it."""
    from workloads.serving.export import XLA_PYTHON

    is_made_here = chip.kind == "tpu" and os.environ.get(XLA_PYTHON)
    return (*FORMATS[chip.kind], *(("stablehlo",) if is_made_here else ()))


def why_unpublished(wrong: Iterable[Checked]) -> str:
    """The worst of what differs from the model by more than is allowed."""
    worst = max(wrong, key=lambda each: each.max_abs_error)
    return (
        f"nothing was published: {worst.backend} in {worst.precision} differs from the model by up to "
        f"{worst.max_abs_error:.3g}; allowed are {worst.allowed}"
    )


def peak(chip: Target, precision: str) -> float:
    """TFLOP/s of the chip; 0 where it has none or none is known."""
    return getattr(chip.accelerator, f"{precision}_tflops", None) or 0.0


def table(ran: tuple[Checked, ...], rows: int, threads: int, batch: int) -> list[str]:
    """What ran here; eager in fp32 is the model as it was."""
    return [
        f"run on this machine's CPU, {threads} thread{'s' * (threads > 1)}, batches of {batch}; outputs compared over "
        f"{rows} rows",
        f"{'backend':16}{'precision':10}{'bytes':>14}{'batch ms':>10}{'rows/s':>12}{'largest error':>15}  allowed",
        *(
            f"{each.backend:16}{each.precision:10}{each.bytes:14,}{each.batch_ms:10.3f}{each.rows_per_s:12,.0f}"
            f"{each.max_abs_error:15.2g}  {each.allowed}{'' if each.fits else '  TOO FAR'}"
            for each in ran
        ),
    ]


def predict(chip: Target, source: Source, precision: str, batch: int) -> tuple[Interval | None, str]:
    """Seconds of a batch on the chip by the planner's model, or why nothing can be said."""
    import torch

    from planner.profiles.trace import trace

    arrays = list(source.inputs.values())

    def inputs(rows: int) -> list[torch.Tensor]:
        return [torch.from_numpy(each[:1]).repeat(rows, *(1 for _ in each.shape[1:])) for each in arrays]

    try:
        if chip.offer is not None and chip.kind == "cpu":
            cpu = cpu_of(chip.offer.cloud, chip.offer.instance_type)
            if cpu is None:
                return None, f"nothing is known of the CPU of {chip.name}"
            machine = Machine(cpu.name, 1, vcpus=chip.offer.vcpus, memory_gib=chip.offer.memory_gib)
            calibration = cpu_calibration()
        else:
            machine, calibration = Machine(chip.name, 1), builtin()
        chips = chips_of(load().accelerators)
        if machine.accelerator not in chips and not machine.vcpus:
            return None, f"no peak of {chip.name} is known"
        known = chip_of(machine, chips)
        profile = trace(source.module, inputs, name=source.name, source="fusion migrate")
        seconds = forward_time(known, profile, precision, batch, calibration).total_s
        return calibration.model(known.name, precision, profile).interval(seconds), ""
    except PerformanceError as error:
        return None, str(error)


def prediction_said(chip: Target, precision: str, batch: int, found: Interval | None, why_not: str) -> list[str]:
    """One line."""
    if found is None:
        return [f"no prediction for {chip.name}: {why_not}"]
    return [
        f"predicted for {chip.name}, not measured: {found.value * 1e3:.3g} ms a batch of {batch} in {precision} "
        f"({found.low * 1e3:.3g} to {found.high * 1e3:.3g})"
    ]


def compile_command(chip: Target, manifest: Manifest, url: str, precision: str, batch: int) -> str:
    """What the chip's own compiler must still make, as a command; empty where nothing is."""
    shapes = {each.name: each.shape for each in manifest.inputs}
    zeros = ", ".join(f"torch.zeros({batch}, {', '.join(map(str, shape))})" for shape in shapes.values())
    program = f"torch.export.load('{url}/program.pt2')"
    match chip.kind:
        case "nvidia" if any(each.format == "onnx" for each in manifest.artifacts):
            ranges = " ".join(
                f"--{which}Shapes={','.join(f'{n}:{rows}x' + 'x'.join(map(str, s)) for n, s in shapes.items())}"
                for which, rows in (("min", 1), ("opt", batch), ("max", 4 * batch))
            )
            return f"  trtexec --onnx={url}/model.onnx --saveEngine={url}/model.plan --{precision} {ranges}"
        case "neuron":
            made = f"torch_neuronx.trace({program}.module(), ({zeros},))"
            return f"  python -c \"import torch, torch_neuronx; torch.jit.save({made}, '{url}/model.neuron.pt')\""
        case "tpu" if not any(each.format == "stablehlo" for each in manifest.artifacts):
            fixed = f"torch.export.export({program}.module(), ({zeros},))"
            made = "from torch_xla.stablehlo import exported_program_to_stablehlo as convert"
            return f"  python -c \"import torch; {made}; convert({fixed}).save('{url}/stablehlo')\""
        case _:
            return ""
