"""Measures what operations cost on this machine's own processors, for `planner.performance.host`. Needs torch.

Every probe is timed once a round, and the rounds' middle counts, so that a disturbance falls on few of a probe's times.
Whoever calls it has told the allocator to keep freed memory, as `fusion serve` does. With one thread the clock is the
processor's, which stands while other programs run.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from planner.performance.host import Curve, HostCosts, lone_convolution

ROUNDS = 15
LEAST_TIMING_S = 1e-3
FOOTPRINTS = tuple(2**power for power in (18, 20, 21, 22, 23, 24, 25, 26, 27))
"""Bytes that are touched between two uses of the same weights: from what a core's cache holds to what none does."""
ROW_SHAPE = (1024, 256)
"""k and n of the products whose weights are taken in turn; 1 MiB in fp32."""
UNALIGNED_K = 960
SPOILER_SHAPE = (512, 256)
CALLS = 8
MANY_ROWS = 256
FEW_ROWS = 16
PRODUCT_KS = (64, 256, 1024, 4096)
CONVOLUTIONS = ((1, 32, 3, 32), (3, 64, 3, 24), (64, 64, 1, 16), (16, 32, 3, 16), (64, 64, 3, 16), (128, 128, 3, 8))
"""Channels in and out, filter and side of the image; k from 9 to 1,152."""
TURNS, TURNS_BYTES = 64, 2**22
"""Most inputs that a probe whose branches depend on them has in turn, and their bytes together."""
MOVED_BYTES = tuple(2**power for power in (14, 16, 18, 20, 22, 24, 26))


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing to time: its name, a call, and how many operations that call is."""

    name: tuple[object, ...]
    call: Callable[[], object]
    count: int = 1


def measure_host(dtype: torch.dtype) -> HostCosts:
    """Costs of this machine's processors at one precision, with as many threads as torch has now."""
    times: dict[tuple[object, ...], float] = {}
    for probes in (_call_probes, _product_probes, _convolution_probes, _move_probes):
        times |= _timed(list(probes(dtype)))
    return _costs(times, dtype)


def _timed(probes: list[Probe]) -> dict[tuple[object, ...], float]:
    """Middle seconds of one operation of each probe."""
    inner, now = {}, clock()
    for probe in probes:
        probe.call()
        began = now()
        probe.call()
        inner[probe.name] = max(1, math.ceil(LEAST_TIMING_S / max(now() - began, 1e-7)))
    seconds: dict[tuple[object, ...], list[float]] = {probe.name: [] for probe in probes}
    for _ in range(ROUNDS):
        for probe in probes:
            probe.call()  # what the probe before left in the caches is gone
            began = now()
            for _ in range(inner[probe.name]):
                probe.call()
            seconds[probe.name].append((now() - began) / inner[probe.name] / probe.count)
    return {name: statistics.median(each) for name, each in seconds.items()}


def clock() -> Callable[[], float]:
    """Seconds that work on the processors is timed by: the thread's own where it is the only one, since another
    program's turn is no part of them; the wall's otherwise."""
    return time.thread_time if torch.get_num_threads() == 1 else time.perf_counter


def _call_probes(dtype: torch.dtype) -> Iterable[Probe]:
    """Operations so small that only the call counts, each after one that leaves little of it in the core's caches."""
    spoiler = nn.Linear(*SPOILER_SHAPE, bias=False, dtype=dtype)
    between = torch.ones(1, SPOILER_SHAPE[0], dtype=dtype)

    def spoiled(net: nn.Sequential, inputs: torch.Tensor) -> None:
        for module in net:
            module(inputs)
            spoiler(between)

    def chain(make: Callable[[], nn.Module], inputs: torch.Tensor, name: str) -> Probe:
        net = nn.Sequential(*(make() for _ in range(CALLS))).to(dtype).eval()
        return Probe(("launch", name), lambda: spoiled(net, inputs), CALLS)

    row, image = torch.ones(1, 8, dtype=dtype), torch.ones(1, 4, 4, 4, dtype=dtype)
    yield chain(lambda: nn.Linear(8, 8), row, "gemm")
    yield chain(lambda: nn.Conv2d(4, 4, 3, padding=1), image, "lone conv")
    yield chain(lambda: nn.Conv2d(4, 4, 3, padding=1), image.expand(2, -1, -1, -1), "conv")
    yield chain(nn.ReLU, row, "elementwise")
    yield chain(nn.GELU, row, "heavy")
    yield chain(lambda: nn.MaxPool2d(3, stride=1, padding=1), image, "reduction")
    yield chain(lambda: nn.LayerNorm(8), row, "normalisation")
    yield chain(_Attention, torch.ones(1, 2, 4, 8, dtype=dtype), "attention")
    yield chain(lambda: nn.Embedding(8, 8), torch.zeros(1, 1, dtype=torch.int64), "embedding")
    yield chain(nn.Identity, row, "nothing")
    idle = nn.Sequential(*(nn.Identity() for _ in range(8)))
    yield Probe(("pass",), lambda: idle(row))


