"""`fusion optimize`: a trained model → a smaller, faster package for a chip, if it stays accurate enough."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusion.commands.export import FORMATS, as_url, json_object
from fusion.errors import FusionError
from fusion.targets import Target, find

if TYPE_CHECKING:
    from workloads.optimization.measure import Measured
    from workloads.optimization.optimize import Aim, Asked, Result
    from workloads.optimization.quantization import Quantization
    from workloads.serving.package import Format
    from workloads.serving.sources import Trained

QUICK_FORMATS: tuple[Format, ...] = ("pytorch", "onnx", "openvino")
AIMS = ("size", "latency")
QUANTIZATIONS = ("int8-dynamic", "int8-static", "int8-qat", "int4-weights", "fp8")
NEEDS_EXTRA = "optimizing needs {}, which is not installed; install fusion[optimize,serve,train]"


@click.command(name="optimize")
@click.argument("url", metavar="PACKAGE_URL")
@click.option("--for", "target", required=True, metavar="NAME", help="A chip or instance type: L4, v5e, c7i.2xlarge.")
@click.option("--run", metavar="URL", help="Of a finished training run: its outputs.url.")
@click.option("--model", metavar="NAME|MODULE:FACTORY", help="With --weights and --data, in place of --run.")
@click.option("--weights", metavar="URL", help="With --model: a file of its state_dict.")
@click.option("--data", metavar="URL", help="With --model: the data set that it is trained and judged on.")
@click.option("--arguments", default="{}", help="With --model: further arguments of the factory, as JSON.")
@click.option("--distill", metavar="NAME|MODULE:FACTORY", help="Teach this model the answers, and go on with it.")
@click.option("--student-arguments", default="{}", help="With --distill: arguments of its factory, as JSON.")
@click.option("--prune", type=click.FloatRange(0, 0.95), default=0.0, help="Share of each layer's channels that goes.")
@click.option("--sparse-2-4", "sparse", is_flag=True, help="Two of each four weights become zero (NVIDIA Ampere on).")
@click.option(
    "--quantize",
    type=click.Choice(QUANTIZATIONS),
    multiple=True,
    help="What numbers become; int8-qat trains with it. Of several, the best by --aim is published.",
)
@click.option(
    "--aim",
    type=click.Choice(AIMS),
    default="size",
    show_default=True,
    help="What is to get less; what doesn't is not published.",
)
@click.option("--epochs", type=click.IntRange(1, 10_000), default=5, show_default=True, help="Of each training.")
@click.option("--learning-rate", type=click.FloatRange(0, 1, min_open=True), default=1e-3, show_default=True)
@click.option("--accuracy-min", type=click.FloatRange(0, 1), default=0.0, help="Nothing less accurate is published.")
@click.option(
    "--accuracy-drop-max",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="Nothing that lost more accuracy is published: 0.01 is one point.",
)
@click.option("--batch", type=click.IntRange(1, 4096), default=1, show_default=True, help="Rows whose latency counts.")
@click.option("--threads", type=click.IntRange(1, 1024), default=1, show_default=True, help="While measuring.")
@click.option("--version", default="1", show_default=True, help="Of the package.")
@click.option("--format", "formats", type=click.Choice(FORMATS), multiple=True, help="[default: all but aotinductor]")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the report there.")
def command(**given: Any) -> None:
    """Make a trained model smaller and faster for a chip, and say what that costs; publish it if it is good enough.

    PACKAGE_URL is a folder that holds no package yet. The methods are applied in the order of their options here. Size,
    latency (on this machine) and accuracy (on held-out data) are measured before and after, by each backend that
    serves the package. Below the allowed accuracy, or where what --aim names got no less, nothing is published, and the
    status is 1.
    """
    options = Options(**given)
    chip = find(options.target)
    refuse_report(options.json_file)
    refuse_no_method(options)
    refuse_senseless(chip, sparse=options.sparse, quantize=options.quantize, aim=options.aim)
    name, result = optimized(options)
    for line in (*table(result, options), *verdicts(result), *notes(chip, options)):
        click.echo(line)
    if options.json_file is not None:
        measured_with = {"for": chip.name, "batch": options.batch, "threads": options.threads}
        write_report(options.json_file, {**measured_with, **result.document()})
    if result.problem:
        raise FusionError(f"nothing was published: {result.problem}")
    published = "" if len(result.tried) == 1 or result.published is None else f" as {result.published.name}"
    click.echo(f"{name} {options.version} is in {as_url(options.url)}{published}; serve it: fusion serve {options.url}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says, each under its option's name above."""

    url: str
    target: str
    run: str | None
    model: str | None
    weights: str | None
    data: str | None
    arguments: str
    distill: str | None
    student_arguments: str
    prune: float
    sparse: bool
    quantize: tuple[Quantization, ...]
    aim: Aim
    epochs: int
    learning_rate: float
    accuracy_min: float
    accuracy_drop_max: float
    batch: int
    threads: int
    version: str
    formats: tuple[Format, ...]
    json_file: Path | None


