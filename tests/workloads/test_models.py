from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.workloads import made
from workloads.config import ConfigError
from workloads.data.format import Kind
from workloads.models import REGISTERED, ModelError, build
from workloads.models.decoder import rotate, rotations
from workloads.serving.sources import of_factory
from workloads.training.config import TrainingConfig
from workloads.training.run import run
from workloads.training.stopping import Diverged, StopRequest
from workloads.training.tasks import task_for

SMALL: dict[str, dict[str, Any]] = {
    "fusionnet": {"hidden": 16},
    "resnet-50": {},
    "vit-b-16": {"patch": 8, "width": 16, "layers": 2, "heads": 2, "mlp_width": 32},
    "tabular": {"width": 16, "embedding": 4, "dropout": 0.0},
    "encoder": {"width": 16, "layers": 2, "heads": 2, "mlp_width": 32, "dropout": 0.0},
    "decoder": {"width": 16, "layers": 2, "heads": 4, "kv_heads": 2},
}


def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build(name, made.index_of(REGISTERED[name].kind), SMALL[name])


def inputs_for(name: str, count: int = 3) -> torch.Tensor:
    kind = REGISTERED[name].kind
    inputs, _ = made._made(kind, count, made.np.random.default_rng(0))
    tensor = torch.from_numpy(inputs)
    return {"image": tensor / 255, "tokens": tensor[:, :-1]}.get(kind, tensor)


@pytest.mark.parametrize("name", REGISTERED)
def test_a_rank_without_a_sample_of_a_small_last_batch_takes_part(name: str) -> None:
    model = small(name).train()
    answers = model(inputs_for(name)[:0])
    answers.sum().backward()
    assert len(answers) == 0


def parameters(name: str, index: Any, **arguments: Any) -> int:
    with torch.device("meta"):
        return sum(weight.numel() for weight in build(name, index, arguments).parameters())


IMAGENET = made.index_of("image", shape=(3, 224, 224), classes=tuple(map(str, range(1000))))


@pytest.mark.parametrize("name", REGISTERED)
def test_a_registered_model_answers_in_its_kinds_shape_and_every_weight_learns(name: str) -> None:
    model = small(name)
    logits = model(inputs_for(name))
    assert logits.shape == ((3, 16, 32) if REGISTERED[name].kind == "tokens" else (3, 2))
    if name == "resnet-50":  # its blocks start as their shortcuts
        for block in model.blocks:
            nn.init.ones_(block.bn3.weight)
        logits = model(inputs_for(name))
    logits.square().sum().backward()
    assert [weight for weight, value in model.named_parameters() if value.grad is None or not value.grad.any()] == []


@pytest.mark.parametrize("name", REGISTERED)
def test_a_registered_model_becomes_a_program_that_takes_any_number_of_samples(name: str) -> None:
    model = small(name).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (inputs_for(name, 3),), dynamic_shapes=({0: batch},)).module()
    for count in (1, 5):
        torch.testing.assert_close(program(inputs_for(name, count)), model(inputs_for(name, count)))


def test_resnet_50_takes_torchvisions_weights() -> None:
    """The digest of [name, shape] of all of `torchvision.models.resnet50().state_dict()`, torchvision 0.29.2."""
    with torch.device("meta"):
        layout = [[name, list(value.shape)] for name, value in build("resnet-50", IMAGENET, {}).state_dict().items()]
    digest = hashlib.sha256(json.dumps(layout).encode()).hexdigest()
    assert digest == "218340f9d3037deac0e029064817e2434f9a638034693f6134277670d9fbfddf"


def test_the_defaults_have_the_published_number_of_parameters() -> None:
    assert parameters("resnet-50", IMAGENET) == 25_557_032
    assert parameters("vit-b-16", IMAGENET) == 86_567_656, "torchvision's vit_b_16"
    bert = made.index_of("text", shape=(512,), vocabulary=30_522)
    # BERT base has 109,482,240: with two segment embeddings, their norm (in ours it is the last one) and a pooler.
    assert parameters("encoder", bert) == 109_482_240 - 2 * 768 - (768 * 768 + 768) + (2 * 768 + 2)
    llama = made.index_of("tokens", shape=(2049,), vocabulary=32_000)
    arguments = {"width": 2048, "layers": 22, "heads": 32, "kv_heads": 4, "mlp_width": 5632}
    assert parameters("decoder", llama, **arguments) == 1_100_048_384, "TinyLlama 1.1B"


def test_the_decoder_sees_no_token_that_comes_later() -> None:
    model, tokens = small("decoder"), inputs_for("decoder")
    changed = tokens.clone()
    changed[:, 8:] = (changed[:, 8:] + 1) % 32
    before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :8], after[:, :8])
    assert not torch.equal(before[:, 8:], after[:, 8:])


def test_rotary_positions_depend_on_the_distance_alone() -> None:
    rotation = rotations(32, 8, 10_000)
    query, key = torch.randn(2, 8)
    every = rotate(torch.stack((query, key)).unsqueeze(1).expand(2, 32, 8), rotation)
    scores = every[0] @ every[1].T
    assert torch.allclose(scores[3, 1], scores[20, 18], atol=1e-5)
    assert not torch.allclose(scores[3, 1], scores[20, 1], atol=1e-3)


def test_the_encoder_does_not_see_padding() -> None:
    model, texts = small("encoder").eval(), inputs_for("encoder")
    assert torch.allclose(model(texts), model(texts[:, :9]), atol=1e-6), "the last three are padding"
    assert model(torch.zeros_like(texts)).isfinite().all(), "an empty text is no NaN"


