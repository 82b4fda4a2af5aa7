"""`fusion calibrate`: measure this machine, or take what a training run measured, so that predictions rest on it."""

from __future__ import annotations

import re
from pathlib import Path

import click

from fusion.errors import FusionError
from fusion.measured_run import read_report, stored_run
from planner.calibration.own import FOLDER, own_calibrations, why_not_used
from planner.calibration.store import Calibration


@click.command(name="calibrate")
@click.option("--run", "run_url", help="a finished training run's folder in its bucket, instead of this machine")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N")
@click.option(
    "--name",
    default="this-machine",
    show_default=True,
    help="what was measured: an accelerator or a CPU instance type of the catalog, whose plans then rest on it",
)
@click.option("--precision", "precisions", multiple=True, help="fp32, bf16 or fp16; may be repeated.  [default: fp32]")
@click.option(
    "--threads", type=click.IntRange(1, 10_000), help="of the processors  [default: as many as PyTorch takes]"
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="[default: calibrations/NAME.json in the checkout, where plans find it]",
)
def command(
    run_url: str | None,
    device: str,
    name: str,
    precisions: tuple[str, ...],
    threads: int | None,
    output: Path | None,
) -> None:
    """Measure this machine for the planner's predictions: about half a minute, best with nothing else running.

    With --run, take what a training run measured beside what its plan predicted, and correct further predictions of
    the same model on the same machines by it.
    """
    if run_url is not None:
        _take_run(run_url, output)
    else:
        _measure(device, name, precisions, threads, output)


def _measure(device: str, name: str, precisions: tuple[str, ...], threads: int | None, output: Path | None) -> None:
    """Measure this machine and store what it does."""
    try:
        import torch

        from planner.calibration.measure import DTYPES, measure
        from workloads.serving.allocator import keep_freed_memory
    except ModuleNotFoundError as error:
        raise FusionError(
            f"measuring needs {error.name}, which is not installed; install fusion[train,serve,dev]"
        ) from None
    chosen = precisions or ("fp32",)
    if unknown := [precision for precision in chosen if precision not in DTYPES]:
        raise FusionError(f"--precision is {unknown[0]}; it must be one of {', '.join(DTYPES)}")
    if not re.fullmatch(r"[\w. -]{1,100}", name):
        raise FusionError(f"--name is {name!r}; it may have letters, digits, dots, spaces and hyphens")
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", device):
        raise FusionError(f"--device is {device!r}; it must be cpu, cuda or cuda:N")
    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed_memory()
    try:
        calibration = measure(device, name, chosen, lambda what: click.echo(f"measuring: {what}", err=True))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise FusionError(
            f"--device {device} can't be measured: {reason}; name a device that PyTorch has here"
        ) from None
    path = output or FOLDER / f"{name}.json"
    try:
        calibration.write(path)
    except OSError as error:
        raise FusionError(f"--output {path} can't be written: {error.strerror}; name another file") from None
    for line in _lines(calibration, chosen):
        click.echo(line)
    click.echo(f"stored in {path}")
    own_calibrations.cache_clear()
    if note := _note(path, calibration):
        click.echo(f"note: {note}", err=True)


def _take_run(url: str, output: Path | None) -> None:
    """Store a training run's row."""
    run = read_report(url)
    path = stored_run(run, url, output)
    click.echo(
        f"{run.profile} in {run.precision} on {run.devices} × {run.machine}: {run.samples_per_s:,.5g} samples/s "
        f"measured; a step takes {run.step_ratio:.3g} times what the model predicts"
    )
    click.echo(f"stored in {path}")
    own_calibrations.cache_clear()


def _note(path: Path, calibration: Calibration) -> str:
    """Why no plan rests on what was stored; empty where plans do."""
    elsewhere = path.resolve().parent != FOLDER.resolve()
    usual = f"plans rest on what lies in {FOLDER}; put it there to use it" if elsewhere else ""
    return why_not_used(path, calibration) or usual


def _lines(calibration: Calibration, precisions: tuple[str, ...]) -> list[str]:
    """What was found, in a reader's units."""
    machine, serving = calibration.machine, calibration.serving
    if machine is None or serving is None:
        raise FusionError("nothing was measured")
    lines = [f"matrix products in {p}: {machine.peak_flops[p] / 1e9:,.1f} GFLOP/s" for p in precisions]
    lines.append(f"memory: {machine.memory_bandwidth_bytes_per_s / 1e9:,.1f} GB/s")
    lines.append(f"launch: {calibration.gemms[precisions[0]].shared['launch_s'] * 1e6:.1f} µs")
    for precision in calibration.host:
        ratio = calibration.gemms[precision].measured_ratio[machine.name]
        lines.append(f"nets timed whole, in {precision}: {ratio.low:.2f} to {ratio.high:.2f} times the prediction")
    threads = (serving.http, serving.loop, serving.model)
    request_s, batch_s = sum(each.request_s for each in threads), sum(each.batch_s for each in threads)
    lines.append(
        f"server: {request_s * 1e6:.0f} µs a request, of it {serving.loop.request_s * 1e6:.0f} µs on the event loop, "
        f"{batch_s * 1e6:.0f} µs a batch, {serving.wake_ups_s * 1e6:.0f} µs of waiting for threads to wake up"
    )
    return lines
