"""Checkpoints: `torch.distributed.checkpoint`, written straight to the bucket and committed atomically.

A checkpoint is a folder `step-<number>`. The ranks write their files first, hashing what they write. When all are
durable the first rank writes `COMMITTED`, which lists each file with its size and SHA-256, and carries its own. A
folder without a valid `COMMITTED`, or with a file that is not what it says, is not a checkpoint: a run that starts
skips it with a warning and takes the next older one.

The random state is not stored: it is a pure function of seed, step and rank (`loop.seed_step`), so that a resumed run
draws what an uninterrupted one would.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn, optim
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemBase, FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from workloads import storage
from workloads.storage import StorageError
from workloads.training.logs import Log
from workloads.training.world import World

COMMITTED = "COMMITTED"
_FOLDER = re.compile(r"^step-[0-9]{9}$")
_CHUNK_BYTES = 8 * 1024 * 1024

# One process alone saves on purpose; torch says on each save that it assumes so.
warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)


class ResumeError(RuntimeError):
    """The checkpoints belong to another run; one sentence with the way out."""


class Position(BaseModel):
    """How far a run is: ``samples`` of ``epoch`` are seen, over all ranks, after ``step`` steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int = Field(default=0, ge=0)
    epoch: int = Field(default=0, ge=0)
    samples: int = Field(default=0, ge=0)

    def after(self, samples: int) -> Position:
        """One step on."""
        return Position(step=self.step + 1, epoch=self.epoch, samples=self.samples + samples)

    def next_epoch(self) -> Position:
        """At the start of the epoch that follows."""
        return Position(step=self.step, epoch=self.epoch + 1)


class File(BaseModel):
    """One file of a checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int
    sha256: str


class Manifest(BaseModel):
    """What `COMMITTED` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    position: Position
    identity: dict[str, Any]
    """What must not change when a run resumes: model, data and seed."""
    files: dict[str, File]


class Corrupt(Exception):
    """A checkpoint is torn or corrupted; the message says how."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run."""

    url: str
    keep: int
    identity: Mapping[str, Any]
    world: World
    log: Log

    def save(self, model: nn.Module, optimizer: optim.Optimizer, position: Position) -> None:
        """Save the run; returns when it is durable. All ranks call it together.

        Raises:
            StorageError: the bucket refused, after retries; nothing was committed.
        """
        folder = storage.join(self.url, f"step-{position.step:09d}")
        if self.world.is_first:
            storage.remove(folder)  # what an interrupted or corrupted save left there
        self.world.barrier()
        files = _HashedFiles()
        try:
            save(_state(model, optimizer), storage_writer=_writer(folder, files), **self._ranks())
        except CheckpointException as error:
            raise StorageError(f"could not save {folder}: {_first_cause(error)}") from error
        written = self.world.gather(files.digests)
        if written is not None:
            everything = {name: file for digests in written for name, file in digests.items()}
            self._commit(folder, Manifest(position=position, identity=dict(self.identity), files=everything))
        self.world.barrier()

    def resume(self, model: nn.Module, optimizer: optim.Optimizer) -> Position:
        """Load the newest whole checkpoint and return its position; the run's start where there is none.

        Raises:
            ResumeError: the newest whole checkpoint was made by another model, data set or seed.
        """
        for name in self.world.broadcast(self._folders() if self.world.is_first else None):
            folder = storage.join(self.url, name)
            try:
                position = self._load(folder, model, optimizer)
            except Corrupt as problem:
                self.log.warning("checkpoint_skipped", checkpoint=folder, reason=str(problem))
            else:
                self.log.info("resumed", checkpoint=folder, **position.model_dump())
                return position
        return Position()

    def _folders(self) -> list[str]:
        """Newest first."""
        return [name for name in reversed(storage.names(self.url)) if _FOLDER.match(name)]

    def _load(self, folder: str, model: nn.Module, optimizer: optim.Optimizer) -> Position:
        with tempfile.TemporaryDirectory(prefix="checkpoint-") as local:
            problem, manifest = "", None
            try:
                manifest = _read_manifest(folder)
                _fetch(folder, manifest, Path(local))
            except Corrupt as corrupt:
                problem = str(corrupt)
            if self.world.any(bool(problem)) or manifest is None:
                raise Corrupt(problem or "another rank could not read it")
            self._check_identity(folder, manifest)
            state = _state(model, optimizer)
            reader = FileSystemReader(local)
            load(state, storage_reader=reader, **self._ranks())
            set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
            return manifest.position

    def _ranks(self) -> dict[str, Any]:
        """Who takes part, in the words of `torch.distributed.checkpoint`."""
        return {"no_dist": True} if self.world.size == 1 else {"process_group": self.world.control}

    def _check_identity(self, folder: str, manifest: Manifest) -> None:
        for field, value in self.identity.items():
            if (saved := manifest.identity.get(field)) != value:
                raise ResumeError(
                    f"checkpoint.url: {folder} was saved with {field} {json.dumps(saved)}, this run has "
                    f"{json.dumps(value)}; give this run a checkpoint.url of its own"
                )

    def _commit(self, folder: str, manifest: Manifest) -> None:
        body = manifest.model_dump(mode="json")
        marker = {"manifest": body, "sha256": _digest(body)}
        storage.write(storage.join(folder, COMMITTED), json.dumps(marker, indent=2).encode())
        self._delete_old(newest=folder.rsplit("/", 1)[-1])

    def _delete_old(self, newest: str) -> None:
        """Delete torn checkpoints, and whole ones beyond ``keep``; the marker goes first: half deleted is not whole."""
        whole = 0
        for name in self._folders():
            folder = storage.join(self.url, name)
            committed = COMMITTED in storage.names(folder)
            whole += committed and name <= newest  # newer ones are corrupted: this run did not resume from them
            if name > newest or not committed or whole > self.keep:
                storage.remove(storage.join(folder, COMMITTED))
                storage.remove(folder)


