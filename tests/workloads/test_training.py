from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from workloads.config import ConfigError
from workloads.models.fusionnet import FusionNet
from workloads.training.config import TrainingConfig
from workloads.training.run import run
from workloads.training.stopping import StopRequest

Configured = Callable[..., TrainingConfig]


@pytest.fixture
def trained(configured: Configured, write_config: Callable[[TrainingConfig], Path]) -> subprocess.CompletedProcess[str]:
    """The documented command with the default epochs and batch size, and data and results in the bucket."""
    config = configured(epochs=20, threads=None, deterministic=False, checkpoint=_every(configured, 500))
    config = config.model_copy(update={"data": config.data.model_copy(update={"batch_size": 32})})
    return subprocess.run(
        [sys.executable, "-m", "workloads.training", "--config", write_config(config)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )


def _every(configured: Configured, steps: int) -> dict[str, Any]:
    return {"url": configured().checkpoint.url, "every_steps": steps}


def test_fusionnet_is_above_97_percent_on_held_out_digits_and_leaves_its_results_in_the_bucket(
    trained: subprocess.CompletedProcess[str], s3: Any, bucket: str, tmp_path: Path
) -> None:
    assert (trained.returncode, trained.stderr) == (0, "")
    lines = [json.loads(line) for line in trained.stdout.splitlines()]
    finished = lines[-1]
    assert finished["event"] == "finished"
    assert finished["accuracy"] > 0.97
    assert finished["samples_per_second"] > 0
    assert 0 <= finished["data_wait_share"] <= 1
    assert finished["step_time_ms"]["p50"] <= finished["step_time_ms"]["p99"]

    def content(key: str) -> bytes:
        body: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    report = json.loads(content("runs/test/report.json"))
    assert report["accuracy"] == finished["accuracy"]
    assert report["held_out_samples"] == 360
    assert report["classification_report"]["accuracy"] == pytest.approx(report["accuracy"], abs=1e-4)
    assert "weighted avg" in content("runs/test/classification_report.txt").decode()

    for chart in ("confusion_matrix", "roc", "precision_recall", "calibration", "loss"):
        assert content(f"runs/test/{chart}.png").startswith(b"\x89PNG")

    model = FusionNet(shape=(3, 8, 8), classes=10)
    model.load_state_dict(torch.load(io.BytesIO(content("runs/test/model.pt")), weights_only=True))

    events = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket, Prefix="runs/test/tensorboard/")["Contents"]]
    for key in events:
        (tmp_path / "tb").mkdir(exist_ok=True)
        (tmp_path / "tb" / key.rsplit("/", 1)[-1]).write_bytes(content(key))
    curves = EventAccumulator(str(tmp_path / "tb"))
    curves.Reload()
    assert [event.value for event in curves.Scalars("test/accuracy")] == [pytest.approx(report["accuracy"], abs=1e-4)]
    assert len(curves.Scalars("train/loss")) == 20


def test_the_same_config_gives_the_same_bits(configured: Configured, weights: Callable[[], Any], s3: Any) -> None:
    run(configured(), StopRequest())
    first = weights()
    forget_checkpoints(s3, configured)
    run(configured(), StopRequest())
    assert_same(first, weights())


def test_a_finished_run_that_is_started_again_says_its_result_and_trains_nothing(
    configured: Configured, capsys: pytest.CaptureFixture[str]
) -> None:
    run(configured(), StopRequest())
    first = capsys.readouterr().out.splitlines()
    run(configured(), StopRequest())
    second = capsys.readouterr().out.splitlines()
    assert json.loads(second[-1]) == json.loads(first[-1])
    assert not any('"event": "epoch"' in line for line in second)


def test_a_teams_own_model_is_named_by_module_and_factory(configured: Configured, recording: Path) -> None:
    run(configured(epochs=1, model={"name": "recording:RecordingNet"}), StopRequest())
    assert len(list(recording.iterdir())) == 1


def test_a_model_that_does_not_fit_the_data_is_refused_before_training(configured: Configured) -> None:
    with pytest.raises(ConfigError, match=r"model\.classes: got 7; the data set s3://.* has 10"):
        run(configured(model={"classes": 7}), StopRequest())


def test_bf16_trains_too(configured: Configured, capsys: pytest.CaptureFixture[str]) -> None:
    run(configured(precision="bf16"), StopRequest())
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["accuracy"] > 0.5


@pytest.fixture
def weights(s3: Any, bucket: str) -> Callable[[], Any]:
    return lambda: final_weights(s3, bucket)


def final_weights(s3: Any, bucket: str) -> Any:
    body = s3.get_object(Bucket=bucket, Key="runs/test/model.pt")["Body"].read()
    return torch.load(io.BytesIO(body), weights_only=True)


def forget_checkpoints(s3: Any, configured: Configured) -> None:
    bucket = configured().checkpoint.url.split("/")[2]
    for item in s3.list_objects_v2(Bucket=bucket, Prefix="checkpoints/")["Contents"]:
        s3.delete_object(Bucket=bucket, Key=item["Key"])


def assert_same(first: Any, second: Any) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
