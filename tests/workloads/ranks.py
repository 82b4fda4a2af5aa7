"""Runs of several ranks, each a process that can be killed, forked from one that has imported PyTorch already."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Self

from tests.workloads.conftest import free_port

_PRELOADED = [
    "workloads.training.__main__",
    "workloads.training.run",
    "workloads.training.charts",
    "sklearn.metrics",
    "torchmetrics.functional.classification",
    "torch._inductor.config",  # what the first optimizer, or a deterministic run, imports
    "tests.workloads.recording",
]
_CONTEXT = multiprocessing.get_context("forkserver")
_SECONDS_TO_LEAVE = 240
"""At most, on a machine that is busy with other things; they take some."""


@dataclass(frozen=True)
class Ended:
    """What became of a rank."""

    status: int
    """Negative: the signal that ended it."""
    out: str
    err: str


class Ranks:
    """The command that the container runs, as so many ranks; a context, at whose end none is left."""

    def __init__(self, config: Path, size: int, environments: Mapping[int, Mapping[str, int]] | None = None) -> None:
        """Start them; ``environments`` are what is set for some of the ranks only."""
        _CONTEXT.set_forkserver_preload(_PRELOADED)
        together = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        self._ranks: list[tuple[ForkServerProcess, Path]] = []
        for rank in range(size):
            own = {name: str(value) for name, value in (environments or {}).get(rank, {}).items()}
            log = config.with_name(f"rank-{rank}")
            environment = dict(os.environ) | together | {"RANK": str(rank), "LOCAL_WORLD_SIZE": str(size)} | own
            process = _CONTEXT.Process(target=_rank, args=(str(config), environment, str(log)))
            process.start()
            self._ranks.append((process, log))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process, _log in self._ranks:
            process.kill()

    def running(self) -> bool:
        """Whether any of them is."""
        return any(process.is_alive() for process, _ in self._ranks)

    def kill(self, rank: int) -> None:
        """As the machine's kernel does when memory runs out."""
        process, _ = self._ranks[rank]
        process.kill()

    def kill_savers(self) -> None:
        """The processes that the ranks have started."""
        for process, _ in self._ranks:
            for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                os.kill(int(child), signal.SIGKILL)

    def ended(self) -> list[Ended]:
        """Wait for all of them."""
        for process, _ in self._ranks:
            process.join(_SECONDS_TO_LEAVE)
            assert process.exitcode is not None, "it has not ended"
        return [
            Ended(process.exitcode or 0, log.with_suffix(".out").read_text(), log.with_suffix(".err").read_text())
            for process, log in self._ranks
        ]


def run_ranks(config: Path, size: int, environments: Mapping[int, Mapping[str, int]] | None = None) -> list[Ended]:
    """Run ranks until all have ended; none is ended from outside."""
    with Ranks(config, size, environments) as ranks:
        return ranks.ended()


def _rank(config: str, environment: dict[str, str], log: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # what TMPDIR says, not what the server found
    for descriptor, ending in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{log}.{ending}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.stdout, sys.stderr = open(1, "w", buffering=1), open(2, "w", buffering=1)  # noqa: SIM115 # the process's own
    from workloads.training.__main__ import main

    main(["--config", config])
