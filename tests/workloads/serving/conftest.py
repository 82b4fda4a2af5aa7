"""A small package, and real servers that serve it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from workloads.models.fusionnet import FusionNet
from workloads.serving.export import Source, export
from workloads.serving.package import Array, Artifact, Manifest, PackageFile, TensorSpec

SHAPE, CLASSES = (1, 8, 8), 10
STARTS_WITHIN_S = 120


_FILE = PackageFile(name="program.pt2", bytes=1, sha256="0" * 64)
OF_ONE_NUMBER = Manifest(
    name="of-one-number",
    version="1",
    source="a test",
    inputs=(TensorSpec(name="input", datatype="FP32", shape=(1,)),),
    outputs=(TensorSpec(name="output", datatype="FP32", shape=(1,)),),
    self_test=_FILE,
    artifacts=(Artifact(format="pytorch", files=(_FILE,), made_with="a test", max_abs_error=0),),
)
"""Of a model that a test makes by hand: a number in, a number out; its files are not there."""


def images(rows: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random((rows, *SHAPE), dtype=np.float32)


@pytest.fixture(scope="session")
def module() -> FusionNet:
    torch.manual_seed(0)
    return FusionNet(shape=SHAPE, classes=CLASSES).eval()


@pytest.fixture(scope="session")
def package_url(module: FusionNet, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Version 1 of `small`, as a PyTorch program and as ONNX."""
    return exported(module, tmp_path_factory.mktemp("packages") / "1", "1")


def exported(module: torch.nn.Module, folder: Path, version: str) -> str:
    url = f"file://{folder}"
    export(Source(module, {"input": images(4)}), url, name="small", version=version, formats=("onnx",))
    return url


@dataclass
class Running:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    port: int
    config: Path
    log: Path

    def ask(
        self, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=body, headers=dict(headers or {}))
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def classify(self, inputs: Array, path: str = "/v2/models/small/raw") -> Array:
        status, _, body = self.ask(path, inputs.tobytes())
        assert status == 200, body
        return np.frombuffer(body, np.float32).reshape(len(inputs), CLASSES)

    def reload(self, document: Mapping[str, Any], *, says: str) -> None:
        self.config.write_text(yaml.safe_dump(dict(document)))
        self.process.send_signal(signal.SIGHUP)
        self.wait_until(lambda: says in self.log.read_text())

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        for _ in range(STARTS_WITHIN_S * 10):
            assert self.process.poll() is None, self.log.read_text()
            if is_so():
                return
            time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]


Start = Callable[..., Running]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Start]:
    """Starts a server from a serving.yaml; it is ready when the call returns."""
    with servers(tmp_path) as start:
        yield start


@contextmanager
def servers(folder: Path, program: str = "workloads.serving") -> Iterator[Start]:
    """Starts servers, each in a process of its own, that end with the context."""
    started: list[Running] = []

    def start(*models: Mapping[str, Any], **settings: Any) -> Running:
        config, log = folder / f"serving-{len(started)}.yaml", folder / f"log-{len(started)}"
        config.write_text(yaml.safe_dump({"host": "127.0.0.1", "port": 0, "models": list(models)} | settings))
        process = subprocess.Popen(
            [sys.executable, "-m", program, "--config", str(config)],
            env=os.environ | {"XDG_CACHE_HOME": str(folder / "cache")},
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
            text=True,
        )
        running = Running(process, 0, config, log)
        started.append(running)
        running.wait_until(lambda: bool(running.events("ready")))
        running.port = running.events("ready")[0]["port"]
        return running

    try:
        yield start
    finally:
        for each in started:
            each.process.kill()
            each.process.wait()
