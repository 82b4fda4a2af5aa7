"""The training loop against a bare PyTorch loop, Lightning Fabric and accelerate: `python -m benchmarks.training`.

Peers: `uv pip install -r benchmarks/training-peers.txt`. Same model, same batches (in memory), Adam, fp32, one thread; the
contenders take turns within a round, in another order each round. Each step is timed from one batch's request to the next; a
figure is the first quartile, and the median, of all steps of all rounds: what else a shared machine does only adds to a step,
and by far more than a loop does. The spread is that of the rounds' own first quartiles over the bare loop's of the same round.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate import __version__ as accelerate_version
from lightning_fabric import Fabric
from lightning_fabric import __version__ as fabric_version
from torch import nn, optim

from workloads.data.format import Index
from workloads.data.loader import Batch
from workloads.models import build
from workloads.training.checkpoint import Checkpoints, Position
from workloads.training.config import TrainingConfig
from workloads.training.logs import Log
from workloads.training.loop import Trainer
from workloads.training.precision import LossScale
from workloads.training.stopping import StopRequest
from workloads.training.tasks import Task, task_for
from workloads.training.world import World

CPU = torch.device("cpu")
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Case:
    """One model on one kind of data."""

    model: str
    arguments: dict[str, Any]
    index: Index
    batch_size: int
    steps: int


CASES = {
    "FusionNet, 3 × 8 × 8, batch 32": Case(
        "fusionnet",
        {"dropout": 0.0},
        Index(name="x", source="random", kind="image", shape=(3, 8, 8), classes=tuple("0123456789"), splits={}),
        32,
        300,
    ),
    "decoder, 3.6 M weights, 128 tokens, batch 4": Case(
        "decoder",
        {"width": 256, "layers": 4, "heads": 8, "kv_heads": 4},
        Index(name="x", source="random", kind="tokens", shape=(129,), vocabulary=1024, splits={}),
        4,
        20,
    ),
}


@dataclass
class Timed:
    """Hands out the batches and times each step, from one request to the next."""

    batch_list: list[Batch]
    step_s: list[float] = field(default_factory=list)

    @property
    def batches(self) -> int:
        """How many an epoch has."""
        return len(self.batch_list)

    def epoch(self, epoch: int = 0, *, start: int = 0) -> Iterator[Batch]:
        """The same batches each time."""
        for batch in self.batch_list:
            begun = time.perf_counter()
            yield batch
            self.step_s.append(time.perf_counter() - begun)

    @property
    def quartile_s(self) -> float:
        """The first of its steps' times."""
        return statistics.quantiles(self.step_s, n=4)[0]


def make_batches(case: Case) -> list[Batch]:
    """As the loader gives them: pixels of 8 bits, or token numbers."""
    made = []
    for _ in range(case.steps):
        shape = (case.batch_size, *case.index.shape)
        if case.index.kind == "image":
            inputs = torch.randint(0, 256, shape, dtype=torch.uint8)
        else:
            inputs = torch.randint(1, case.index.vocabulary or 2, shape, dtype=torch.int32)
        made.append(Batch(inputs, torch.randint(0, 10, (case.batch_size,)), case.batch_size))
    return made


def bare(model: nn.Module, task: Task, batches: Timed) -> None:
    """What one writes first."""
    optimizer = optim.Adam(model.parameters(), lr=LEARNING_RATE)
    for batch in batches.epoch():
        inputs, targets = task.inputs_and_targets(batch)
        optimizer.zero_grad()
        loss = task.loss(model(inputs), targets) / (batch.global_samples * task.predictions_per_sample)
        loss.backward()
        optimizer.step()


def fabric(model: nn.Module, task: Task, batches: Timed) -> None:
    """As Lightning Fabric's own guide has it."""
    engine = Fabric(accelerator="cpu", devices=1)
    wrapped, optimizer = engine.setup(model, optim.Adam(model.parameters(), lr=LEARNING_RATE))
    by_engine(engine, wrapped, optimizer, task, batches)


def accelerate(model: nn.Module, task: Task, batches: Timed) -> None:
    """As accelerate's own guide has it."""
    engine = Accelerator(cpu=True)
    wrapped, optimizer = engine.prepare(model, optim.Adam(model.parameters(), lr=LEARNING_RATE))
    by_engine(engine, wrapped, optimizer, task, batches)


