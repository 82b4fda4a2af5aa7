"""Measure the machine or chip this runs on. Needs torch.

Of an accelerator: matrix products, convolutions, bandwidth, launches. Its own peaks are what it was seen to reach, so
its efficiency is 1 by definition and what remains is the shape of the work. Of the machine's own processors: the
curves of `planner.calibration.host`, and what a server costs (`planner.calibration.loopback`).
"""

from __future__ import annotations

import datetime
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from planner.calibration.fit import ratios
from planner.calibration.host import clock, measure_host
from planner.calibration.loopback import measure_serving
from planner.calibration.store import Calibration, GemmFit, MeasuredChip, MeasuredOn, Ratios
from planner.performance.chip import Chip
from planner.performance.gemm import GemmParameters, gemm_time
from planner.performance.host import host_time
from planner.profiles.trace import trace

REPEATS = 9
WORST_RATIO = Ratios(low=0.5, high=2.0)
GEMM_SHAPES = tuple(
    (m, n, k) for m in (1, 2, 4, 16, 64, 512) for n, k in ((256, 1024), (1024, 1024), (256, 16384), (2048, 2048))
)
NOT_CACHED_BYTES = 192 * 2**20
"""More than the last-level cache of an accelerator holds: 126 MB of a B200, 50 MB of an H100."""
MOST_TURNS = 24
CACHE_SHARE = 0.6
"""Of the last-level cache, that a working set can count on: it is shared, and not perfectly associative."""
CHECKS: tuple[tuple[Callable[[], nn.Module], tuple[int, ...]], ...] = (
    (
        lambda: nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 64, 100),
        ),
        (3, 16, 16),
    ),
    (lambda: nn.Sequential(nn.Linear(600, 800), nn.ReLU(), nn.Linear(800, 800), nn.GELU(), nn.Linear(800, 10)), (600,)),
)
"""Nets and the shape of their inputs, whose whole passes are the measure of the prediction."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def measure(device: str, name: str, precisions: tuple[str, ...], told: Callable[[str], None] = print) -> Calibration:
    """A calibration of this machine's `device` (cpu or cuda) under that name; takes under a minute.

    Args:
        told: hears what is being measured.
    """
    torch.manual_seed(0)
    with torch.inference_mode():
        measured = _processors(name, precisions, told) if device == "cpu" else _chip(device, name, precisions, told)
    told("the server")
    return measured.model_copy(update={"serving": measure_serving(sorted(os.sched_getaffinity(0)))})


def _calibration(device: str, name: str, **fields: Any) -> Calibration:
    on = _measured_on(device)
    return Calibration(
        name=name,
        measured_at=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%MZ"),
        place=_describe(on),
        measured_on=on,
        **fields,
    )


def _processors(name: str, precisions: tuple[str, ...], told: Callable[[str], None]) -> Calibration:
    """Of this machine's own processors, with as many threads as torch has now."""
    hosts = {}
    for precision in precisions:
        told(f"operations in {precision}")
        hosts[precision] = measure_host(DTYPES[precision])
    bandwidth = _bandwidth_bytes_per_s("cpu")
    machine = MeasuredChip(
        name=name,
        peak_flops={p: max(hosts[p].product_flops.cost) for p in precisions},
        memory_bandwidth_bytes_per_s=bandwidth,
        memory_bytes=_memory_bytes("cpu"),
    )
    bare = _calibration(
        "cpu",
        name,
        source="fusion calibrate: middle of fifteen rounds of timed operations of each class",
        split=f"none of the operations: the interval is of {len(CHECKS)} nets that were timed whole afterwards",
        gemms={},
        convolution_measured=True,
        machine=machine,
        host=hosts,
    )
    told("nets to check the prediction")
    return bare.model_copy(update={"gemms": {p: _checked(bare, p) for p in precisions}})


def _checked(calibration: Calibration, precision: str) -> GemmFit:
    """The interval: measured ÷ predicted times of the nets in `CHECKS`. The parameters are those of no other cost than
    the host's own, for what asks for a product's."""
    assert calibration.machine is not None
    name, host = calibration.machine.name, calibration.host[precision]
    measured = []
    for make, shape in CHECKS:
        net = make().to(DTYPES[precision]).eval()
        with torch.inference_mode(False):
            layers = trace(make(), partial(_inputs, shape), name="check", source="fusion calibrate")
        for batch in (1, 8, 32):
            inputs = torch.randn(batch, *shape, dtype=DTYPES[precision])
            predicted = host_time(host, layers, precision, batch)
            measured.append(_median_s(partial(net, inputs), "cpu") / predicted.total_s)
    shared = asdict(_parameters(launch_s=host.launch_s["gemm"]))
    return GemmFit(
        shared=shared,
        by_chip={name: shared},
        measured_ratio={name: Ratios(low=min(1.0, *measured), high=max(1.0, *measured))},
        transferred_ratio=WORST_RATIO,
    )


