"""What `fusion serve` costs beside its model, by its threads: HTTP, the event loop, and the model's own.

The server's code runs in a process of its own on one processor, the client on another; both are this machine's. A net runs
for each batch, whose own time is taken off: what a model leaves in the caches is not the server's code, which then takes
longer. Times are the processor's, of each thread, and of responses the quickest tenth counts, so that another program's
turn is no part of them.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import statistics
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
import uvloop
from torch import nn

from planner.calibration.store import ServingCosts, ThreadCosts
from workloads.serving.answering import Answering
from workloads.serving.app import App
from workloads.serving.chip import Chip
from workloads.serving.choosing import Choice, Curve
from workloads.serving.config import ModelConfig, ServingConfig, VersionConfig
from workloads.serving.metrics import Metrics
from workloads.serving.model import Limits, ServedModel
from workloads.serving.models import Model, Models
from workloads.serving.package import Array, Artifact, Manifest, PackageFile, TensorSpec
from workloads.serving.pipelines import Pipeline
from workloads.serving.server import http_server
from workloads.training.logs import Log

NAME, VERSION = "calibration", "1"
ANSWERS = 10
"""Numbers of an answer, as many as a small classifier's."""
SECONDS = 1.0
"""For which each load is kept up."""
BURST = 16
NET_WIDTH = 512
SIZES = (256, 16_384)
"""Bytes of a request, at which the costs are taken."""
PATIENCE_S = 60.0
"""Within which a request is answered on the slowest of machines."""
UNUSED = "file:///nowhere"


@dataclass(frozen=True, slots=True)
class Work:
    """Processor seconds of a server's threads, and what it did in them."""

    http_s: float
    loop_s: float
    model_s: float
    """Beside `forward_s`."""
    forward_s: float
    batches: float
    requests: float

    def since(self, before: Work) -> Work:
        """What was added."""
        return Work(*(after - earlier for after, earlier in zip(astuple(self), astuple(before), strict=True)))


class Net:
    """A small net that runs once for a batch, whatever its size; its answers are parts of the inputs."""

    def __init__(self) -> None:
        self._net = nn.Sequential(*(nn.Linear(NET_WIDTH, NET_WIDTH) for _ in range(2)))
        self._inputs = torch.ones(1, NET_WIDTH)
        self.forward_s = 0.0
        self.batches = self.requests = 0
        self.thread_clock: int | None = None

    def __call__(self, inputs: Sequence[Array]) -> list[Array]:
        """Forward of `workloads.serving.backends`."""
        if self.thread_clock is None:
            self.thread_clock = time.pthread_getcpuclockid(threading.get_ident())
        began = time.thread_time()
        with torch.inference_mode():
            self._net(self._inputs)
        answers = [inputs[0][:, :ANSWERS].copy()]
        self.forward_s += time.thread_time() - began
        self.batches, self.requests = self.batches + 1, self.requests + len(inputs[0])
        return answers

    def work(self) -> Work:
        """So far; called on the event loop's thread."""
        loop_s = time.thread_time()
        thread_s = 0.0 if self.thread_clock is None else time.clock_gettime(self.thread_clock)
        http_s = time.process_time() - loop_s - thread_s
        return Work(http_s, loop_s, thread_s - self.forward_s, self.forward_s, self.batches, self.requests)


