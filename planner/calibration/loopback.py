"""What a small batching server costs beside its model: sockets, event loop, batching, answers; and the server itself.

The server is one process with one event loop: what has arrived waits in one queue, and a batch of at most `batch_max`
is answered when the loop has read what there was. The model runs in the loop, so a request's cost is the server's
processor time. Requests are of one size, answers are `ANSWER_BYTES`. While the costs are taken a net runs for each batch,
whose own time is taken off: what a model leaves in the caches is not the server's code, which then takes longer.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import statistics
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from threading import Thread

import torch
from torch import nn

from planner.calibration.store import ServingCosts

ANSWER_BYTES = 8
BURSTS = 300
BURST = 16
NET_WIDTH = 512
SIZES = (256, 16_384)
"""Bytes of a request, at which the costs are taken."""

Answer = Callable[[torch.Tensor], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Server:
    """A running server, in a process of its own."""

    port: int
    process: BaseProcess
    control: Connection

    def processor_s(self) -> float:
        """Seconds of processor time that it has taken."""
        return self._times()[0]

    def beside_answers_s(self) -> float:
        """Those of them that it did not spend on finding answers."""
        total, answers = self._times()
        return total - answers

    def _times(self) -> tuple[float, float]:
        self.control.send("times")
        total, answers = self.control.recv()
        return float(total), float(answers)

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.join()


def start_server(
    make: Callable[[], Answer], request_bytes: int, batch_max: int, processors: Collection[int] | None, threads: int
) -> Server:
    """A server of the answers that `make`, called in its process, gives to (batch, numbers) tensors of fp32."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(there, make, request_bytes, batch_max, processors, threads), daemon=True
    )
    process.start()
    return Server(int(here.recv()), process, here)


def _serve(
    control: Connection,
    make: Callable[[], Answer],
    request_bytes: int,
    batch_max: int,
    processors: Collection[int] | None,
    threads: int,
) -> None:
    if processors:
        os.sched_setaffinity(0, processors)
    torch.set_num_threads(threads)

    async def main() -> None:
        queue: deque[tuple[asyncio.Transport, bytes]] = deque()
        loop = asyncio.get_running_loop()
        batcher = _Batcher(queue, make(), batch_max, loop)
        server = await loop.create_server(lambda: _Requests(queue, request_bytes, batcher), "127.0.0.1", 0)

        def told() -> None:
            control.recv()
            control.send((time.process_time(), batcher.answers_s))

        loop.add_reader(control.fileno(), told)
        control.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    with torch.inference_mode():
        asyncio.run(main())


class _Batcher:
    """Answers what waits."""

    def __init__(
        self,
        queue: deque[tuple[asyncio.Transport, bytes]],
        answer: Answer,
        batch_max: int,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.queue, self.answer, self.batch_max, self.loop = queue, answer, batch_max, loop
        self.due = False
        self.answers_s = 0.0

    def wake(self) -> None:
        """Answer once the loop has read what there is."""
        if not self.due:
            self.due = True
            self.loop.call_soon(self._run)

    def _run(self) -> None:
        self.due = False
        batch = [self.queue.popleft() for _ in range(min(len(self.queue), self.batch_max))]
        numbers = torch.frombuffer(bytearray().join(data for _, data in batch), dtype=torch.float32)
        began = time.thread_time()
        answers = self.answer(numbers.view(len(batch), -1))
        self.answers_s += time.thread_time() - began
        for (transport, _), number in zip(batch, answers, strict=True):
            transport.write(number.to_bytes(ANSWER_BYTES, "little"))
        if self.queue:
            self.wake()


class _Requests(asyncio.Protocol):
    """One connection: requests of equal size, one after the other."""

    def __init__(self, queue: deque[tuple[asyncio.Transport, bytes]], request_bytes: int, batcher: _Batcher) -> None:
        self.queue, self.request_bytes, self.batcher = queue, request_bytes, batcher
        self.rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        data = self.rest + data if self.rest else data
        whole = len(data) - len(data) % self.request_bytes
        for at in range(0, whole, self.request_bytes):
            self.queue.append((self.transport, data[at : at + self.request_bytes]))
        self.rest = data[whole:]
        if self.queue:
            self.batcher.wake()


def _choice(numbers: torch.Tensor) -> Sequence[int]:
    """The largest of each row's first numbers: what is left of an answer without its model."""
    answers: list[int] = numbers[:, :10].argmax(1).tolist()
    return answers


def _net() -> Answer:
    """Answers that no model found, though one ran."""
    net = nn.Sequential(*(nn.Linear(NET_WIDTH, NET_WIDTH) for _ in range(2)))
    inputs = torch.ones(1, NET_WIDTH)

    def answer(numbers: torch.Tensor) -> Sequence[int]:
        net(inputs)
        return _choice(numbers)

    return answer


def measure_serving(processors: Sequence[int]) -> ServingCosts:
    """The costs on this machine; the client runs on the first of the processors, the server on the last."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {processors[0]})
    try:
        by_size = {size: _burst_costs(size, {processors[-1]}) for size in SIZES}
    finally:
        os.sched_setaffinity(0, mine)
    (batch_s, small_s), (_, large_s) = (by_size[size] for size in SIZES)
    by_byte = max(0.0, large_s - small_s) / (SIZES[1] - SIZES[0])
    return ServingCosts(
        round_trip_s=_round_trip_s(),
        batch_s=batch_s,
        request_s=small_s,
        request_s_per_byte=by_byte,
    )


def _burst_costs(size: int, processors: Collection[int]) -> tuple[float, float]:
    """Processor seconds of the server by batch and by request, from single requests and bursts."""
    server = start_server(_net, size, BURST, processors, 1)
    try:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _bursts(client, size, 1, server)
            lone_s, burst_s = (_bursts(client, size, count, server) for count in (1, BURST))
    finally:
        server.stop()
    request_s = max(0.0, burst_s - lone_s) / (BURST - 1)
    return max(0.0, lone_s - request_s), request_s


def _bursts(client: socket.socket, size: int, count: int, server: Server) -> float:
    """Processor seconds of the server by burst; the next is sent when all answers are there."""
    data, before = bytes(size * count), server.beside_answers_s()
    for _ in range(BURSTS):
        client.sendall(data)
        left = ANSWER_BYTES * count
        while left:
            left -= len(client.recv(left))
    return (server.beside_answers_s() - before) / BURSTS + _choice_s(size, count)


def _choice_s(size: int, count: int) -> float:
    """Processor seconds of a burst's answers without their model."""
    numbers = torch.zeros(count, size // 4)
    began = time.thread_time()
    for _ in range(BURSTS):
        _choice(numbers)
    return (time.thread_time() - began) / BURSTS


def _round_trip_s() -> float:
    """Middle round trip of one byte over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def echo() -> None:
            peer, _ = server.accept()
            with peer:
                while data := peer.recv(1):
                    peer.sendall(data)

        Thread(target=echo, daemon=True).start()
        with socket.create_connection(server.getsockname()) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            times = []
            for _ in range(BURSTS):
                began = time.perf_counter()
                client.sendall(b"x")
                client.recv(1)
                times.append(time.perf_counter() - began)
    return statistics.median(times)
