"""Asks a server, over keep-alive HTTP/1.1 connections or gRPC, and compares every answer with the right one.

    python -m benchmarks.serving_load SPEC.json

Answers are compared after the run, so that the client takes little of the processors that it shares with the server.
Closed loop: so many clients, each asks again when it is answered. Open loop: requests are due at a constant rate, whatever
the server does, and their latency counts from when they were due (no coordinated omission). Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import uvloop

from workloads.serving.rpc import open_inference_grpc_pb2 as pb

TOLERANCE = 1e-3


class Connection(asyncio.Protocol):
    """One request at a time on one connection."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.buffer = bytearray()
        self.answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: Any) -> None:
        """asyncio's."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Collect one answer."""
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0 or self.answer is None:
            return
        head = bytes(self.buffer[:end]).lower()
        length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        if len(self.buffer) < end + 4 + length:
            return
        body = bytes(self.buffer[end + 4 : end + 4 + length])
        del self.buffer[: end + 4 + length]
        answer, self.answer = self.answer, None
        answer.set_result((int(head[9:12]), body))

    def connection_lost(self, error: Exception | None) -> None:
        """Fail what waits."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(error or ConnectionError("closed"))

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Send a request; its status and body follow."""
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.answer


class RpcConnection:
    """Calls on one gRPC channel, with messages as bytes."""

    def __init__(self, port: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own, as with HTTP
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)
        self._call = self._channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request; its status, in HTTP's words, and body."""
        try:
            return 200, await self._call(request)
        except grpc.aio.AioRpcError as error:
            return 1000 + error.code().value[0], b""


@dataclass
class Tally:
    """What came back."""

    latencies_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    answers: list[tuple[int, bytes]] = field(default_factory=list)

    def add(self, latency_s: float, status: int, body: bytes, number: int) -> None:
        """Keep the answer to a request."""
        self.statuses[status] += 1
        if status == 200:
            self.latencies_s.append(latency_s)
            self.answers.append((number, body))

    def wrong(self, asked: Asked) -> int:
        """How many answers differ from the local forward."""
        wrong = 0
        for number, body in self.answers:
            if asked.is_grpc:
                body = pb.ModelInferResponse.FromString(body).raw_output_contents[0]
            if asked.in_json == "bodies":
                body = base64.b64decode(json.loads(body)[0])
            found, expected = np.frombuffer(body, np.float32), asked.answers[number]
            wrong += found.shape != expected.shape or not np.allclose(found, expected, atol=TOLERANCE)
        return wrong


@dataclass(frozen=True)
class Asked:
    """Requests as bytes, with the right answers."""

    requests: list[bytes]
    answers: np.ndarray
    in_json: str | None
    """The field of a JSON body, if not the bytes alone; of several, a list."""
    is_grpc: bool = False

    @classmethod
    def of(cls, spec: dict[str, Any]) -> Asked:
        """From the files that a spec names."""
        inputs, answers = np.load(spec["inputs"]), np.load(spec["answers"])
        if spec["grpc"]:
            return cls([rpc_message(each) for each in inputs], answers, None, is_grpc=True)
        requests = []
        for each in inputs:
            body, kind = each.tobytes(), "application/octet-stream"
            if name := spec["in_json"]:
                text = base64.b64encode(body).decode()
                body, kind = json.dumps({name: [text] if name == "bodies" else text}).encode(), "application/json"
            head = f"POST {spec['path']} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
            requests.append(head.encode() + body)
        return cls(requests, answers, spec["in_json"])


def rpc_message(row: np.ndarray) -> bytes:
    tensor = pb.ModelInferRequest.InferInputTensor(name="input", datatype="FP32", shape=[1, *row.shape])
    message = pb.ModelInferRequest(model_name="model", inputs=[tensor], raw_input_contents=[row.tobytes()])
    return message.SerializeToString()


async def connect(port: int, asked: Asked) -> Connection | RpcConnection:
    if asked.is_grpc:
        return RpcConnection(port)
    _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return connection


async def closed(port: int, asked: Asked, clients: int, seconds: float) -> Tally:
    tally = Tally()
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        connection = await connect(port, asked)
        while time.perf_counter() < end:
            number = (number + clients) % len(asked.requests)
            start = time.perf_counter()
            status, body = await connection.ask(asked.requests[number])
            tally.add(time.perf_counter() - start, status, body, number)

    await asyncio.gather(*(client(number) for number in range(clients)))
    return tally


async def opened(port: int, asked: Asked, per_second: float, seconds: float) -> Tally:
    tally = Tally()
    free: list[Connection | RpcConnection] = []
    tasks = set()
    start = time.perf_counter()

    async def one(number: int, due: float) -> None:
        connection = free.pop() if free else await connect(port, asked)
        status, body = await connection.ask(asked.requests[number])
        tally.add(time.perf_counter() - due, status, body, number)
        free.append(connection)

    for count in range(int(per_second * seconds)):
        due = start + count / per_second
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.ensure_future(one(count % len(asked.requests), due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    return tally


async def run(spec: dict[str, Any]) -> dict[str, Any]:
    asked = Asked.of(spec)
    await closed(spec["port"], asked, spec["clients"], spec["warm_up_s"])
    start = time.perf_counter()
    if rate := spec.get("per_second"):
        tally = await opened(spec["port"], asked, rate, spec["seconds"])
    else:
        tally = await closed(spec["port"], asked, spec["clients"], spec["seconds"])
    taken = time.perf_counter() - start
    p50, p99 = np.percentile(tally.latencies_s, [50, 99]) * 1e3 if tally.latencies_s else (float("nan"),) * 2
    return {
        "per_second": tally.statuses[200] / taken,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "statuses": {str(status): count for status, count in tally.statuses.items()},
        "wrong": tally.wrong(asked),
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(run(json.loads(Path(sys.argv[1]).read_text())))))
