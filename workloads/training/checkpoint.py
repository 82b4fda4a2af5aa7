"""Checkpoints: the format of `torch.distributed.checkpoint`, uploaded in the background and committed atomically.

A save stops the loop only for a copy of this rank's part of the state (`staging`). A process of its own (`saver`)
hashes and uploads the copy. The ranks tell each other at each step, in the message that says whether to stop, whether
all are done; then the first rank's saver writes the marker that makes it a checkpoint (`manifest`). At most one save
is under way: the next one waits for it, so that a run never loses more than twice `checkpoint.every_steps`.

One save that fails is a warning, told at the next step; if the next one fails too, or the run's last, it is an error.

A run that starts skips what is torn or corrupted with a warning and takes the next older checkpoint. The random state
is not stored: it is a pure function of seed, step and rank (`loop.seed_step`), so that a resumed run draws what an
uninterrupted one would.
"""

from __future__ import annotations

import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from torch import nn, optim
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load

from workloads import storage
from workloads.storage import StorageError
from workloads.training import manifest
from workloads.training.fetching import ResumeError, fetch
from workloads.training.logs import Log
from workloads.training.manifest import Corrupt, File, Manifest, Position
from workloads.training.saver import Answer, Commit, Saver, Write
from workloads.training.staging import METADATA, Staging
from workloads.training.world import World

Result = TypeVar("Result")

FAILURES_IN_A_ROW = 2
"""Saves that fail before the run ends: from then on each step would be work that is lost with the machine."""
_LOOK_SECONDS = 30
"""How long a rank waits for its own saver before it asks how the others are: far less than a collective's time-out."""

# One process alone saves on purpose; torch says on each load that it assumes so.
warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)


@dataclass
class UnderWay:
    """The save that is being uploaded."""

    position: Position
    began: float
    stall_seconds: float
    """How long the loop stood still for it."""
    bytes: int
    """Of this rank's file."""
    committing: bool = False