@pytest.mark.parametrize(
    ("name", "kind", "arguments", "sentence"),
    [
        ("gpt", "tokens", {}, "model.name: got 'gpt'; expected one of fusionnet, resnet-50, .*, or module:factory"),
        ("no.such:Model", "image", {}, r"model\.name: no\.such:Model can't be imported: No module named 'no'"),
        ("decoder", "image", {}, "got decoder, which takes tokens data; .* image holds image; expected fusionnet or"),
        ("decoder", "tokens", {"heads": 3}, "model.arguments: decoder refuses them: heads is 3 and width 512; heads"),
        ("vit-b-16", "image", {"patch": 5}, "patch is 5 and the data's images are 32 × 32; it must divide both"),
        (
            "encoder",
            "text",
            {"depth": 3},
            r"model.arguments.depth: got 3; encoder has no such argument, .* of width, la",
        ),
        ("resnet-50", "image", {"width": 3}, r"model.arguments.width: got 3; .* expected none, as it has no arguments"),
        ("decoder", "tokens", {"vocabulary": 3}, r"model.arguments.vocabulary: the data set tokens says it"),
    ],
)
def test_a_model_that_cannot_be_built_is_one_sentence(
    name: str, kind: Kind, arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ModelError, match=sentence) as error:
        build(name, made.index_of(kind), arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", REGISTERED)
def test_every_argument_of_a_registered_model_has_a_type_and_a_range(name: str) -> None:
    index = made.index_of(REGISTERED[name].kind)
    for argument in SMALL[name] | ({"mlp_width": 8, "rope_base": 8.0} if name == "decoder" else {}):
        for value in (-1, 10**30 if argument != "rope_base" else 0, float("nan"), True, "16", [16]):
            with pytest.raises(ModelError, match=rf"^model\.arguments\.{argument}: got \S+; input should be .*$"):
                build(name, index, {argument: value})


def test_a_model_that_is_exported_untrained_takes_the_same_arguments() -> None:
    with pytest.raises(
        ModelError, match=r"^model\.arguments\.hidden: got 0; input should be greater than or equal to 1$"
    ):
        of_factory("fusionnet", shape=(3, 8, 8), classes=2, arguments={"hidden": 0}, weights=None)
    with pytest.raises(ModelError, match=r"refuses these arguments: KeyError: 'weights\.pt'"):
        of_factory("tests.workloads.own_models:failing", shape=(3,), classes=2, arguments={}, weights=None)


def test_a_task_that_the_data_is_not_for_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"^task: got next_token; the data set text holds text, which is for"):
        task_for("next_token", made.index_of("text"), torch.device("cpu"))


def config_of(folder: Path, kind: Kind, **changes: Any) -> TrainingConfig:
    """A run of a small model on made data, all in a folder."""
    url = made.write(f"file://{folder}/{kind}", kind)
    document = {
        "run": kind,
        "model": {"name": "decoder", "arguments": SMALL["decoder"]},
        "data": {"url": url, "batch_size": 16},
        "epochs": 8,
        "learning_rate": 0.01,
        "threads": 1,
        "checkpoint": {"url": f"file://{folder}/checkpoints", "every_steps": 1000},
        "outputs": {"url": f"file://{folder}/out"},
    }
    return TrainingConfig.model_validate(document | changes)


@pytest.mark.parametrize("name", ["tabular", "encoder", "vit-b-16"])
def test_a_classifier_of_every_kind_learns_and_reports(name: str, tmp_path: Path) -> None:
    config = config_of(tmp_path, REGISTERED[name].kind, model={"name": name, "arguments": SMALL[name]})
    run(config, StopRequest())
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["accuracy"] > 0.9
    assert sum(map(sum, report["confusion_matrix"])) == report["held_out_samples"] == 48
    assert report["f1_macro"] == pytest.approx(report["classification_report"]["macro avg"]["f1-score"], abs=1e-3)
    assert 0 <= report["calibration_error"] <= 1


def test_the_decoder_learns_the_next_token_and_reports_its_perplexity(tmp_path: Path) -> None:
    run(config_of(tmp_path, "tokens", epochs=16, task="next_token"), StopRequest())
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["perplexity"] == pytest.approx(made.np.exp(report["loss"]), rel=1e-3)
    assert report["perplexity"] < 4, "guessing among 32 tokens has 32"
    assert report["accuracy"] > 0.8
    assert report["held_out_tokens"] == 48 * 16


def test_tabular_numbers_need_no_preparation() -> None:
    """Columns of any scale and offset give the same answers, because the batch normalizes them."""
    model, rows = small("tabular"), inputs_for("tabular", 32)
    scaled = rows.clone()
    scaled[:, :4] = rows[:, :4] * 1000 + 5
    assert torch.allclose(model(rows), model(scaled), atol=1e-3)


@pytest.mark.parametrize(
    ("factory", "sentence"),
    [
        ("no_model", r"model\.name: \S+ gives a int; expected a torch\.nn\.Module"),
        ("failing", r"model\.name: \S+ fails: KeyError: 'weights\.pt'"),
        ("fixed", r"model\.name: \S+ has no weights that learn"),
        ("Short", r"model\.name: the model answers with torch\.float32 of \(16, 1\); expected logits of \(16, 2\)"),
        ("Endless", r"the loss is no finite number after epoch 1"),
        ("", r"model\.name: got 'tests\.workloads\.own_models:'; expected one of fusionnet"),
    ],
)
def test_a_model_of_ones_own_that_does_not_do_is_one_sentence(factory: str, sentence: str, tmp_path: Path) -> None:
    config = config_of(tmp_path, "tabular", model={"name": f"tests.workloads.own_models:{factory}"})
    with pytest.raises((ConfigError, Diverged, ModelError), match=sentence):
        run(config, StopRequest())