def optimized(options: Options) -> tuple[str, Result]:
    """The model's name and what became of it; published if it is good enough.

    Raises:
        FusionError: a library is missing, or the model, the data or a method can't be used.
    """
    try:
        from workloads.models import ModelError
        from workloads.optimization.optimize import Floor, optimize
        from workloads.optimization.sparsity import OptimizationError
        from workloads.serving.package import PackageError
        from workloads.storage import StorageError

        try:
            trained = trained_model(options)
            result = optimize(
                trained,
                asked(options),
                as_url(options.url),
                version=options.version,
                floor=Floor(options.accuracy_min, options.accuracy_drop_max),
                batch=options.batch,
                threads=options.threads,
                formats=options.formats or QUICK_FORMATS,
                say=lambda line: click.echo(f"  {line}"),
            )
        except (PackageError, ModelError, StorageError, OptimizationError) as error:
            raise FusionError(str(error)) from None
    except ModuleNotFoundError as error:
        raise FusionError(NEEDS_EXTRA.format(error.name)) from None
    return trained.name, result


def asked(options: Options) -> Asked:
    """The methods that the options name.

    Raises:
        FusionError: the student's arguments are no JSON object.
    """
    from workloads.optimization.optimize import Asked
    from workloads.optimization.tuning import Tuning

    student = None
    if options.distill is not None:
        student = options.distill, json_object(options.student_arguments, "--student-arguments")
    return Asked(
        student=student,
        prune=options.prune,
        sparse=options.sparse,
        quantize=tuple(dict.fromkeys(options.quantize)),
        aim=options.aim,
        tuning=Tuning(epochs=options.epochs, learning_rate=options.learning_rate),
    )


def refuse_report(file: Path | None) -> None:
    """Pass where a report can be written, or none is asked for.

    Raises:
        FusionError: its folder is not there.
    """
    if file is not None and not file.parent.is_dir():
        raise FusionError(f"--json {file}: there is no folder {file.parent}; make it first")


def write_report(file: Path, document: dict[str, Any]) -> None:
    """Write what `--json` asks for.

    Raises:
        FusionError: it can't be written.
    """
    try:
        file.write_text(json.dumps(document, indent=2) + "\n")
    except OSError as error:
        raise FusionError(f"--json {file}: can't be written: {error.strerror}") from None


def refuse_no_method(options: Options) -> None:
    """Pass where something is to be done to the model.

    Raises:
        FusionError: nothing is.
    """
    methods = {
        "--distill": options.distill,
        "--prune": options.prune,
        "--sparse-2-4": options.sparse,
        "--quantize": options.quantize,
    }
    if not any(methods.values()):
        raise FusionError(f"expected one or more of {', '.join(methods)}")


