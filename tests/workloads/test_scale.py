"""Two ranks, in each way to share the work, learn what one rank learns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn, optim

from tests.workloads.conftest import free_port
from tests.workloads.recording import recorded
from tests.workloads.test_models import SMALL, config_of, inputs_for, small
from tests.workloads.test_resume import MODEL
from workloads.config import ConfigError
from workloads.data.format import Kind
from workloads.training.checkpoint import Checkpoints, Position
from workloads.training.config import TrainingConfig
from workloads.training.logs import Log
from workloads.training.optimizers import clip_gradients, learning_rate_at, make_embeddings_sparse, make_optimizer
from workloads.training.parallel import spread, take_small_batches
from workloads.training.precision import SCALE_AT_FIRST, LossScale, takes_fp8
from workloads.training.run import run
from workloads.training.stopping import RESUMABLE_EXIT_CODE, StopRequest
from workloads.training.world import World, WorldError

HERE = Path(__file__).parent
SGD = {"optimizer": {"name": "sgd"}, "learning_rate": 0.5}
CLIPPED = {"optimizer": {"name": "adamw", "clip_norm": 0.1, "warmup_steps": 3, "schedule": "cosine"}}
TABULAR = {"model": {"name": "tabular", "arguments": SMALL["tabular"]}, "learning_rate": 0.1}
SPARSE = {"optimizer": {"name": "adagrad", "sparse_embeddings": True}}
FSDP = {"strategy": "fsdp"}
RUNS: dict[str, dict[str, Any]] = {
    "ddp": SGD,
    "ddp-accumulated": SGD | {"parallel": {"micro_batch_size": 3}},
    "ddp-fp16": SGD | {"parallel": {"gradient_compression": "fp16"}},
    "ddp-bf16": SGD | {"parallel": {"gradient_compression": "bf16"}},
    "ddp-powersgd": SGD | {"parallel": {"gradient_compression": "powersgd"}, "epochs": 32},
    "fsdp": SGD | {"parallel": FSDP},
    "fsdp-accumulated": SGD | {"parallel": FSDP | {"micro_batch_size": 3, "activation_checkpointing": True}},
    "fsdp-clipped": CLIPPED | {"parallel": FSDP},
    "fsdp-fp16": SGD | {"parallel": FSDP, "precision": "fp16", "epochs": 16},
    "tensor": SGD | {"parallel": FSDP | {"tensor_parallel": 2}},
    "tensor-clipped": CLIPPED | {"parallel": FSDP | {"tensor_parallel": 2}},
    "tensor-vit": SGD
    | {"parallel": FSDP | {"tensor_parallel": 2}, "model": {"name": "vit-b-16", "arguments": SMALL["vit-b-16"]}},
    "sparse": TABULAR | SPARSE,
}
KINDS = {"tensor-vit": "image", "sparse": "tabular"}


def configured(folder: Path, name: str, kind: Kind, changes: dict[str, Any]) -> TrainingConfig:
    """Batches of 21: the ranks' parts differ, and the last batch of the 96 samples is smaller."""
    (folder / name).mkdir()
    config = config_of(folder / name, kind, **({"epochs": 2} | changes))
    return config.model_copy(update={"data": config.data.model_copy(update={"batch_size": 21})})


def weights_of(config: TrainingConfig) -> dict[str, torch.Tensor]:
    return torch.load(Path(config.outputs.url.removeprefix("file://")) / "model.pt", weights_only=True)


def report_of(config: TrainingConfig) -> dict[str, Any]:
    return json.loads((Path(config.outputs.url.removeprefix("file://")) / "report.json").read_text())


