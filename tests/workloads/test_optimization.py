"""A model on the digits is made smaller by each method, is measured, and is published only if it stays accurate."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor, nn

from fusion.commands.optimize import command, verdicts
from fusion.errors import FusionError
from tests.workloads import made
from workloads.data.digits import write_digits
from workloads.data.format import INPUT_TYPES, Kind, to_table, wrong_value
from workloads.models.decoder import Decoder
from workloads.models.resnet import Bottleneck, ResNet50
from workloads.models.vit import VisionTransformer
from workloads.optimization import measure
from workloads.optimization.measure import Measured
from workloads.optimization.optimize import Asked, Floor, Tried, problem_of
from workloads.optimization.optimize import Result as Resulting
from workloads.optimization.quantization import QUANTIZATIONS
from workloads.optimization.sparsity import OptimizationError, prune_channels, zero_two_of_four
from workloads.optimization.tuning import Tuning, tune
from workloads.serving import sources
from workloads.serving.backends import BACKENDS, Runtime
from workloads.serving.export import export
from workloads.serving.package import open_package

MODEL = {"hidden": 64}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> sources.Trained:
    """A small FusionNet that knows the digits."""
    folder = tmp_path_factory.mktemp("optimization")
    url = f"file://{folder}"
    index = write_digits(f"{url}/data")
    torch.manual_seed(0)
    module = sources.models.build("fusionnet", index, MODEL)
    torch.save(module.state_dict(), folder / "weights.pt")
    found = sources.of_weights("fusionnet", data_url=f"{url}/data", arguments=MODEL, weights=f"{url}/weights.pt")
    tune(found.module.train(), found, Tuning(epochs=6, learning_rate=3e-3))
    torch.save(found.module.eval().state_dict(), folder / "weights.pt")
    return found


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a batch takes is measured all the same, less exactly."""
    monkeypatch.setattr(measure, "RUNS", 20)


def optimized(trained: sources.Trained, place: Path, *options: str, chip: str = "c7i.2xlarge") -> Result:
    """What `fusion optimize` did; its package and report lie in the place."""
    data = trained.data_url
    named = ["--model", "fusionnet", "--arguments", json.dumps(MODEL), "--data", data]
    named += ["--weights", f"{data.removesuffix('/data')}/weights.pt", "--json", str(place / "report.json")]
    return CliRunner().invoke(command, [str(place / "package"), "--for", chip, *named, *options])


def report(place: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place / "report.json").read_text())
    return found


