"""What makes a folder of a bucket a checkpoint: its manifest, and how it is committed, listed, read and deleted.

A checkpoint is a folder `step-<number>`. When all files of all ranks are durable the first rank writes `COMMITTED`,
which lists each file with its size and the SHA-256 of each of its blocks, and carries its own. A folder without a valid
`COMMITTED`, or with a file that is not what it says, is not a checkpoint. The blocks let a rank check the part of a
file that it reads.

This module does without PyTorch: the process that saves imports it.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workloads import storage

COMMITTED = "COMMITTED"
BLOCK_BYTES = 8 * 1024 * 1024
_FOLDER = re.compile(r"^step-[0-9]{9}$")


class Corrupt(Exception):
    """A checkpoint is torn or corrupted; the message says how."""


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

    @property
    def folder(self) -> str:
        """Its checkpoint's name; names sort by step."""
        return f"step-{self.step:09d}"


class File(BaseModel):
    """One file of a checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int
    sha256: tuple[str, ...]
    """Of each block."""


class Manifest(BaseModel):
    """What `COMMITTED` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    position: Position
    identity: dict[str, Any]
    """What must not change when a run resumes: model, data and seed."""
    files: dict[str, File]
    block_bytes: int = Field(default=BLOCK_BYTES, ge=1)


def described(data: bytes | mmap.mmap) -> File:
    """The entry of a file that holds these bytes."""
    starts = range(0, len(data), BLOCK_BYTES)
    with memoryview(data) as view:
        digests = tuple(hashlib.sha256(view[start : start + BLOCK_BYTES]).hexdigest() for start in starts)
    return File(bytes=len(data), sha256=digests)


def folders(url: str) -> list[str]:
    """The names of what may be checkpoints, newest first."""
    return [name for name in reversed(storage.names(url)) if _FOLDER.match(name)]


def read(folder: str) -> Manifest:
    """The manifest of a checkpoint.

    Raises:
        Corrupt: there is none, or it is not what was written.
        StorageError: the bucket refused.
    """
    data = storage.read_or_none(storage.join(folder, COMMITTED))
    if data is None:
        raise Corrupt(f"it was never completed ({COMMITTED} is missing)")
    try:
        marker = json.loads(data)
        manifest = Manifest.model_validate(marker["manifest"])
    except (ValueError, KeyError, TypeError, ValidationError, RecursionError):
        raise Corrupt(f"{COMMITTED} can't be read") from None
    if marker.get("sha256") != _digest(marker["manifest"]):
        raise Corrupt(f"{COMMITTED} was changed")
    return manifest


def commit(url: str, keep: int, manifest: Manifest) -> None:
    """Make a folder whose files are all durable a checkpoint, then delete old ones.

    Raises:
        StorageError: the bucket refused; if it was the marker that it refused, the folder is no checkpoint.
    """
    body = manifest.model_dump(mode="json")
    marker = json.dumps({"manifest": body, "sha256": _digest(body)}, indent=2).encode()
    storage.write_durably(storage.join(url, manifest.position.folder, COMMITTED), marker)
    _delete_old(url, keep, newest=manifest.position.folder)


def _delete_old(url: str, keep: int, newest: str) -> None:
    """Delete torn checkpoints, and whole ones beyond ``keep``; the marker goes first: half deleted is not whole."""
    whole = 0
    for name in folders(url):
        folder = storage.join(url, name)
        committed = COMMITTED in storage.names(folder)
        whole += committed and name <= newest  # newer ones are corrupted: this run did not resume from them
        if name > newest or not committed or whole > keep:
            storage.remove(storage.join(folder, COMMITTED))
            storage.remove(folder)


def _digest(body: Mapping[str, Any]) -> str:
    return storage.sha256(json.dumps(body, sort_keys=True).encode())