class _Attention(nn.Module):
    """Of each sequence to itself."""

    def forward(self, heads: torch.Tensor) -> torch.Tensor:
        return functional.scaled_dot_product_attention(heads, heads, heads)


def _product_probes(dtype: torch.dtype) -> Iterable[Probe]:
    """Products of one row and of few with weights in turn, of many rows by k, and fused attention."""
    k, n = ROW_SHAPE
    for depth, rows in ((k, 1), (k, FEW_ROWS), (UNALIGNED_K, FEW_ROWS)):
        layers = [torch.randn(n, depth, dtype=dtype) for _ in range(FOOTPRINTS[-1] // (k * n * dtype.itemsize))]
        inputs = torch.randn(rows, depth, dtype=dtype)
        for footprint in FOOTPRINTS:
            turn = layers[: max(1, footprint // (k * n * dtype.itemsize))]
            weights = [layer[: footprint // (k * dtype.itemsize)] for layer in turn]
            yield Probe(("rows", depth, rows, footprint), _products(inputs, weights), len(weights))
    for k in PRODUCT_KS:
        weight = torch.randn(n, k, dtype=dtype)
        for rows in (MANY_ROWS, 2 * MANY_ROWS):
            yield Probe(("product", k, rows), _products(torch.randn(rows, k, dtype=dtype), [weight]))
    heads = torch.randn(4, 4, 128, 32, dtype=dtype)
    yield Probe(("attention",), lambda: functional.scaled_dot_product_attention(heads, heads, heads))


def _products(inputs: torch.Tensor, weights: list[torch.Tensor]) -> Callable[[], object]:
    def call() -> None:
        for weight in weights:
            functional.linear(inputs, weight)

    return call


def _convolution_probes(dtype: torch.dtype) -> Iterable[Probe]:
    """Each at two numbers of images, so that what does not grow with them falls out."""
    for inside, outside, side, pixels in CONVOLUTIONS:
        layer = nn.Conv2d(inside, outside, side, padding=side // 2, dtype=dtype)
        for images in (1, 2, 8):
            yield Probe(
                ("conv", inside, outside, side, pixels, images),
                _applied(layer, torch.randn(images, inside, pixels, pixels, dtype=dtype)),
            )


def _applied(module: nn.Module, inputs: torch.Tensor) -> Callable[[], object]:
    return lambda: module(inputs)


def _move_probes(dtype: torch.dtype) -> Iterable[Probe]:
    """Operations that only move data; by the bytes that they read and write."""
    for moved in MOVED_BYTES:
        numbers = moved // dtype.itemsize
        flat = torch.randn(numbers // 2, dtype=dtype)
        yield Probe(("move", "elementwise", moved), _applied(nn.ReLU(), flat))
        yield Probe(("move", "heavy", moved), _applied(nn.GELU(), flat))
        rows = torch.randn(numbers // 128, 64, dtype=dtype)  # 64 numbers a row: read, and written
        yield Probe(("move", "normalisation", moved), _applied(nn.LayerNorm(64, dtype=dtype), rows))
        # 16 × 16 images; values and their places are written: a quarter of the numbers each. Ones that the processor
        # has not just seen: it would remember which of the numbers are largest
        shape, turns = (max(1, int(numbers / 1.5) // 256), 1, 16, 16), max(1, min(TURNS, TURNS_BYTES // moved))
        images = [torch.randn(shape, dtype=dtype).relu_() for _ in range(turns)]
        yield Probe(("move", "reduction", moved), _in_turn(nn.MaxPool2d(2), images), turns)


def _in_turn(module: nn.Module, inputs: list[torch.Tensor]) -> Callable[[], object]:
    def call() -> None:
        for each in inputs:
            module(each)

    return call


def _costs(times: dict[tuple[object, ...], float], dtype: torch.dtype) -> HostCosts:
    size = dtype.itemsize
    nothing = times["launch", "nothing"]
    launch = {str(name[1]): _above(seconds - nothing) for name, seconds in times.items() if name[0] == "launch"}
    k, n = ROW_SHAPE
    flops = {
        depth: 2.0 * MANY_ROWS * n * depth
        / _above(times["product", depth, 2 * MANY_ROWS] - times["product", depth, MANY_ROWS])
        for depth in PRODUCT_KS
    }  # fmt: skip
    call_s = launch["gemm"] / 2  # the probes call the function, not a module
    row: list[float] = []
    packing: list[float] = []
    unaligned: list[float] = []
    for footprint in FOOTPRINTS:
        width = min(n, footprint // (k * size))
        row.append(_above(times["rows", k, 1, footprint] - call_s) / (width * k * size))
        for depth, costs in ((k, packing), (UNALIGNED_K, unaligned)):
            few = times["rows", depth, FEW_ROWS, footprint] - call_s - 2.0 * FEW_ROWS * width * depth / flops[1024]
            costs.append(_above(few) / (width * depth * size))
    moves = {}
    for kind in ("elementwise", "heavy", "normalisation", "reduction"):
        at = launch[kind]
        moves[kind] = Curve(
            at=MOVED_BYTES, cost=tuple(_above(times["move", kind, moved] - at) / moved for moved in MOVED_BYTES)
        )
    return HostCosts.model_validate(
        {
            "threads": torch.get_num_threads(),
            "launch_s": launch,
            "pass_s": times["pass",],
            "row_s_per_byte": Curve(at=FOOTPRINTS, cost=tuple(row)),
            "packing_s_per_byte": Curve(at=FOOTPRINTS, cost=tuple(unaligned)),
            "aligned_packing_s_per_byte": Curve(at=FOOTPRINTS, cost=tuple(packing)),
            "product_flops": Curve(at=PRODUCT_KS, cost=tuple(flops.values())),
            "attention_flops": 4.0 * 4 * 4 * 128 * 128 * 32 / _above(times["attention",] - launch["attention"]),
            **_convolutions(times, launch, dtype),
            "move_s_per_byte": moves,
        }
    )


def _convolutions(
    times: dict[tuple[object, ...], float], launch: dict[str, float], dtype: torch.dtype
) -> dict[str, object]:
    """FLOP/s by k, and seconds by byte of the filters."""
    size = dtype.itemsize
    rates, lone, reorders = {}, {}, []
    for inside, outside, side, pixels in CONVOLUTIONS:
        depth = inside * side * side
        one, few, more = (times["conv", inside, outside, side, pixels, images] for images in (1, 2, 8))
        work = 2.0 * depth * outside * pixels * pixels
        rates[depth] = 6 * work / _above(more - few)
        if lone_convolution(1, inside * pixels * pixels, side):
            lone[depth] = work / _above(one - launch["lone conv"])
        reorders.append((few - 2 * work / rates[depth] - launch["conv"], depth * outside * size))
    weights_s, weights = (sum(each) for each in zip(*(pair for pair in reorders if pair[1] > 2**16), strict=True))
    depths = sorted(rates)
    return {
        "convolution_flops": Curve(at=tuple(depths), cost=tuple(rates[depth] for depth in depths)),
        "lone_convolution_flops": Curve(at=tuple(sorted(lone)), cost=tuple(lone[depth] for depth in sorted(lone))),
        "convolution_s_per_weight_byte": max(0.0, weights_s / weights),
    }


def _above(value: float) -> float:
    """A measured difference that noise may have made negative."""
    return max(value, 1e-12)
