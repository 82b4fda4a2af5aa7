"""What `fusion serve` does at three times the load that it can serve, and after it.

    python -m benchmarks.serving_overload [--times 3] [--seconds 20] [--slo-ms 250] [--json PATH]

A convolutional model on small inputs (768 bytes), so that the client, which shares this machine's processors with the server,
can send several times what the model can do. First a closed loop measures the capacity; then requests of all priorities are
due at a constant rate whatever the server does, their latency counts from when they were due; then a closed loop measures how
fast the capacity is back. Every answer is compared with the local forward. Refusals are timed from when they were sent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import uvloop
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.serving import free_port
from benchmarks.serving_load import TOLERANCE, Connection, connect
from workloads.models.fusionnet import FusionNet
from workloads.serving.export import Source, export

PRIORITIES = {1: 0.2, 2: 0.3, 3: 0.5}
"""Shares of the requests."""
INPUTS, CLASSES, CLIENTS, BATCH_MAX = 64, 10, 32, 16
SAMPLE_S, SETTLE_S = 0.25, 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=float, default=3, help="of the capacity")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--slo-ms", type=float, default=250)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="overload-benchmark-") as place:
        inputs, answers = prepare(Path(place))
        with serving(Path(place), asked.slo_ms) as (port, pid):
            client = Client(port, pid, [each.tobytes() for each in inputs], answers)
            found = uvloop.run(measured(client, asked.times, asked.seconds))
    show(found, asked.times, asked.slo_ms)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


def prepare(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Export the model; its inputs, and the right answers."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Upsample(scale_factor=12), FusionNet(shape=(3, 96, 96), classes=CLASSES)).eval()
    inputs = np.random.default_rng(1).random((INPUTS, 3, 8, 8), dtype=np.float32)
    export(
        Source(model, {"input": inputs[:4]}), f"file://{folder}/package", name="model", version="1", formats=("onnx",)
    )
    with torch.no_grad():
        return inputs, model(torch.from_numpy(inputs)).numpy()


@contextmanager
def serving(folder: Path, slo_ms: float) -> Iterator[tuple[int, int]]:
    """A server: its port and process id."""
    port, log = free_port(), folder / "log"
    model = {"versions": [{"package": f"file://{folder}/package"}], "slo_ms": slo_ms, "batch_max": BATCH_MAX}
    model["backends"] = ["onnxruntime"]
    config = folder / "serving.yaml"
    config.write_text(json.dumps({"host": "127.0.0.1", "port": port, "device": "cpu", "models": [model]}))
    environment = dict(os.environ) | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder)}
    command = [sys.executable, "-m", "workloads.serving", "--config", str(config)]
    process = subprocess.Popen(command, env=environment, stdout=log.open("w"), stderr=subprocess.STDOUT)
    try:
        while '"ready"' not in log.read_text():
            if process.poll() is not None:
                sys.exit(f"the server ended: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


@dataclass
class Client:
    """Asks, and keeps what it was told."""

    port: int
    pid: int
    bodies: list[bytes]
    answers: np.ndarray
    outcomes: list[tuple[int, int, float, float]] = field(default_factory=list)
    """Priority, status (0: none came), seconds since it was due, and since it was sent."""
    wrong: int = 0
    resident_mib: list[float] = field(default_factory=list)
    _free: list[Connection] = field(default_factory=list)

    async def ask(self, number: int, priority: int, due_s: float) -> None:
        """Send one request when it is called, and keep its outcome."""
        body = self.bodies[number % INPUTS]
        head = f"POST /v2/models/model/raw HTTP/1.1\r\nhost: x\r\nfusion-priority: {priority}\r\ncontent-length: {len(body)}"
        sent_s = time.perf_counter()
        try:
            connection = self._free.pop() if self._free else await connect(self.port)
            status, answer = await connection.ask(f"{head}\r\n\r\n".encode() + body)
        except OSError:
            self.outcomes.append((priority, 0, 0.0, 0.0))
            return
        end_s = time.perf_counter()
        if not connection.transport.is_closing():
            self._free.append(connection)
        self.outcomes.append((priority, status, end_s - due_s, end_s - sent_s))
        if status == 200:
            expected = self.answers[number % INPUTS]
            self.wrong += not np.allclose(np.frombuffer(answer, np.float32), expected, atol=TOLERANCE)

    async def closed(self, seconds: float) -> float:
        """Answers a second that a closed loop gets."""
        self.outcomes = []
        start, end = time.perf_counter(), time.perf_counter() + seconds

        async def one(number: int) -> None:
            while time.perf_counter() < end:
                await self.ask(number, 2, time.perf_counter())
                number += CLIENTS

        await asyncio.gather(*(one(number) for number in range(CLIENTS)))
        return sum(status == 200 for _, status, _, _ in self.outcomes) / (time.perf_counter() - start)

    async def opened(self, per_second: float, seconds: float) -> None:
        """Requests at a constant rate."""
        self.outcomes = []
        drawn = random.Random(0).choices(list(PRIORITIES), list(PRIORITIES.values()), k=int(per_second * seconds))
        tasks, start = set(), time.perf_counter()
        for number, priority in enumerate(drawn):
            due = start + number / per_second
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            task = asyncio.ensure_future(self.ask(number, priority, due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    async def watch_memory(self) -> None:
        """Sample the server's resident memory until it is cancelled."""
        while True:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
            self.resident_mib.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
            await asyncio.sleep(SAMPLE_S)