class Checkpoints:
    """The checkpoints of one run; a context, at whose end nothing is under way any more."""

    def __init__(self, url: str, keep: int, identity: Mapping[str, Any], world: World, log: Log) -> None:
        self.url, self.keep, self.identity = url, keep, identity
        self.world, self.log = world, log
        self._staging = Staging(world)
        self._saver = Saver(self._staging.arena.descriptor)
        self._under_way: UnderWay | None = None
        self._failures = 0
        self._last_problem = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let a save that is under way end well, but not on a crash of one of several ranks."""
        try:
            if self.world.size == 1:
                self._settle()
        except StorageError as problem:
            self.log.warning("checkpoint_failed", reason=str(problem))
        finally:
            self._saver.close()
            self._staging.close()

    def save(self, model: nn.Module, optimizer: optim.Optimizer, position: Position) -> None:
        """Begin to save the run; training may go on when it returns. All ranks call it together.

        Raises:
            StorageError: the saves before this one failed.
        """
        began = time.monotonic()
        self._settle()
        folder = storage.join(self.url, position.folder)
        staged = self._staging.stage(_state(model, optimizer))
        others = {METADATA: staged.metadata} if staged.metadata else {}
        self._saver.request(Write(folder, staged.name, staged.size, others))
        self._under_way = UnderWay(position, began, time.monotonic() - began, staged.size)

    def flags(self) -> tuple[bool, bool]:
        """What this rank tells the others at each step: (its part is still under way, its part failed)."""
        if self._under_way is None:
            return False, False
        answer = self._saver.answered()
        return (True, False) if answer is None else (False, bool(answer.problem))

    def advance(self, busy: bool, failed: bool) -> None:
        """Take a save further, once no rank is busy with it; the arguments are what any rank's `flags` said.

        Raises:
            StorageError: it failed, and the save before it too.
        """
        if self._under_way is None or busy:
            return
        if failed:
            self._give_up()
        elif self._under_way.committing:
            self._committed(self._under_way)
        else:
            self._commit(self._under_way)

    def finish(self) -> None:
        """Wait until the last save is a checkpoint. All ranks call it together.

        Raises:
            StorageError: it failed.
        """
        self._settle()
        if self._failures:
            raise StorageError(self._last_problem)

    def _settle(self) -> None:
        """Wait for the save that is under way."""
        while self._under_way is not None:
            if self._asked_to(self._under_way):
                self._saver.answered(within_seconds=_LOOK_SECONDS)
            self.advance(*self.world.any_of(*self.flags()))

    def _asked_to(self, save: UnderWay) -> bool:
        return self.world.is_first or not save.committing

    def _commit(self, save: UnderWay) -> None:
        save.committing = True
        parts = self.world.gather(self._answer().files)
        if parts is not None:
            files: dict[str, File] = {name: file for part in parts for name, file in part.items()}
            whole = Manifest(position=save.position, identity=dict(self.identity), files=files)
            self._saver.request(Commit(self.url, self.keep, whole))

    def _committed(self, save: UnderWay) -> None:
        self._under_way, self._failures = None, 0
        self.log.info(
            "saved",
            step=save.position.step,
            stall_ms=round(save.stall_seconds * 1_000, 1),
            durable_after_s=round(time.monotonic() - save.began, 3),
            rank_bytes=save.bytes,
        )

    def _give_up(self) -> None:
        """Tell every rank why, and the user once."""
        problems = self.world.gather(self._answer().problem)
        first = next(filter(None, problems)) if problems is not None else ""
        self._last_problem = self.world.broadcast(first)
        self._under_way, self._failures = None, self._failures + 1
        if self._failures >= FAILURES_IN_A_ROW:
            raise StorageError(f"{self._last_problem}; so did the save before it")
        if self.world.is_first:
            self.log.warning("checkpoint_failed", reason=self._last_problem, next="the next save is made as usual")

    def _answer(self) -> Answer:
        answer = self._saver.answered()
        assert answer is not None, "every rank has ended"
        return answer

    def resume(self, model: nn.Module, optimizer: optim.Optimizer) -> Position:
        """Load the newest whole checkpoint and return its position; the run's start where there is none.

        Raises:
            ResumeError: the newest whole checkpoint was made by another model, data set or seed.
        """
        for name in self.world.broadcast(manifest.folders(self.url) if self.world.is_first else None):
            folder = storage.join(self.url, name)
            try:
                position, read = self._load(folder, model, optimizer)
            except Corrupt as problem:
                self.log.warning("checkpoint_skipped", checkpoint=folder, reason=str(problem))
            else:
                self.log.info("resumed", checkpoint=folder, **position.model_dump(), rank_bytes=read)
                return position
        return Position()

    def _load(self, folder: str, model: nn.Module, optimizer: optim.Optimizer) -> tuple[Position, int]:
        """Load a checkpoint; returns its position and how many bytes this rank read."""
        found = self._agreed(lambda: manifest.read(folder))
        self._check_identity(folder, found)
        state = _state(model, optimizer)
        with _local_folder(folder) as local:
            read = self._agreed(lambda: fetch(folder, found, state, local))
            load(state, storage_reader=FileSystemReader(local), **self._ranks())
        set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        return found.position, read

    def _agreed(self, read: Callable[[], Result]) -> Result:
        """What is read, once no rank has found it corrupted: only then may anything change.

        Raises:
            Corrupt: on every rank alike.
        """
        problem, result = "", None
        try:
            result = read()
        except Corrupt as corrupt:
            problem = str(corrupt)
        if self.world.any(bool(problem)) or result is None:
            raise Corrupt(problem or "another rank could not read it")
        return result

    def _ranks(self) -> dict[str, Any]:
        """Who takes part, in the words of `torch.distributed.checkpoint`."""
        return {"no_dist": True} if self.world.size == 1 else {"process_group": self.world.control}

    def _check_identity(self, folder: str, found: Manifest) -> None:
        for field, value in self.identity.items():
            if (saved := found.identity.get(field)) != value:
                raise ResumeError(
                    f"checkpoint.url: {folder} was saved with {field} {json.dumps(saved)}, this run has "
                    f"{json.dumps(value)}; give this run a checkpoint.url of its own"
                )


@contextmanager
def _local_folder(checkpoint: str) -> Iterator[Path]:
    """Where a checkpoint is copied to while it is loaded.

    Raises:
        StorageError: this machine's disk has no room for it.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="checkpoint-") as local:
            yield Path(local)
    except OSError as error:
        raise StorageError(
            f"could not copy {checkpoint} to {tempfile.gettempdir()}: {error.strerror or error}; free some room there, "
            "or name another folder in TMPDIR, and run the same command again"
        ) from error


def _state(model: nn.Module, optimizer: optim.Optimizer) -> dict[str, Any]:
    model_state, optimizer_state = get_state_dict(model, optimizer)
    return {"model": model_state, "optimizer": optimizer_state}
