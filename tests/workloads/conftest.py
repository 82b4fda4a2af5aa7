"""A real S3 server for the tests of this folder, with the digits in a bucket."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
import yaml

from workloads.data.digits import write_digits
from workloads.training.config import TrainingConfig

if TYPE_CHECKING:
    import torch

HERE = Path(__file__).parent
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


SmallDisk = Callable[[int], Path]
"""A folder that is a disk of so many KiB; asked again, the same disk gets that size."""


def free_port() -> int:
    """Below those that the kernel gives to outgoing connections, one of which could else take it before it is used."""
    lowest_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.SystemRandom().sample(range(lowest_given // 2, lowest_given), 100):
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise AssertionError(f"none of 100 ports below {lowest_given} is free")


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    endpoint = f"http://127.0.0.1:{free_port()}"
    server = subprocess.Popen(
        [Path(sys.executable).with_name("moto_server"), "-H", "127.0.0.1", "-p", endpoint.rsplit(":", 1)[1]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(f"{endpoint}/moto-api/data.json", server)
        yield endpoint
    finally:
        server.kill()
        server.wait()


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        assert server.poll() is None, "moto_server ended"
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("moto_server does not answer")


@pytest.fixture
def s3(moto_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A boto3 client; everything in the test, and the processes that it starts, reach the same server."""
    for name, value in (CREDENTIALS | {"AWS_ENDPOINT_URL": moto_endpoint, "HOME": str(tmp_path / "home")}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    yield boto3.client("s3")


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"test-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def digits(bucket: str) -> str:
    url = f"s3://{bucket}/data/digits"
    write_digits(url)
    return url


def document_of(data: str, checkpoints: str, outputs: str) -> dict[str, Any]:
    """A short deterministic run on the digits."""
    return {
        "run": "test",
        "data": {"url": data, "batch_size": 64},
        "epochs": 2,
        "deterministic": True,
        "threads": 1,
        "checkpoint": {"url": checkpoints, "every_steps": 7},
        "outputs": {"url": outputs},
    }


@pytest.fixture
def configured(bucket: str, digits: str) -> Callable[..., TrainingConfig]:
    """The run with all in the bucket; arguments replace fields."""

    def build(**changes: Any) -> TrainingConfig:
        document = document_of(digits, f"s3://{bucket}/checkpoints", f"s3://{bucket}/runs/test")
        return TrainingConfig.model_validate(document | changes)

    return build


@dataclass(frozen=True)
class Whole:
    """What the run is without faults, of the model that writes down what it sees."""

    samples: list[str]
    weights: dict[str, torch.Tensor]


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Done once, on this machine's disk."""
    import torch

    from tests.workloads.recording import recorded
    from workloads.training.run import run
    from workloads.training.stopping import StopRequest

    folder = tmp_path_factory.mktemp("whole")
    document = document_of(f"file://{folder}/digits", f"file://{folder}/checkpoints", f"file://{folder}/out")
    write_digits(document["data"]["url"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECORD_FOLDER", str(folder))
        patch.setenv("HOME", str(folder))
        model = {"name": "tests.workloads.recording:RecordingNet"}
        run(TrainingConfig.model_validate(document | {"model": model}), StopRequest())
    (samples,) = recorded(folder)
    return Whole(samples, torch.load(folder / "out" / "model.pt", weights_only=True))


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[[TrainingConfig], Path]:
    def write(config: TrainingConfig) -> Path:
        path = tmp_path / "training.yaml"
        path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
        return path

    return write


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `recording:RecordingNet` writes what it saw; processes that the test starts can import it too."""
    folder = tmp_path / "recorded"
    folder.mkdir()
    monkeypatch.setenv("RECORD_FOLDER", str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(HERE), str(HERE.parents[1]))))
    monkeypatch.syspath_prepend(str(HERE))
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(kib: int) -> Path:
        how = f"size={kib}k" if not folder.is_mount() else f"remount,size={kib}k"
        if subprocess.run(["mount", "-t", "tmpfs", "-o", how, "tmpfs", folder], check=False).returncode:
            pytest.skip("a disk of its own needs the right to mount one")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", "-l", folder], check=True)