async def measured(client: Client, times: float, seconds: float) -> dict[str, Any]:
    await client.closed(2)
    capacity = await client.closed(5)
    await client.opened(capacity * times, 2)  # what it allocates for more requests at once, it does once
    watching = asyncio.ensure_future(client.watch_memory())
    await client.opened(capacity * times, seconds)
    watching.cancel()
    found: dict[str, Any] = {"capacity": capacity, "asked": len(client.outcomes) / seconds, "wrong": client.wrong}
    found["priorities"] = {priority: summary(client.outcomes, priority, seconds) for priority in PRIORITIES}
    found["refused_ms"] = quantiles([sent for _, status, _, sent in client.outcomes if status == 429])
    found["lost"] = sum(status == 0 for _, status, _, _ in client.outcomes)
    found["resident_mib"] = [client.resident_mib[0], max(client.resident_mib), client.resident_mib[-1]]
    found["after"] = [await client.closed(SETTLE_S / 2), await client.closed(SETTLE_S)]
    return found


def summary(outcomes: list[tuple[int, int, float, float]], priority: int, seconds: float) -> dict[str, Any]:
    mine = [each for each in outcomes if each[0] == priority]
    return {
        "asked": len(mine) / seconds,
        "statuses": {str(status): count / seconds for status, count in Counter(each[1] for each in mine).items()},
        "answered_ms": quantiles([due for _, status, due, _ in mine if status == 200]),
    }


def quantiles(seconds: list[float]) -> list[float]:
    """p50, p99 and the longest, in milliseconds."""
    return [float(each) * 1e3 for each in np.percentile(seconds, [50, 99, 100])] if seconds else []


def show(found: dict[str, Any], times: float, slo_ms: float) -> None:
    table = Table(title=f"{found['asked']:,.0f} requests/s, {times:g} times the capacity of {found['capacity']:,.0f}")
    for title in (
        "priority",
        "asked/s",
        "answered/s",
        "refused/s (429)",
        "late/s (503)",
        "p50 ms",
        "p99 ms",
        "longest ms",
    ):
        table.add_column(title, justify="right")
    for priority, each in found["priorities"].items():
        rates = [each["asked"], *(each["statuses"].get(status, 0.0) for status in ("200", "429", "503"))]
        table.add_row(str(priority), *(f"{rate:,.1f}" for rate in rates), *(f"{ms:.0f}" for ms in each["answered_ms"]))
    console = Console()
    console.print(table)
    console.print(
        f"SLO {slo_ms:g} ms. Refusals: p50, p99, longest " + ", ".join(f"{ms:.1f}" for ms in found["refused_ms"])
    )
    first, most, last = found["resident_mib"]
    console.print(f"Resident MiB at the start, most, at the end: {first:.1f}, {most:.1f}, {last:.1f}")
    console.print(f"Lost: {found['lost']}. Wrong: {found['wrong']}.")
    console.print(
        "Closed loop in the first second after it, and the two seconds after that: "
        + ", ".join(f"{rate:,.0f}" for rate in found["after"])
    )


if __name__ == "__main__":
    main()
