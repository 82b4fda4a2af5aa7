"""A whole training run: set up, resume, train, judge, leave the results in the bucket."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from workloads import models, storage
from workloads.config import ConfigError
from workloads.data.cache import GIB, ShardCache
from workloads.data.format import SPLITS, Index
from workloads.data.loader import Dataset, Loader
from workloads.training import notices
from workloads.training.checkpoint import Checkpoints
from workloads.training.config import TrainingConfig
from workloads.training.evaluate import evaluate
from workloads.training.flops import training_flops_per_sample
from workloads.training.logs import Log, says_all, warnings_said
from workloads.training.loop import Trainer
from workloads.training.manifest import Position
from workloads.training.monitor import Metrics, exposed, progress_bar
from workloads.training.optimizers import make_optimizer
from workloads.training.parallel import full_weights, spread, take_small_batches
from workloads.training.precision import LossScale, set_numerics
from workloads.training.privacy import Privacy, PrivateTrainer, check_gradients
from workloads.training.promise import read_promise
from workloads.training.results import leave_results
from workloads.training.stopping import StopRequest
from workloads.training.tasks import Task, task_for
from workloads.training.tensorboard import TensorBoardLog
from workloads.training.world import World, join


def run(config: TrainingConfig, stop: StopRequest) -> None:
    """Train as the config says; the last line of standard output is the result, as JSON.

    Raises:
        Interrupted: a signal asked to stop; the run is saved and the same command resumes it.
    """
    # Where it can't keep its list of fonts, as in a container, it makes a new one each time, and would say so.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    with join(config) as world, ExitStack() as at_end:
        log = Log(world.rank)
        at_end.enter_context(warnings_said(log, in_full=says_all(config)))
        set_numerics(config)
        train_set, test_set = open_data(config)
        task = task_for(config.task, train_set.index, world.device)
        log.info("started", run=config.run, device=world.device_name, ranks=world.size, threads=torch.get_num_threads())
        warn_of_idle_devices(world, log)
        if config.stop_notices and world.is_first_of_node:
            at_end.enter_context(notices.watched(config.stop_notices, stop, log))

        promise = read_promise()
        flops = training_flops_per_sample(config, train_set.index) if promise else None
        trainer, position = at_end.enter_context(prepared(config, world, log, stop, train_set, task))
        with ExitStack() as meanwhile:
            if config.metrics_port and world.is_first_of_node:
                metrics = Metrics(config.run, trainer.meter, world, flops, promise.peak_flops if promise else 0.0)
                meanwhile.enter_context(exposed(metrics, config.metrics_port, log))
            if world.is_first:
                meanwhile.enter_context(progress_bar(trainer.meter, position.step, trainer.steps))
            end = trainer.train(position)
        held_out = Loader(test_set, forward_samples(config, world), rank=world.data_rank, world_size=world.data_size)
        evaluation = evaluate(trainer.model, held_out, world, task)
        weights = full_weights(trainer.model)
        if evaluation and trainer.tensorboard:
            said = leave_results(trainer, trainer.tensorboard, end.step, weights, evaluation, promise, flops)
            print(json.dumps(said), flush=True)
        world.barrier()


def open_data(config: TrainingConfig) -> tuple[Dataset, Dataset]:
    """What is trained on, and what is held out.

    Raises:
        ConfigError: the model's declared input is not what they hold.
    """
    cache = ShardCache(config.data.cache.folder, int(config.data.cache.limit_gib * GIB))
    train_set, test_set = (Dataset(config.data.url, split, cache) for split in SPLITS)
    check_model_fits(config, train_set.index)
    return train_set, test_set


@contextmanager
def prepared(
    config: TrainingConfig, world: World, log: Log, stop: StopRequest, data: Dataset, task: Task
) -> Iterator[tuple[Trainer, Position]]:
    """The trainer, with the newest checkpoint loaded, and where it goes on."""
    torch.manual_seed(config.seed)
    model = build_model(config, data.index, world)
    privacy = Privacy(config, config.privacy, model, len(data), world) if config.privacy else None
    optimizer = make_optimizer(config, model)
    loss_scale = LossScale(config, world.device, optimizer)
    kept = config.checkpoint
    with Checkpoints(kept.url, kept.keep, identity(config, data), world, log) as checkpoints:
        if privacy:
            check_gradients(model, config.model.name, task, data)
            privacy.keep_account(optimizer)
        position = checkpoints.resume(model, optimizer)
        loss_scale.restore(optimizer)
        make: Callable[..., Trainer] = Trainer
        if privacy:
            privacy.start(optimizer, position)
            log.info("private", noise_multiplier=privacy.noise_multiplier, epsilon_at_end=privacy.epsilon_at_end)
            make = functools.partial(PrivateTrainer, privacy=privacy)
        curves = storage.join(config.outputs.url, "tensorboard")
        trainer = make(
            config=config,
            world=world,
            log=log,
            model=model,
            optimizer=optimizer,
            loader=Loader(
                data,
                config.data.batch_size,
                config.seed,
                rank=world.data_rank,
                world_size=world.data_size,
                streams=config.data.streams,
            ),
            checkpoints=checkpoints,
            tensorboard=TensorBoardLog(curves, from_step=position.step) if world.is_first else None,
            stop=stop,
            task=task,
            loss_scale=loss_scale,
        )
        yield trainer, position


def check_model_fits(config: TrainingConfig, index: Index) -> None:
    """Refuse a model whose declared input is not what the data set holds."""
    image = index.shape if index.kind == "image" else (None, None)
    for name, declared, held in (
        ("classes", config.model.classes, len(index.classes)),
        ("channels", config.model.channels, image[0]),
        ("image_size", config.model.image_size, image[1]),
    ):
        if declared is not None and declared != held:
            raise ConfigError(f"model.{name}: got {declared}; the data set {config.data.url} has {held or 'none'}")


def build_model(config: TrainingConfig, index: Index, world: World) -> nn.Module:
    """The model that the config names, spread over the ranks."""
    model = models.build(config.model.name, index, config.model.arguments)
    take_small_batches(model, config, index.samples("train"), world)
    return spread(model, config, world)


def forward_samples(config: TrainingConfig, world: World) -> int:
    """Samples of all ranks that are computed at once while training, and so fit in memory."""
    micro = config.parallel.micro_batch_size
    return config.data.batch_size if micro is None else min(config.data.batch_size, micro * world.data_size)


def identity(config: TrainingConfig, data: Dataset) -> dict[str, Any]:
    """What a checkpoint must share with the run that resumes from it; the rest of the config may change."""
    return {
        "model": config.model.name,
        "arguments": config.model.arguments,
        "seed": config.seed,
        "streams": config.data.streams,
        "data": data.digest,
        "privacy": config.privacy and {"sampling": config.privacy.sampling, "batch_size": config.data.batch_size},
    }


def warn_of_idle_devices(world: World, log: Log) -> None:
    """One process drives one device; say so where more are paid for."""
    if world.device.type == "cuda" and world.size == 1 and (devices := torch.cuda.device_count()) > 1:
        log.warning("idle_devices", devices=devices, used=1, start_with=f"torchrun --nproc-per-node {devices}")
