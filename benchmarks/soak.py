"""A server under everything at once, for a long time: is every answer right, and does nothing grow?

    python -m benchmarks.soak [--minutes 60] [--json PATH]

Two replicas serve a small model. Clients ask them over HTTP (raw, JSON, binary tensors, zstd) and gRPC, compare every answer
with the local forward of the version that gave it, and also send malformed requests, bodies of 100 MiB, bodies that come slowly or
never, and requests that they leave without an answer. Meanwhile the first replica is told to read its config again and again: one
version, two with a canary, the other one, a damaged package, a file that is no YAML. The second is killed and started again. A
sampler reads memory, files, threads and asyncio's tasks of the first.

Status 1, and a line that says why: a wrong answer, a status that is not right for what was asked (a 500 never is), a client that
waited for longer than `HANG_S`, an internal error in the log, or something that grew: the median of the last quarter of the time
against that of the second (the first is left out: what a server allocates once).
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import numpy as np
import torch
import zstandard
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from workloads.models.fusionnet import FusionNet
from workloads.serving.export import Source, export

Array = NDArray[np.float32]

SHAPE, CLASSES, ROWS_MAX, INPUTS = (1, 8, 8), 10, 8, 64
ROW_BYTES = 4 * int(np.prod(SHAPE))
RAW, INFER, RPC = "/v2/models/small/raw", "/v2/models/small/infer", "/inference.GRPCInferenceService/ModelInfer"
HUGE_BYTES, PIECE = 100 * 2**20, bytes(2**20)
BODY_TIMEOUT_S, HANG_S, START_S = 2.0, 20.0, 120.0
CLIENTS, SAMPLES = 4, 120
MAY_GROW: Mapping[str, float] = {"resident MiB": 48, "files": 8, "threads": 2, "tasks": 8}
"""Of the medians of two quarters: what noise is; a leak in minutes of load is more."""
REFUSED = (429, 503)


@dataclass
class Tally:
    """What came of the requests."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    longest_s: float = 0.0

    def add(self, kind: str, status: int | str) -> None:
        """One request of a kind, answered so."""
        self.outcomes[f"{kind}: {status}"] += 1

    def fault(self, sentence: str) -> None:
        """Something that must not be; the first hundred are enough."""
        if len(self.faults) < 100:
            self.faults.append(sentence)


@dataclass
class Replica:
    """A server in a process of its own."""

    config: Path
    log: Path
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    port: int = 0
    grpc_port: int = 0

    def start(self) -> None:
        """Start it; it is ready when this returns."""
        command = [sys.executable, "-m", "workloads.serving", "--config", str(self.config)]
        seen = len(self.events("ready"))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=dict(self.environment), stdout=log, stderr=log)
        end = time.monotonic() + START_S
        while len(ready := self.events("ready")) == seen:
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the server did not start: {self.log.read_text()[-2000:]}")
            time.sleep(0.1)
        self.port, self.grpc_port = ready[-1]["port"], ready[-1]["grpc_port"]

    def stop(self) -> int:
        """Told to, it drains; its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(60)

    def kill(self) -> None:
        """At once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def events(self, name: str) -> list[dict[str, Any]]:
        """Lines of its log."""
        if not self.log.exists():
            return []
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith('{"time"')]
        return [line for line in lines if line["event"] == name]

    def uses(self) -> dict[str, float]:
        """What the operating system and its metrics count of it."""
        assert self.process is not None
        process = Path(f"/proc/{self.process.pid}")
        pages = int((process / "statm").read_text().split()[1])
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANG_S)
        connection.request("GET", "/metrics")
        found = re.search(r"^fusion_tasks (\S+)$", connection.getresponse().read().decode(), re.M)
        connection.close()
        return {
            "resident MiB": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
            "files": len(list((process / "fd").iterdir())),
            "threads": len(list((process / "task").iterdir())),
            "tasks": float(found[1]) if found else float("nan"),
        }


