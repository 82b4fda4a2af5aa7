"""A model moves to another chip only with the answers that it gave, and what was not run is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from fusion.commands.migrate import command
from fusion.errors import FusionError
from tests.workloads.serving.conftest import CLASSES
from workloads.serving.package import open_package


def migrated(module: nn.Module, place: Path, chip: str, *options: str) -> Result:
    torch.save(module.state_dict(), place / "weights.pt")
    named = ["--model", "fusionnet", "--shape", "1x8x8", "--classes", str(CLASSES), "--weights", str(place / "weights.pt")]  # fmt: skip
    report = ["--json", str(place / "report.json")]
    return CliRunner().invoke(command, [str(place / "package"), "--to", chip, *named, *report, *options])


def report(place: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place / "report.json").read_text())
    return found


def test_for_a_gpu_outputs_are_compared_in_its_precision_and_its_compiler_is_left_to_run(
    module: nn.Module, tmp_path: Path
) -> None:
    done = migrated(module, tmp_path, "L4")
    assert done.exit_code == 0, (done.output, done.exception)
    found = report(tmp_path)
    assert {each["precision"] for each in found["measured_on_this_cpu"]} == {"fp32", "bf16"}
    assert all(each["fits"] and each["batch_ms"] > 0 for each in found["measured_on_this_cpu"])
    errors = {(each["backend"], each["precision"]): each["max_abs_error"] for each in found["measured_on_this_cpu"]}
    assert errors["eager", "fp32"] < 1e-4 < errors["eager", "bf16"]
    assert 0 < found["predicted_s"]["low"] <= found["predicted_s"]["value"] <= found["predicted_s"]["high"] < 1
    assert "predicted for L4, not measured" in done.output
    assert "trtexec --onnx=" in found["still_to_run"]
    assert "it was not run here" in done.output
    package = open_package(f"file://{tmp_path / 'package'}", tmp_path / "cache")
    assert {each.format for each in package.manifest.artifacts} == {"pytorch", "onnx"}


@pytest.mark.parametrize(
    ("chip", "expected"), [("v5e", "exported_program_to_stablehlo"), ("trn2", "torch_neuronx.trace"), ("m5.large", "")]
)
def test_each_kind_of_chip_has_its_own_formats_and_compiler(
    chip: str, expected: str, module: nn.Module, tmp_path: Path
) -> None:
    done = migrated(module, tmp_path, chip)
    assert done.exit_code == 0, (done.output, done.exception)
    assert expected in report(tmp_path)["still_to_run"]
    assert bool(report(tmp_path)["still_to_run"]) == bool(expected)


@pytest.mark.parametrize(
    ("chip", "options", "expected"),
    [
        ("L4", ("--absolute", "0", "--relative", "0"), "outputs of .* rows differ"),
        ("H1000", (), "no such accelerator or instance type; nearest: H100"),
        ("Gaudi1", (), "Gaudi1 .* is none for which Fusion exports"),
    ],
)
def test_what_can_t_be_moved_is_one_sentence_and_nothing_is_published(
    chip: str, options: tuple[str, ...], expected: str, module: nn.Module, tmp_path: Path
) -> None:
    done = migrated(module, tmp_path, chip, *options)
    assert isinstance(done.exception, FusionError)
    with pytest.raises(FusionError, match=expected):
        raise done.exception
    assert not (tmp_path / "package").exists()