def torchrun(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
        + list(arguments),
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainingConfig]:
    """Every run of RUNS, done by two ranks."""
    folder = tmp_path_factory.mktemp("two-ranks")
    configs = {name: configured(folder, name, KINDS.get(name, "tokens"), changes) for name, changes in RUNS.items()}
    for name, config in configs.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    done = torchrun(HERE / "many_runs.py", *(f"{free_port()}:{folder / name}.yaml" for name in RUNS))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    return configs


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TrainingConfig]:
    """The same run on one rank, in this process."""
    folder = tmp_path_factory.mktemp("alone")

    done: dict[str, TrainingConfig] = {}

    def do(name: str, kind: Kind = "tokens", **changes: Any) -> TrainingConfig:
        if name not in done:
            done[name] = configured(folder, name, kind, changes)
            run(done[name], StopRequest())
        return done[name]

    return do


def furthest(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert first.keys() == second.keys()
    return max((first[name].float() - second[name].float()).abs().max().item() for name in first)


@pytest.mark.parametrize("name", ["ddp", "ddp-accumulated", "fsdp", "fsdp-accumulated", "tensor"])
def test_two_ranks_end_with_the_weights_of_one(
    name: str, two_ranks: dict[str, TrainingConfig], alone: Callable[..., TrainingConfig]
) -> None:
    assert furthest(weights_of(two_ranks[name]), weights_of(alone("sgd", **SGD))) < 2e-5


@pytest.mark.parametrize("name", ["fsdp-clipped", "tensor-clipped"])
def test_the_gradients_length_is_that_of_all_ranks_together(
    name: str, two_ranks: dict[str, TrainingConfig], alone: Callable[..., TrainingConfig]
) -> None:
    one = weights_of(alone("clipped", **CLIPPED))
    assert furthest(weights_of(two_ranks[name]), one) < 2e-4
    without = CLIPPED["optimizer"] | {"clip_norm": None}
    assert furthest(weights_of(alone("unclipped", optimizer=without)), one) > 1e-3, "clipping changes this run"


def test_a_split_vision_transformer_ends_with_the_weights_of_one_rank(
    two_ranks: dict[str, TrainingConfig], alone: Callable[..., TrainingConfig]
) -> None:
    one = alone("vit", "image", **{key: value for key, value in RUNS["tensor-vit"].items() if key != "parallel"})
    assert furthest(weights_of(two_ranks["tensor-vit"]), weights_of(one)) < 2e-5
    assert report_of(two_ranks["tensor-vit"])["held_out_samples"] == 48, "ranks of one group judge the same samples"


@pytest.mark.parametrize(("name", "tolerance"), [("ddp-fp16", 2e-3), ("ddp-bf16", 2e-2)])
def test_compressed_gradients_are_close_to_whole_ones(
    name: str, tolerance: float, two_ranks: dict[str, TrainingConfig], alone: Callable[..., TrainingConfig]
) -> None:
    assert 0 < furthest(weights_of(two_ranks[name]), weights_of(alone("sgd", **SGD))) < tolerance


@pytest.mark.parametrize("name", ["ddp-powersgd", "fsdp-fp16"])
def test_a_run_whose_arithmetic_is_rounder_learns_all_the_same(name: str, two_ranks: dict[str, TrainingConfig]) -> None:
    assert report_of(two_ranks[name])["perplexity"] < 8, "guessing among 32 tokens has 32"


def test_sparse_gradients_move_embeddings_as_dense_ones_do(
    two_ranks: dict[str, TrainingConfig], alone: Callable[..., TrainingConfig]
) -> None:
    sparse = weights_of(alone("sparse", "tabular", **TABULAR, **SPARSE))
    dense = weights_of(alone("dense", "tabular", **TABULAR, optimizer={"name": "adagrad"}))
    assert furthest(sparse, dense) < 1e-5
    assert report_of(two_ranks["sparse"])["accuracy"] > 0.9


@pytest.mark.parametrize("micro_batch_size", [1, 4, 20])
def test_accumulated_parts_make_the_gradient_of_the_whole_batch(
    micro_batch_size: int, alone: Callable[..., TrainingConfig]
) -> None:
    parts = alone(f"micro-{micro_batch_size}", **SGD, parallel={"micro_batch_size": micro_batch_size})
    assert furthest(weights_of(parts), weights_of(alone("sgd", **SGD))) < 2e-5


def test_activation_checkpointing_changes_no_bit(alone: Callable[..., TrainingConfig]) -> None:
    """With dropout, whose masks must be drawn again as they were."""
    model = {"name": "encoder", "arguments": SMALL["encoder"] | {"dropout": 0.2}}
    kept = weights_of(alone("kept", "text", model=model))
    recomputed = weights_of(alone("recomputed", "text", model=model, parallel={"activation_checkpointing": True}))
    assert furthest(kept, recomputed) == 0


def test_a_compiled_model_has_the_gradients_that_it_has_uncompiled(tmp_path: Path) -> None:
    gradients = []
    for compiled in (False, True):
        config = config_of(tmp_path / str(compiled), "tabular", compile=compiled)
        model = spread(small("tabular"), config, World(torch.device("cpu")))
        model(inputs_for("tabular")).square().sum().backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters()})
    assert furthest(*gradients) < 1e-4
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


