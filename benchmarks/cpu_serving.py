"""FusionNet on this machine's processors, predicted and measured: `python -m benchmarks.cpu_serving [--json FILE]`.

Each round calibrates (`fusion calibrate` in a process of its own, which never runs FusionNet), then measures FusionNet
at 8 × 8 and 32 × 32: batches of 1 to 64 in fresh processes, and a batching server on loopback (one processor for it,
the other for the client): answers by second of its processor's time with more requests than it can answer, and
responses at 30, 60 and 80 % of its predicted capacity under a Poisson stream. With one thread a batch's time is its
processor's too: another program's turn is no part of it. The client sends when a request is due, whatever was answered
before, and a response counts from when it was due (open loop: no coordinated omission). Streams are short; one in which the kernel let server or client wait for a processor (its own count of that,
/proc/PID/schedstat, and what the hypervisor took) longer than `DISTURBED` of its time was another program's doing, and
is not counted. Where too few are left, or the rounds' middle half is wider than `NOISE`, there is no verdict. The
rounds' middle counts.

Where the system grants it (it does to root), everything runs as a real-time process, so that other programs wait;
caches and memory are still shared with them. `--keep-memory` tells glibc to keep freed memory, in calibration,
measurement and server alike. Needs torch and two processors; a round takes about a minute and a half.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from planner.calibration.host import clock
from planner.calibration.loopback import ANSWER_BYTES, Answer, start_server
from planner.calibration.store import Calibration, read_calibration
from planner.performance import InferenceLoad, predict_inference
from planner.performance.inference import on_loopback
from planner.performance.roofline import forward_time
from planner.profiles.model import profile
from workloads.models.fusionnet import FusionNet

Row = dict[str, Any]
SIDES = (8, 32)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
BATCH_MAX = 16
SHARES = (0.3, 0.6, 0.8)
STREAM_S, SETTLING = 0.5, 0.2
"""Of one stream, and the share of it that passes before responses count."""
DISTURBED = 0.004
PATIENCE = 4
"""Times the seconds asked for, until undisturbed streams are waited for."""
LEAST_RESPONSES = 500
IMAGES = 64
"""Random ones, that requests have in turn: of blank ones a pass takes a third less, since pooling always guesses right."""
NOISE = 0.2
WITHIN = 0.2
CALIBRATE = "from fusion.commands.calibrate import command; command()"
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "-1"}


def answers(side: int) -> Answer:
    """FusionNet's classes for a batch of images, flat."""
    torch.manual_seed(0)
    model = FusionNet(shape=(3, side, side), classes=10).eval()

    def answer(numbers: torch.Tensor) -> Sequence[int]:
        classes: list[int] = model(numbers.view(-1, 3, side, side)).argmax(1).tolist()
        return classes

    answer(torch.randn(BATCH_MAX, 3 * side * side))
    return answer