def _inputs(shape: tuple[int, ...], batch: int) -> list[torch.Tensor]:
    return [torch.empty(batch, *shape)]


def _chip(device: str, name: str, precisions: tuple[str, ...], told: Callable[[str], None]) -> Calibration:
    """Of an accelerator that torch has here."""
    told("launches and bandwidth")
    launch = _launch_s(device)
    bandwidth = _bandwidth_bytes_per_s(device)
    told("matrix products")
    rows = {
        p: [
            (shape, float(turns), _gemm_s(device, DTYPES[p], shape, turns))
            for shape in GEMM_SHAPES
            for turns in (1, _turns(DTYPES[p], shape))
        ]
        for p in precisions
    }
    peaks = {p: max(2.0 * math.prod(shape) / seconds for shape, _, seconds in rows[p]) for p in precisions}
    told("convolutions and other operations")
    cache = _cache_bytes(device)
    dtype = DTYPES[precisions[0]]
    deep, few = (_convolution_flops(device, dtype, channels) / peaks[precisions[0]] for channels in (64, 3))
    machine = MeasuredChip(
        name=name,
        peak_flops=peaks,
        memory_bandwidth_bytes_per_s=bandwidth,
        memory_bytes=_memory_bytes(device),
        l2_bytes=cache,
        l2_bandwidth_bytes_per_s=4 * bandwidth if cache else 0.0,
    )
    return _calibration(
        device,
        name,
        source="fusion calibrate: middle of nine timed matrix products, convolutions and copies",
        split="none: the interval is of the same rows",
        gemms={p: _fit(machine.chip(), p, rows[p], launch) for p in precisions},
        convolution_share=deep,
        convolution_share_few_channels=few,
        class_bandwidth_share={name: rate / bandwidth for name, rate in _class_rates(device, dtype).items()},
        convolution_measured=True,
        pass_overhead_s=_pass_overhead_s(device),
        machine=machine,
    )


def _fit(chip: Chip, precision: str, rows: list[tuple[tuple[int, int, int], float, float]], launch: float) -> GemmFit:
    """Overlap, tile, bandwidth and repacking constants on a coarse grid: those with the least mean error."""

    def errors(parameters: GemmParameters) -> list[float]:
        return [
            s / gemm_time(chip, precision, *shape, parameters, weight_copies=copies).total_s
            for shape, copies, s in rows
        ]

    choices = [
        _parameters(
            launch_s=launch, sharpness=p, tile_overhead=t, bandwidth_efficiency=b, repacking=r, cache_efficiency=c
        )
        for p in (1.0, 2.0, 8.0)
        for t in (0.5, 2.0, 6.0)
        for b in (0.35, 0.5, 0.7, 1.0, 1.4)
        for r in (0.0, 0.5, 1.0, 2.0, 4.0)
        for c in (0.1, 0.25, 0.35, 0.5, 1.0)
    ]
    best = min(choices, key=lambda c: statistics.fmean(abs(math.log(ratio)) for ratio in errors(c)))
    return GemmFit(
        shared=asdict(best),
        by_chip={chip.name: asdict(best)},
        measured_ratio={chip.name: ratios(errors(best))},
        transferred_ratio=WORST_RATIO,
    )


def _parameters(
    *,
    launch_s: float,
    sharpness: float = 1.0,
    tile_overhead: float = 0.0,
    bandwidth_efficiency: float = 1.0,
    repacking: float = 0.0,
    cache_efficiency: float = 1.0,
) -> GemmParameters:
    """Of one unit whose peaks are what it was seen to reach."""
    return GemmParameters(
        compute_efficiency=1.0,
        tile_overhead=tile_overhead,
        latency_s_per_k=1e-12,
        bandwidth_efficiency=bandwidth_efficiency,
        unit_bandwidth_share=1.0,
        cache_efficiency=cache_efficiency,
        launch_s=launch_s,
        wave_s=0.0,
        split_s=1e-3,
        sharpness=sharpness,
        exposed_write=0.0,
        write_cost=1.0,
        last_wave=1.0,
        repacking=repacking,
    )


