"""Decoded shards on this machine's disk, shared by its ranks, never larger than their limit.

An entry is a header (magic, length and XXH3-128 of what follows) and a shard's table as an uncompressed Arrow file,
which is mapped into memory: what ranks on one machine read is there once. An entry that is not what its header says is
made anew.

A process may be killed at any point: an entry appears whole by a rename, locks go with their process, and the part of
an entry that its maker left is taken over by the next or removed by the next that needs room. Deleting an entry takes
nothing from those who have it mapped. Where the disk is full or can't be written, shards are kept in memory instead.
"""

from __future__ import annotations

import fcntl
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import xxhash

GIB = 1024**3
DEFAULT_FOLDER = Path("~/.cache/fusion/shards")
DEFAULT_LIMIT_GIB = 50.0

_MAGIC = b"FUSION-SHARD-1\0\0"
_HEADER_BYTES = 64  # as Arrow aligns buffers


@dataclass(frozen=True)
class ShardCache:
    """A folder of entries, by name."""

    folder: Path = DEFAULT_FOLDER
    limit_bytes: int = int(DEFAULT_LIMIT_GIB * GIB)

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", self.folder.expanduser())

    def table(self, name: str, make: Callable[[], pa.Table]) -> pa.Table:
        """The entry's table, made where it is missing or corrupted, by one process of this machine at a time."""
        path = self.folder / name
        if (table := _read(path)) is not None:
            return table
        try:
            with _part(path) as part:
                if (table := _read(path)) is not None:  # another rank was faster
                    return table
                table = make()
                self._make_room(_HEADER_BYTES + _size(table), part)
                _write(table, part)
                with self._alone():
                    Path(part.name).rename(path)
        except OSError as error:
            reason = f"{error.strerror or error}"
            warnings.warn(
                f"data.cache.folder: {self.folder} can't be written ({reason}); shards are kept in memory", stacklevel=2
            )
            return make() if table is None else table
        mapped = _read(path)
        return table if mapped is None else mapped

    def _make_room(self, size: int, part: BinaryIO) -> None:
        """Take the room of an entry: delete the entries that were used the longest ago until all keep the limit."""
        with self._alone():
            entries = sorted(_entries(self.folder, part.name), key=lambda entry: entry[1])
            excess = sum(held for _, _, held in entries) + size - self.limit_bytes
            for path, _, held in entries:
                if excess <= 0:
                    break
                if path.suffix != ".part":
                    path.unlink(missing_ok=True)
                    excess -= held
            os.posix_fallocate(part.fileno(), 0, size)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process or thread counts the files meanwhile: one that changes its name would be counted twice or
        not at all."""
        with (self.folder / ".lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _entries(folder: Path, own: str) -> Iterator[tuple[Path, float, int]]:
    """Each file with the time of its last use and its size; parts that no living process makes are removed."""
    for path in folder.iterdir():
        if path.name.startswith(".lock") or str(path) == own:
            continue
        with suppress(FileNotFoundError):
            if path.suffix == ".part" and _removed_as_orphan(path):
                continue
            status = path.stat()
            yield path, status.st_mtime, status.st_size


def _removed_as_orphan(part: Path) -> bool:
    """Under its lock: who has opened it meanwhile, and waits for that, sees that it is gone."""
    with part.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if _is_at(file, part):
            part.unlink()
    return True


@contextmanager
def _part(path: Path) -> Iterator[BinaryIO]:
    """The file in which an entry is made, locked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    while True:
        with open(part, "r+b", opener=_create) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(file, part):  # its maker has finished, or it was removed as an orphan
                continue
            file.truncate(0)
            try:
                yield file
            except BaseException:
                part.unlink(missing_ok=True)
                raise
            if _is_at(file, part):
                part.unlink()
            return


def _create(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o644)


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.fstat(file.fileno()).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def _size(table: pa.Table) -> int:
    sink = pa.MockOutputStream()
    _write_arrow(table, sink)
    return int(sink.size())


def _write_arrow(table: pa.Table, sink: pa.NativeFile) -> None:
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _write(table: pa.Table, part: BinaryIO) -> None:
    """Fill the room taken; pages go to the disk as the kernel sees fit, for a rename survives kill -9 as it is."""
    with pa.memory_map(part.name, "r+b") as mapped:
        size = mapped.size() - _HEADER_BYTES
        mapped.seek(_HEADER_BYTES)
        _write_arrow(table, mapped)
    with pa.memory_map(part.name) as mapped:
        content = mapped.read_buffer().slice(_HEADER_BYTES)
    header = _MAGIC + size.to_bytes(8, "little") + xxhash.xxh3_128_digest(content)
    os.pwrite(part.fileno(), header.ljust(_HEADER_BYTES, b"\0"), 0)


def _read(path: Path) -> pa.Table | None:
    """The entry's table, or None where there is none or it is not what was written."""
    try:
        with pa.memory_map(str(path)) as mapped:
            data = mapped.read_buffer()
        os.utime(path)
    except OSError:
        return None
    content = data.slice(_HEADER_BYTES) if data.size > _HEADER_BYTES else None
    if content is not None:
        header = _MAGIC + content.size.to_bytes(8, "little") + xxhash.xxh3_128_digest(content)
        if data.slice(0, _HEADER_BYTES).to_pybytes() == header.ljust(_HEADER_BYTES, b"\0"):
            return pa.ipc.open_file(data).read_all()  # its offsets count from the header on
    warnings.warn(f"{path}: this entry of the cache is damaged; it is fetched anew", stacklevel=2)
    path.unlink(missing_ok=True)
    return None
