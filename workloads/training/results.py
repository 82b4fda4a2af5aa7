"""What a run that has ended leaves in the bucket: weights, report, curves and charts."""

from __future__ import annotations

import io
import json
import platform
from datetime import UTC, datetime
from typing import Any

import torch

from workloads import storage
from workloads.training.config import TrainingConfig
from workloads.training.loop import Trainer
from workloads.training.measure import Meter
from workloads.training.promise import Promise
from workloads.training.tasks import Evaluation
from workloads.training.tensorboard import TensorBoardLog, read_curve
from workloads.training.world import processor_name


def leave_results(
    trainer: Trainer,
    tensorboard: TensorBoardLog,
    steps: int,
    weights: dict[str, Any],
    evaluation: Evaluation,
    promise: Promise | None,
    flops: float | None,
) -> dict[str, Any]:
    """Write everything, on the first rank; returns what the run says last.

    Args:
        trainer: that has ended.
        tensorboard: its curves.
        steps: of the whole run.
        weights: under the model's own names.
        evaluation: on held-out samples.
        promise: what the plan predicted.
        flops: of training on a sample; None where no plan asks.
    """
    config = trainer.config
    tensorboard.scalars(steps, {f"test/{name}": value for name, value in evaluation.metrics.items()})
    hours = tensorboard.hours
    tensorboard.upload(steps)
    scores = {name: round(value, 4) for name, value in evaluation.metrics.items()}
    result = {**scores, **trainer.facts(), **_measured(config, trainer.meter), "steps": steps}
    _write_weights(config, weights)
    _write_charts(config, evaluation, read_curve(tensorboard.url, "train/loss"))
    compared = _compare(promise, trainer.meter, hours, flops)
    report = {"run": config.run, **result, **compared, **trainer.guarantees(), **_circumstances(trainer, evaluation)}
    storage.write(report_url(config), json.dumps(report, indent=2).encode())
    return {"event": "finished", "run": config.run, **result, "report": report_url(config)}


def report_url(config: TrainingConfig) -> str:
    """Where the report of a run lies."""
    return storage.join(config.outputs.url, "report.json")


def _measured(config: TrainingConfig, meter: Meter) -> dict[str, Any]:
    """What this process measured; where the run was complete before it, what the last report says."""
    summary = meter.summary()
    if meter.samples == 0 and (report := storage.read_or_none(report_url(config))) is not None:
        before = json.loads(report)
        return {name: before.get(name) for name in summary}
    return summary


def _compare(promise: Promise | None, meter: Meter, hours: float, flops: float | None) -> dict[str, Any]:
    """What the plan promised beside what this run was; nothing where no plan did, or where nothing was trained."""
    if promise is None or not meter.steps:
        return {}
    rate = meter.samples / meter.seconds
    mfu = None if flops is None else promise.utilisation(flops, rate)
    beside = promise.beside(samples_per_second=rate, hours=hours, mfu=mfu)
    return {"promise": beside, "steps_measured": meter.steps}


def _write_weights(config: TrainingConfig, weights: dict[str, Any]) -> None:
    file = io.BytesIO()
    torch.save(weights, file)
    storage.write(storage.join(config.outputs.url, "model.pt"), file.getvalue())


def _write_charts(config: TrainingConfig, evaluation: Evaluation, losses: list[tuple[int, float]]) -> None:
    from workloads.training.charts import loss_chart  # its imports take seconds, which training should not wait for

    charts = {"loss.png": loss_chart(losses)} if losses else {}
    for name, content in {**evaluation.files, **charts}.items():
        storage.write(storage.join(config.outputs.url, name), content)


def _circumstances(trainer: Trainer, evaluation: Evaluation) -> dict[str, Any]:
    return {
        "held_out_samples": evaluation.samples,
        **evaluation.report,
        "device": trainer.world.device_name,
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "ranks": trainer.world.size,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "config": trainer.config.model_dump(mode="json"),
    }