def refuse_senseless(chip: Target, *, sparse: bool, quantize: Sequence[str], aim: str) -> None:
    """Pass where the chip can use what is asked for.

    Raises:
        FusionError: it has no units for it; says what it has.
    """
    if aim == "latency" and chip.kind != "cpu":
        raise FusionError(
            f"--aim latency: what is measured on this machine's CPU says nothing of {chip.name}; expected size"
        )
    if sparse and not chip.has_sparse_units:
        raise FusionError(
            f"--sparse-2-4: {chip.name} can't skip the zeros; NVIDIA's GPUs can, from Ampere on (A10G, L4)"
        )
    of_gpus = [each for each in QUANTIZATIONS if each != "int4-weights" and (each != "fp8" or chip.has_fp8)]
    fitting = {"cpu": [each for each in QUANTIZATIONS if each != "fp8"], "nvidia": of_gpus}.get(chip.kind, [])
    unfit = next((each for each in quantize if each not in fitting), None)
    if unfit is None:
        return
    if not fitting:
        raise FusionError(
            f"--quantize {unfit}: {chip.name} takes no quantized PyTorch program; its compiler computes in bf16. "
            "Expected --distill or --prune"
        )
    raise FusionError(f"--quantize {unfit}: {chip.name} has no units for it; expected {', '.join(fitting)}")


def trained_model(options: Options) -> Trained:
    """The model that the options name.

    Raises:
        FusionError: neither --run nor all of --model, --weights and --data are given.
    """
    from workloads.serving import sources

    run, model, weights, data = options.run, options.model, options.weights, options.data
    if run is not None and model is None and weights is None and data is None:
        return sources.trained_by(as_url(run))
    if run is not None or model is None or weights is None or data is None:
        raise FusionError("expected --run, or --model with --weights and --data")
    arguments = json_object(options.arguments)
    return sources.of_weights(model, data_url=as_url(data), arguments=arguments, weights=as_url(weights))


def table(result: Result, options: Options) -> list[str]:
    """All packages by backend; the first of each is the one that would serve."""
    before, after = result.parameters
    lines = [
        f"measured on this machine's CPU: batches of {options.batch}, {options.threads} "
        f"thread{'s' * (options.threads > 1)}; accuracy on held-out data",
        f"{'':14}{'backend':16}{'bytes':>14}{'p50 ms':>10}{'p99 ms':>10}{'accuracy':>10}",
    ]
    for name, rows in (("before", result.before), *((each.name, each.measured) for each in result.tried)):
        lines += [_row(name if not place else "", each) for place, each in enumerate(rows)]
    lines.append(f"parameters {before:,} → {after:,}, of which {result.zeros:.0%} are zero")
    return lines


def _row(name: str, found: Measured) -> str:
    return f"{name:14}{found.backend:16}{found.bytes:14,}{found.p50_ms:10.3f}{found.p99_ms:10.3f}{found.accuracy:10.2%}"


def verdicts(result: Result) -> list[str]:
    """Of each package in words, by its smallest and its fastest backend: is it smaller, faster, as accurate."""
    lines = []
    for tried in result.tried:
        if not tried.measured:
            lines.append(f"{tried.name}: can't be made: {tried.problem}")
            continue
        small, smaller = (min(each, key=lambda one: one.bytes) for each in (result.before, tried.measured))
        fast, faster = result.before[0], tried.measured[0]
        worst = min(tried.measured, key=lambda each: each.accuracy)
        size = _compared(smaller.bytes / small.bytes, "smaller", "larger", "as large")
        speed = _compared(faster.p50_ms / fast.p50_ms, "faster", "slower", "about as fast", noise=0.05)
        lines.append(
            f"{tried.name}: {size} ({small.bytes:,} → {smaller.bytes:,} bytes), {speed} ({fast.p50_ms:.3f} ms by "
            f"{fast.backend} → {faster.p50_ms:.3f} by {faster.backend}), "
            f"accuracy {fast.accuracy:.2%} → {worst.accuracy:.2%}"
        )
    return lines


def _compared(ratio: float, less: str, more: str, same: str, noise: float = 0.0) -> str:
    """`3.6 times smaller`."""
    if abs(ratio - 1) <= noise:
        return same
    return f"{1 / ratio:.2f} times {less}" if ratio < 1 else f"{ratio:.2f} times {more}"


def notes(chip: Target, options: Options) -> Sequence[str]:
    """What the table can't show of the chip."""
    lines = []
    if chip.kind != "cpu":
        lines.append(f"{chip.name} was not here: sizes and accuracy hold there too, the latencies don't")
    if options.sparse:
        lines.append("the zeros are stored and computed here; TensorRT skips them on the GPU (--sparsity=enable)")
    return lines
