"""`fusion export`: a trained model → a package that `fusion serve` can serve."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusion.errors import FusionError

if TYPE_CHECKING:
    from workloads.serving.export import Source
    from workloads.serving.package import Format

IN_CONTAINERS = {"tensorrt": "L4", "neuron": "inf2"}
"""Formats whose compilers run only beside their chips, with one of these."""
FORMATS = ("pytorch", "onnx", "openvino", "aotinductor", "stablehlo")
NEEDS_EXTRA = "exporting needs {}, which is not installed; install fusion[serve,train]"

SOURCE_OPTIONS = (
    click.option("--run", metavar="URL", help="Of a finished training run: its outputs.url."),
    click.option(
        "--model", metavar="NAME|MODULE:FACTORY", help="A registered model of images, or a factory of your own."
    ),
    click.option("--program", metavar="URL", help="A file that torch.export.save wrote."),
    click.option("--shape", metavar="3x32x32", help="With --model: of one input, without the batch."),
    click.option("--classes", type=click.IntRange(2), help="With --model."),
    click.option("--arguments", default="{}", help="With --model: further arguments of the factory, as JSON."),
    click.option(
        "--weights", metavar="URL", help="With --model: a file of its state_dict.  [default: initial weights]"
    ),
)


def source_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which model is meant; `source_of` takes them."""
    for option in reversed(SOURCE_OPTIONS):
        command = option(command)
    return command


def source_of(
    run: str | None,
    model: str | None,
    program: str | None,
    shape: str | None,
    classes: int | None,
    arguments: str,
    weights: str | None,
    rows: int | None = None,
) -> Source:
    """The model that the options name; of a run, with so many rows that it has not seen.

    Raises:
        FusionError: not one model is named, or an option is wrong.
        PackageError, ModelError, StorageError: it can't be had.
    """
    if sum(each is not None for each in (run, model, program)) != 1:
        raise FusionError("expected one of --run, --model and --program")
    from workloads.serving import sources

    if run is not None:
        return sources.of_run(as_url(run), rows or sources.SELF_TEST_ROWS)
    if program is not None:
        return sources.of_program(as_url(program))
    assert model is not None
    if shape is None or classes is None:
        raise FusionError("--model: expected --shape and --classes with it")
    return sources.of_factory(
        model,
        shape=sizes(shape),
        classes=classes,
        arguments=json_object(arguments),
        weights=weights and as_url(weights),
    )


@click.command(name="export")
@click.argument("url", metavar="PACKAGE_URL")
@source_options
@click.option("--name", help="The model's name in the server.  [default: the model's own]")
@click.option("--version", default="1", show_default=True, help="A package never changes; a new one is a new version.")
@click.option(
    "--format",
    "formats",
    type=click.Choice((*FORMATS, *IN_CONTAINERS)),
    multiple=True,
    help="What to make beside the PyTorch program; repeatable.  [default: all but stablehlo, which needs "
    "FUSION_XLA_PYTHON; aotinductor takes a minute]",
)
@click.option("--absolute", type=click.FloatRange(0), default=1e-4, show_default=True, help="Allowed error.")
@click.option("--relative", type=click.FloatRange(0, 1), default=1e-3, show_default=True, help="And of its value.")
def command(
    url: str,
    name: str | None,
    version: str,
    formats: tuple[Format, ...],
    absolute: float,
    relative: float,
    **source: Any,
) -> None:
    """Export a model into a package: every format that serves it, checksums, its inputs and outputs, a self-test.

    PACKAGE_URL is a folder (s3://, gs://, file://, or a path) that holds no package yet. Give one of --run, --model and
    --program. Each format is run here on the self-test's inputs first, and refused where its outputs differ. A format
    that can't say the model is left out, unless --format names it.
    """
    refuse_foreign(formats)
    try:
        from pydantic import ValidationError

        from workloads.models import ModelError
        from workloads.serving.export import FORMATS as ALL
        from workloads.serving.export import export
        from workloads.serving.package import PackageError, Tolerance
        from workloads.storage import StorageError
    except ModuleNotFoundError as error:
        raise FusionError(NEEDS_EXTRA.format(error.name)) from None

    try:
        found = source_of(**source)
        manifest = export(
            found,
            as_url(url),
            name=name or found.name,
            version=version,
            formats=formats or ALL,
            tolerance=Tolerance(absolute=absolute, relative=relative),
            say=lambda line: click.echo(f"  {line}"),
            leave_out=None if formats else lambda why: click.echo(f"  left out: {why}"),
        )
    except (PackageError, ModelError, StorageError) as error:
        raise FusionError(str(error)) from None
    except ValidationError as error:
        problem = error.errors()[0]
        raise FusionError(f"--{problem['loc'][0]}: got {problem['input']!r}; {problem['msg']}") from None
    click.echo(f"{manifest.name} {manifest.version} is in {as_url(url)}; serve it: fusion serve {url}")


def refuse_foreign(formats: Iterable[str]) -> None:
    """Pass where all formats are made here.

    Raises:
        FusionError: one is compiled elsewhere.
    """
    for each in formats:
        if chip := IN_CONTAINERS.get(each):
            raise FusionError(
                f"--format: {each} is compiled in the container of its chip, not here; fusion migrate --to {chip} "
                "makes what it is compiled from, and prints the command"
            )


def as_url(text: str) -> str:
    """A URL as it is; a path as a file:// URL."""
    return text.rstrip("/") if "://" in text else f"file://{Path(text).resolve()}"


def sizes(text: str) -> tuple[int, ...]:
    """``3x32x32`` → (3, 32, 32)."""
    parts = text.split("x")
    if not all(part.isascii() and part.isdigit() and 0 < int(part) <= 10**6 for part in parts):
        raise FusionError(f"--shape: got {text!r}; expected sizes such as 3x32x32")
    return tuple(map(int, parts))


def json_object(text: str, option: str = "--arguments") -> dict[str, object]:
    """A JSON object from the command line."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise FusionError(f'{option}: got {text!r}; expected a JSON object such as {{"hidden": 512}}')
    return found
