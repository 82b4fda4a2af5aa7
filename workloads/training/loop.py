"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn, optim

from workloads.data.loader import Batch, Loader
from workloads.storage import StorageError
from workloads.training.checkpoint import Checkpoints
from workloads.training.config import TrainingConfig
from workloads.training.logs import Log
from workloads.training.manifest import Position
from workloads.training.measure import Meter
from workloads.training.optimizers import clip_gradients, set_learning_rate
from workloads.training.parallel import gradients_summed, micro_batches
from workloads.training.precision import LossScale, autocast
from workloads.training.stopping import Diverged, Interrupted, StopRequest
from workloads.training.tasks import Task
from workloads.training.tensorboard import TensorBoardLog
from workloads.training.world import World

_SEED_STRIDE = 1_000_003  # a prime, so that (seed, step, rank) don't meet in everyday ranges


@dataclass
class Trainer:
    """Everything that the loop works with."""

    config: TrainingConfig
    world: World
    log: Log
    model: nn.Module
    optimizer: optim.Optimizer
    loader: Loader
    checkpoints: Checkpoints
    tensorboard: TensorBoardLog | None
    stop: StopRequest
    task: Task
    loss_scale: LossScale
    meter: Meter = field(default_factory=Meter)
    saved_step: int = -1

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.config.epochs * self.loader.batches

    def train(self, position: Position) -> Position:
        """Train from ``position`` to the last epoch's end.

        Raises:
            Interrupted: a signal asked to stop; the run is saved.
        """
        self.saved_step = position.step
        for epoch in range(position.epoch, self.config.epochs):
            losses = []
            for batch in self.meter.waiting(self.batches(position)):
                losses.append(self.step(batch, position.step))
                position = position.after(batch.global_samples)
                self.save_if_due(position)
                self.meter.step_done(batch.global_samples, losses[-1])
            position = position.next_epoch()
            self.report(epoch, position.step, losses)
        self.save(position)
        self.checkpoints.finish()
        return position

    def batches(self, position: Position) -> Iterator[Batch]:
        """What is left of an epoch."""
        return self.loader.epoch(position.epoch, start=position.samples)

    def step(self, batch: Batch, step: int) -> Tensor:
        """One optimizer step; returns this rank's part of the loss."""
        seed_step(self.config.seed, step, self.world.data_rank, self.world.device)
        self.optimizer.zero_grad(set_to_none=True)
        parts = micro_batches(batch, self.config.parallel.micro_batch_size, self.world)
        losses = [self.backward(part, last=part is parts[-1]) for part in parts]
        self.meter.ended("forward_backward")
        self.update(step)
        self.world.end_step()
        self.meter.ended("optimizer")
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def backward(self, batch: Batch, *, last: bool) -> Tensor:
        """Add the gradient of a part of a batch; returns its part of the loss."""
        inputs, targets = self.task.inputs_and_targets(batch)
        with gradients_summed(self.model, last):
            with autocast(self.config, self.world.device):
                total = self.task.loss(self.model(inputs), targets)
            # Parts differ by a sample, and gradients are averaged over ranks: this makes it the mean of all losses.
            loss = total * (self.world.data_size / (batch.global_samples * self.task.predictions_per_sample))
            self.loss_scale.scaler.scale(loss).backward()
        return loss.detach()

    def update(self, step: int) -> None:
        """Move the weights along the gradient; with fp16, not where it overflowed."""
        scaler = self.loss_scale.scaler
        set_learning_rate(self.optimizer, self.config, step, self.steps)
        if self.config.optimizer.clip_norm is not None:
            scaler.unscale_(self.optimizer)
            clip_gradients(self.model.parameters(), self.config.optimizer.clip_norm)
        scaler.step(self.optimizer)
        scaler.update()

    def save_if_due(self, position: Position) -> None:
        """Save every so many steps or when any rank was told that its machine is at risk; leave if it will go."""
        stop = self.stop
        stopping, at_risk, busy, failed = self.world.any_of(
            stop.requested, stop.save_requested, *self.checkpoints.flags()
        )
        self.meter.ended("messages")
        self.checkpoints.advance(busy, failed)
        if stopping or at_risk or position.step % self.config.checkpoint.every_steps == 0:
            stop.save_requested = False
            self.save(position)
        self.meter.ended("checkpoint")
        if stopping:
            self.checkpoints.finish()
            raise Interrupted

    def save(self, position: Position) -> None:
        """Save the run and what it has logged, unless this step is saved already."""
        if position.step == self.saved_step:
            return
        self.loss_scale.store()
        self.checkpoints.save(self.model, self.optimizer, position)
        self.saved_step = position.step
        if self.tensorboard:
            try:
                self.tensorboard.upload(position.step)
            except StorageError as problem:  # the next save brings all of it
                self.log.warning("curves_not_uploaded", reason=str(problem))

    def report(self, epoch: int, step: int, losses: list[Tensor]) -> None:
        """Say how an epoch went; reads the losses from the device once."""
        if not losses:  # resumed at this epoch's very end
            return
        loss = self.world.mean(torch.stack(losses).mean().item())
        # With fp16 a step may overflow; it moves no weight, and the steps after it are sound.
        if not math.isfinite(loss) and not math.isfinite(self.world.mean(losses[-1].item())):
            raise Diverged(
                f"the loss is no finite number after epoch {epoch + 1}: the weights are of no use any more. Lower "
                "learning_rate or set optimizer.clip_norm, and give the run a checkpoint.url of its own"
            )
        facts = self.facts()
        self.log.info("epoch", epoch=epoch + 1, of=self.config.epochs, step=step, loss=round(loss, 5), **facts)
        if self.tensorboard:
            parts = {f"step_ms/{part}": value for part, value in self.meter.part_ms.items()}
            rate = self.meter.samples / self.meter.seconds
            more = {f"train/{name}": value for name, value in facts.items()}
            self.tensorboard.scalars(step, {"train/loss": loss, "train/samples_per_second": rate, **parts, **more})

    def facts(self) -> dict[str, float]:
        """What else there is to say after an epoch."""
        return {}

    def guarantees(self) -> dict[str, Any]:
        """What holds for the weights, for report.json."""
        return {}


def seed_step(seed: int, step: int, rank: int, device: torch.device) -> None:
    """Random numbers as a function of the place in the run: a resumed run draws what an uninterrupted one would.

    Not `torch.manual_seed`: it visits every kind of device, which takes a millisecond where there is none of them.
    """
    number = (seed * _SEED_STRIDE + step) * _SEED_STRIDE + rank
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed(number)
    elif device.type == "xla":
        import torch_xla

        torch_xla.manual_seed(number)
