"""Training on an XLA device. torch_xla goes with an older PyTorch, so it runs in a Python of its own (docs/training.md)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workloads.training.config import TrainingConfig

ROOT = Path(__file__).resolve().parents[2]
XLA_PYTHON = os.environ.get("FUSION_XLA_PYTHON", "")

Configured = Callable[..., TrainingConfig]
WriteConfig = Callable[[TrainingConfig], Path]


def train(python: str, config: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-m", "workloads.training", "--config", str(config)],
        env=os.environ | {"PJRT_DEVICE": "CPU", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def finished(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_without_torch_xla_the_device_is_refused_in_one_sentence(
    configured: Configured, write_config: WriteConfig
) -> None:
    done = train(sys.executable, write_config(configured(device="xla")))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "device: got xla, which needs the package torch_xla, as the TPU's container has it"
    )


@pytest.mark.skipif(not XLA_PYTHON, reason="FUSION_XLA_PYTHON names no Python with torch_xla")
def test_a_run_in_bf16_learns_saves_and_resumes_on_an_xla_device(
    configured: Configured, write_config: WriteConfig
) -> None:
    options: dict[str, Any] = {"device": "xla", "precision": "bf16", "deterministic": False}
    first = finished(train(XLA_PYTHON, write_config(configured(epochs=3, **options))))
    assert first["accuracy"] > 0.85
    done = train(XLA_PYTHON, write_config(configured(epochs=6, **options)))
    again = finished(done)
    assert again["steps"] == 2 * first["steps"]
    assert '"resumed"' in done.stdout
    assert again["accuracy"] > first["accuracy"] - 0.02
