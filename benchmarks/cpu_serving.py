"""`fusion serve` on this machine's processors, predicted and measured: `python -m benchmarks.cpu_serving [--json FILE]`.

Each round calibrates (`fusion calibrate` in a process of its own, which never runs the models below), then measures
FusionNet at 8 × 8 and 32 × 32 (`--models resnet-50` for that one): batches of 1 to 64 in fresh processes, and `fusion
serve` as a user starts it, eager and by ONNX Runtime, on loopback: answers a second of clients that are never idle
(capacity), and responses at 30, 60 and 80 % of that capacity under a Poisson stream. The client sends when a request is
due, whatever was answered before, on as many connections as that takes, and a response counts from when it was due (open
loop: no coordinated omission). Streams are short, and the rounds' middle counts.

The server has one processor to itself (`taskset`), as a container with a limit of one has; the client has another, or both
have both and the client sleeps while nothing is due (`--processors 2`).
Where there are two, other programs take their turns on both: `others` is their share of the processors' time, and a
stream in which it was above `DISTURBED` is not counted. Where too few are left, or the rounds' middle half is wider than
`NOISE`, there is no verdict.

"predicted" rests on the calibration alone. Rows of "passes measured" rest on the backend's own batch times, as the server
measures them when it starts, and on the calibration for what the server adds: ONNX Runtime's passes are not predicted.

Needs torch and two processors.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from planner.calibration.host import clock
from planner.calibration.loopback import poisson
from planner.calibration.store import Calibration, read_calibration
from planner.performance import InferenceLoad, Overloaded, predict_inference
from planner.performance.inference import batch_queue, on_server
from planner.performance.queueing import queue_times
from planner.performance.roofline import forward_time
from planner.profiles.model import profile
from workloads.serving.allocator import keep_freed_memory
from workloads.serving.backends import BACKENDS, Runtime
from workloads.serving.choosing import measure
from workloads.serving.export import export
from workloads.serving.package import open_package
from workloads.serving.sources import of_factory

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Served:
    """A model, and how it is served.

    Attributes:
        factory: of `workloads.models`.
        shape: of an image.
        classes: of an answer.
        batch_max: rows of the largest batch.
        batches: whose passes are timed.
        stream_s: seconds of one stream.
    """

    factory: str
    shape: tuple[int, int, int]
    classes: int
    batch_max: int
    batches: tuple[int, ...]
    stream_s: float

    @property
    def request_bytes(self) -> int:
        """Of one image."""
        return 4 * math.prod(self.shape)


MODELS = {
    "fusionnet-8": Served("fusionnet", (3, 8, 8), 10, 16, (1, 2, 4, 8, 16, 32, 64), 1.0),
    "fusionnet-32": Served("fusionnet", (3, 32, 32), 10, 16, (1, 2, 4, 8, 16, 32, 64), 1.0),
    "resnet-50": Served("resnet-50", (3, 224, 224), 1000, 4, (1, 2, 4), 20.0),
}
"""By their profiles' names."""
BACKEND_NAMES = ("eager", "onnxruntime")
SHARES = (0.3, 0.6, 0.8)
QUANTILES = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
SETTLING = 0.2
"""Of a stream, that passes before responses count."""
DISTURBED = 0.1
PATIENCE = 4
"""Times the seconds asked for, until undisturbed streams are waited for."""
LEAST_RESPONSES = 400
IMAGES = 64
"""Random ones, that requests have in turn: of blank ones a pass takes a third less, since pooling always guesses right."""
NOISE = 0.2
WITHIN = 0.2
SLO_MS = 60_000
"""Long enough that nothing is refused: a refusal would take the longest responses out of the count."""
CONNECTIONS = 2000
"""More are under way only where a stream is far above the capacity; what is due then waits, and its time counts."""
CLIENT, SERVER = 0, 1
"""Processors."""
STARTS_WITHIN_S = 120.0
CALIBRATE = "from fusion.commands.calibrate import command; command()"


def images(model: Served, count: int) -> np.ndarray:
    """(count, *shape)."""
    return np.random.default_rng(1).standard_normal((count, *model.shape), dtype=np.float32)