def _state(model: nn.Module, optimizer: optim.Optimizer) -> dict[str, Any]:
    model_state, optimizer_state = get_state_dict(model, optimizer)
    return {"model": model_state, "optimizer": optimizer_state}


def _read_manifest(folder: str) -> Manifest:
    data = storage.read_or_none(storage.join(folder, COMMITTED))
    if data is None:
        raise Corrupt(f"it was never completed ({COMMITTED} is missing)")
    try:
        marker = json.loads(data)
        manifest = Manifest.model_validate(marker["manifest"])
    except (ValueError, KeyError, TypeError, ValidationError):
        raise Corrupt(f"{COMMITTED} can't be read") from None
    if marker.get("sha256") != _digest(manifest.model_dump(mode="json")):
        raise Corrupt(f"{COMMITTED} was changed")
    return manifest


def _fetch(folder: str, manifest: Manifest, local: Path) -> None:
    """Copy the files of a checkpoint here and check each on the way."""
    for name, file in manifest.files.items():
        url = storage.join(folder, name)
        digest = hashlib.sha256()
        try:
            with storage.explained("read", url):
                filesystem, path = storage.locate(url)
                with filesystem.open(path, "rb") as source, (local / name).open("wb") as copy:
                    while chunk := source.read(_CHUNK_BYTES):
                        digest.update(chunk)
                        copy.write(chunk)
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise Corrupt(f"{name} is missing") from None
            raise
        if digest.hexdigest() != file.sha256:
            raise Corrupt(f"{name} is not what was written (SHA-256 differs)")


def _digest(body: Mapping[str, Any]) -> str:
    return storage.sha256(json.dumps(body, sort_keys=True).encode())


def _first_cause(error: CheckpointException) -> BaseException:
    return next(iter(error.failures.values()))[0] if error.failures else error


def _writer(folder: str, files: _HashedFiles) -> FileSystemWriter:
    """PyTorch's own writer, on the bucket instead of a disk."""
    with tempfile.TemporaryDirectory() as unused:
        writer = FileSystemWriter(unused, sync_files=False)
    writer.fs = files  # type: ignore[assignment] # PyTorch declares the local one; its own FsspecWriter does the same
    writer.path = folder
    return writer


class _HashedFiles(FileSystemBase):
    """The bucket as `torch.distributed.checkpoint` sees it while it saves; remembers the digest of each file."""

    def __init__(self) -> None:
        self.digests: dict[str, File] = {}

    @contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Iterator[io.RawIOBase]:
        url = str(path)
        with storage.explained("write", url):
            filesystem, location = storage.locate(url)
            stream = _HashingStream(filesystem.open(location, mode))
            yield stream
            stream.close()
            self.digests[url.rsplit("/", 1)[-1]] = File(bytes=stream.written, sha256=stream.sha256.hexdigest())

    def concat_path(self, path: str | os.PathLike[str], suffix: str) -> str:
        return storage.join(str(path), suffix)

    def rename(self, path: str | os.PathLike[str], new_path: str | os.PathLike[str]) -> None:
        filesystem, old = storage.locate(str(path))
        with storage.explained("write", str(new_path)):
            filesystem.mv(old, storage.locate(str(new_path))[1])
        self.digests[str(new_path).rsplit("/", 1)[-1]] = self.digests.pop(str(path).rsplit("/", 1)[-1])

    def init_path(self, path: str | os.PathLike[str]) -> str:
        return str(path)

    def mkdir(self, path: str | os.PathLike[str]) -> None:
        """A bucket has no folders; local ones are made with their first file."""

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return "://" in str(checkpoint_id)

    def exists(self, path: str | os.PathLike[str]) -> bool:
        filesystem, location = storage.locate(str(path))
        return bool(filesystem.exists(location))

    def rm_file(self, path: str | os.PathLike[str]) -> None:
        storage.remove(str(path))


class _HashingStream(io.RawIOBase):
    """Passes bytes on to a file of the bucket and hashes them."""

    def __init__(self, target: Any) -> None:
        self.target = target
        self.sha256 = hashlib.sha256()
        self.written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.target.write(data)
        self.sha256.update(data)
        self.written += len(data)
        return len(data)

    def tell(self) -> int:
        return self.written

    def close(self) -> None:
        if not self.closed:
            self.target.close()
        super().close()
