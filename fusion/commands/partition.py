"""`fusion partition`: a model that runs in part on an edge device and in part in the cloud."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusion.commands.export import FORMATS, NEEDS_EXTRA, as_url, source_of, source_options
from fusion.errors import FusionError

if TYPE_CHECKING:
    from workloads.partition.plan import Estimate, SplitPlan, Watts
    from workloads.partition.planning import Profiler
    from workloads.serving.export import Source

HELD_OUT_ROWS = 512
DEVICE = "what `measure` wrote there, an accelerator of the catalog (predicted), or `here` to measure this machine"


@contextmanager
def _in_one_sentence() -> Iterator[None]:
    try:
        from planner.performance.checks import PerformanceError
        from workloads.config import ConfigError
        from workloads.models import ModelError
        from workloads.serving.package import PackageError
        from workloads.storage import StorageError
    except ModuleNotFoundError as error:
        raise FusionError(NEEDS_EXTRA.format(error.name)) from None
    try:
        yield
    except ModuleNotFoundError as error:
        raise FusionError(NEEDS_EXTRA.format(error.name)) from None
    except (ConfigError, ModelError, PackageError, PerformanceError, StorageError) as error:
        raise FusionError(str(error)) from None


def _held_out_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option(
            "--held-out",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE.npz",
            help="Arrays `input` and, where they are known, `labels`.  [default: with --run, its own test split]",
        ),
        click.option(
            "--pixel-scale",
            type=click.FloatRange(0, min_open=True),
            metavar="255",
            help="The inputs are 8-bit pixels ÷ this.  [default: with --run, as its data set says]",
        ),
    ):
        command = option(command)
    return source_options(command)


def _watts(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    if value is None:
        return None
    try:
        found = tuple(float(each) for each in value.split(","))
    except ValueError:
        found = ()
    if len(found) != 3 or not all(0 < each < 1e6 for each in found):
        raise click.BadParameter(f"got {value!r}; expected watts while it computes, waits and sends, such as 10,2,4")
    return found


_watts_option = click.option(
    "--edge-watts",
    callback=_watts,
    metavar="COMPUTE,IDLE,SEND",
    help="Take the way with the least energy of the edge device, of these watts.  [default: the least latency]",
)
_threads_option = click.option("--threads", type=click.IntRange(1, 1024), default=1, show_default=True)


@click.group(name="partition")
def command() -> None:
    """Split a model between an edge device and the cloud, and answer by the best way at every moment."""


@command.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_held_out_options
@click.option("--name", default="this-machine", show_default=True, help="Of the device.")
@_threads_option
def measure(
    file: Path, held_out: Path | None, pixel_scale: float | None, name: str, threads: int, **model: Any
) -> None:
    """Measure on this device what each layer of a model takes, into FILE, for `plan`.

    Run it on the edge device and on the cloud's machine, with nothing else running.
    """
    with _in_one_sentence():
        import torch

        from workloads.partition import devices
        from workloads.partition.layers import layers_of
        from workloads.serving.export import traced

        source = _source(model, held_out, pixel_scale)
        rows = list(source.inputs.values())
        layers = layers_of(traced(source, [each[:2] for each in rows]))
        profile = devices.measured(layers, [torch.from_numpy(each[:1]) for each in rows], name=name, threads=threads)
    try:
        file.write_text(profile.model_dump_json(indent=1))
    except OSError as error:
        raise FusionError(f"{file}: can't be written: {error.strerror}") from None
    click.echo(f"{name}: {len(profile.layers)} layers, {sum(profile.seconds) * 1e3:.3g} ms a row; in {file}")


@command.command()
@click.argument("url", metavar="PLAN_URL")
@_held_out_options
@click.option("--edge", default="here", show_default=True, metavar="FILE|ACCELERATOR|here", help=f"The edge: {DEVICE}.")
@click.option(
    "--cloud", default="here", show_default=True, metavar="FILE|ACCELERATOR|here", help="The cloud, likewise."
)
@click.option("--mbit-per-s", type=click.FloatRange(0.001, 1e6), required=True, help="Of the link.")
@click.option("--rtt-ms", type=click.FloatRange(0, 60_000), required=True, help="Round trip of the link.")
@_watts_option
@click.option(
    "--loss-max", type=click.FloatRange(0, 1), default=0.01, show_default=True, help="Of accuracy, by coding."
)
@click.option("--name", help="The model's name in the server.  [default: the model's own]")
@click.option("--version", default="1", show_default=True)
@click.option("--format", "formats", type=click.Choice(FORMATS), multiple=True, help="Beside the PyTorch program.")
@click.option(
    "--slo-ms", type=click.FloatRange(0, min_open=True), default=1000, show_default=True, help="Of the server."
)
@_threads_option
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
def plan(
    url: str,
    held_out: Path | None,
    pixel_scale: float | None,
    edge: str,
    cloud: str,
    mbit_per_s: float,
    rtt_ms: float,
    edge_watts: tuple[float, float, float] | None,
    loss_max: float,
    name: str | None,
    version: str,
    formats: tuple[Any, ...],
    slo_ms: float,
    threads: int,
    as_json: bool,
    **model: Any,
) -> None:
    """Find the cuts worth having, compare them on a link, and write the packages of both sides.

    PLAN_URL is a folder (s3://, gs://, file://, or a path) without a plan: it gets plan.json, the edge's and the
    cloud's packages, and a serving.yaml for the cloud's server.
    """
    with _in_one_sentence():
        from planner.performance.link import Link
        from workloads.partition.plan import estimates, ranked
        from workloads.partition.planning import Settings, make_plan

        source = _source(model, held_out, pixel_scale)
        watts = _as_watts(edge_watts)
        settings = Settings(name or source.name, version, loss_max, formats, slo_ms, threads, watts)
        profilers = _profiler(edge, threads), _profiler(cloud, threads)
        made = make_plan(source, as_url(url), *profilers, settings, say=lambda line: click.echo(line, err=True))
        found = ranked(estimates(made.ways, Link(mbit_per_s * 125e3, rtt_ms / 1e3)), watts)
    if as_json:
        click.echo(json.dumps([_as_dict(each, watts) for each in found], indent=1))
        return
    for line in _table(made, found, watts):
        click.echo(line)
    click.echo(f"the cloud's server: FUSION_SPLIT_URL={as_url(url)} fusion serve --config serving.yaml (of {url})")
    click.echo(f"the edge's client: fusion partition run {url} --server http://HOST:8080")


@command.command()
@click.argument("url", metavar="PLAN_URL")
@click.option("--server", required=True, metavar="http://HOST:PORT", help="Which serves the plan's serving.yaml.")
@click.option(
    "--slo-ms", type=click.FloatRange(0, min_open=True), default=1000, show_default=True, help="Of a request."
)
@click.option("--requests", type=click.IntRange(1, 10**6), default=100, show_default=True)
@click.option("--held-out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.npz", help="Array `input`.")
@_watts_option
@_threads_option
def run(
    url: str,
    server: str,
    slo_ms: float,
    requests: int,
    held_out: Path | None,
    edge_watts: tuple[float, float, float] | None,
    threads: int,
) -> None:
    """Answer requests here and in the cloud, one after another, and say which way each took and how long.

    A program of your own uses workloads.partition.client.SplitClient likewise.
    """
    with _in_one_sentence():
        from workloads.partition.client import SplitClient
        from workloads.serving.server import cache_folder

        client = SplitClient(
            as_url(url),
            server,
            slo_s=slo_ms / 1e3,
            threads=threads,
            cache=cache_folder(),
            watts=_as_watts(edge_watts),
        )
        rows = client.example if held_out is None else [_arrays(held_out)[0]]
        link = client.meter.link()
        seen = f"{link.bytes_per_s / 125e3:,.3g} Mbit/s, round trip {link.round_trip_s * 1e3:.3g} ms"
        click.echo(
            f"the edge's parts: {client.edge_bytes / 2**20:,.1f} MiB; link: "
            f"{seen if client.is_cloud_usable else 'the cloud does not answer'}"
        )
        start, seconds = time.perf_counter(), []
        ways: Counter[str] = Counter()
        for number in range(requests):
            at = number % len(rows[0])
            answer = client.infer([each[at : at + 1] for each in rows])
            seconds.append(answer.seconds)
            ways[f"{answer.way}{' (stood in for the cloud)' if answer.is_stand_in else ''}"] += 1
        client.close()
    seconds.sort()
    p50, p99 = seconds[len(seconds) // 2], seconds[min(len(seconds) - 1, int(len(seconds) * 0.99))]
    click.echo(
        f"{requests} requests in {time.perf_counter() - start:.2f} s: p50 {p50 * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms"
    )
    for way, count in ways.most_common():
        click.echo(f"  {count:6}  {way}")
    if client.last_error:
        click.echo(f"the cloud failed last with: {client.last_error}", err=True)


def _source(model: dict[str, Any], held_out: Path | None, pixel_scale: float | None) -> Source:
    source = source_of(**model, rows=HELD_OUT_ROWS)
    if held_out is not None:
        inputs, labels = _arrays(held_out)
        (name, expected), *others = source.inputs.items()
        if others or inputs.shape[1:] != expected.shape[1:] or inputs.dtype != expected.dtype or len(inputs) < 2:
            raise FusionError(
                f"--held-out {held_out}: input is {inputs.dtype} {inputs.shape}; expected {expected.dtype} of "
                f"2 rows or more of {expected.shape[1:]}"
            )
        if labels is not None and labels.shape != (len(inputs),):
            raise FusionError(f"--held-out {held_out}: labels are {labels.shape}; expected ({len(inputs)},)")
        source = dataclasses.replace(source, inputs={name: inputs}, labels=labels)
    return dataclasses.replace(source, scale=pixel_scale) if pixel_scale is not None else source


def _arrays(file: Path) -> tuple[Any, Any]:
    import numpy as np

    try:
        with np.load(file, allow_pickle=False) as arrays:
            return arrays["input"], arrays.get("labels")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise FusionError(f"--held-out {file}: {error}; expected an .npz with an array `input`") from None


def _profiler(device: str, threads: int) -> Profiler:
    from planner.calibration.store import builtin
    from planner.catalog import load
    from planner.machines import chips_of
    from workloads.partition import devices

    if device == "here":
        return lambda layers, inputs: devices.measured(layers, inputs, name="this-machine", threads=threads)
    if Path(device).exists():
        profile = devices.read_device(Path(device))
        return lambda _, __: profile
    chips = chips_of(load().accelerators)
    if device not in chips:
        raise FusionError(f"{device}: no such file, and no accelerator of the catalog; expected {DEVICE}")
    chip = chips[device]
    precision = next(each for each in ("fp16", "bf16", "fp32") if each in chip.peak_flops)
    return lambda layers, inputs: devices.predicted(layers, inputs, chip, precision, builtin())


def _as_watts(edge_watts: tuple[float, float, float] | None) -> Watts | None:
    from workloads.partition.plan import Watts

    return None if edge_watts is None else Watts(*edge_watts)


def _as_dict(each: Estimate, watts: Watts | None) -> dict[str, Any]:
    found = {
        "way": each.label,
        "kind": each.way.kind,
        "latency_ms": each.latency_s * 1e3,
        "edge_ms": each.edge_s * 1e3,
        "encode_ms": each.encode_s * 1e3,
        "link_ms": each.link_s * 1e3,
        "cloud_ms": each.cloud_s * 1e3,
        "sent_bytes": each.way.zstd_bytes if each.is_compressed else each.way.request_bytes,
        "loss": each.way.loss,
    }
    return found if watts is None else {**found, "edge_joules": each.joules(watts)}


def _table(made: SplitPlan, found: list[Estimate], watts: Watts | None) -> Iterator[str]:
    width = max(len(each.label) for each in found)
    for side, device in (("edge", made.edge), ("cloud", made.cloud)):
        yield f"{side}: {device.name}, {device.source}, {sum(device.seconds) * 1e3:.3g} ms a row for the whole model"
    yield f"loss: by {made.judged_by}, {made.held_out_rows} held-out rows"
    joules = "" if watts is None else "   edge J"
    yield f"{'way':{width}}  total ms    edge  encode    link   cloud  sent KiB    loss{joules}"
    for each in found:
        told = _as_dict(each, watts)
        times = "".join(f"{told[part]:8.2f}" for part in ("edge_ms", "encode_ms", "link_ms", "cloud_ms"))
        energy = "" if watts is None else f"{told['edge_joules']:9.3f}"
        yield (
            f"{each.label:{width}}  {told['latency_ms']:8.2f}{times}{told['sent_bytes'] / 1024:10.1f}"
            f"{told['loss']:8.4f}{energy}"
        )
    for reason in made.left_out:
        yield f"left out: {reason}"
