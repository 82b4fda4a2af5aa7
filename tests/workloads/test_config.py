from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from workloads.config import ConfigError
from workloads.training.config import load

GOOD: dict[str, Any] = {
    "run": "digits",
    "data": {"url": "s3://bucket/data/digits"},
    "checkpoint": {"url": "s3://bucket/checkpoints"},
    "outputs": {"url": "s3://bucket/runs/digits"},
}


def refused(tmp_path: Path, document: object) -> str:
    path = tmp_path / "training.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    with pytest.raises(ConfigError) as error:
        load(path)
    return str(error.value).replace(f"{path}: ", "FILE: ")


def test_the_smallest_config_has_the_documented_defaults(tmp_path: Path) -> None:
    path = tmp_path / "training.yaml"
    path.write_text(yaml.safe_dump(GOOD))
    config = load(path)
    assert (config.model.name, config.epochs, config.learning_rate, config.data.batch_size) == (
        "fusionnet",
        20,
        1e-3,
        32,
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epochs": 0}, "FILE: epochs: got 0; input should be greater than or equal to 1"),
        ({"precision": "fp7"}, "FILE: precision: got \"fp7\"; input should be 'fp32', 'tf32', 'bf16', 'fp16' or 'fp8'"),
        ({"epoch": 3}, "FILE: epoch: unknown field; remove it or check its spelling"),
        ({"model": "decoder"}, 'FILE: model: got "decoder"; expected fields and their values'),
        ({"data": {}}, "FILE: data.url: not set, and it has no default"),
        (
            {"data": {"url": "bucket/data"}},
            'FILE: data.url: got "bucket/data"; expected a URL that starts with s3://, gs://, hdfs:// or file://',
        ),
        (
            {"data": {"url": "${NOT_SET_ANYWHERE}/data"}},
            'FILE: data.url: got "${NOT_SET_ANYWHERE}/data"; the environment variable NOT_SET_ANYWHERE is not set',
        ),
    ],
)
def test_a_wrong_value_is_one_line_with_file_field_value_and_what_was_expected(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    assert refused(tmp_path, GOOD | change) == sentence


def test_every_wrong_value_is_named_at_once(tmp_path: Path) -> None:
    assert len(refused(tmp_path, GOOD | {"epochs": 0, "seed": -1}).splitlines()) == 2


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "run: [unclosed", "run: a\nepochs: 1\nrun: b\n"])
def test_a_file_that_is_no_config_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    assert len(refused(tmp_path, text).splitlines()) == 1


def test_urls_take_the_stacks_bucket_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSION_BUCKET_URL", "s3://provisioned")
    path = tmp_path / "training.yaml"
    path.write_text(yaml.safe_dump(GOOD | {"data": {"url": "${FUSION_BUCKET_URL}/data/digits/"}}))
    assert load(path).data.url == "s3://provisioned/data/digits"


def test_the_command_says_the_error_without_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "training.yaml"
    path.write_text(yaml.safe_dump(GOOD | {"epochs": 0}))
    done = subprocess.run(
        [sys.executable, "-m", "workloads.training", "--config", path], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{path}: epochs: got 0; input should be greater than or equal to 1\n"