def _median_s(work: Callable[[], object], device: str, repeats: int = REPEATS) -> float:
    """Middle seconds of one call; short calls are timed many at a time."""
    # without its name, the current device would be waited for
    wait: Callable[[], object] = partial(torch.cuda.synchronize, device) if device.startswith("cuda") else lambda: None
    now = clock() if device == "cpu" else time.perf_counter
    work()
    wait()
    began = now()
    work()
    wait()
    inner = max(1, min(200, int(2e-3 / max(now() - began, 1e-7))))
    times = []
    for _ in range(repeats):
        began = now()
        for _ in range(inner):
            work()
        wait()
        times.append((now() - began) / inner)
    return statistics.median(times)


def _launch_s(device: str) -> float:
    one = torch.ones(1, device=device)
    return _median_s(lambda: one + one, device)


def _bandwidth_bytes_per_s(device: str) -> float:
    """Bytes read and written by a copy that no cache holds."""
    source = torch.ones(64 * 2**20 // 4 if device == "cpu" else 2**28, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _median_s(lambda: target.copy_(source), device)


def _turns(dtype: torch.dtype, shape: tuple[int, int, int]) -> int:
    """Among how many products of a shape no cache holds one's weights until its next turn; at most `MOST_TURNS`."""
    m, n, k = shape
    return min(MOST_TURNS, math.ceil(NOT_CACHED_BYTES / ((n * k + m * k + m * n) * dtype.itemsize)))


def _gemm_s(device: str, dtype: torch.dtype, shape: tuple[int, int, int], turns: int) -> float:
    """One of so many products that take turns, each with its own weights."""
    m, n, k = shape
    layers = [nn.Linear(k, n, device=device, dtype=dtype) for _ in range(turns)]
    rows = [torch.randn(m, k, device=device, dtype=dtype) for _ in range(turns)]

    def every() -> None:
        for layer, inputs in zip(layers, rows, strict=True):
            layer(inputs)

    return _median_s(every, device) / turns


def _convolution_flops(device: str, dtype: torch.dtype, channels: int) -> float:
    """FLOP/s of a 3 × 3 convolution from that many channels to 64."""
    layer = nn.Conv2d(channels, 64, 3, padding=1, device=device, dtype=dtype)
    images = torch.randn(16, channels, 32, 32, device=device, dtype=dtype)
    return 16 * 2.0 * 64 * channels * 9 * 32 * 32 / _median_s(lambda: layer(images), device)


def _class_rates(device: str, dtype: torch.dtype) -> dict[str, float]:
    """Bytes/s, read and written, of operations that only move data; their results are new memory, as in a model."""
    images = torch.randn(16, 64, 32, 32, device=device, dtype=dtype)
    pool, norm = nn.MaxPool2d(2), nn.LayerNorm(64, device=device, dtype=dtype)
    rows = images.view(-1, 64)
    return {
        "elementwise": 2 * images.nbytes / _median_s(lambda: torch.relu(images), device),
        "reduction": 1.75
        * images.nbytes
        / _median_s(lambda: pool(images), device),  # max-pool's indices are written too
        "normalisation": 3 * rows.nbytes / _median_s(lambda: norm(rows), device),
    }


def _pass_overhead_s(device: str) -> float:
    """What calling a module costs beside its operations."""
    net = nn.Sequential(*(nn.Identity() for _ in range(8)))
    one = torch.ones(1, device=device)
    return _median_s(lambda: net(one), device)


def _cache_bytes(device: str) -> float:
    """Of the last-level cache, less what else is in it; 0 where torch does not say."""
    if device.startswith("cuda"):
        return CACHE_SHARE * float(torch.cuda.get_device_properties(device).L2_cache_size)
    return 0.0


def _memory_bytes(device: str) -> float:
    if device.startswith("cuda"):
        return float(torch.cuda.get_device_properties(device).total_memory)
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _measured_on(device: str) -> MeasuredOn:
    return MeasuredOn(
        processor=_processor(),
        processors=os.cpu_count() or 1,
        accelerator=torch.cuda.get_device_name(device) if device.startswith("cuda") else None,
        torch=torch.__version__,
    )


def _processor() -> str:
    """As Linux calls it; its architecture where it has no name for it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _describe(on: MeasuredOn) -> str:
    chip = on.accelerator or f"{on.processors} CPUs ({on.processor}), {torch.get_num_threads()} threads"
    return f"{platform.system()} {platform.machine()}, {chip}, torch {on.torch}"
