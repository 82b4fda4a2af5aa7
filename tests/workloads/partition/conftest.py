"""A trained model, its split plan, and its cloud behind a link that tests shape."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from tests.shaped_link import ShapedLink, shaped_link, why_not
from workloads.models.fusionnet import FusionNet
from workloads.partition import client as client_module
from workloads.partition import devices
from workloads.partition.client import SplitClient
from workloads.partition.plan import SplitPlan
from workloads.partition.planning import Profiler, Settings, make_plan
from workloads.serving.backends import Forward, Runtime
from workloads.serving.choosing import Choice, Curve, choose
from workloads.serving.export import Source
from workloads.serving.package import Array, Package

SCALE = 240.0
"""Of pixels that go up to 240; the digits have 16 steps."""
EDGE_IS_SLOWER = 100
"""The edge's parts sleep so many times what they compute."""


@dataclass(frozen=True)
class Split:
    """A plan in a folder, and what it is of."""

    plan: SplitPlan
    url: str
    module: nn.Module
    images: Array
    labels: Array

    @cached_property
    def wanted(self) -> Array:
        """The whole model's answers to all rows."""
        with torch.no_grad():
            answers: Array = self.module(torch.from_numpy(self.images)).numpy()
        return answers

    def check(self, row: int, outputs: list[Array]) -> None:
        """A lossy coding moves an answer a little, but never as near to another row's as to its own."""
        (found,) = outputs
        distances = np.abs(self.wanted - found).max(1)
        assert distances.argmin() == row and distances[row] < 1, distances[row]


def trained() -> tuple[nn.Module, Array, Array]:
    """FusionNet after two seconds on digits, and the digits that it has not seen."""
    digits = load_digits()
    images = (digits.images.astype(np.float32) / np.float32(16))[:, None]
    images = images.repeat(2, axis=2).repeat(2, axis=3)
    torch.manual_seed(0)
    module = FusionNet(shape=(1, 16, 16), classes=10, hidden=64)
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    order = np.random.default_rng(0).permutation(len(images))
    for start in range(0, 1_280, 64):
        rows = order[start : start + 64]
        loss = nn.functional.cross_entropy(
            module(torch.from_numpy(images[rows])), torch.from_numpy(digits.target[rows])
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    rest = order[1_280:1_480]
    return module.eval(), np.ascontiguousarray(images[rest]), digits.target[rest]


def of_this_machine(times: float) -> Profiler:
    return lambda layers, inputs: slowed(devices.measured(layers, inputs, name="here", threads=1), times)


def slowed(profile: devices.DeviceProfile, times: float) -> devices.DeviceProfile:
    return profile.model_copy(update={"seconds": tuple(each * times for each in profile.seconds)})


@pytest.fixture(scope="session")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    module, images, labels = trained()
    url = f"file://{tmp_path_factory.mktemp('split') / 'plan'}"
    source = Source(module, {"image": images}, labels=labels, scale=SCALE)
    settings = Settings("digits", "1", loss_max=0.02)
    plan = make_plan(source, url, of_this_machine(EDGE_IS_SLOWER), of_this_machine(1), settings, every_cut=True)
    return Split(plan, url, module, images, labels)


@dataclass
class Cloud:
    """The server at the other end of a link."""

    link: ShapedLink
    config: Path
    log: Path
    environment: dict[str, str]
    process: subprocess.Popen[str] | None = None
    port: int = 0

    def start(self) -> None:
        self.log.write_text("")
        self.process = subprocess.Popen(
            self.link.inside([sys.executable, "-m", "workloads.serving", "--config", str(self.config)]),
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
        )
        for _ in range(600):
            events = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
            ready = [each for each in events if each["event"] == "ready"]
            if ready:
                self.port = ready[0]["port"]
                return
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    @property
    def url(self) -> str:
        return f"http://{self.link.address}:{self.port}"


@pytest.fixture(scope="module")
def cloud(split: Split, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("cloud")
    config = folder / "serving.yaml"
    config.write_text(f"port: 8093\n{Path(split.url.removeprefix('file://'), 'serving.yaml').read_text()}")
    environment = os.environ | {"FUSION_SPLIT_URL": split.url, "XDG_CACHE_HOME": str(folder / "cache")}
    with shaped_link() as link:
        running = Cloud(link, config, folder / "log", environment)
        running.start()
        yield running
        running.kill()


@pytest.fixture
def slow_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    """The edge's parts take `EDGE_IS_SLOWER` times as long as here."""

    def slow(package: Package, runtime: Runtime, *, batch_max: int, slo_s: float, named: Sequence[str] = ()) -> Choice:
        choice = choose(package, runtime, batch_max=batch_max, slo_s=slo_s, named=named)
        curve = Curve(choice.curve.rows, tuple(each * EDGE_IS_SLOWER for each in choice.curve.seconds))
        return replace(choice, forward=_slow(choice.forward, curve.at(1) - choice.curve.at(1)), curve=curve)

    monkeypatch.setattr(client_module, "choose", slow)


def _slow(forward: Forward, by_s: float) -> Forward:
    """By the same time always: a request that shared its processor would be made to wait a hundred times as long."""

    def run(inputs: list[Array]) -> list[Array]:
        outputs = forward(inputs)
        time.sleep(by_s)
        return outputs

    return run


@pytest.fixture
def client(split: Split, cloud: Cloud, slow_edge: None, tmp_path: Path) -> Iterator[SplitClient]:
    cloud.link.shape(100, 1)
    made = SplitClient(split.url, cloud.url, slo_s=0.5, threads=1, cache=tmp_path)
    yield made
    made.close()
