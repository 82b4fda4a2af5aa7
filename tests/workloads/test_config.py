from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from workloads.config import ConfigError
from workloads.training.config import TrainingConfig, load

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
        ({"epochs": True}, "FILE: epochs: got true; expected a number"),
        (
            {"outputs": {"url": "file://runs"}},
            'FILE: outputs.url: got "file://runs"; expected file:// and an absolute path, such as file:///data/digits',
        ),
        ({"epoch": 3}, "FILE: epoch: unknown field; remove it or check its spelling"),
        ({"model": "decoder"}, 'FILE: model: got "decoder"; expected fields and their values'),
        ({"data": {}}, "FILE: data.url: not set, and it has no default"),
        (
            {"data": {"url": "bucket/data"}},
            'FILE: data.url: got "bucket/data"; expected a URL that starts with s3://, gs://, hdfs://, '
            "webhdfs://, swebhdfs:// or file://",
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


LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
"""A list of 9^11, by aliases."""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a\n- b\n",
        "run: [unclosed",
        "run: a\nepochs: 1\nrun: b\n",
        "[" * 500,
        "run: &x [*x]",
        f"run: &x [*x]\n{LAUGHS}",
        "? [a]\n: 1",
    ]
    + ["!!map [1]", "run: 0x_", "run: 2001-99-99", "epochs: " + "9" * 5000, "run: !!python/name:os.system", "\0"],
)
def test_a_file_that_is_no_config_is_refused_in_short_lines(tmp_path: Path, text: str) -> None:
    sentence = refused(tmp_path, text)
    assert all(line.startswith("FILE: ") and len(line) < 500 for line in sentence.splitlines())


def fields_of(section: type[BaseModel], *before: str) -> Iterator[tuple[str, ...]]:
    """The path to every field of a config and of its sections."""
    for name, field in section.model_fields.items():
        yield (*before, name)
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from fields_of(kind, *before, name)


LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.dates() | st.text(st.characters(codec="utf-8"))
    | st.sampled_from(["ddp", "fsdp", "adagrad", "sgd", "fp8", "poisson", "s3://", "file:///data", "${A}", "$", 1, 2])
)  # fmt: skip
KEYS = st.text(st.characters(codec="utf-8"), max_size=5) | st.integers() | st.none()
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=5
)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(changes=st.lists(st.tuples(st.sampled_from([*fields_of(TrainingConfig)]), VALUES), min_size=1, max_size=3))
def test_whatever_a_field_holds_it_is_taken_or_refused_with_file_and_field(tmp_path: Path, changes: list[Any]) -> None:
    document: dict[str, Any] = yaml.safe_load(yaml.safe_dump(GOOD))
    for (*sections, field), value in changes:
        there = document
        for section in sections:
            if not isinstance(there.get(section), dict):
                there[section] = {}
            there = there[section]
        there[field] = value
    path = tmp_path / "training.yaml"
    path.write_text(yaml.safe_dump(document))
    try:
        load(path)
    except ConfigError as error:
        assert all(line.startswith(f"{path}: ") for line in str(error).splitlines())


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
