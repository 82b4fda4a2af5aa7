"""A package is whole, or it is refused; and every format in it gives the model's own outputs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.workloads.serving.conftest import CLASSES, SHAPE, exported, images
from workloads.models.fusionnet import FusionNet
from workloads.serving import backends, choosing
from workloads.serving.backends import BACKENDS, Runtime
from workloads.serving.choosing import Curve, TooSlow, choose, measure
from workloads.serving.export import Source, export
from workloads.serving.package import MANIFEST, Array, PackageError, Tolerance, error_of, open_package
from workloads.serving.sources import of_factory, of_program


def test_what_was_exported_is_opened_and_described(package_url: str, tmp_path: Path) -> None:
    manifest = open_package(package_url, tmp_path).manifest
    assert (manifest.name, manifest.version) == ("small", "1")
    assert [(each.name, each.datatype, each.shape) for each in manifest.inputs] == [("input", "FP32", SHAPE)]
    assert [(each.name, each.datatype, each.shape) for each in manifest.outputs] == [("output", "FP32", (CLASSES,))]
    assert {each.format for each in manifest.artifacts} == {"pytorch", "onnx"}
    assert all(each.max_abs_error < 1e-4 for each in manifest.artifacts)


@pytest.mark.parametrize("rows", [1, 3, 32])
@pytest.mark.parametrize("backend", ["eager", "channels_last", "onnxruntime"])
def test_each_backend_gives_the_models_own_outputs(
    backend: str, rows: int, module: FusionNet, package_url: str, tmp_path: Path
) -> None:
    forward = BACKENDS[backend].load(open_package(package_url, tmp_path), Runtime(threads=1))
    with torch.no_grad():
        expected = module(torch.from_numpy(images(rows))).numpy()
    np.testing.assert_allclose(forward([images(rows)])[0], expected, rtol=1e-3, atol=1e-5)


def test_openvino_serves_what_it_was_exported_for(module: FusionNet, tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'package'}"
    export(Source(module, {"input": images(4)}), url, name="small", version="1", formats=("openvino",))
    choice = choose(open_package(url, tmp_path / "cache"), Runtime(threads=1), batch_max=4, slo_s=1, named=["openvino"])
    assert choice.backend == "openvino"


def test_a_program_holds_no_path_of_the_machine_that_exported_it(package_url: str, tmp_path: Path) -> None:
    program = (open_package(package_url, tmp_path).folder / "program.pt2").read_bytes()
    assert b"site-packages" not in program
    assert str(Path(__file__).parents[3]).encode() not in program


def test_a_version_never_changes(module: FusionNet, package_url: str) -> None:
    with pytest.raises(PackageError, match="holds a package already"):
        export(Source(module, {"input": images(4)}), package_url, name="small", version="1")


@pytest.mark.parametrize("file", ["program.pt2", "model.onnx", "self-test.npz"])
@pytest.mark.parametrize("damage", ["a flipped bit", "cut off", "gone"])
def test_a_damaged_file_is_named(file: str, damage: str, package_url: str, tmp_path: Path) -> None:
    folder = copied(package_url, tmp_path)
    data = (folder / file).read_bytes()
    match damage:
        case "gone":
            (folder / file).unlink()
        case "cut off":
            (folder / file).write_bytes(data[: len(data) // 2])
        case _:
            middle = len(data) // 2
            (folder / file).write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    with pytest.raises(PackageError, match=file):
        open_package(f"file://{folder}", tmp_path / "cache")


def test_a_damaged_file_in_the_cache_is_fetched_again(package_url: str, tmp_path: Path) -> None:
    package = open_package(package_url, tmp_path)
    program = package.folder / "program.pt2"
    whole = program.read_bytes()
    program.write_bytes(whole[:100])
    assert open_package(package_url, tmp_path).folder == package.folder
    assert program.read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "expected"),
    [({"inputs": []}, "inputs"), ({"format": "other"}, "format"), ({"extra": 1}, "extra"), ({"name": "a/b"}, "name")],
)
def test_a_manifest_of_something_else_is_refused_by_its_field(
    change: dict[str, object], expected: str, package_url: str, tmp_path: Path
) -> None:
    folder = copied(package_url, tmp_path)
    (folder / MANIFEST).write_text(json.dumps(json.loads((folder / MANIFEST).read_text()) | change))
    with pytest.raises(PackageError, match=rf"{MANIFEST}: {expected}"):
        open_package(f"file://{folder}", tmp_path / "cache")


def test_no_package_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="fusion export"):
        open_package(f"file://{tmp_path}", tmp_path)


class Doubling(nn.Module):
    """Two inputs of different types, two outputs."""

    def forward(self, numbers: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return numbers * 2, tokens + 1


def test_several_inputs_and_outputs_of_several_types(tmp_path: Path) -> None:
    inputs = {"numbers": images(3)[:, 0, 0], "tokens": np.arange(6, dtype=np.int64).reshape(3, 2)}
    url = f"file://{tmp_path / 'package'}"
    manifest = export(Source(Doubling(), inputs, ("doubled", "next")), url, name="two", version="1", formats=("onnx",))
    assert [each.datatype for each in manifest.outputs] == ["FP32", "INT64"]
    choice = choose(open_package(url, tmp_path / "cache"), Runtime(threads=1), batch_max=2, slo_s=1)
    doubled, following = choice.forward([each[:1] for each in inputs.values()])
    np.testing.assert_array_equal(doubled, inputs["numbers"][:1] * 2)
    np.testing.assert_array_equal(following, inputs["tokens"][:1] + 1)


class BranchesOnValues(nn.Module):
    def forward(self, numbers: Tensor) -> Tensor:
        return numbers if numbers.sum() > 0 else -numbers


class OneRowForAll(nn.Module):
    def forward(self, numbers: Tensor) -> Tensor:
        return numbers.mean(0, keepdim=True)


class GivesADict(nn.Module):
    def forward(self, numbers: Tensor) -> dict[str, Tensor]:
        return {"logits": numbers}


class Fails(nn.Module):
    def forward(self, numbers: Tensor) -> Tensor:
        raise KeyError("weights")


@pytest.mark.parametrize(
    ("module", "rows", "expected"),
    [
        (GivesADict(), 4, "the model gives a dict; expected a tensor, or a tuple of tensors"),
        (Fails(), 4, "the model fails on float32 \\[4, 1, 8, 8\\]: KeyError: 'weights'"),
        (BranchesOnValues(), 4, "can't trace the model"),
        (OneRowForAll(), 4, "first dimension is not the batch"),
        (nn.Identity(), 1, "at least 2"),
    ],
)
def test_a_model_that_can_not_be_exported_is_one_sentence_and_leaves_nothing(
    module: nn.Module, rows: int, expected: str, tmp_path: Path
) -> None:
    with pytest.raises(PackageError, match=expected) as refusal:
        export(Source(module, {"input": images(rows)}), f"file://{tmp_path / 'p'}", name="no", version="1")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "p").exists()


class OfTokens(nn.Module):
    def __init__(self, *, classes: int, **_: object) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, classes)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        found = self.embedding(tokens).mean(1)
        return found, found.argmax(1)


def test_a_model_of_tokens_is_exported_from_a_program_and_a_factory_of_one_says_so(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"OfTokens: the model fails on float32 \[16, 6\]: .*given as --program"):
        of_factory(f"{__name__}:OfTokens", shape=(6,), classes=3, arguments={}, weights=None)
    batch = torch.export.Dim("batch")
    tokens = (torch.arange(12).reshape(2, 6) % 10,)
    torch.export.save(
        torch.export.export(OfTokens(classes=3).eval(), tokens, dynamic_shapes=({0: batch},)), tmp_path / "tokens.pt2"
    )
    source = of_program(f"file://{tmp_path / 'tokens.pt2'}")
    manifest = export(source, f"file://{tmp_path / 'package'}", name="tokens", version="1", formats=("onnx",))
    assert [(each.datatype, each.shape) for each in manifest.inputs] == [("INT64", (6,))]
    assert [(each.name, each.datatype) for each in manifest.outputs] == [("output0", "FP32"), ("output1", "INT64")]


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        (None, "input has 2 rows, no more and no less; export it with dynamic_shapes"),
        (({0: torch.export.Dim("batch", max=64)},), "input has at most 64 rows; export it with dynamic_shapes"),
    ],
)
def test_a_program_for_few_rows_is_refused_with_the_way_out(shapes: object, expected: str, tmp_path: Path) -> None:
    program = torch.export.export(nn.Identity(), (torch.ones(2, 3),), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "few.pt2")
    with pytest.raises(PackageError, match=expected):
        of_program(f"file://{tmp_path / 'few.pt2'}")


def test_a_program_that_takes_tensors_by_name_is_one_sentence(tmp_path: Path) -> None:
    program = torch.export.export(nn.Identity(), (), {"input": torch.ones(2, 3)})
    torch.export.save(program, tmp_path / "named.pt2")
    with pytest.raises(PackageError, match="takes input by name; expected tensors with a batch each, in order"):
        of_program(f"file://{tmp_path / 'named.pt2'}")


def test_a_backend_with_other_outputs_never_serves(
    module: FusionNet, package_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = backends.Backend(
        "wrong", "pytorch", "torch", lambda *_: lambda inputs: [np.zeros((len(inputs[0]), CLASSES))]
    )
    monkeypatch.setattr(backends, "BACKENDS", {**BACKENDS, "wrong": wrong})
    monkeypatch.setattr("workloads.serving.choosing.BACKENDS", backends.BACKENDS)
    package = open_package(package_url, tmp_path)
    choice = choose(package, Runtime(threads=1), batch_max=4, slo_s=1)
    assert choice.backend != "wrong"
    (trial,) = [each for each in choice.trials if each.backend == "wrong"]
    assert "differ from the reference" in trial.problem
    with pytest.raises(PackageError, match="no backend can serve small 1 \\(wrong: its outputs differ"):
        choose(package, Runtime(threads=1), batch_max=4, slo_s=1, named=["wrong"])


@dataclass
class Clock:
    """Goes on only while something is waited for."""

    now: float = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(choosing, "time", found := Clock())
    return found


def test_a_backend_far_behind_the_best_is_given_up_before_its_large_batches(clock: Clock) -> None:
    sizes: list[int] = []

    def slow(inputs: Sequence[Array]) -> list[Array]:
        sizes.append(len(inputs[0]))
        clock.sleep(0.06 * len(inputs[0]))
        return list(inputs)

    with pytest.raises(TooSlow, match="given up: 2 rows took"):
        measure(slow, [images(1)], 32, best=Curve((1, 32), (0.001, 0.032)))
    assert set(sizes) == {1, 2}


def test_batches_that_take_longer_than_the_slo_are_not_measured(clock: Clock) -> None:
    def steady(inputs: Sequence[Array]) -> list[Array]:
        clock.sleep(0.03 * len(inputs[0]))
        return list(inputs)

    curve = measure(steady, [images(1)], 32, slo_s=0.05)
    assert curve.rows == (1, 2)


@given(st.floats(1e-6, 1e-2), st.floats(0.1, 1e4))
def test_an_error_within_the_tolerance_fits_and_one_beyond_does_not(allowed: float, value: float) -> None:
    tolerance = Tolerance(relative=allowed, absolute=0)
    reference = [np.array([value])]
    assert error_of([np.array([value * (1 + allowed * 0.99)])], reference, tolerance)[1]
    assert not error_of([np.array([value * (1 + allowed * 1.01 + 1e-9)])], reference, tolerance)[1]
    assert not error_of([np.array([np.nan])], reference, tolerance)[1]
    assert not error_of([np.array([[value]])], reference, tolerance)[1]


@given(st.lists(st.floats(1e-5, 1), min_size=3, max_size=3), st.integers(1, 100))
def test_a_curve_never_falls_and_meets_its_points(seconds: list[float], rows: int) -> None:
    curve = Curve((1, 4, 16), tuple(sorted(seconds)))
    assert curve.at(4) == curve.seconds[1]
    assert curve.at(rows) <= curve.at(rows + 1)
    assert curve.best_rows(slo_s=0) == 1


def copied(url: str, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in Path(url.removeprefix("file://")).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_a_second_version_lies_beside_the_first(module: FusionNet, tmp_path: Path) -> None:
    for version in ("1", "2"):
        exported(module, tmp_path / version, version)
    assert open_package(f"file://{tmp_path}/2", tmp_path / "cache").manifest.version == "2"
