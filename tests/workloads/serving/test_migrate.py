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


class Spectrum(nn.Module):
    """ONNX has no eigenvalues."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvalsh(x + x.mT)


def test_a_format_that_can_t_say_the_model_is_left_out_with_the_reason_and_so_is_what_is_compiled_from_it(
    tmp_path: Path,
) -> None:
    batch = {0: torch.export.Dim("batch", max=4096)}
    program = torch.export.export(Spectrum(), (torch.randn(3, 4, 4),), dynamic_shapes=(batch,))
    torch.export.save(program, tmp_path / "spectrum.pt2")
    for chip, missing in (("m5.large", ["onnx", "openvino"]), ("L4", ["onnx"])):
        package = tmp_path / chip
        options = ("--to", chip, "--program", str(tmp_path / "spectrum.pt2"), "--json", str(tmp_path / "report.json"))
        done = CliRunner().invoke(command, [str(package), *options])
        assert done.exit_code == 0, (done.output, done.exception)
        assert [line.split(":")[1].strip() for line in done.output.splitlines() if "left out" in line] == missing
        assert "linalg_eigh" in report(tmp_path)["left_out"][0] and not report(tmp_path)["still_to_run"]
        made = open_package(f"file://{package}", tmp_path / "cache")
        assert [each.format for each in made.manifest.artifacts] == ["pytorch"]


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
