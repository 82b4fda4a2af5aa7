"""A whole training run: set up, resume, train, judge, leave the results in the bucket."""

from __future__ import annotations

import io
import json
import logging
import platform
from contextlib import ExitStack
from datetime import UTC, datetime
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
from workloads.training.logs import Log
from workloads.training.loop import Trainer
from workloads.training.measure import Meter
from workloads.training.monitor import Metrics, exposed, progress_bar
from workloads.training.optimizers import make_optimizer
from workloads.training.parallel import full_weights, spread
from workloads.training.precision import LossScale, set_numerics
from workloads.training.promise import Promise, read_promise
from workloads.training.stopping import StopRequest
from workloads.training.tasks import Evaluation, task_for
from workloads.training.tensorboard import TensorBoardLog, read_curve
from workloads.training.world import World, join, processor_name


def run(config: TrainingConfig, stop: StopRequest) -> None:
    """Train as the config says; the last line of standard output is the result, as JSON.

    Raises:
        Interrupted: a signal asked to stop; the run is saved and the same command resumes it.
    """
    # Where it can't keep its list of fonts, as in a container, it makes a new one each time, and would say so.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    with join(config) as world, ExitStack() as at_end:
        log = Log(world.rank)
        set_numerics(config)
        cache = ShardCache(config.data.cache.folder, int(config.data.cache.limit_gib * GIB))
        train_set, test_set = (Dataset(config.data.url, split, cache) for split in SPLITS)
        check_model_fits(config, train_set.index)
        task = task_for(config.task, train_set.index, world.device)
        log.info("started", run=config.run, device=world.device_name, ranks=world.size, threads=torch.get_num_threads())
        warn_of_idle_devices(world, log)
        if config.stop_notices and world.is_first_of_node:
            at_end.enter_context(notices.watched(config.stop_notices, stop, log))

        promise = read_promise()
        flops = training_flops_per_sample(config, train_set.index) if promise else None
        torch.manual_seed(config.seed)
        model = build_model(config, train_set.index, world)
        optimizer = make_optimizer(config, model)
        loss_scale = LossScale(config, world.device, optimizer)
        kept = config.checkpoint
        checkpoints = at_end.enter_context(Checkpoints(kept.url, kept.keep, identity(config, train_set), world, log))
        position = checkpoints.resume(model, optimizer)
        loss_scale.restore(optimizer)
        tensorboard = (
            TensorBoardLog(storage.join(config.outputs.url, "tensorboard"), from_step=position.step)
            if world.is_first
            else None
        )
        ranks: dict[str, int] = {"rank": world.data_rank, "world_size": world.data_size}
        trainer = Trainer(
            config=config,
            world=world,
            log=log,
            model=model,
            optimizer=optimizer,
            loader=Loader(train_set, config.data.batch_size, config.seed, **ranks, streams=config.data.streams),
            checkpoints=checkpoints,
            tensorboard=tensorboard,
            stop=stop,
            task=task,
            loss_scale=loss_scale,
        )
        steps = config.epochs * trainer.loader.batches
        with ExitStack() as meanwhile:
            if config.metrics_port and world.is_first_of_node:
                metrics = Metrics(config.run, trainer.meter, world, flops, promise.peak_flops if promise else 0.0)
                meanwhile.enter_context(exposed(metrics, config.metrics_port, log))
            if world.is_first:
                meanwhile.enter_context(progress_bar(trainer.meter, position.step, steps))
            end = trainer.train(position)
        evaluation = evaluate(model, Loader(test_set, forward_samples(config, world), **ranks), world, task)
        weights = full_weights(model)
        if evaluation and tensorboard:
            tensorboard.scalars(end.step, {f"test/{name}": value for name, value in evaluation.metrics.items()})
            hours = tensorboard.hours
            tensorboard.close(end.step)
            losses = read_curve(tensorboard.url, "train/loss")
            scores = {name: round(value, 4) for name, value in evaluation.metrics.items()}
            result = {**scores, **measured(config, trainer.meter), "steps": end.step}
            compared = compare(promise, trainer.meter, hours, flops)
            leave_results(config, world, weights, evaluation, losses, {**result, **compared})
            finished = {"event": "finished", "run": config.run, **result, "report": report_url(config)}
            print(json.dumps(finished), flush=True)
        world.barrier()


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
    return spread(models.build(config.model.name, index, config.model.arguments), config, world)


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
    }


def warn_of_idle_devices(world: World, log: Log) -> None:
    """One process drives one device; say so where more are paid for."""
    if world.device.type == "cuda" and world.size == 1 and (devices := torch.cuda.device_count()) > 1:
        log.warning("idle_devices", devices=devices, used=1, start_with=f"torchrun --nproc-per-node {devices}")


def measured(config: TrainingConfig, meter: Meter) -> dict[str, Any]:
    """What this process measured; where the run was complete before it, what the last report says."""
    summary = meter.summary()
    if meter.samples == 0 and (report := storage.read_or_none(report_url(config))) is not None:
        before = json.loads(report)
        return {name: before.get(name) for name in summary}
    return summary


def compare(promise: Promise | None, meter: Meter, hours: float, flops: float | None) -> dict[str, Any]:
    """What the plan promised beside what this run was; nothing where no plan did, or where nothing was trained."""
    if promise is None or not meter.steps:
        return {}
    rate = meter.samples / meter.seconds
    mfu = None if flops is None else promise.utilisation(flops, rate)
    beside = promise.beside(samples_per_second=rate, hours=hours, mfu=mfu)
    return {"promise": beside, "steps_measured": meter.steps}


def leave_results(
    config: TrainingConfig,
    world: World,
    weights: dict[str, Any],
    evaluation: Evaluation,
    losses: list[tuple[int, float]],
    result: dict[str, object],
) -> None:
    """Weights, then the reports and charts that speak of them."""
    from workloads.training.charts import loss_chart  # its imports take seconds, which training should not wait for

    url = config.outputs.url
    file = io.BytesIO()
    torch.save(weights, file)
    storage.write(storage.join(url, "model.pt"), file.getvalue())
    charts = {"loss.png": loss_chart(losses)} if losses else {}
    for name, content in {**evaluation.files, **charts}.items():
        storage.write(storage.join(url, name), content)
    report = {
        "run": config.run,
        **result,
        "held_out_samples": evaluation.samples,
        **evaluation.report,
        "device": world.device_name,
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "ranks": world.size,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "config": config.model_dump(mode="json"),
    }
    storage.write(report_url(config), json.dumps(report, indent=2).encode())


def report_url(config: TrainingConfig) -> str:
    """Where the report of a run lies."""
    return storage.join(config.outputs.url, "report.json")
