"""Nothing of a sample comes into what a run says: its logs, metrics, curves and reports, however it ends."""

from __future__ import annotations

import io
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.workloads.conftest import free_port
from tests.workloads.ranks import Ended, Ranks, run_ranks
from tests.workloads.test_monitor import numbers
from workloads.data.format import Index, Kind, write_index, write_split

SECRET = "Anna-Secret"
MARK = 77_310
"""All that a sample holds lies from here on: tokens, columns and category numbers."""
QUOTED = re.compile(rf"{MARK // 10}\d")
MODEL = {"name": "tests.workloads.own_models:net"}
FIELDS: dict[Kind, dict[str, Any]] = {
    "tabular": {"shape": (3,)},
    "text": {"shape": (4,), "vocabulary": MARK + 10},
    "image": {"shape": (3, 8, 8), "scale": 255, "stored_as": "files"},
}


def write(url: str, kind: Kind, *, torn: bool = False) -> str:
    fields: dict[str, Any] = {"name": kind, "source": "made", "kind": kind, "classes": ("a", "b")} | FIELDS[kind]
    random = np.random.default_rng(0)
    splits: dict[Any, Any] = {}
    for split in ("train", "test"):
        inputs: Any = (MARK + random.integers(0, 10, (48, FIELDS[kind]["shape"][0]))).astype(np.int32)
        if kind == "tabular":
            inputs = inputs.astype(np.float32)
        if kind == "image":
            inputs = [photograph(number, torn=torn and number == 30) for number in range(48)]
        splits[split] = write_split(url, split, inputs, np.arange(48) % 2, shard_samples=16)
    write_index(url, Index(splits=splits, **fields))
    return url


def photograph(number: int, *, torn: bool) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 200, 100)).save(file, "PNG")
    return file.getvalue()[:33] + SECRET.encode() * 9 if torn else file.getvalue()


@pytest.fixture
def started(recording: Path, tmp_path: Path) -> Callable[..., Path]:
    def config(kind: Kind, *, torn: bool = False, **changes: Any) -> Path:
        document = {
            "run": "test",
            "model": MODEL if kind != "image" else {"name": "fusionnet"},
            "data": {
                "url": write(f"file://{tmp_path}/data", kind, torn=torn),
                "batch_size": 8,
                "cache": {"folder": str(tmp_path / "cache")},
            },
            "epochs": 2,
            "threads": 1,
            "checkpoint": {"url": f"file://{tmp_path}/checkpoints"},
            "outputs": {"url": f"file://{tmp_path}/out"},
        }
        path = tmp_path / "training.yaml"
        path.write_text(json.dumps(document | changes))
        return path

    return config


def said(ended: Ended, folder: Path) -> str:
    """All that a run has told anyone: what it printed, and every file of its results but the weights."""
    files = [file for file in (folder / "out").rglob("*") if file.is_file() and file.name != "model.pt"]
    return ended.out + ended.err + "".join(file.read_bytes().decode("latin-1") for file in files)


def assert_quotes_nothing(text: str) -> None:
    assert not QUOTED.search(text), QUOTED.search(text)
    assert SECRET not in text


@pytest.mark.parametrize("kind", ["tabular", "text"])
def test_a_run_that_ends_well_has_said_nothing_of_its_samples(
    kind: Kind, started: Callable[..., Path], tmp_path: Path
) -> None:
    port = free_port()
    path = started(kind, metrics_port=port, epochs=10)
    told: dict[str, float] = {}
    with Ranks(path, 1) as ranks:
        while ranks.running():
            try:
                told.update(numbers(port))
            except OSError:
                time.sleep(0.05)
        (ended,) = ranks.ended()
    assert (ended.status, ended.err) == (0, "")
    assert told["fusion_training_steps_total"] > 0
    (warned,) = [line for line in map(json.loads, ended.out.splitlines()) if line["event"] == "warning"]
    assert warned["reason"].startswith("UserWarning of own_models.py, line "), "what and where, without its words"
    assert (tmp_path / "out" / "report.json").exists() and list((tmp_path / "out" / "tensorboard").iterdir())
    assert_quotes_nothing(said(ended, tmp_path) + json.dumps(told))


@pytest.mark.parametrize(
    ("fails", "shown"),
    [
        ("by a message", "ValueError: (not shown, as it may quote a sample; log_messages: true shows it)"),
        ("by another error", "RuntimeError: (not shown"),
        ("by shape", "mat1 and mat2 shapes cannot be multiplied (8x2 and 3x2)"),
    ],
)
def test_an_error_of_a_model_of_ones_own_is_said_with_its_place_and_without_its_samples(
    fails: str, shown: str, started: Callable[..., Path], tmp_path: Path
) -> None:
    (ended,) = run_ranks(started("tabular"), 1, {0: {"FAILS": fails}})
    assert ended.status == 1
    assert "own_models.py" in ended.err and "in forward" in ended.err
    assert shown in ended.err
    assert_quotes_nothing(said(ended, tmp_path))


def test_who_wants_the_messages_gets_them(started: Callable[..., Path]) -> None:
    (ended,) = run_ranks(started("tabular", log_messages=True), 1, {0: {"FAILS": "by a message"}})
    assert re.search(rf"ValueError: can't take \[\[{MARK // 10}", ended.err)
    assert f"odd: [[{MARK // 10}" in ended.out


def test_a_torn_image_and_a_token_out_of_range_are_named_by_their_place(
    started: Callable[..., Path], tmp_path: Path
) -> None:
    (ended,) = run_ranks(started("image", torn=True), 1)
    assert ended.status == 1
    assert re.fullmatch(r"\S+train-00001\.arrow holds an image that can't be read; .*\n", ended.err)
    assert_quotes_nothing(said(ended, tmp_path))

    path = started("text")
    index = tmp_path / "data" / "index.json"
    index.write_text(index.read_text().replace(f'"vocabulary": {MARK + 10}', f'"vocabulary": {MARK // 2}'))
    (ended,) = run_ranks(path, 1)
    assert ended.status == 1
    assert re.fullmatch(r"\S+\.arrow: input: row 1 is out of range, expected 0 to 38654; .*\n", ended.err)
    assert_quotes_nothing(said(ended, tmp_path))


def test_no_runtime_tells_its_maker_of_the_machine_or_the_model() -> None:
    """ONNX Runtime and OpenVINO's converter do, unless they are told not to."""
    import workloads.serving  # noqa: F401 # the import is what does it

    telling = pytest.importorskip("openvino.tools.ovc.telemetry_utils")
    assert telling.tm.__name__ == "openvino.tools.ovc.telemetry_stub"
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
