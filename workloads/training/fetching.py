"""Brings what one rank needs of a checkpoint to this machine, and checks it before any of it reaches the model.

A rank reads the blocks of the files in which the pieces of its own part of the state lie, whatever the number of ranks
that wrote them: with FSDP about one rank's share of the bytes, with DDP, where each rank holds everything, all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata

from workloads import storage
from workloads.storage import StorageError
from workloads.training.manifest import Corrupt, Manifest
from workloads.training.staging import METADATA

READS = 8
"""Blocks on their way at a time."""


class ResumeError(RuntimeError):
    """The checkpoints belong to another run; one sentence with the way out."""


def fetch(folder: str, found: Manifest, state: dict[str, Any], local: Path) -> int:
    """Copy what ``state`` needs of a checkpoint to a folder here, in files with holes; returns the bytes read.

    Raises:
        Corrupt: a block is missing, or not what was written.
        ResumeError: the checkpoint lacks a part of the state.
        StorageError: the bucket refused.
    """
    read = _copy(folder, found, {METADATA: [(0, found.files[METADATA].bytes)]}, local)
    metadata = FileSystemReader(local).read_metadata()
    return read + _copy(folder, found, _needed(folder, metadata, state), local)


def _needed(folder: str, metadata: Metadata, state: dict[str, Any]) -> dict[str, list[tuple[int, int]]]:
    """For each file where the pieces lie that this rank loads: (offset, bytes)."""
    planner = DefaultLoadPlanner()
    planner.set_up_planner(state, metadata)
    try:
        plan = planner.create_local_plan()
    except (RuntimeError, ValueError) as error:
        raise ResumeError(
            f"checkpoint.url: {folder} does not fit this run's model and optimizer ({error}); go on with those that it "
            "was saved with, or give this run a checkpoint.url of its own"
        ) from None
    needed: dict[str, list[tuple[int, int]]] = {}
    for item in plan.items:
        place = metadata.storage_data[item.storage_index]
        needed.setdefault(place.relative_path, []).append((place.offset, place.length))
    return needed


def blocks_of(pieces: Iterable[tuple[int, int]], block_bytes: int) -> list[int]:
    """The numbers of the blocks in which pieces, each (offset, bytes), lie."""
    return sorted(
        {
            block
            for offset, size in pieces
            if size
            for block in range(offset // block_bytes, (offset + size - 1) // block_bytes + 1)
        }
    )


def _copy(folder: str, found: Manifest, needed: Mapping[str, list[tuple[int, int]]], local: Path) -> int:
    blocks: list[tuple[str, int]] = []
    for name, pieces in needed.items():
        _check_size(folder, found, name)
        (local / name).touch()
        blocks += [(name, block) for block in blocks_of(pieces, found.block_bytes)]
    with ThreadPoolExecutor(READS) as pool:
        sizes: list[int] = list(pool.map(lambda block: _copy_block(folder, found, block[0], block[1], local), blocks))
    return sum(sizes)


def _check_size(folder: str, found: Manifest, name: str) -> None:
    try:
        size = storage.size(storage.join(folder, name))
    except StorageError as error:
        if storage.is_missing(error):
            raise Corrupt(f"{name} is missing") from None
        raise
    if size != found.files[name].bytes:
        raise Corrupt(f"{name} has {size} bytes, {found.files[name].bytes} were written")


def _copy_block(folder: str, found: Manifest, name: str, block: int, local: Path) -> int:
    start = block * found.block_bytes
    end = min(start + found.block_bytes, found.files[name].bytes)
    data = storage.read_range(storage.join(folder, name), start, end)
    if storage.sha256(data) != found.files[name].sha256[block]:
        raise Corrupt(f"{name} is not what was written (SHA-256 of bytes {start} to {end} differs)")
    with (local / name).open("r+b") as copy:
        copy.seek(start)
        copy.write(data)
    return len(data)