def test_fp16_skips_a_step_that_overflows_and_a_resumed_run_has_the_smaller_loss_scale(tmp_path: Path) -> None:
    config = config_of(tmp_path, "tokens", precision="fp16")
    world, log = World(torch.device("cpu")), Log()
    checkpoints = Checkpoints(f"file://{tmp_path}/overflow", 1, {}, world, log)

    def started() -> tuple[nn.Module, optim.Optimizer, LossScale]:
        model = nn.Linear(2, 2)
        optimizer = make_optimizer(config, model)
        return model, optimizer, LossScale(config, world.device, optimizer)

    model, optimizer, loss_scale = started()
    before = model.weight.clone()
    loss_scale.scaler.scale(model(torch.full((1, 2), float("inf"))).sum()).backward()
    loss_scale.scaler.step(optimizer)
    loss_scale.scaler.update()
    assert torch.equal(model.weight, before)
    optimizer.zero_grad()
    loss_scale.store()
    checkpoints.save(model, optimizer, Position(step=1))
    checkpoints.finish()

    model, optimizer, loss_scale = started()
    assert checkpoints.resume(model, optimizer).step == 1
    loss_scale.restore(optimizer)
    assert loss_scale.scaler.get_scale() == SCALE_AT_FIRST / 2


def test_a_run_that_two_ranks_began_is_ended_by_one_and_sees_each_sample_once_an_epoch(
    recording: Path, tmp_path: Path
) -> None:
    config = config_of(tmp_path, "image", model=MODEL, epochs=2)
    path = tmp_path / "training.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    stopped = subprocess.run(
        [sys.executable, "-m", "workloads.training", "--config", path],
        env=os.environ
        | {"PET_NPROC_PER_NODE": "2", "PET_MASTER_PORT": str(free_port())}
        | {"OMP_NUM_THREADS": "1", "TERM_AT_STEP": "4"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert '"event": "interrupted"' in stopped.stdout, stopped.stderr
    assert stopped.returncode == RESUMABLE_EXIT_CODE, "so that the cluster starts it again"
    assert "Traceback" not in stopped.stderr
    run(config, StopRequest())
    first, second, alone = recorded(recording)
    assert len(first) == len(second) == 4 * 8, "four steps of 16, cut in two"
    assert len(set(first + second + alone[:32])) == 96, "the first epoch, over both world sizes"
    assert sorted(first + second + alone) == sorted(2 * list(dict.fromkeys(alone[32:])))


@pytest.mark.parametrize(
    ("kind", "changes", "error", "sentence"),
    [
        ("image", {"model": {"name": "fusionnet"}, "parallel": {"activation_checkpointing": True}}, ConfigError, "declares no blocks"),
        ("image", {"model": {"name": "resnet-50"}, "parallel": {"activation_checkpointing": True}}, ConfigError, "normalize by batch"),
        ("image", {"model": {"name": "fusionnet"}, "optimizer": {"name": "sgd", "sparse_embeddings": True}}, ConfigError, "has no embedding"),
        ("tokens", {"parallel": {"strategy": "fsdp", "tensor_parallel": 2}}, WorldError, "got 2; expected a divisor of the 1 rank"),
        ("tokens", {"precision": "fp8"}, WorldError, "precision: got fp8; this is cpu, and fp8 needs a CUDA chip of Ada, Hopper"),
        ("tokens", {"task": "classification"}, ConfigError, "task: got classification; the data set tokens holds tokens"),
    ],
)  # fmt: skip
def test_what_a_model_or_a_machine_cannot_do_is_one_sentence(
    kind: Any, changes: dict[str, Any], error: type[Exception], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=sentence):
        run(config_of(tmp_path, kind, **changes), StopRequest())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"parallel": {"tensor_parallel": 2}}, "tensor_parallel needs strategy: fsdp"),
        ({"parallel": {"strategy": "fsdp", "gradient_compression": "fp16"}}, "gradient_compression is of strategy: ddp"),
        ({"optimizer": {"momentum": 0.9}}, "momentum is of sgd; adam has its own"),
        ({"optimizer": {"sparse_embeddings": True}}, "sparse_embeddings needs adagrad, or sgd without momentum"),
        ({"optimizer": {"name": "sgd", "sparse_embeddings": True, "clip_norm": 1}}, "neither weight_decay nor clip_norm"),
        ({"optimizer": {"name": "sgd", "sparse_embeddings": True}, "parallel": FSDP}, "not go with parallel.strategy: fsdp"),
        ({"precision": "fp8", "parallel": FSDP | {"tensor_parallel": 2}}, "does not go with parallel.tensor_parallel"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_are_refused(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        config_of(tmp_path, "tokens", **changes)


def test_the_learning_rate_rises_over_the_warm_up_and_falls_to_nothing(tmp_path: Path) -> None:
    config = config_of(tmp_path, "tokens", learning_rate=1.0, optimizer={"warmup_steps": 4, "schedule": "cosine"})
    rates = [learning_rate_at(config, step, 24) for step in range(25)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[14] == pytest.approx(0.5), "half-way between the warm-up's end and the run's"
    assert rates[24] == pytest.approx(0)
    assert all(after < before for before, after in pairwise(rates[4:]))


def test_a_long_gradient_is_shortened_to_the_norm_and_a_short_one_is_left() -> None:
    model = nn.Linear(3, 2)
    for scale, norm in ((10.0, 1.0), (0.01, None)):
        for weight in model.parameters():
            weight.grad = torch.full_like(weight, scale)
        before = torch.nn.utils.get_total_norm([weight.grad for weight in model.parameters()])
        clip_gradients(model.parameters(), 1.0)
        after = torch.nn.utils.get_total_norm([weight.grad for weight in model.parameters()])
        assert after.item() == pytest.approx(norm or before.item(), rel=1e-4)


def test_an_epochs_last_sample_is_normalized_by_the_batches_before_it_and_single_ones_alone_are_refused(
    tmp_path: Path,
) -> None:
    config = config_of(tmp_path, "tabular")
    config = config.model_copy(update={"data": config.data.model_copy(update={"batch_size": 32})})
    model = small("tabular")
    take_small_batches(model, config, 97, World(torch.device("cpu")))
    rows = inputs_for("tabular")
    with pytest.raises(ConfigError, match=r"data\.batch_size: a rank computes one sample at once"):
        model(rows[:1])
    model(rows)
    assert torch.isfinite(model(rows[:1])).all() and model(rows[:0]).shape == (0, 2)


def test_an_embedding_that_another_layer_shares_is_not_made_sparse() -> None:
    model = nn.Sequential(nn.Embedding(4, 4), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    with pytest.raises(ConfigError, match="shares an embedding with another layer"):
        make_embeddings_sparse(model)


def test_fp8_is_for_large_enough_linear_layers_but_the_last() -> None:
    model = small("decoder")
    chosen = [name for name, module in model.named_modules() if takes_fp8(module, name)]
    assert "blocks.0.attention.q" in chosen
    assert "head" not in chosen
    assert "blocks.0.attention.k" not in chosen, "two heads of 4 are 8 columns; fp8's kernels take multiples of 16"
