"""`fusion calibrate`: measure this machine, so that predictions for it rest on what it does."""

from __future__ import annotations

from pathlib import Path

import click

from fusion.errors import FusionError


@click.command(name="calibrate")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N")
@click.option("--name", default="this-machine", show_default=True, help="the chip's name in predictions")
@click.option("--precision", "precisions", multiple=True, help="fp32, bf16 or fp16; may be repeated.  [default: fp32]")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="[default: calibration.json in the user's config folder]",
)
def command(device: str, name: str, precisions: tuple[str, ...], output: Path | None) -> None:
    """Measure this machine for the planner's predictions."""
    try:
        from planner.calibration.measure import DTYPES, measure
    except ModuleNotFoundError as error:
        raise FusionError(f"measuring needs {error.name}, which is not installed; install fusion[train,dev]") from None
    chosen = precisions or ("fp32",)
    if unknown := [precision for precision in chosen if precision not in DTYPES]:
        raise FusionError(f"--precision is {unknown[0]}; it must be one of {', '.join(DTYPES)}")
    try:
        calibration = measure(device, name, chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise FusionError(
            f"--device {device} can't be measured: {reason}; name a device that PyTorch has here"
        ) from None
    path = output or Path(click.get_app_dir("fusion")) / "calibration.json"
    calibration.write(path)
    machine = calibration.machine
    if machine is None:
        raise FusionError("nothing was measured")
    for precision, peak in machine.peak_flops.items():
        click.echo(f"matrix products in {precision}: {peak / 1e9:,.1f} GFLOP/s")
    click.echo(f"convolutions: {calibration.convolution_share:.0%} of that")
    click.echo(f"memory: {machine.memory_bandwidth_bytes_per_s / 1e9:,.1f} GB/s")
    click.echo(f"launch: {calibration.gemms[chosen[0]].shared['launch_s'] * 1e6:.1f} µs")
    click.echo(f"loopback round trip: {calibration.loopback_round_trip_s * 1e6:.1f} µs")
    click.echo(f"stored in {path}")
