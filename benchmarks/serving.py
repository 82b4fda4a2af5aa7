"""Requests a second and latency of `fusion serve` against LitServe, BentoML, Ray Serve and a plain ASGI server.

    python -m benchmarks.serving [--model fusionnet] [--rounds 3] [--seconds 5] [--servers NAME ...] [--folder PATH] [--json PATH]

All serve the same exported program with the same weights, one thread for the model and the same largest batch, on this
machine; the client is the same process code for all and shares the processors with the server. Peers run eager, as they
do by themselves; Fusion runs once so, and once with the backend that it chooses. The servers take turns in each round.
LitServe and BentoML get the input as base64 in JSON, for they batch no raw bodies; the others the bytes alone. Every answer is compared
with the local forward. Open loop: 70 % of each server's own closed-loop rate. "fusion traced" is Fusion with an OpenTelemetry
collector, which drops what it gets.

It can be run in slices: `--folder` keeps the exported model, and what a `--json` holds already is shown and counted with what is
measured now; `--servers` without a name only prepares the model and measures its raw forward.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from threading import Thread
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from tools.setup import CACHE, find_uv
from workloads.serving.export import export
from workloads.serving.package import open_package
from workloads.serving.sources import of_factory

HERE = Path(__file__).parent
SHAPES = {"fusionnet": ((3, 32, 32), 10), "resnet-50": ((3, 224, 224), 1000)}
SERVERS = ("fusion", "fusion grpc", "fusion traced", "fusion eager", "asgi", "litserve", "bentoml", "ray")
PATHS = {"litserve": "/predict", "bentoml": "/predict", "ray": "/", "asgi": "/"}
IN_JSON = {"litserve": "body", "bentoml": "bodies"}
CLIENTS, BATCH_MAX, INPUTS = 32, 32, 64
SLO_MS = {"fusionnet": 1_000, "resnet-50": 10_000}
"""Long enough for all clients at once: a closed loop shall not be refused."""
SHARE_OF_CAPACITY = 0.7


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=SHAPES, default="fusionnet")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--servers", nargs="*", choices=SERVERS, default=SERVERS)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    python = peers_python()
    with tempfile.TemporaryDirectory(prefix="serving-benchmark-") as place:
        folder = asked.folder or Path(place)
        folder.mkdir(exist_ok=True)
        prepare(folder, asked.model)
        found: dict[str, Any] = {"rows": {}, "raw": {}}
        if asked.json and asked.json.exists():
            found = json.loads(asked.json.read_text())
        found["raw"] = found["raw"] or raw_forward(folder)
        for name in [each for _ in range(asked.rounds) for each in asked.servers]:
            with serving(name, folder, python, SLO_MS[asked.model]) as port:
                found["rows"].setdefault(name, []).append(measured(name, folder, port, asked.seconds))
            if asked.json:
                asked.json.write_text(json.dumps(found, indent=1) + "\n")
        if asked.json:
            asked.json.write_text(json.dumps(found, indent=1) + "\n")
    show(asked.model, found)


def show(model: str, results: dict[str, Any]) -> None:
    table = Table(title=f"{model}, {CLIENTS} clients, batches of at most {BATCH_MAX}, medians of the rounds")
    for title in ("server", "rounds", "requests/s", "p50 ms", "p99 ms", "p99 ms at 70 %", "wrong", "of raw forward"):
        table.add_column(title, justify="left" if title == "server" else "right")
    for name, found in results["rows"].items():
        closed, opened = [each["closed"] for each in found], [each["open"] for each in found]
        speed = median(each["per_second"] for each in closed)
        own = results["raw"][found[0].get("backend") or "eager"]
        table.add_row(
            f"{name} ({found[0]['backend']})" if found[0].get("backend") else name,
            str(len(found)),
            f"{speed:,.0f}",
            *(f"{median(each[key] for each in closed):.1f}" for key in ("p50_ms", "p99_ms")),
            f"{median(each['p99_ms'] for each in opened):.1f}",
            str(sum(each["wrong"] for each in (*closed, *opened))),
            f"{speed / own:.0%}",
        )
    Console().print(table)
    raw = ", ".join(f"{name} {speed:,.1f}" for name, speed in results["raw"].items())
    Console().print(f"raw forward, images/s: {raw}")


def prepare(folder: Path, model: str) -> None:
    """Export the model, and write inputs with their answers; once for a folder."""
    torch.set_num_threads(1)
    if (folder / "answers.npy").exists():
        return
    torch.manual_seed(0)
    shape, classes = SHAPES[model]
    source = of_factory(model, shape=shape, classes=classes, arguments={}, weights=None)
    export(source, f"file://{folder}/package", name="model", version="1", say=print)
    inputs = np.random.default_rng(1).random((INPUTS, *shape), dtype=np.float32)
    with torch.no_grad():
        answers = source.module(torch.from_numpy(inputs)).numpy()
    np.save(folder / "inputs.npy", inputs)
    np.save(folder / "answers.npy", answers)


def raw_forward(folder: Path) -> dict[str, float]:
    """Each backend's forward of the largest batch without a server, in images a second."""
    from workloads.serving.backends import Runtime, candidates
    from workloads.serving.choosing import measure

    inputs = np.load(folder / "inputs.npy")
    package = open_package(f"file://{folder}/package", folder / "cache")
    raw = {}
    for backend in candidates(package, Runtime(threads=1)):
        curve = measure(backend.load(package, Runtime(threads=1)), [inputs], BATCH_MAX)
        raw[backend.name] = BATCH_MAX / curve.at(BATCH_MAX)
    return raw


