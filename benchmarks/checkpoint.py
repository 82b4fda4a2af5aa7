"""What a save costs the training loop: `python -m benchmarks.checkpoint [--rounds 5]`, or in slices of less than three minutes:

    python -m benchmarks.checkpoint --rounds 1 --json saves.json    # again and again: the table is of all rounds so far
    python -m benchmarks.checkpoint --read-back

Fusion's saves against `torch.save` to a file that is then uploaded, and against `async_save` of
`torch.distributed.checkpoint`, which saves in a thread or in a process, the latter also with a stager that keeps its memory
between saves. All save the same decoder with its Adam state through the same S3 server (versitygw) while it is trained
on one thread; the contenders take turns, in another order each round, and each waits until its save is durable before
the next one begins.

*stall* is how long the call that saves holds the loop; *slower* is what the steps that follow take longer, until the
save is durable, than as many steps of the same round without a save. `--read-back` measures nothing: it reads a
checkpoint of each contender back and compares it with the state at the moment of the call.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import statistics
import sys
import tempfile
import time
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import boto3
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn, optim
from torch.distributed.checkpoint.fsspec_filesystem import FsspecReader, FsspecWriter
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType
from typing_extensions import override

from benchmarks.data import SETTINGS, server
from benchmarks.slices import added, rounds_of
from workloads import storage
from workloads.data.format import Index
from workloads.models import build
from workloads.training.checkpoint import Checkpoints
from workloads.training.logs import Log
from workloads.training.manifest import Position
from workloads.training.world import World

BUCKET = "checkpoints"
TOKENS, VOCABULARY = 64, 8_192
INDEX = Index(name="x", source="random", kind="tokens", shape=(TOKENS + 1,), vocabulary=VOCABULARY, splits={})
ARGUMENTS = {"width": 512, "layers": 6, "heads": 8, "kv_heads": 4}
STEPS_AFTER = 6
"""At least, and as many more as the save needs to be durable."""
PARAMETER = "head.weight"
TEMPORARY = Path(tempfile.gettempdir())


class Training:
    """A model that goes on learning while it is saved."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = build("decoder", INDEX, ARGUMENTS)
        self.optimizer = optim.Adam(self.model.parameters(), lr=1e-3)
        self.tokens = torch.randint(1, VOCABULARY, (2, TOKENS))

    def step(self) -> float:
        """One step; returns its seconds."""
        began = time.perf_counter()
        logits = self.model(self.tokens)
        nn.functional.cross_entropy(logits.flatten(0, 1), self.tokens.flatten()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - began

    def state(self) -> dict[str, Any]:
        """As `torch.distributed.checkpoint` takes it."""
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer}


class Contender(ABC):
    """One way to save."""

    name: str

    @abstractmethod
    def save(self, training: Training, number: int) -> None:
        """Begin, and hold the loop as long as it needs."""

    @abstractmethod
    def durable(self) -> bool:
        """Whether the save has ended; called after every step."""

    @abstractmethod
    def read_back(self, training: Training, number: int) -> Tensor:
        """The saved PARAMETER."""


class TorchSave(Contender):
    """What one writes first."""

    name = "torch.save and upload"

    @override
    def save(self, training: Training, number: int) -> None:
        file = TEMPORARY / f"checkpoint-{os.getpid()}.pt"
        torch.save(training.state(), file)
        storage.upload(file, f"s3://{BUCKET}/torch/{number}.pt")
        file.unlink()

    @override
    def durable(self) -> bool:
        return True

    @override
    def read_back(self, training: Training, number: int) -> Tensor:
        with tempfile.NamedTemporaryFile() as file:
            file.write(storage.read(f"s3://{BUCKET}/torch/{number}.pt"))
            file.flush()
            state = torch.load(file.name, weights_only=True)
        return state["model"][PARAMETER]


class AsyncSave(Contender):
    """PyTorch's own."""

    def __init__(self, kind: AsyncCheckpointerType, *, kept: bool) -> None:
        self.kind = kind
        self.name = f"DCP async_save, {kind.value}{', memory kept' if kept else ''}"
        self.stager = DefaultStager(StagingOptions(False, True, False, False)) if kept else None
        self.future: Any = None

    def url(self, number: int) -> str:
        """Of one save."""
        return f"s3://{BUCKET}/{self.name.replace(', ', '-').replace(' ', '-')}/{number}"

    @override
    def save(self, training: Training, number: int) -> None:
        self.future = dcp.async_save(
            training.state(),
            storage_writer=FsspecWriter(self.url(number)),
            async_checkpointer_type=self.kind,
            async_stager=self.stager,
        )

    @override
    def durable(self) -> bool:
        if not self.future.done():
            return False
        self.future.result()
        return True

    @override
    def read_back(self, training: Training, number: int) -> Tensor:
        state = {"model": {PARAMETER: torch.empty_like(training.model.state_dict()[PARAMETER])}}
        dcp.load(state, storage_reader=FsspecReader(self.url(number)))
        return state["model"][PARAMETER]


