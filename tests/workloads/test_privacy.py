"""Training with differential privacy: what is clipped, what noise is added, which ε is claimed, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from opacus.accountants import PRVAccountant
from torch import Tensor, nn, optim

from tests.workloads.test_models import SMALL, config_of, inputs_for, small
from workloads.config import ConfigError
from workloads.data.order import drawn_part
from workloads.models import REGISTERED
from workloads.training.config import PrivacyConfig, TrainingConfig
from workloads.training.fetching import ResumeError
from workloads.training.loop import Trainer
from workloads.training.manifest import Position
from workloads.training.privacy import Privacy, epsilon_of, noise_for
from workloads.training.run import run
from workloads.training.stopping import Interrupted, StopRequest
from workloads.training.world import World

NORM, DELTA = 0.5, 1e-3
NOISY = {"noise_multiplier": 1.0, "max_grad_norm": NORM, "delta": DELTA}
ALONE = World(torch.device("cpu"))


def private(folder: Path, **changes: Any) -> TrainingConfig:
    return config_of(folder, "tokens", **({"epochs": 2, "privacy": NOISY} | changes))


def report_of(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "out" / "report.json").read_text())
    return report


def started(config: TrainingConfig, model: nn.Module) -> tuple[Privacy, optim.Optimizer]:
    assert config.privacy
    privacy = Privacy(config, config.privacy, model, 96, ALONE)
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    privacy.keep_account(optimizer)
    privacy.start(optimizer, Position())
    return privacy, optimizer


def loss_of(model: nn.Module, inputs: Tensor) -> Tensor:
    return model(inputs).square().sum() * 100


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("name", [name for name in REGISTERED if name not in ("resnet-50", "tabular")])
def test_each_samples_gradient_is_shortened_for_itself(name: str, parts: int, tmp_path: Path) -> None:
    """With next to no noise, SGD moves the weights by the sum of what autograd gives for each sample alone, cut."""
    inputs, model = inputs_for(name, 4), small(name)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    wanted = [torch.zeros_like(weight) for weight in model.parameters()]
    for sample in range(4):
        gradients = torch.autograd.grad(loss_of(model, inputs[sample : sample + 1]), list(model.parameters()))
        norm = torch.nn.utils.get_total_norm(gradients)
        assert norm > NORM, "so that it is cut"
        for total, gradient in zip(wanted, gradients, strict=True):
            total += gradient * (NORM / norm)
    before = [weight.detach().clone() for weight in model.parameters()]
    config = private(tmp_path, privacy=NOISY | {"noise_multiplier": 0.01, "sampling": "shuffled"})
    privacy, _ = started(config, model)
    privacy._optimizer.noise_multiplier = 0.0
    for number, part in enumerate(inputs.tensor_split(parts)):
        loss_of(model, part).backward()
        privacy.clip(last=number == parts - 1)
    privacy.step(0)
    for weight, old, total in zip(model.parameters(), before, wanted, strict=True):
        assert torch.allclose(old - weight, total / config.data.batch_size, rtol=1e-3, atol=1e-6)


def test_a_step_without_a_sample_still_adds_the_noise_that_is_accounted_for(tmp_path: Path) -> None:
    model = nn.Linear(300, 300)
    before = model.weight.detach().clone()
    config = private(tmp_path, privacy=NOISY | {"noise_multiplier": 2.0})
    privacy, _ = started(config, model)
    privacy.clip(last=True)
    privacy.step(0)
    moved = model.weight.detach() - before
    assert moved.std().item() == pytest.approx(2.0 * NORM / config.data.batch_size, rel=0.03)
    assert abs(moved.mean().item()) < 0.001
    other = nn.Linear(300, 300)
    other_before = other.weight.detach().clone()
    other_privacy, _ = started(config, other)
    other_privacy.clip(last=True)
    other_privacy.step(0)
    assert not torch.equal(other.weight.detach() - other_before, moved), "nobody can make the same noise again"


def test_epsilon_of_poisson_sampling_is_a_bound_near_that_of_the_exacter_accountant() -> None:
    spent = epsilon_of([(1.1, 256 / 60_000, 14_000)], 1e-5)
    exacter = PRVAccountant()
    exacter.history = [(1.1, 256 / 60_000, 14_000)]
    assert exacter.get_epsilon(1e-5) < spent < 1.25 * exacter.get_epsilon(1e-5)


def test_epsilon_of_an_epoch_in_order_is_a_bound_near_that_of_one_gaussian_mechanism() -> None:
    """Which has a closed form (Balle and Wang 2018, theorem 8): δ for ε; in order there is no gain by sampling."""

    def delta_of(epsilon: float, sigma: float) -> float:
        normal = torch.distributions.Normal(0.0, 1.0)
        above, below = (
            normal.cdf(torch.tensor(s / (2 * sigma) - epsilon * sigma, dtype=torch.float64)) for s in (1, -1)
        )
        return float(above - math.exp(epsilon) * below)

    for sigma, times in ((2.0, 1), (5.0, 20)):
        spent = epsilon_of([(sigma, 1.0, times)], 1e-5)
        together = sigma / math.sqrt(times)
        assert delta_of(spent, together) < 1e-5 < delta_of(spent / 1.2, together)


def test_the_noise_for_a_target_is_just_enough_also_after_other_steps() -> None:
    history = [(1.0, 0.05, 200)]
    noise = noise_for(6.0, 1e-5, history, 0.05, 500)
    assert noise is not None
    assert 5.95 < epsilon_of([*history, (noise, 0.05, 500)], 1e-5) <= 6.0
    assert noise_for(1.0, 1e-5, history, 0.05, 500) is None, "they have spent more already"


def test_each_sample_is_drawn_by_itself_and_ranks_cut_a_batch_between_them() -> None:
    how = {"batch_size": 20, "batches": 4000, "secret": (7, 0)}
    part = drawn_part(100, **how, rank=0, world_size=1)
    assert part.global_samples.mean() == pytest.approx(20, rel=0.02)
    assert part.global_samples.var() == pytest.approx(100 * 0.2 * 0.8, rel=0.1), "as tosses have it"
    times = np.bincount(part.numbers, minlength=100)
    assert abs(times / 4000 - 0.2).max() < 0.03
    batches = np.split(part.numbers, part.ends[:-1])
    assert all(len(np.unique(batch)) == len(batch) for batch in batches)
    together = [drawn_part(100, **how, rank=rank, world_size=3) for rank in range(3)]
    cut = [np.split(each.numbers, each.ends[:-1]) for each in together]
    for batch, *pieces in zip(batches, *cut, strict=True):
        assert np.concatenate(pieces).tolist() == batch.tolist()
    other = drawn_part(100, **(how | {"secret": (8, 0)}), rank=0, world_size=1)
    assert other.global_samples.tolist() != part.global_samples.tolist()


def test_a_run_reports_what_it_has_spent_and_learns_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    privacy = {"target_epsilon": 20.0, "max_grad_norm": 1.0, "delta": DELTA}
    run(private(tmp_path, privacy=privacy, epochs=30, parallel={"micro_batch_size": 5}), StopRequest())
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    report = report_of(tmp_path)
    assert 19.8 < report["privacy"]["epsilon"] <= 20.0
    ((noise, chance, times),) = (each.values() for each in report["privacy"]["mechanisms"])
    assert (chance, times) == (16 / 96, 30 * 6)
    assert [each["noise_multiplier"] for each in events if each["event"] == "private"] == [noise]
    said = [each["epsilon"] for each in events if each["event"] in ("epoch", "finished")]
    assert said == sorted(said) and said[-1] == round(report["privacy"]["epsilon"], 4)
    assert report["perplexity"] < 28, "guessing among 32 tokens has 32"


@pytest.mark.parametrize("sampling", ["poisson", "shuffled"])
def test_a_run_that_was_interrupted_has_spent_what_an_uninterrupted_one_has(
    sampling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports, update = [], Trainer.save_if_due
    for name, at in (("whole", None), ("interrupted", 8)):
        folder = tmp_path / name
        folder.mkdir()
        config, stop = private(folder, privacy=NOISY | {"sampling": sampling}, epochs=3), StopRequest()

        def stopping(self: Trainer, position: Position, stop: StopRequest = stop, at: int | None = at) -> None:
            stop.requested = position.step == at
            update(self, position)

        monkeypatch.setattr(Trainer, "save_if_due", stopping)
        if at:
            with pytest.raises(Interrupted):
                run(config, stop)
        run(config, stop)
        reports.append(report_of(folder)["privacy"])
    assert reports[0] == reports[1]
    (mechanism,) = reports[0]["mechanisms"]
    assert (mechanism["chance"], mechanism["times"]) == ((16 / 96, 18) if sampling == "poisson" else (1.0, 3))


def test_more_epochs_keep_to_the_target_with_more_noise_and_what_is_spent_stays_spent(tmp_path: Path) -> None:
    privacy = {"target_epsilon": 5.0, "max_grad_norm": NORM, "delta": DELTA}
    for epochs in (1, 2):
        run(private(tmp_path, privacy=privacy, epochs=epochs), StopRequest())
    spent = report_of(tmp_path)["privacy"]
    assert 4.9 < spent["epsilon"] <= 5.0
    first, then = spent["mechanisms"]
    assert first["times"] == then["times"] == 6 and first["noise_multiplier"] < then["noise_multiplier"]
    with pytest.raises(
        ConfigError, match=r"privacy\.target_epsilon: got 3; the 12 steps made so far have spent (4\.9\d+|5),"
    ):
        run(private(tmp_path, privacy=privacy | {"target_epsilon": 3.0}, epochs=3), StopRequest())
    for changes in ({"privacy": None}, {"data": {"url": f"file://{tmp_path}/tokens", "batch_size": 8}}):
        with pytest.raises(ResumeError, match="was saved with privacy"):
            run(private(tmp_path, **({"privacy": privacy} | changes)), StopRequest())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"parallel": {"strategy": "fsdp"}}, "privacy does not go with parallel.strategy: fsdp; expected ddp"),
        ({"parallel": {"gradient_compression": "bf16"}}, "privacy does not go with parallel.gradient_compression"),
        ({"parallel": {"activation_checkpointing": True}}, "privacy does not go with parallel.activation_checkpointing"),
        ({"compile": True}, "privacy does not go with compile"),
        ({"precision": "bf16"}, "privacy does not go with precision: bf16; expected fp32 or tf32"),
        ({"optimizer": {"clip_norm": 1.0}}, "privacy does not go with optimizer.clip_norm: privacy.max_grad_norm shortens"),
        ({"deterministic": True}, "privacy does not go with deterministic: noise that can be computed again hides"),
        ({"device": "xla"}, "privacy does not go with device: xla"),
        ({"privacy": NOISY | {"target_epsilon": 3.0}}, "expected noise_multiplier or target_epsilon, one of them"),
        ({"privacy": {"max_grad_norm": 1.0, "delta": DELTA}}, "expected noise_multiplier or target_epsilon, one of them"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_privacy_is_refused(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        private(tmp_path, **changes)


class Sorter(nn.Module):
    """Its output for a sample depends on the others."""

    def __init__(self, *, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.line = nn.Linear(math.prod(shape), classes)

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)
        return self.line(x - x.mean(0))


class Placed(nn.Module):
    """One of its layers is not given a batch."""

    def __init__(self, *, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.line = nn.Linear(math.prod(shape), classes)
        self.places = nn.Embedding(classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.line(images.flatten(1)) + self.places(torch.arange(self.places.num_embeddings)).squeeze(1)


@pytest.mark.parametrize(
    ("kind", "changes", "sentence"),
    [
        ("image", {"model": {"name": "resnet-50"}}, r"the model resnet-50 normalizes by batch \(bn1\), which mixes samples; "),
        ("tabular", {"model": {"name": "tabular", "arguments": SMALL["tabular"]}}, "normalizes by batch"),
        ("image", {"model": {"name": f"{__name__}:Sorter"}}, "a sample's gradient of line.weight is not the same beside other samples"),
        ("image", {"model": {"name": f"{__name__}:Placed"}}, "a sample's gradient of places.weight is not the same beside other"),
        ("tokens", {"privacy": NOISY | {"delta": 0.02}}, r"privacy\.delta: got 0\.02; expected less than 1 / 96 samples"),
    ],
)  # fmt: skip
def test_a_model_that_mixes_samples_or_a_delta_that_allows_one_to_be_published_is_refused(
    kind: Any, changes: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        run(config_of(tmp_path, kind, **({"privacy": NOISY} | changes)), StopRequest())


def test_the_defaults_are_poisson_sampling() -> None:
    assert PrivacyConfig(noise_multiplier=1.0, max_grad_norm=1.0, delta=1e-5).sampling == "poisson"