def batch_times(side: int, seconds: float) -> dict[int, float]:
    """Middle seconds of one pass by batch, of the processor where one thread runs; call it in a fresh process."""
    torch.manual_seed(0)
    model = FusionNet(shape=(3, side, side), classes=10).eval()
    found, now = {}, clock()
    with torch.inference_mode():
        for batch in BATCHES:
            turns = [torch.randn(batch, 3, side, side) for _ in range(max(4, IMAGES // batch))]
            for images in turns[:3]:
                model(images)
            times, end = [], time.perf_counter() + seconds
            while time.perf_counter() < end or len(times) < 7:
                images = turns[len(times) % len(turns)]
                began = now()
                model(images)
                times.append(now() - began)
            found[batch] = statistics.median(times)
    return found


def responses(
    client: socket.socket, images: Sequence[bytes], due_s: Sequence[float], window: int | None = None
) -> list[float]:
    """Seconds from when each request is due until its answer; `window` bounds how many are under way."""
    pending, sent, answered, rest = b"", 0, 0, 0
    found: list[float] = []
    began = time.perf_counter()
    while answered < len(due_s):
        now = time.perf_counter() - began
        free = window is None or sent - answered < window
        if not pending and free and sent < len(due_s) and now >= due_s[sent]:
            pending, sent = images[sent % len(images)], sent + 1
        if pending:
            with contextlib.suppress(BlockingIOError):
                pending = pending[client.send(pending) :]
        try:
            rest += len(client.recv(65_536))
        except BlockingIOError:
            continue
        now = time.perf_counter() - began
        while rest >= ANSWER_BYTES:
            found.append(now - due_s[answered])
            answered, rest = answered + 1, rest - ANSWER_BYTES
    return found


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """When requests are due."""
    draw, due = random.Random(seed).expovariate, [0.0]
    while due[-1] < seconds:
        due.append(due[-1] + draw(rate))
    return due


def served(side: int, calibration: Calibration, seed: int, seconds: float) -> Iterator[Row]:
    """The server, predicted and measured."""
    assert calibration.machine is not None
    assert calibration.serving is not None
    chip, size = calibration.machine.chip(), 3 * side * side * 4
    load = functools.partial(
        InferenceLoad, profile(f"fusionnet-{side}"), precision="fp32", batch_max=BATCH_MAX, request_bytes=size
    )

    def predicted(rate: float) -> Any:
        return predict_inference(chip, on_loopback(load(requests_per_s=rate), calibration.serving), calibration)

    capacity = predicted(1.0).capacity_per_s.value
    server = start_server(functools.partial(answers, side), size, BATCH_MAX, {1}, 1)
    count = max(100, int(capacity * STREAM_S))
    images = [torch.randn(3 * side * side).numpy().tobytes() for _ in range(IMAGES)]
    try:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.setblocking(False)

            def answered_per_s() -> float:
                began = server.processor_s()
                responses(client, images, [0.0] * count, window=4 * BATCH_MAX)
                return count / (server.processor_s() - began)

            def stream(rate: float, number: int) -> list[float]:
                due = poisson(rate, STREAM_S, 1000 * seed + number)
                return responses(client, images, due)[int(SETTLING * len(due)) :]

            rates = [answered_per_s() for _ in range(math.ceil(seconds / STREAM_S))]
            yield pair(f"{side}: throughput (1/s)", capacity, statistics.median(rates))
            for share in SHARES:
                rate = share * capacity
                found = sorted(undisturbed(server.process.pid, seconds, functools.partial(stream, rate)))
                for name, quantile in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
                    expected = getattr(predicted(rate), f"{name}_s").value
                    measured = found[int(quantile * len(found))] if len(found) >= LEAST_RESPONSES else None
                    yield pair(f"{side}: {name} at {share:.0%} of capacity", expected, measured)
    finally:
        server.stop()


def undisturbed(server: int | None, seconds: float, stream: Callable[[int], list[float]]) -> list[float]:
    """What streams measure that together last `seconds` and that no other program disturbed."""
    found: list[float] = []
    end, left = time.perf_counter() + PATIENCE * seconds, seconds
    number = 0
    while left > 0 and time.perf_counter() < end:
        waited, began = waited_s(server), time.perf_counter()
        each = stream(number)
        took = time.perf_counter() - began
        if waited_s(server) - waited <= DISTURBED * took:
            found, left = found + each, left - took
        number += 1
    return found


def waited_s(server: int | None) -> float:
    """Seconds that server and client were ready and no processor was theirs, and that the hypervisor took."""
    nanoseconds = [int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) for pid in (server, "self")]
    stolen = int(Path("/proc/stat").read_text().split(maxsplit=9)[8])
    return sum(nanoseconds) / 1e9 + stolen / os.sysconf("SC_CLK_TCK")


def one_round(seed: int, seconds: float, threads: int) -> list[Row]:
    """Calibrate, then predict and measure every quantity."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "calibration.json"
        command = [sys.executable, "-c", CALIBRATE, "--threads", str(threads), "--output", str(path)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        calibration = read_calibration(path)
    assert calibration.machine is not None
    chip, rows = calibration.machine.chip(), []
    for side in SIDES:
        command = [sys.executable, "-m", "benchmarks.cpu_serving", "--threads", str(threads), "--batches", str(side)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        for batch, measured in json.loads(output).items():
            predicted = forward_time(chip, profile(f"fusionnet-{side}"), "fp32", int(batch), calibration).total_s
            rows.append(pair(f"{side}: batch of {batch}", predicted, measured))
    if threads == 1:
        mine = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {0})
        for side in SIDES:
            rows.extend(served(side, calibration, seed, seconds))
        os.sched_setaffinity(0, mine)
    return rows


def pair(what: str, predicted: float, measured: float | None) -> Row:
    """`measured` is None where every stream was disturbed."""
    return {"what": what, "predicted": predicted, "measured": measured}


def verdict(what: str, rounds: Sequence[Row]) -> Row:
    """The middle round by error, and how far the rounds are apart."""
    predicted = statistics.median(row["predicted"] for row in rounds)
    rounds = [row for row in rounds if row["measured"] is not None]
    if not rounds:
        nothing = {"measured": math.nan, "error": math.nan, "noise": math.nan}
        return {"what": what, "predicted": predicted, "verdict": "always disturbed"} | nothing
    errors = [math.log(row["predicted"] / row["measured"]) for row in rounds]
    measured = [row["measured"] for row in rounds]
    error = math.exp(statistics.median(errors)) - 1
    quarters = statistics.quantiles(measured, n=4, method="inclusive") if len(measured) > 1 else measured * 3
    noise = quarters[2] / quarters[0] - 1
    return {
        "what": what,
        "predicted": predicted,
        "measured": statistics.median(measured),
        "error": error,
        "noise": noise,
        "verdict": "too noisy" if noise > NOISE else "within" if abs(error) <= WITHIN else "beyond",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of serving, for each load and round")
    parser.add_argument("--threads", type=int, default=1, help="of a pass; the server is measured with one only")
    parser.add_argument("--keep-memory", action="store_true")
    parser.add_argument("--batches", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="keeps the rounds: those in the file count too")
    options = parser.parse_args()
    if options.batches:
        torch.set_num_threads(options.threads)
        if options.threads == 1:
            os.sched_setaffinity(0, {1})
        print(json.dumps(batch_times(options.batches, 0.3)))
        return
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    if options.keep_memory:
        os.environ |= KEEP_MEMORY
    rounds = json.loads(options.json.read_text()) if options.json and options.json.exists() else []
    for _ in range(options.rounds):
        rounds.append(one_round(len(rounds), options.seconds, options.threads))
        if options.json:
            options.json.write_text(json.dumps(rounds, indent=1) + "\n", encoding="utf-8")
    rows = [verdict(same[0]["what"], same) for same in zip(*rounds, strict=True)]
    print(f"{'what':30} {'predicted':>11} {'measured':>11} {'error':>7} {'noise':>6}  within {WITHIN:.0%}?")
    for row in rows:
        print(
            f"{row['what']:30} {row['predicted']:11.5g} {row['measured']:11.5g} {row['error']:+7.1%} "
            f"{row['noise']:6.0%}  {row['verdict']}"
        )


if __name__ == "__main__":
    main()
