"""What `fusion serve` costs beside its model, by its threads: HTTP, the event loop, and the model's own.

The server's code runs in a process of its own on one processor, the client on another; both are this machine's. A net runs
for each batch; what it takes by itself, one pass after the other, is taken off, so that what it takes longer beside the
server counts. Costs come from single requests and from Poisson streams, under which requests share batches but come one by
one while the net runs: each wakes the threads for itself, and finds other code in the caches. In bursts a request would
cost a third of it. Times are the processor's, of each thread, and of responses the quickest tenth counts, so that
another program's turn is no part of them.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import selectors
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
import numpy.typing as npt
import torch
import uvloop
from torch import nn

from planner.calibration.store import ServingCosts, ThreadCosts
from workloads.serving.allocator import keep_freed_memory
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
BATCH_MAX = 16
QUEUE_MAX = 16 * BATCH_MAX
"""Of the server, and most requests that are under way."""
SEED = 1
NET_WIDTH = 512
NET_S = 2e-3
"""Of a pass, about: longer than the server's threads take for a request, as a model is that needs a planner."""
TIMED_PASSES = 15
STREAM_BATCHES = (2.0, 6.0)
"""Requests of a batch in the streams, about: what comes while one batch runs."""
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
    """Beside `net_s`."""
    net_s: float
    """That the net would have taken by itself."""
    batches: float
    requests: float

    def since(self, before: Work) -> Work:
        """What was added."""
        return Work(*(after - earlier for after, earlier in zip(astuple(self), astuple(before), strict=True)))


class Net:
    """A net that runs once for a batch, whatever its size; its answers are parts of the inputs."""

    def __init__(self) -> None:
        self._net = nn.Sequential(*(nn.Linear(NET_WIDTH, NET_WIDTH) for _ in range(2)))
        self._inputs = torch.ones(1, NET_WIDTH)
        self._repeats = 1
        self._repeats = max(1, round(NET_S / self._timed_s()))
        self.pass_s = self._timed_s()
        self.batches = self.requests = 0
        self.thread_clock: int | None = None

    def _pass(self) -> None:
        with torch.inference_mode():
            for _ in range(self._repeats):
                self._net(self._inputs)

    def _timed_s(self) -> float:
        """Processor seconds of a pass, one after the other."""
        taken = []
        for _ in range(TIMED_PASSES):
            began = time.thread_time()
            self._pass()
            taken.append(time.thread_time() - began)
        return statistics.median(taken)

    def __call__(self, inputs: Sequence[Array]) -> list[Array]:
        """Forward of `workloads.serving.backends`."""
        if self.thread_clock is None:
            self.thread_clock = time.pthread_getcpuclockid(threading.get_ident())
        self._pass()
        answers = [inputs[0][:, :ANSWERS].copy()]
        self.batches, self.requests = self.batches + 1, self.requests + len(inputs[0])
        return answers

    def work(self) -> Work:
        """So far; called on the event loop's thread."""
        loop_s = time.thread_time()
        thread_s = 0.0 if self.thread_clock is None else time.clock_gettime(self.thread_clock)
        http_s = time.process_time() - loop_s - thread_s
        net_s = self.batches * self.pass_s
        return Work(http_s, loop_s, thread_s - net_s, net_s, self.batches, self.requests)


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
    keep_freed_memory()
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
        Limits(BATCH_MAX, PATIENCE_S, queue_max=QUEUE_MAX, cores=1),
        metrics.of(NAME, VERSION, slo_s=PATIENCE_S, batch_max=BATCH_MAX),
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
    """From single requests and streams."""
    body = np.random.default_rng(1).random(size // 4, dtype=np.float32).tobytes()
    request = f"POST /v2/models/{NAME}/raw HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    with running_server(size, processors) as (port, work), _connected(port) as client:
        kept_up(partial(_asked, client, request), SECONDS / 10)
        before = work()
        seconds = kept_up(partial(_asked, client, request), SECONDS)
        lone, response_s = work().since(before), statistics.quantiles(seconds, n=10)[0]
        computed_s = (lone.http_s + lone.loop_s + lone.model_s + lone.net_s) / lone.requests
        net_s, loads = lone.net_s / lone.requests, [lone]
        for batch in STREAM_BATCHES:
            before = work()
            _stream(port, request, batch / (net_s + batch * (computed_s - net_s)), SECONDS)
            loads.append(work().since(before))
    counts = np.array([[each.batches, each.requests] for each in loads])
    by_thread = {}
    for thread in ("http", "loop", "model"):
        by_thread[thread] = _parts(counts, np.array([getattr(each, f"{thread}_s") for each in loads]))
    return _Costs(by_thread, max(0.0, response_s - computed_s))


def _parts(counts: npt.NDArray[np.float64], taken_s: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Seconds by batch and by request, not negative, that are nearest to what loads of so many of both (loads, 2) took."""
    by_load = counts[:, 1]
    batch_s, request_s = np.linalg.lstsq(counts / by_load[:, None], taken_s / by_load, rcond=None)[0]
    if batch_s < 0:
        return 0.0, max(0.0, float(taken_s.sum() / by_load.sum()))
    if request_s < 0:
        return max(0.0, float(taken_s.sum() / counts[:, 0].sum())), 0.0
    return float(batch_s), float(request_s)


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


def _asked(client: socket.socket, request: bytes) -> float:
    """Seconds until the answer."""
    began = time.perf_counter()
    client.sendall(request)
    read_answer(client)
    return time.perf_counter() - began


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """Seconds at which requests of a Poisson process are due, up to the first at `seconds` or later."""
    draw, due_s = random.Random(seed).expovariate, [0.0]
    while due_s[-1] < seconds:
        due_s.append(due_s[-1] + draw(rate))
    return due_s


def _stream(port: int, request: bytes, rate: float, seconds: float) -> None:
    """Send requests when they are due, by a Poisson process, whatever was answered before; until all are answered."""
    due_s = poisson(rate, seconds, SEED)
    with ExitStack() as opened, selectors.DefaultSelector() as waiting:
        free: list[socket.socket] = []
        began, sent, answered = time.perf_counter(), 0, 0
        while answered < len(due_s):
            if sent < len(due_s) and sent - answered < QUEUE_MAX and time.perf_counter() - began >= due_s[sent]:
                client = free.pop() if free else opened.enter_context(_connected(port))
                client.sendall(request)
                waiting.register(client, selectors.EVENT_READ)
                sent += 1
            for key, _ in waiting.select(0):  # on a processor of its own: to sleep would make it late
                ready = key.fileobj
                assert isinstance(ready, socket.socket)
                read_answer(ready)
                waiting.unregister(ready)
                free.append(ready)
                answered += 1


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