class Client:
    """One thread's connections to the replicas, and all that it may ask."""

    def __init__(
        self, replicas: list[Replica], inputs: Array, answers: Mapping[str, Array], tally: Tally, seed: int
    ) -> None:
        self.replicas = replicas
        self.inputs = inputs
        self.answers = answers
        self.tally = tally
        self.random = random.Random(seed)
        self._kept: dict[int, http.client.HTTPConnection] = {}
        self._channels: dict[int, grpc.Channel] = {}
        right = (self.raw, self.json, self.binary, self.compressed, self.rpc)
        self.kinds: list[tuple[Callable[[Replica], None], float]] = [
            *((each, 10.0) for each in right),
            (self.malformed, 8),
            (self.hurried, 4),
            (self.rpc_malformed, 4),
            (self.leaves, 4),
            (self.slow, 0.05),
            (self.never_sends, 0.05),
            (self.huge, 0.05),
            (self.huge_rpc, 0.05),
        ]

    def run(self, stop: threading.Event) -> None:
        """Ask until the event."""
        kinds, weights = zip(*self.kinds, strict=True)
        while not stop.is_set():
            number = self.random.randrange(len(self.replicas))
            kind = self.random.choices(kinds, weights)[0]
            start_s = time.monotonic()
            try:
                kind(self.replicas[number])
            except (ConnectionError, http.client.HTTPException):
                self._gone(kind, number)
            except TimeoutError:
                self.tally.fault(f"{kind.__name__}: no answer in {HANG_S:g} s")
            except Exception as error:
                self.tally.fault(f"{kind.__name__}: {type(error).__name__}: {error}")
            self.tally.longest_s = max(self.tally.longest_s, time.monotonic() - start_s)
        for each in (*self._kept.values(), *self._channels.values()):
            each.close()

    def _gone(self, kind: Callable[[Replica], None], number: int) -> None:
        """A connection was cut: by a kill, or because a body was refused unread."""
        if connection := self._kept.pop(self.replicas[number].port, None):
            connection.close()
        if number == 0 and kind not in (self.huge, self.slow, self.malformed):
            self.tally.fault(f"{kind.__name__}: the replica that nobody kills closed a connection")
        self.tally.add(kind.__name__, "cut off")
        time.sleep(0.02)

    def _rows(self) -> tuple[int, Array]:
        first, rows = self.random.randrange(INPUTS - ROWS_MAX), self.random.randint(1, ROWS_MAX)
        return first, self.inputs[first : first + rows]

    def _ask(
        self, replica: Replica, path: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        port = replica.port
        connection = self._kept.setdefault(port, http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_S))
        connection.request("POST", path, body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()

    def _compare(self, kind: str, status: int, version: str, first: int, found: Array, others: tuple[int, ...]) -> None:
        self.tally.add(kind, status)
        if status == 200:
            expected = self.answers[version][first : first + len(found)]
            if not np.allclose(found, expected, rtol=1e-3, atol=1e-4):
                self.tally.fault(f"{kind}: a wrong answer of version {version}")
        elif status not in others:
            self.tally.fault(f"{kind}: status {status}")

    def raw(self, replica: Replica) -> None:
        """Right, as bytes."""
        first, rows = self._rows()
        status, headers, body = self._ask(replica, RAW, rows.tobytes())
        found = np.frombuffer(body, np.float32).reshape(-1, CLASSES) if status == 200 else rows
        self._compare("raw", status, headers.get("fusion-model-version", ""), first, found, REFUSED)

    def compressed(self, replica: Replica) -> None:
        """Right, by zstd."""
        first, rows = self._rows()
        content = zstandard.compress(rows.tobytes())
        status, headers, body = self._ask(replica, RAW, content, {"content-encoding": "zstd"})
        found = np.frombuffer(body, np.float32).reshape(-1, CLASSES) if status == 200 else rows
        self._compare("compressed", status, headers.get("fusion-model-version", ""), first, found, REFUSED)

    def json(self, replica: Replica) -> None:
        """Right, as JSON."""
        first, rows = self._rows()
        tensor = {"name": "input", "datatype": "FP32", "shape": rows.shape, "data": rows.ravel().tolist()}
        status, _, body = self._ask(replica, INFER, json.dumps({"inputs": [tensor]}).encode())
        answer = json.loads(body)
        found = np.float32(answer["outputs"][0]["data"]).reshape(-1, CLASSES) if status == 200 else rows
        self._compare("json", status, answer.get("model_version", ""), first, found, REFUSED)

    def binary(self, replica: Replica) -> None:
        """Right, as binary tensors behind JSON."""
        first, rows = self._rows()
        tensor = {"name": "input", "datatype": "FP32", "shape": rows.shape}
        tensor["parameters"] = {"binary_data_size": rows.nbytes}
        head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        given = {"inference-header-content-length": str(len(head))}
        status, headers, body = self._ask(replica, INFER, head + rows.tobytes(), given)
        version, found = "", rows
        if status == 200:
            length = int(headers["inference-header-content-length"])
            version = json.loads(body[:length])["model_version"]
            found = np.frombuffer(body[length:], np.float32).reshape(-1, CLASSES)
        self._compare("binary", status, version, first, found, REFUSED)

    def rpc(self, replica: Replica) -> None:
        """Right, by gRPC."""
        first, rows = self._rows()
        code, answer = self._call(replica, rows, [rows.tobytes()])
        found = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(-1, CLASSES) if answer else rows
        version = answer.model_version if answer else ""
        status = 200 if answer else {"RESOURCE_EXHAUSTED": 429, "UNAVAILABLE": 503}.get(code, code)
        self._compare("rpc", status, version, first, found, REFUSED)

    def _call(self, replica: Replica, rows: Array, contents: list[bytes]) -> tuple[str, Any]:
        from workloads.serving.rpc import open_inference_grpc_pb2 as pb  # not beside Triton's, whose names are the same

        port = replica.grpc_port
        channel = self._channels.setdefault(port, grpc.insecure_channel(f"127.0.0.1:{port}"))
        tensor = pb.ModelInferRequest.InferInputTensor(name="input", datatype="FP32", shape=rows.shape)
        message = pb.ModelInferRequest(model_name="small", inputs=[tensor], raw_input_contents=contents)
        call = channel.unary_unary(RPC, pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString)
        try:
            return "OK", call(message, timeout=HANG_S)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise TimeoutError from None
            return error.code().name, None

    def rpc_malformed(self, replica: Replica) -> None:
        """A tensor whose bytes are too few."""
        code, _ = self._call(replica, self.inputs[:1], [b"short"])
        self.tally.add("rpc malformed", code)
        if code not in ("INVALID_ARGUMENT", "UNAVAILABLE"):
            self.tally.fault(f"rpc malformed: {code}")

    def malformed(self, replica: Replica) -> None:
        """One of many wrong requests."""
        tensor = {"name": "input", "datatype": "FP32", "shape": [1, *SHAPE], "data": [0.5] * 64}
        wrong = [
            {"name": "other"}, {"datatype": "INT64"}, {"shape": [1, 8]}, {"shape": [-1, *SHAPE]}, {"shape": [2**70]},
            {"data": [1]}, {"data": ["a"] * 64}, {"data": [1e300] * 64}, {"data": [[1], [2, 3]]}, {"data": None},
            {"parameters": {"binary_data_size": 10**20}}, {"parameters": 3},
        ]  # fmt: skip
        bodies = [
            *(json.dumps({"inputs": [tensor | each]}).encode() for each in wrong),
            *(b"", b"{", b"[" * 5000, b"\xff" * 300, json.dumps({"inputs": [tensor, tensor]}).encode()),
        ]
        number = self.random.randrange(len(bodies) + 3)
        if number < len(bodies):
            status, _, body = self._ask(replica, INFER, bodies[number])
        else:
            headers = [{"content-encoding": "zstd"}, {"fusion-priority": "nine"}, {"content-type": "image/png"}]
            status, _, body = self._ask(replica, RAW, b"x" * (ROW_BYTES - 1), headers[number - len(bodies)])
        self.tally.add("malformed", status)
        if status not in (400, 404) or "error" not in json.loads(body):
            self.tally.fault(f"malformed {number}: status {status}: {body[:100]!r}")

    def hurried(self, replica: Replica) -> None:
        """Right, but soon worthless."""
        first, rows = self._rows()
        status, headers, body = self._ask(replica, RAW, rows.tobytes(), {"fusion-timeout-ms": "1"})
        found = np.frombuffer(body, np.float32).reshape(-1, CLASSES) if status == 200 else rows
        self._compare("hurried", status, headers.get("fusion-model-version", ""), first, found, REFUSED)

    def _socket(self, replica: Replica, head: str) -> socket.socket:
        found = socket.create_connection(("127.0.0.1", replica.port), HANG_S)
        found.sendall(f"POST {RAW if 'chunked' not in head else INFER} HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n".encode())
        return found

    def leaves(self, replica: Replica) -> None:
        """Goes away amid the body, or without the answer, politely or not."""
        rows = self._rows()[1].tobytes()
        with self._socket(replica, f"content-length: {len(rows)}") as client:
            client.sendall(rows[: self.random.choice((0, 100, len(rows)))])
            if self.random.random() < 0.5:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.tally.add("leaves", "left")

    def slow(self, replica: Replica) -> None:
        """A body in pieces, for half of the time that is allowed."""
        first, rows = self._rows()
        content = rows.tobytes()
        with self._socket(replica, f"content-length: {len(content)}\r\nconnection: close") as client:
            for start in range(0, len(content), len(content) // 8):
                client.sendall(content[start : start + len(content) // 8])
                time.sleep(BODY_TIMEOUT_S / 20)
            answer = http.client.HTTPResponse(client, method="POST")
            answer.begin()
            body = answer.read()
        found = np.frombuffer(body, np.float32).reshape(-1, CLASSES) if answer.status == 200 else rows
        version = answer.headers.get("fusion-model-version", "")
        self._compare("slow", answer.status, version, first, found, REFUSED)

    def never_sends(self, replica: Replica) -> None:
        """A header, and nothing more."""
        with self._socket(replica, f"content-length: {ROW_BYTES}") as client:
            heard = client.recv(100)
        status = heard.split()[1].decode() if heard else "cut off"
        self.tally.add("never sends", status)
        if status not in ("408", "429", "503") and replica is self.replicas[0]:
            self.tally.fault(f"never sends: {heard!r}")

    def huge(self, replica: Replica) -> None:
        """A body of 100 MiB, all of it, its length said or not."""
        is_chunked = self.random.random() < 0.5
        head = "transfer-encoding: chunked" if is_chunked else f"content-length: {HUGE_BYTES}"
        piece = b"100000\r\n" + PIECE + b"\r\n" if is_chunked else PIECE
        sent, heard = 0, b""
        with self._socket(replica, head) as client:
            with contextlib.suppress(ConnectionError):
                while sent < HUGE_BYTES:
                    client.sendall(piece)
                    sent += len(PIECE)
            with contextlib.suppress(ConnectionError):
                heard = client.recv(100)
        status = heard.split()[1].decode() if heard.startswith(b"HTTP") else "cut off"
        self.tally.add("100 MiB", status)
        if status not in ("400", "413", "cut off") or sent >= HUGE_BYTES:
            self.tally.fault(f"100 MiB: {status} after {sent // 2**20} MiB")

    def huge_rpc(self, replica: Replica) -> None:
        """A message of 100 MiB."""
        code, _ = self._call(replica, self.inputs[:1], [bytes(HUGE_BYTES)])
        self.tally.add("100 MiB by gRPC", code)
        if code not in ("RESOURCE_EXHAUSTED", "UNAVAILABLE"):
            self.tally.fault(f"100 MiB by gRPC: {code}")


def prepare(folder: Path) -> tuple[Array, dict[str, Array]]:
    """Two versions, and the second one damaged; inputs, and each version's answers to them."""
    torch.set_num_threads(1)
    inputs = np.random.default_rng(0).random((INPUTS, *SHAPE), dtype=np.float32)
    answers = {}
    for version in ("1", "2"):
        torch.manual_seed(int(version))
        module = FusionNet(shape=SHAPE, classes=CLASSES).eval()
        url = f"file://{folder}/{version}"
        export(Source(module, {"input": inputs[:4]}), url, name="small", version=version, formats=("onnx",))
        with torch.no_grad():
            answers[version] = module(torch.from_numpy(inputs)).numpy()
    damaged = folder / "damaged"  # of a version that no cache holds yet
    shutil.copytree(folder / "2", damaged)
    (model_file,) = damaged.glob("*.onnx")
    content = bytearray(model_file.read_bytes())
    content[len(content) // 2] ^= 1
    model_file.write_bytes(content)
    manifest = damaged / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"version": "3"}))
    return inputs, answers


def config(folder: Path, *versions: str) -> str:
    """A serving.yaml."""
    model = {"slo_ms": 5000, "batch_max": ROWS_MAX, "backends": ["onnxruntime"]}
    model["versions"] = [{"package": f"file://{folder}/{each}"} for each in versions]
    ports = {"host": "127.0.0.1", "port": 0, "grpc_port": 0}
    limits = {"device": "cpu", "body_max_mib": 1, "body_timeout_s": BODY_TIMEOUT_S}
    return json.dumps(ports | limits | {"models": [model]})


def reload_again_and_again(kept: Replica, folder: Path, every_s: float, tally: Tally, stop: threading.Event) -> None:
    """Another config each time; the wrong ones change nothing."""
    steps = (("1", "2"), ("damaged",), ("2",), None, ("1",))
    number = 0
    while not stop.wait(every_s):
        versions = steps[number % len(steps)]
        event = "reload_failed" if versions in (None, ("damaged",)) else "reloaded"
        seen = len(kept.events(event))
        kept.config.write_text("models: [" if versions is None else config(folder, *versions))
        assert kept.process is not None
        kept.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + START_S
        while len(kept.events(event)) == seen:
            if time.monotonic() > end:
                tally.fault(f"reload of {versions}: the log says no {event}")
                return
            if stop.wait(0.1):
                return
        tally.add("reload", event)
        number += 1


def kill_again_and_again(killed: Replica, every_s: float, tally: Tally, stop: threading.Event) -> None:
    """SIGKILL, and start anew."""
    while not stop.wait(every_s):
        killed.kill()
        killed.start()
        tally.add("kill", "started again")


def soak(folder: Path, seconds: float) -> dict[str, Any]:
    """All of it, for so long.

    Returns:
        `outcomes` (what was asked: status → how often), `faults` (sentences), `samples` (seconds and what was used), `grown`
        (by what, of the medians), `longest_s` of a request.
    """
    inputs, answers = prepare(folder)
    environment = dict(os.environ) | {"XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    replicas = []
    for name in ("kept", "killed"):
        path = folder / f"{name}.yaml"
        path.write_text(config(folder, "1"))
        replicas.append(Replica(path, folder / f"{name}.log", environment))
    tally = Tally()
    try:
        for each in replicas:
            each.start()
        clients = [Client(replicas, inputs, answers, tally, seed) for seed in range(CLIENTS)]
        samples = under_load(clients, folder, seconds)
        for each in replicas:
            if (status := each.stop()) != 0:
                tally.fault(f"told to stop, it ended with status {status}")
            for line in each.events("internal_error"):
                tally.fault(f"the log: {line['reason']}")
    finally:
        for each in replicas:
            each.kill()
    grown = growth(samples)
    for name, by in grown.items():
        if by > MAY_GROW[name]:
            tally.fault(f"{name} grew by {by:.1f}; {MAY_GROW[name]:g} is what noise may be")
    return {
        "outcomes": dict(sorted(tally.outcomes.items())),
        "faults": tally.faults,
        "longest_s": tally.longest_s,
        "grown": grown,
        "samples": samples,
    }


def under_load(clients: list[Client], folder: Path, seconds: float) -> list[dict[str, float]]:
    """Everything at once; what the first replica used meanwhile."""
    kept, killed = clients[0].replicas
    tally, stop, every_s = clients[0].tally, threading.Event(), min(20.0, seconds / 12)
    threads = [threading.Thread(target=each.run, args=(stop,), daemon=True) for each in clients]
    for work, given in (
        (reload_again_and_again, (kept, folder, every_s, tally, stop)),
        (kill_again_and_again, (killed, 2 * every_s, tally, stop)),
    ):
        threads.append(threading.Thread(target=work, args=given, daemon=True))
    samples: list[dict[str, float]] = []
    start_s = time.monotonic()
    for thread in threads:
        thread.start()
    while (now_s := time.monotonic() - start_s) < seconds:
        samples.append({"seconds": round(now_s, 1), **kept.uses()})
        time.sleep(seconds / SAMPLES)
    stop.set()
    for thread in threads:
        thread.join(START_S)
    if any(thread.is_alive() for thread in threads):
        tally.fault("a client still waits after the end")
    return samples


def growth(samples: list[dict[str, float]]) -> dict[str, float]:
    """The median of the last quarter less that of the second one."""
    quarter = max(1, len(samples) // 4)
    second, last = samples[quarter : 2 * quarter] or samples, samples[-quarter:]
    return {name: median(each[name] for each in last) - median(each[name] for each in second) for name in MAY_GROW}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as place:
        found = soak(Path(place), asked.minutes * 60)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")
    show(found)
    sys.exit(1 if found["faults"] else 0)


def show(found: dict[str, Any]) -> None:
    console = Console()
    table = Table("what was asked: what came", "times")
    for name, count in found["outcomes"].items():
        table.add_row(name, f"{count:,}")
    console.print(table)
    uses = Table("of the replica that was not killed", "first", "median of the 2nd quarter", "and the last", "most")
    samples = found["samples"]
    quarter = max(1, len(samples) // 4)
    for name in MAY_GROW:
        values = [each[name] for each in samples]
        cells = (values[0], median(values[quarter : 2 * quarter] or values), median(values[-quarter:]), max(values))
        uses.add_row(name, *(f"{each:,.1f}" for each in cells))
    console.print(uses)
    console.print(f"The longest request took {found['longest_s']:.1f} s. Faults: {len(found['faults'])}.")
    for each in found["faults"]:
        console.print(each, markup=False)


if __name__ == "__main__":
    main()
