"""What a run tells while it works: an endpoint for Prometheus, and a progress bar on a terminal.

Both read the meter when they are asked, in threads of their own; the loop does nothing for them.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec

import torch
from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from workloads.training.logs import Log
from workloads.training.measure import Meter
from workloads.training.world import World

_BAR_SECONDS = 0.5
"""Between two looks at the meter: each costs the loop Python's lock for a moment."""


class Metrics(Collector):
    """One process's meter in Prometheus's words; names end in their unit."""

    def __init__(self, run: str, meter: Meter, world: World, flops_per_sample: float | None, peak_flops: float) -> None:
        self._run, self._meter, self._world = run, meter, world
        self._flops_per_sample, self._peak_flops = flops_per_sample, peak_flops

    def collect(self) -> Iterator[Metric]:
        """The numbers of now; samples are of all ranks, seconds and memory of this one."""
        meter = self._meter
        yield self._counter("fusion_training_steps", "Steps that this process made.", meter.steps)
        yield self._counter("fusion_training_samples", "Samples of those steps, over all ranks.", meter.samples)
        parts = CounterMetricFamily(
            "fusion_training_part_seconds", "Where the time of the steps went.", labels=("run", "part")
        )
        for part, seconds in meter.seconds_of.items():
            parts.add_metric((self._run, part), seconds)
        yield parts
        if (rate := meter.samples_per_second_now) is not None:
            yield self._gauge("fusion_training_samples_per_second", "Over the last 100 steps.", rate)
            if self._flops_per_sample and self._peak_flops:
                share = rate * self._flops_per_sample / (self._peak_flops * self._world.size)
                yield self._gauge("fusion_training_model_flops_utilisation_ratio", "MFU over those steps.", share)
        if meter.loss is not None:
            yield self._gauge("fusion_training_loss", "Of the last step, this rank's part.", meter.loss.item())
        if self._world.device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(self._world.device)
            yield self._gauge("fusion_training_device_memory_peak_bytes", "Most that tensors held.", memory)

    def _counter(self, name: str, text: str, value: float) -> Metric:
        family = CounterMetricFamily(name, text, labels=("run",))
        family.add_metric((self._run,), value)
        return family

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, text, labels=("run",))
        family.add_metric((self._run,), value)
        return family


@contextlib.contextmanager
def exposed(metrics: Metrics, port: int, log: Log) -> Iterator[None]:
    """Answer Prometheus at `/metrics` meanwhile; a port that is taken is a warning and ends no run."""
    registry = CollectorRegistry()
    registry.register(metrics)
    ProcessCollector(registry=registry)
    try:
        server, thread = start_http_server(port, registry=registry)
    except OSError as error:
        log.warning("metrics_off", port=port, reason=error.strerror or str(error))
        yield
        return
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def progress_bar(meter: Meter, done_before: int, steps: int) -> Iterator[None]:
    """On a terminal, a bar of all steps, the rate, and how long it will take, below what the log says."""
    if not sys.stderr.isatty() or find_spec("rich") is None:  # the containers leave it out
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    bar = Progress(
        *columns,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
        redirect_stdout=sys.stdout.isatty(),  # else what goes to a file would come to the terminal
        transient=True,
    )
    task = bar.add_task("training", total=steps, completed=done_before, rate="")
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(_BAR_SECONDS):
            rate = meter.samples_per_second_now
            said = "" if rate is None else f"{rate:,.0f} samples/s"
            bar.update(task, completed=done_before + meter.steps, rate=said)
            bar.refresh()

    thread = threading.Thread(target=follow, name="progress", daemon=True)
    with bar:
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