@contextmanager
def running_server(request_bytes: int, processors: Collection[int]) -> Iterator[tuple[int, Callable[[], Work]]]:
    """A server of fp32 requests of that size: its port, and what tells its work so far."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(there, request_bytes, processors), daemon=True)
    process.start()
    there.close()  # the server's end alone is left, so that its end is noticed

    def work() -> Work:
        here.send("work")
        return Work(*here.recv())

    try:
        try:
            port = int(here.recv())
        except EOFError:
            raise RuntimeError("the server that is measured did not start; its reason is above") from None
        yield port, work
    finally:
        process.kill()
        process.join()


def _serve(control: Connection, request_bytes: int, processors: Collection[int]) -> None:
    os.sched_setaffinity(0, processors)
    torch.set_num_threads(1)
    uvloop.run(_served(control, request_bytes))


async def _served(control: Connection, request_bytes: int) -> None:
    """What `workloads.serving.server` does, with `Net` in the place of a package."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
    unused = ModelConfig(versions=(VersionConfig(package=UNUSED),))
    config, metrics, net = ServingConfig(models=(unused,)), Metrics(), Net()
    models = Models(Path(os.devnull), metrics, print, lambda model: None)
    file = PackageFile(name="unused", bytes=0, sha256="0" * 64)
    manifest = Manifest(
        name=NAME,
        version=VERSION,
        source="fusion calibrate",
        inputs=(TensorSpec(name="input", datatype="FP32", shape=(request_bytes // 4,)),),
        outputs=(TensorSpec(name="output", datatype="FP32", shape=(ANSWERS,)),),
        self_test=file,
        artifacts=(Artifact(format="pytorch", files=(file,), made_with="", max_abs_error=0),),
    )
    served = ServedModel(
        manifest,
        Choice(NAME, net, Curve((1,), (1e-3,)), ()),
        Limits(BURST, PATIENCE_S, queue_max=4 * BURST, cores=1),
        metrics.of(NAME, VERSION, slo_s=PATIENCE_S, batch_max=BURST),
        Chip(1),
        lambda model: None,
        Pipeline(manifest),
    )
    models.by_name = {NAME: Model({VERSION: served}, {VERSION: 1.0})}
    answering = Answering(models, metrics, config)
    answering.is_ready = True
    serving = asyncio.create_task(http_server(App(answering, Log(0)), "127.0.0.1", port).serve())

    def told() -> None:
        control.recv()
        control.send(astuple(net.work()))

    asyncio.get_running_loop().add_reader(control.fileno(), told)
    await _listens(port)
    control.send(port)
    await serving


async def _listens(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            return


def measure_serving(processors: Sequence[int]) -> ServingCosts:
    """The costs on this machine; the client runs on the first of the processors, the server on the last."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {processors[0]})
    try:
        small, large = (_costs(size, {processors[-1]}) for size in SIZES)
    finally:
        os.sched_setaffinity(0, mine)
    threads = {}
    for name, (batch_s, request_s) in small.by_thread.items():
        by_byte = max(0.0, large.by_thread[name][1] - request_s) / (SIZES[1] - SIZES[0])
        threads[name] = ThreadCosts(
            batch_s=batch_s, request_s=max(0.0, request_s - by_byte * SIZES[0]), request_s_per_byte=by_byte
        )
    return ServingCosts(wake_ups_s=small.wake_ups_s, **threads)


@dataclass(frozen=True, slots=True)
class _Costs:
    """At one size of requests."""

    by_thread: dict[str, tuple[float, float]]
    """Processor seconds by batch and by request."""
    wake_ups_s: float


def _costs(size: int, processors: Collection[int]) -> _Costs:
    """From single requests and bursts, which the server may see as more than one batch."""
    body = np.random.default_rng(1).random(size // 4, dtype=np.float32).tobytes()
    head = f"POST /v2/models/{NAME}/raw HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    with running_server(size, processors) as (port, work), ExitStack() as opened:
        clients = [opened.enter_context(_connected(port)) for _ in range(BURST)]
        loads = []
        for count in (1, BURST):
            burst = partial(_burst, clients[:count], head.encode() + body)
            kept_up(burst, SECONDS / 10)
            before = work()
            seconds = kept_up(burst, SECONDS)
            loads.append((work().since(before), statistics.quantiles(seconds, n=10)[0]))
    (lone, response_s), (crowded, _) = loads
    counts = np.array([[each.batches, each.requests] for each in (lone, crowded)])
    by_thread = {}
    for thread in ("http", "loop", "model"):
        taken = np.array([getattr(each, f"{thread}_s") for each in (lone, crowded)])
        batch_s, request_s = np.linalg.solve(counts, taken)
        if batch_s < 0:  # a burst costs more by request than single ones do
            batch_s, request_s = 0.0, taken[1] / counts[1, 1]
        by_thread[thread] = (float(batch_s), max(0.0, float(request_s)))
    computed_s = (lone.http_s + lone.loop_s + lone.model_s + lone.forward_s) / lone.requests
    return _Costs(by_thread, max(0.0, response_s - computed_s))


@contextmanager
def _connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield client


def kept_up(burst: Callable[[], float], seconds: float) -> list[float]:
    """One after the other for so long; what each took."""
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken) < 2:
        taken.append(burst())
    return taken


def _burst(clients: Sequence[socket.socket], request: bytes) -> float:
    """Seconds until all of them have their answers."""
    began = time.perf_counter()
    for client in clients:
        client.sendall(request)
    for client in clients:
        read_answer(client)
    return time.perf_counter() - began


def read_answer(client: socket.socket) -> bytes:
    """The body of one answer.

    Raises:
        RuntimeError: it is not an answer with status 200.
    """
    answer = b""
    while (head := answer.find(b"\r\n\r\n")) < 0 or len(answer) < head + 4 + _length(answer[:head]):
        more = client.recv(65_536)
        if not more:
            raise RuntimeError(f"the loopback server closed the connection after {answer[:100]!r}")
        answer += more
    if answer[9:12] != b"200":
        raise RuntimeError(f"the loopback server answered {answer[:300]!r}")
    return answer[head + 4 :]


def _length(head: bytes) -> int:
    return int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