def by_backend(measured: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {each["backend"]: each for each in measured}


SHARE_OF_BYTES = {"int8-static": 0.6, "int8-qat": 0.6, "int8-dynamic": 0.6, "fp8": 0.6}


def test_each_quantization_is_smaller_and_nearly_as_accurate_and_the_smallest_is_published(
    trained: sources.Trained, tmp_path: Path
) -> None:
    quantize = [word for name in SHARE_OF_BYTES for word in ("--quantize", name)]
    options = ("--epochs", "1", "--format", "pytorch", "--accuracy-drop-max", "0.05")
    done = optimized(trained, tmp_path, *quantize, *options, chip="L4")
    assert done.exit_code == 0, (done.output, done.exception)
    found = report(tmp_path)
    before = by_backend(found["before"])
    sizes = {}
    for tried, (name, share) in zip(found["tried"], SHARE_OF_BYTES.items(), strict=True):
        after = by_backend(tried["measured"])
        assert (tried["quantize"], tried["problem"]) == (name, "")
        assert after["eager"]["bytes"] < share * before["eager"]["bytes"]
        assert after["eager"]["accuracy"] >= before["eager"]["accuracy"] - 0.05 > 0.85
        assert 0 < after["eager"]["p50_ms"] <= after["eager"]["p99_ms"]
        assert re.search(rf"^{name}: \d\.\d\d times smaller \(.*, accuracy ", done.output, re.MULTILINE)
        sizes[name] = min(each["bytes"] for each in after.values())
    assert found["published"] == min(sizes, key=lambda name: sizes[name])
    assert f"is in file://{tmp_path}/package as {found['published']}" in done.output
    serves(tmp_path)


@pytest.mark.parametrize(
    ("options", "backend", "share_of_bytes"),
    [
        (["--prune", "0.5", "--epochs", "3"], "eager", 0.6),
        (["--distill", "fusionnet", "--student-arguments", '{"hidden": 32}', "--epochs", "12"], "eager", 0.7),
        (["--quantize", "int4-weights"], "eager", 0.6),
        (["--quantize", "int8-static"], "onnxruntime", 0.4),
    ],
    ids=["prune", "distill", "int4", "int8-onnx"],
)
def test_a_smaller_model_is_nearly_as_accurate(
    options: list[str], backend: str, share_of_bytes: float, trained: sources.Trained, tmp_path: Path
) -> None:
    made = ("--format", "onnx" if backend == "onnxruntime" else "pytorch")
    learning = ("--learning-rate", "0.003", "--accuracy-drop-max", "0.05")
    done = optimized(trained, tmp_path, *options, *made, *learning)
    assert done.exit_code == 0, (done.output, done.exception)
    found = report(tmp_path)
    before, after = (by_backend(each)[backend] for each in (found["before"], found["tried"][0]["measured"]))
    assert after["bytes"] < share_of_bytes * before["bytes"]
    assert after["accuracy"] >= before["accuracy"] - 0.05 > 0.85
    assert 0 < after["p50_ms"] <= after["p99_ms"]
    serves(tmp_path, backend)


def serves(place: Path, backend: str = "eager") -> None:
    package = open_package(f"file://{place / 'package'}", place / "cache")
    forward = BACKENDS[backend].load(package, Runtime(threads=1))
    inputs, expected = package.self_test()
    assert (forward(inputs)[0].argmax(1) == expected[0].argmax(1)).mean() > 0.9


OLD, NEW = Measured("onnxruntime", 100_000, 1.0, 2.0, 0.9), Measured("eager", 120_000, 0.9, 2.0, 0.9)


@pytest.mark.parametrize(
    ("after", "asked", "problem"),
    [
        (NEW, Asked(), "it has 120,000 bytes, before it had 100,000: it got no smaller (--aim size)"),
        (NEW, Asked(aim="latency"), ""),
        (replace(NEW, p50_ms=0.97), Asked(aim="latency"), "0.970 ms by its fastest backend, before it took 1.000"),
        (replace(NEW, bytes=99_999), Asked(), ""),
        (replace(NEW, bytes=99_999, accuracy=0.7), Asked(), "eager: accuracy fell by 20.00 points"),
        (OLD, Asked(sparse=True), ""),
        (OLD, Asked(sparse=True, prune=0.5), "it got no smaller"),
    ],
)
def test_what_got_no_smaller_or_no_faster_as_was_asked_is_not_published(
    after: Measured,
    asked: Asked,
    problem: str,
) -> None:
    found = problem_of((OLD,), (after,), Floor(drop_max=0.01), asked)
    assert problem in found and bool(problem) == bool(found)


def test_what_got_larger_or_slower_is_said_in_words() -> None:
    slower = replace(NEW, p50_ms=15.0)
    (line,) = verdicts(Resulting((1, 1), 0.0, (OLD,), (Tried("int8-static", (slower,), ""),), None))
    assert line == (
        "int8-static: 1.20 times larger (100,000 → 120,000 bytes), 15.00 times slower (1.000 ms by onnxruntime → 15.000 "
        "by eager), accuracy 90.00% → 90.00%"
    )


@pytest.mark.parametrize("with_samples", [False, True], ids=["made-up", "on-purpose"])
def test_a_package_holds_no_sample_of_the_data(with_samples: bool, trained: sources.Trained, tmp_path: Path) -> None:
    source = trained.source()
    if with_samples:
        source = replace(source, made_up=None)
    export(source, f"file://{tmp_path}/package", name="digits", version="1", formats=("pytorch",))
    content = b"".join(file.read_bytes() for file in (tmp_path / "package").rglob("*") if file.is_file())
    held = [row.tobytes() in content for row in trained.held_out(16)]
    assert all(held) if with_samples else not any(held)


@pytest.mark.parametrize("kind", ["image", "tabular", "text", "tokens"])
def test_made_up_samples_are_such_as_the_data_sets_index_allows(kind: Kind) -> None:
    index = made.index_of(kind)
    rows = sources.made_up(index, 16)
    labels = None if kind == "tokens" else np.zeros(16, dtype=np.int64)
    assert rows.shape == (16, *index.shape) and rows.dtype == INPUT_TYPES[kind]
    assert wrong_value(to_table(rows, labels), index) is None
    assert len(np.unique(rows, axis=0)) == 16


def test_made_up_images_of_two_colours_are_not_all_black() -> None:
    index = made.index_of("image", scale=1)
    assert set(np.unique(sources.made_up(index, 16))) == {0, 1}


def test_below_the_least_accuracy_nothing_is_published(trained: sources.Trained, tmp_path: Path) -> None:
    done = optimized(trained, tmp_path, "--quantize", "int8-dynamic", "--accuracy-min", "1", "--format", "pytorch")
    assert isinstance(done.exception, FusionError)
    assert "below the least allowed, 100.00%" in str(done.exception)
    assert report(tmp_path)["problem"]
    assert not (tmp_path / "package").exists()


@pytest.mark.parametrize(
    ("options", "chip", "expected"),
    [
        (["--quantize", "fp8"], "c7i.2xlarge", "c7i.2xlarge has no units for it; expected int8-dynamic"),
        (["--quantize", "fp8"], "A10G", "A10G has no units for it"),
        (["--sparse-2-4"], "T4", "T4 can't skip"),
        (["--quantize", "int8-static", "--aim", "latency"], "L4", "says nothing of L4; expected size"),
        (["--quantize", "int8-static"], "v5e", "TPUv5e takes no quantized PyTorch program"),
        (["--prune", "0.5"], "L44", "no such accelerator or instance type"),
        ([], "L4", "expected one or more of --distill"),
        (["--distill", "tabular", "--student-arguments", "[2]"], "L4", "--student-arguments: got '[2]'; expected"),
        (["--prune", "0.5", "--json", "/nowhere/report.json"], "L4", "there is no folder /nowhere; make it first"),
    ],
)
def test_what_a_chip_has_no_use_for_is_refused(
    options: list[str], chip: str, expected: str, trained: sources.Trained, tmp_path: Path
) -> None:
    assert expected in str(optimized(trained, tmp_path, *options, chip=chip).exception)


def test_training_keeps_two_of_each_four_weights_at_zero(trained: sources.Trained) -> None:
    example = torch.from_numpy(trained.held_out(4))
    module = sources.models.build("fusionnet", trained.index, MODEL)
    module.load_state_dict(trained.module.state_dict())
    tune(module.train(), trained, Tuning(epochs=1), after_step=zero_two_of_four(module, example))
    hidden = module.get_submodule("classifier.1").weight.view(64, -1, 4)
    assert ((hidden == 0).sum(dim=2) == 2).all()
    assert (module.get_submodule("classifier.4").weight != 0).all(), "the last layer keeps all of its weights"


@pytest.mark.parametrize(
    "module",
    [
        ResNet50(shape=(3, 32, 32), classes=10),
        VisionTransformer(shape=(3, 32, 32), classes=10, patch=8, width=64, layers=2, heads=4, mlp_width=128),
    ],
    ids=["shortcuts", "attention"],
)
def test_channels_that_hang_together_go_together(module: nn.Module) -> None:
    inputs = torch.rand(2, 3, 32, 32)
    pruned = prune_channels(module.eval(), inputs, 0.5)
    assert pruned(inputs).shape == (2, 10)
    assert _parameters(pruned) < 0.4 * _parameters(module)


def test_a_residual_networks_convolutions_become_8_bits(trained: sources.Trained) -> None:
    channels = trained.index.shape[0]
    module = nn.Sequential(Bottleneck(channels, 4, 1), Bottleneck(16, 4, 1), nn.Flatten(), nn.Linear(16 * 64, 10))
    quantized = QUANTIZATIONS["int8-static"].apply(module.eval(), trained, Tuning())
    eights = [name for name, weight in quantized.state_dict().items() if weight.dtype == torch.int8]
    assert len(eights) == sum(isinstance(each, nn.Conv2d | nn.Linear) for each in module.modules())


def test_a_model_without_layers_can_t_be_pruned() -> None:
    with pytest.raises(OptimizationError, match="no linear layer and no convolution"):
        prune_channels(nn.Flatten(), torch.rand(2, 3), 0.5)


class Viewing(nn.Module):
    """Holds the number of its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 64), nn.Linear(64, 2)

    def forward(self, rows: Tensor) -> Tensor:
        hidden: Tensor = self.first(rows)
        if hidden.shape[1] != 64:
            raise ValueError("64 channels")
        answer: Tensor = self.last(hidden)
        return answer


GROUPED = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3, groups=4), nn.Flatten(), nn.Linear(32 * 16, 2))


@pytest.mark.parametrize(
    ("module", "inputs", "said"),
    [
        (
            Decoder(shape=(16,), vocabulary=32, width=64, layers=1, heads=4, kv_heads=2),
            torch.ones(2, 16, dtype=torch.int64),
            "torch-pruning can't follow the channels of Decoder from layer to layer, as where heads share keys",
        ),
        (Viewing(), torch.rand(2, 16), "with fewer channels the forward of Viewing fails, as where it holds their"),
        (
            GROUPED,
            torch.rand(2, 3, 8, 8),
            "no layer of Sequential can lose that share of its channels, which go in groups",
        ),
    ],
    ids=["grouped attention", "a fixed number", "grouped convolutions"],
)
def test_why_channels_can_t_go_is_said_in_one_sentence_with_the_way_out(
    module: nn.Module, inputs: Tensor, said: str
) -> None:
    with pytest.raises(OptimizationError, match=rf"^--prune: {said}.*; leave --prune out, or distill [^\n]*$"):
        prune_channels(module.eval(), inputs, 0.5)


def _parameters(module: nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())