def by_engine(
    engine: Fabric | Accelerator, wrapped: nn.Module, optimizer: optim.Optimizer, task: Task, batches: Timed
) -> None:
    """The loop of both guides, in which the engine takes over the backward pass."""
    for batch in batches.epoch():
        inputs, targets = task.inputs_and_targets(batch)
        optimizer.zero_grad()
        loss = task.loss(wrapped(inputs), targets) / (batch.global_samples * task.predictions_per_sample)
        engine.backward(loss)
        optimizer.step()


def fusion(model: nn.Module, task: Task, batches: Timed) -> None:
    """The loop of `workloads.training`, with all that it does in a step: seeding, meters, the stop request."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"file://{folder}"
        config = TrainingConfig.model_validate(
            {
                "run": "benchmark",
                "data": {"url": url},
                "epochs": 1,
                "learning_rate": LEARNING_RATE,
                "checkpoint": {"url": url, "every_steps": 1_000_000},
                "outputs": {"url": url},
            }
        )
        world, log = World(CPU), Log(rank=1)  # only the first rank speaks
        optimizer = optim.Adam(model.parameters(), lr=LEARNING_RATE)
        trainer = Trainer(
            config=config,
            world=world,
            log=log,
            model=model,
            optimizer=optimizer,
            loader=batches,  # type: ignore[arg-type] # the same batches for every contender
            checkpoints=Checkpoints(url, 1, {}, world, log),
            tensorboard=None,
            stop=StopRequest(),
            task=task,
            loss_scale=LossScale(config, CPU, optimizer),
        )
        trainer.train(Position())


CONTENDERS: dict[str, Callable[[nn.Module, Task, Timed], None]] = {
    "bare PyTorch": bare,
    "Fusion": fusion,
    "Lightning Fabric": fabric,
    "accelerate": accelerate,
}


def measure(case: Case, rounds: int) -> dict[str, dict[str, float]]:
    """The figures of each contender."""
    torch.manual_seed(0)
    batch_list, task = make_batches(case), task_for(None, case.index, CPU)
    times: dict[str, list[Timed]] = {name: [] for name in CONTENDERS}
    for number in range(rounds + 1):
        for name in random.sample(list(CONTENDERS), len(CONTENDERS)):
            torch.manual_seed(0)
            timed = Timed(batch_list)
            CONTENDERS[name](build(case.model, case.index, case.arguments), task, timed)
            if number:  # the first round warms caches and allocators
                times[name].append(timed)
    return {name: figures(case, done, times["bare PyTorch"]) for name, done in times.items()}


def figures(case: Case, done: list[Timed], bare_done: list[Timed]) -> dict[str, float]:
    steps, bare_steps = ([s for each in way for s in each.step_s] for way in (done, bare_done))
    quartile_s, bare_s = (statistics.quantiles(way, n=4)[0] for way in (steps, bare_steps))
    low, _, high = statistics.quantiles(
        [each.quartile_s / other.quartile_s - 1 for each, other in zip(done, bare_done, strict=True)], n=4
    )
    return {
        "step_ms": quartile_s * 1e3,
        "step_median_ms": statistics.median(steps) * 1e3,
        "samples_per_second": case.batch_size / quartile_s,
        "overhead_percent": (quartile_s / bare_s - 1) * 100,
        "overhead_percent_q1": low * 100,
        "overhead_percent_q3": high * 100,
        "overhead_median_percent": (statistics.median(steps) / statistics.median(bare_steps) - 1) * 100,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error(f"--rounds: got {arguments.rounds}; expected two or more, which have a spread")
    torch.set_num_threads(1)
    print(
        f"torch {torch.__version__}, lightning-fabric {fabric_version}, accelerate {accelerate_version}, {platform.machine()}"
    )
    measured = {}
    for name, case in CASES.items():
        measured[name] = measure(case, arguments.rounds)
        print(f"\n{name}: {arguments.rounds} rounds of {case.steps} steps")
        print(f"{'':18}{'ms/step':>9}{'median':>9}{'samples/s':>11}{'overhead':>10}{'of rounds':>18}{'of medians':>12}")
        for contender, row in measured[name].items():
            quartiles = f"{row['overhead_percent_q1']:+.1f} … {row['overhead_percent_q3']:+.1f} %"
            print(
                f"{contender:18}{row['step_ms']:9.3f}{row['step_median_ms']:9.3f}{row['samples_per_second']:11.0f}"
                f"{row['overhead_percent']:+9.1f}%{quartiles:>18}{row['overhead_median_percent']:+11.1f}%"
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    main()