class Fusion(Contender):
    """As the training loop does it."""

    name = "Fusion"

    def __init__(self) -> None:
        self.saves = Checkpoints(f"s3://{BUCKET}/fusion", 2, {}, World(torch.device("cpu")), Log(rank=1))

    @override
    def save(self, training: Training, number: int) -> None:
        self.saves.save(training.model, training.optimizer, Position(step=number))

    @override
    def durable(self) -> bool:
        self.saves.advance(*self.saves.flags())
        return self.saves._under_way is None

    @override
    def read_back(self, training: Training, number: int) -> Tensor:
        other = Training()
        if self.saves.resume(other.model, other.optimizer).step != number:
            raise RuntimeError("the newest checkpoint is not the last one that was saved")
        return other.model.state_dict()[PARAMETER]


def measure(contender: Contender | None, training: Training, number: int) -> dict[str, float]:
    """A save and the steps after it; without a contender only the steps."""
    training.step()
    began = time.perf_counter()
    if contender:
        contender.save(training, number)
    stall = time.perf_counter() - began
    steps, durable_after = [], 0.0
    while len(steps) < STEPS_AFTER or not durable_after:
        steps.append(training.step())
        if not durable_after and (contender is None or contender.durable()):
            durable_after = time.perf_counter() - began
    return {"stall_s": stall, "steps": len(steps), "steps_s": sum(steps), "durable_after_s": durable_after}


def check(contender: Contender, training: Training, number: int) -> None:
    """Save, go on training, and compare what was saved with the state at the moment of the call."""
    wanted = training.model.state_dict()[PARAMETER].clone()
    contender.save(training, number)
    training.step()
    while not contender.durable():
        time.sleep(0.01)
    if not torch.equal(contender.read_back(training, number), wanted):
        raise RuntimeError(f"{contender.name} saved another state than that of the moment of the call")


def contenders_without(without: str | None) -> list[Contender]:
    """Those that take part."""
    every: list[Contender] = [
        TorchSave(),
        *(AsyncSave(kind, kept=False) for kind in AsyncCheckpointerType),
        AsyncSave(AsyncCheckpointerType.PROCESS, kept=True),
        Fusion(),
    ]
    return [contender for contender in every if without is None or without not in contender.name]


def run(rounds: int, contenders: list[Contender], training: Training) -> dict[str, list[dict[str, float]]]:
    """Every measurement, by contender."""
    megabytes = sum(tensor.nbytes for tensor in training.model.state_dict().values()) * 3 / 1e6
    print(f"{megabytes:.0f} MB of weights and Adam state, torch {torch.__version__}, {os.cpu_count()} processors")
    found: dict[str, list[dict[str, float]]] = {contender.name: [] for contender in contenders}
    for turn in range(rounds + 1):
        alone = measure(None, training, 0)
        step_s = alone["steps_s"] / alone["steps"]
        for contender in random.sample(contenders, len(contenders)):
            row = measure(contender, training, turn + 1)
            row["slower_s"] = row["steps_s"] - row["steps"] * step_s
            print(f"round {turn}: {contender.name}: {row}", file=sys.stderr, flush=True)
            if turn:  # the first round starts processes and makes memory
                found[contender.name].append(row | {"step_s": step_s})
    return found


def show(found: dict[str, list[dict[str, float]]]) -> None:
    """Print the medians."""
    print(f"median of {rounds_of(found)} rounds")
    print("| save | stall, ms | next steps slower, ms | durable after, s |")
    print("|---|---|---|---|")
    for name, rows in found.items():
        stall, slower, durable = (
            statistics.median(row[key] for row in rows) for key in ("stall_s", "slower_s", "durable_after_s")
        )
        print(f"| {name} | {stall * 1e3:,.0f} | {slower * 1e3:,.0f} | {durable:.1f} |")
    print(f"a step alone: {statistics.median(rows[0]['step_s'] for rows in found.values()) * 1e3:.0f} ms", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without", help="leave out contenders whose name has this in it, such as thread")
    parser.add_argument("--json", type=Path, help="add every measurement to those that this file holds")
    parser.add_argument("--read-back", action="store_true", help="compare what was saved; measure nothing")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.environ |= SETTINGS | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    dist.init_process_group("gloo", rank=0, world_size=1)  # DCP's process asks for one
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)):
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        training, contenders = Training(), contenders_without(arguments.without)
        training.step()
        if arguments.read_back:
            for contender in contenders:
                check(contender, training, 1)
                print(f"{contender.name}: read back, it holds the state of the moment of the call", flush=True)
        else:
            show(added(arguments.json, run(arguments.rounds, contenders, training)))
    dist.destroy_process_group()


def free_port() -> int:
    """Of this machine."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    main()