@contextmanager
def collector() -> Iterator[str]:
    """The endpoint of one that drops what it gets."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """One export of many spans."""
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def serving(name: str, folder: Path, python: Path, slo_ms: int) -> Iterator[int]:
    port = free_port()
    environment = dict(os.environ) | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder)}
    log, ending = (folder / "server.log").open("w"), ExitStack()
    if name == "fusion traced":
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = ending.enter_context(collector())
    if name.startswith("fusion"):
        config = folder / "serving.yaml"
        model: dict[str, Any] = {"versions": [{"package": f"file://{folder}/package"}], "slo_ms": slo_ms}
        model |= {"batch_max": BATCH_MAX, "backends": ["eager"] if name == "fusion eager" else []}
        ports = {"port": free_port(), "grpc_port": port} if name == "fusion grpc" else {"port": port}
        config.write_text(json.dumps({"host": "127.0.0.1", **ports, "models": [model]}))
        command = [sys.executable, "-m", "workloads.serving", "--config", str(config)]
    else:
        program = folder / "package" / "program.pt2"
        command = [str(python), str(HERE / "serving_peers.py"), name, str(program), str(port), str(BATCH_MAX)]
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        wait_for(name, folder, port, process)
        yield port
    finally:
        ending.close()
        os.killpg(process.pid, 15)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


def wait_for(name: str, folder: Path, port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(240):
        if process.poll() is not None:
            sys.exit(f"{name} ended: {(folder / 'server.log').read_text()[-2000:]}")
        try:
            ask(name, folder, port, seconds=0.01, warm_up_s=0.01, clients=1)
        except subprocess.CalledProcessError:
            time.sleep(0.5)
        else:
            return
    sys.exit(f"{name} does not answer: {(folder / 'server.log').read_text()[-2000:]}")


def measured(name: str, folder: Path, port: int, seconds: float) -> dict[str, Any]:
    closed = ask(name, folder, port, seconds=seconds, warm_up_s=1)
    rate = closed["per_second"] * SHARE_OF_CAPACITY
    found = {"closed": closed, "open": ask(name, folder, port, seconds=seconds, warm_up_s=0.2, per_second=rate)}
    for line in (folder / "server.log").read_text().splitlines() if name.startswith("fusion") else ():
        event = json.loads(line) if line.startswith("{") else {}
        if event.get("event") == "backend" and event["chosen"]:
            found["backend"] = event["backend"]
    return found


def ask(name: str, folder: Path, port: int, **how: float) -> dict[str, Any]:
    path = PATHS.get(name, "/v2/models/model/raw")
    spec: dict[str, Any] = {"port": port, "path": path, "clients": CLIENTS, **how}
    spec |= {"inputs": str(folder / "inputs.npy"), "answers": str(folder / "answers.npy")}
    spec |= {"in_json": IN_JSON.get(name), "grpc": name == "fusion grpc"}
    (folder / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "benchmarks.serving_load", str(folder / "spec.json")]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, cwd=HERE.parent)
    except subprocess.CalledProcessError as error:
        error.add_note(error.stderr[-2000:])
        raise
    found: dict[str, Any] = json.loads(done.stdout)
    if not found["statuses"].get("200"):
        raise subprocess.CalledProcessError(1, command)
    return found


def peers_python() -> Path:
    """The peers' own environment, made once for each version of their list."""
    wanted = HERE / "serving_peers.txt"
    home = CACHE / "benchmarks" / f"serving-{hashlib.sha256(wanted.read_bytes()).hexdigest()[:12]}"
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        uv = str(find_uv())
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", "3.11", str(home)], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), "-r", str(wanted)], check=True)
        (home / "ready").touch()
    return python


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


if __name__ == "__main__":
    main()