def batch_times(model: Served, seconds: float) -> dict[int, float]:
    """Middle seconds of one pass by batch, of the processor where one thread runs; call it in a fresh process."""
    torch.manual_seed(0)
    source = of_factory(model.factory, shape=model.shape, classes=model.classes, arguments={}, weights=None)
    module, found, now = source.module.eval(), {}, clock()
    with torch.inference_mode():
        for batch in model.batches:
            turns = [torch.randn(batch, *model.shape) for _ in range(max(4, IMAGES // batch))]
            for inputs in turns[:3]:
                module(inputs)
            times, end = [], time.perf_counter() + seconds
            while time.perf_counter() < end or len(times) < 7:
                inputs = turns[len(times) % len(turns)]
                began = now()
                module(inputs)
                times.append(now() - began)
            found[batch] = statistics.median(times)
    return found


def backend_times(model: Served, backend: str, url: str) -> list[float]:
    """Seconds of a batch of 1, 2, … of a package by a backend, as a server measures them; call it in a fresh process."""
    package = open_package(url, Path(url.removeprefix("file://")).with_name("cache"))
    forward = BACKENDS[backend].load(package, Runtime(threads=1))
    curves = [measure(forward, [images(model, IMAGES)], model.batch_max) for _ in range(5)]
    return [statistics.median(each.at(rows) for each in curves) for rows in range(1, model.batch_max + 1)]


def package_of(model: Served, folder: Path) -> str:
    """Its package's URL."""
    torch.manual_seed(0)
    source = of_factory(model.factory, shape=model.shape, classes=model.classes, arguments={}, weights=None)
    url = f"file://{folder}/package"
    export(source, url, name="model", version="1", formats=("onnx",))
    return url


@contextlib.contextmanager
def server(url: str, backend: str, model: Served, folder: Path, processors: int) -> Iterator[tuple[int, int]]:
    """`fusion serve` of a package on so many processors: its port and process."""
    fusion, log = Path(sys.executable).with_name("fusion"), folder / f"{backend}.log"
    its = str(SERVER) if processors == 1 else f"{CLIENT},{SERVER}"
    command = ["taskset", "--cpu-list", its, str(fusion), "serve", url, "--port", "0", "--backend", backend]
    command += ["--slo-ms", str(SLO_MS), "--batch-max", str(model.batch_max)]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder)}
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
    try:
        yield _port(log, process), process.pid
    finally:
        process.terminate()
        process.wait(30)


def _port(log: Path, process: subprocess.Popen[bytes]) -> int:
    end = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < end and process.poll() is None:
        for line in log.read_text().splitlines():
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("event") == "ready":
                return int(event["port"])
        time.sleep(0.1)
    sys.exit(f"fusion serve did not start: {log.read_text()[-2000:]}")


class Client:
    """Requests over keep-alive connections to one server, each connection with one under way."""

    def __init__(self, port: int, model: Served, *, sleeps: bool) -> None:
        self._sleeps = sleeps
        head = (
            f"POST /v2/models/model/raw HTTP/1.1\r\nhost: x\r\ncontent-length: {model.request_bytes}\r\n\r\n".encode()
        )
        self._requests = [head + each.tobytes() for each in images(model, IMAGES)]
        self._answer_bytes = 4 * model.classes
        self._port = port
        self._poll = select.epoll()
        self._all: dict[int, _Connection] = {}
        self._free: list[_Connection] = []

    def responses(self, due_s: Sequence[float], window: int = CONNECTIONS) -> list[float]:
        """Seconds from when each request is due until its answer; `window` bounds how many are under way."""
        found: list[float] = []
        sent, under_way, began = 0, 0, time.perf_counter()
        while len(found) < len(due_s):
            if sent < len(due_s) and under_way < window and time.perf_counter() >= began + due_s[sent]:
                self._send(self._requests[sent % IMAGES], began + due_s[sent])
                sent, under_way = sent + 1, under_way + 1
            self._wait(began + due_s[sent] if sent < len(due_s) and under_way < window else math.inf)
            for number, _ in self._poll.poll(0):
                connection = self._all[number]
                if connection.is_answered(self._answer_bytes):
                    found.append(time.perf_counter() - connection.due_s)
                    under_way -= 1
                    self._free.append(connection)
        return found

    def _wait(self, until_s: float) -> None:
        """Until an answer comes or a request is due; where the server has this processor too, asleep."""
        if self._sleeps:
            select.select([self._poll], [], [], min(1.0, max(0.0, until_s - time.perf_counter())))

    def _send(self, request: bytes, due_s: float) -> None:
        connection = self._free.pop() if self._free else self._connected()
        connection.due_s = due_s
        connection.socket.sendall(request)

    def _connected(self) -> _Connection:
        connected = _Connection(socket.create_connection(("127.0.0.1", self._port)))
        connected.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = connected.socket.fileno()
        self._all[number] = connected
        self._poll.register(number, select.EPOLLIN)
        return connected

    def close(self) -> None:
        """End all connections."""
        for each in self._all.values():
            each.socket.close()
        self._poll.close()


@dataclass(slots=True)
class _Connection:
    socket: socket.socket
    due_s: float = 0.0
    rest: bytes = field(default=b"")

    def is_answered(self, answer_bytes: int) -> bool:
        """Read what there is; whether the answer is whole."""
        self.rest += self.socket.recv(65_536)
        head = self.rest.find(b"\r\n\r\n")
        if head < 0:
            return False
        if self.rest[9:12] != b"200":
            sys.exit(f"the server answered {self.rest[:500]!r}")
        if len(self.rest) < head + 4 + answer_bytes:
            return False
        self.rest = b""
        return True


Predict = Callable[[float], tuple[float, float, float, float]]
"""Capacity, p50, p95 and p99 at a rate."""


def predictions(
    name: str, backend: str, calibration: Calibration, passes_s: Sequence[float], processors: int
) -> dict[str, Predict]:
    """By what they rest on."""
    model = MODELS[name]
    assert calibration.machine is not None
    assert calibration.serving is not None
    chip, costs = calibration.machine.chip(), calibration.serving

    def load(rate: float) -> InferenceLoad:
        asked = InferenceLoad(
            profile(name),
            rate,
            precision="fp32",
            batch_max=model.batch_max,
            network_bytes_per_s=1e30,  # copies through loopback are in the server's costs
            request_bytes=model.request_bytes,
        )
        return on_server(asked, costs, processors, threads=1)

    def by_calibration(rate: float) -> tuple[float, float, float, float]:
        found = predict_inference(chip, load(rate), calibration)
        return found.capacity_per_s.value, found.p50_s.value, found.p95_s.value, found.p99_s.value

    def by_passes(rate: float) -> tuple[float, float, float, float]:
        asked = load(rate)
        service = tuple(
            pass_s + asked.overhead_s_per_batch + rows * asked.overhead_s_per_request
            for rows, pass_s in enumerate(passes_s, start=1)
        )
        times, network = queue_times(batch_queue(asked, service)), asked.network_round_trip_s
        response = times.response
        return times.capacity_per_s, *(network + each for each in (response.p50_s, response.p95_s, response.p99_s))

    measured = {f"{name} {backend}, passes measured": by_passes}
    return {f"{name} {backend}": by_calibration} | measured if backend == "eager" else measured


def served(
    name: str,
    backend: str,
    url: str,
    folder: Path,
    calibration: Calibration,
    seed: int,
    seconds: float,
    processors: int,
) -> Iterator[Row]:
    """A server, predicted and measured."""
    model = MODELS[name]
    passes = json.loads(_fresh("--backend-times", name, backend, url))
    by = predictions(name, backend, calibration, passes, processors)
    with (
        server(url, backend, model, folder, processors) as (port, process),
        contextlib.closing(Client(port, model, sleeps=processors > 1)) as client,
    ):
        count = max(4 * model.batch_max, int(0.5 * model.stream_s / passes[0]))
        client.responses([0.0] * count, window=4 * model.batch_max)

        def answered_per_s() -> list[float]:
            began = time.perf_counter()
            client.responses([0.0] * count, window=4 * model.batch_max)
            return [count / (time.perf_counter() - began)]

        found, others = undisturbed(process, seconds, lambda number: answered_per_s())
        if not found:
            sys.exit(f"other programs took {others:.0%} of the two processors, more than {DISTURBED:.0%}, all the time")
        capacity = statistics.median(found)
        for what, predict in by.items():
            yield pair(f"{what}: capacity (1/s)", predict(1.0)[0], capacity, others)
        for share in SHARES:
            rate = share * capacity

            def stream(number: int, rate: float = rate, share: float = share) -> list[float]:
                due = poisson(rate, model.stream_s, hash((seed, share, number)))
                return client.responses(due)[int(SETTLING * len(due)) :]

            found, others = undisturbed(process, seconds, stream)
            found.sort()
            for what, predict in by.items():
                try:
                    expected = predict(rate)[1:]
                except Overloaded:
                    expected = (math.inf,) * 3
                for (quantile, place), each in zip(QUANTILES, expected, strict=True):
                    measured = found[int(place * len(found))] if len(found) >= LEAST_RESPONSES else None
                    yield pair(
                        f"{what}: {quantile} (ms) at {share:.0%}", each * 1e3, measured and measured * 1e3, others
                    )


def undisturbed(process: int, seconds: float, stream: Callable[[int], list[float]]) -> tuple[list[float], float]:
    """What streams measure that together last `seconds` and that no other program disturbed, and the middle of the
    others' shares of the two processors in all of them."""
    found: list[float] = []
    shares = []
    end, left = time.perf_counter() + PATIENCE * seconds, seconds
    while left > 0 and time.perf_counter() < end:
        others, began = others_s(process), time.perf_counter()
        each = stream(len(shares))
        took = time.perf_counter() - began
        shares.append(max(0.0, others_s(process) - others) / (2 * took))
        if shares[-1] <= DISTURBED:
            found, left = found + each, left - took
    return found, statistics.median(shares)


def others_s(process: int) -> float:
    """Seconds that the two processors gave to others than this process and the server, the hypervisor's included."""
    tick = os.sysconf("SC_CLK_TCK")
    busy = 0
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith((f"cpu{CLIENT} ", f"cpu{SERVER} ")):
            user, nice, system, _, _, interrupts, soft, stolen = (int(each) for each in line.split()[1:9])
            busy += user + nice + system + interrupts + soft + stolen
    server_ticks = sum(
        int(each) for each in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    )
    return (busy - server_ticks) / tick - time.process_time()


def _fresh(*arguments: str) -> bytes:
    """What this module prints when it is called so in a process of its own, on the server's processor."""
    command = ["taskset", "--cpu-list", str(SERVER), sys.executable, "-m", "benchmarks.cpu_serving", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def one_round(
    names: Sequence[str], urls: dict[str, str], folder: Path, seed: int, seconds: float, processors: int
) -> list[Row]:
    """Calibrate, then predict and measure every quantity."""
    path = folder / "calibration.json"
    command = [sys.executable, "-c", CALIBRATE, "--threads", "1", "--output", str(path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    calibration = read_calibration(path)
    assert calibration.machine is not None
    chip, rows = calibration.machine.chip(), []
    for name in names:
        for batch, measured in json.loads(_fresh("--batch-times", name)).items():
            predicted = forward_time(chip, profile(name), "fp32", int(batch), calibration).total_s
            rows.append(pair(f"{name}: batch of {batch} (ms)", predicted * 1e3, measured * 1e3, math.nan))
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {CLIENT})
    for name in names:
        for backend in BACKEND_NAMES:
            rows.extend(served(name, backend, urls[name], folder, calibration, seed, seconds, processors))
    os.sched_setaffinity(0, mine)
    return rows


def pair(what: str, predicted: float, measured: float | None, others: float) -> Row:
    """`measured` is None where every stream was disturbed."""
    return {"what": what, "predicted": predicted, "measured": measured, "others": others}


def verdict(what: str, rounds: Sequence[Row]) -> Row:
    """The middle round by error, and how far the rounds are apart."""
    predicted, others = (statistics.median(row[key] for row in rounds) for key in ("predicted", "others"))
    known = {"what": what, "predicted": predicted, "others": others}
    rounds = [row for row in rounds if row["measured"] is not None]
    if not rounds:
        return known | {"measured": math.nan, "error": math.nan, "noise": math.nan, "verdict": "always disturbed"}
    errors = [math.log(row["predicted"] / row["measured"]) for row in rounds]
    measured = [row["measured"] for row in rounds]
    error = math.exp(statistics.median(errors)) - 1
    quarters = statistics.quantiles(measured, n=4, method="inclusive") if len(measured) > 1 else measured * 3
    noise = quarters[2] / quarters[0] - 1
    said = "too noisy" if noise > NOISE else "within" if abs(error) <= WITHIN else "beyond"
    return known | {"measured": statistics.median(measured), "error": error, "noise": noise, "verdict": said}


def show(rounds: Sequence[Sequence[Row]]) -> None:
    """The table."""
    rows = [verdict(same[0]["what"], same) for same in zip(*rounds, strict=True)]
    print(
        f"{'what':52} {'predicted':>10} {'measured':>10} {'error':>7} {'noise':>6} {'others':>6}  within {WITHIN:.0%}?"
    )
    for row in rows:
        print(
            f"{row['what']:52} {row['predicted']:10.4g} {row['measured']:10.4g} {row['error']:+7.1%} "
            f"{row['noise']:6.0%} {row['others']:6.0%}  {row['verdict']}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["fusionnet-8", "fusionnet-32"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of serving, for each load and round")
    parser.add_argument(
        "--processors", type=int, choices=(1, 2), default=1, help="of the server; with 2 the client sleeps"
    )
    parser.add_argument("--batch-times", metavar="MODEL", choices=MODELS, help=argparse.SUPPRESS)
    parser.add_argument("--backend-times", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="keeps the rounds: those in the file count too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    if options.batch_times:
        print(json.dumps(batch_times(MODELS[options.batch_times], 0.3)))
        return
    if options.backend_times:
        name, backend, url = options.backend_times
        print(json.dumps(backend_times(MODELS[name], backend, url)))
        return
    with contextlib.suppress(OSError):  # as root, where Linux groups processes by session: other programs take less
        Path("/proc/self/autogroup").write_text("-19")
    rounds = json.loads(options.json.read_text()) if options.json and options.json.exists() else []
    with tempfile.TemporaryDirectory(prefix="cpu-serving-") as place:
        urls = {}
        for name in options.models:
            (Path(place) / name).mkdir()
            urls[name] = package_of(MODELS[name], Path(place) / name)
        for _ in range(options.rounds):
            rounds.append(
                one_round(options.models, urls, Path(place), len(rounds), options.seconds, options.processors)
            )
            if options.json:
                options.json.write_text(json.dumps(rounds, indent=1) + "\n", encoding="utf-8")
    show(rounds)


if __name__ == "__main__":
    main()
