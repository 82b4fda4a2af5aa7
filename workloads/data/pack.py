"""Writes a source's shards to a bucket, several at a time, so that an interrupted pack goes on where it was.

After a shard its entry for the index is written, in a folder that is named after the source and the options. Who packs
the same again finds the entries and makes only the shards that are missing; the index, written last, is put together
from all of them. Shards are functions of the source, so one that was uploaded just before the kill is simply replaced
by itself.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from workloads import storage
from workloads.data.format import (
    INDEX,
    SPLITS,
    Index,
    Rows,
    Shard,
    Split,
    fetch,
    read_index,
    shard_file,
    write_index,
    write_shard,
)
from workloads.data.order import Numbers
from workloads.data.sources import Source, SourceError

WORKERS = 8
SHARD_MIB = 16

Item = TypeVar("Item")
Result = TypeVar("Result")

_JOURNAL = ".pack-"
_SHARD = re.compile(r"^(train|test)-\d{5,}\.arrow$")


@dataclass(frozen=True)
class Work:
    """A shard to write."""

    split: Split
    number: int
    samples: Numbers

    @property
    def file(self) -> str:
        """Its name."""
        return shard_file(self.split, self.number)


def shard_samples(source: Source, shard_mib: float) -> int:
    """How many samples make a shard of about this size."""
    return max(1, int(shard_mib * 2**20) // source.sample_bytes)


def pack(
    source: Source,
    url: str,
    *,
    name: str,
    origin: str,
    samples_per_shard: int,
    fingerprint: str,
    done: Callable[[int], None],
) -> Index:
    """Write what is missing of the data set, then its index; ``done`` hears of the samples of each finished shard.

    Raises:
        SourceError: a sample can't be read, or another data set is at the URL.
        StorageError: the bucket can't be written.
    """
    journal = storage.join(url, _JOURNAL + fingerprint)
    listed = storage.names(url)
    if INDEX in listed and _JOURNAL + fingerprint not in listed:
        raise SourceError(f"{url} holds a data set already; name another folder, or delete that one first")
    entries = _entries(journal)
    works = [
        Work(split, number, numbers[start : start + samples_per_shard])
        for split in SPLITS
        for numbers in [source.numbers(split)]
        for number, start in enumerate(range(0, len(numbers), samples_per_shard))
    ]

    def make(work: Work) -> Shard:
        if work.file in entries:
            return entries[work.file]
        shard = write_shard(storage.join(url, work.file), *source.read(work.split, work.samples))
        storage.write(storage.join(journal, work.file + ".json"), shard.model_dump_json().encode())
        return shard

    shards = {}
    for work, shard in in_parallel(make, works):
        shards[work.file] = shard
        done(len(work.samples))
    splits = {split: tuple(shards[work.file] for work in works if work.split == split) for split in SPLITS}
    index = Index(name=name, source=origin, splits=splits, **source.fields)
    write_index(url, index)
    _tidy(url, set(shards))
    return index


def in_parallel(function: Callable[[Item], Result], items: list[Item]) -> Iterator[tuple[Item, Result]]:
    """Each item with its result, as they are done; no more are begun than there are workers."""
    waiting = iter(items)
    with ThreadPoolExecutor(WORKERS) as pool:
        running = {pool.submit(function, item): item for item in itertools.islice(waiting, WORKERS)}
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                item = running.pop(future)
                yield item, future.result()
                if (following := next(waiting, None)) is not None:
                    running[pool.submit(function, following)] = following


def _entries(journal: str) -> dict[str, Shard]:
    """The entries that an interrupted pack of the same source left."""
    files = [name for name in storage.names(journal) if name.endswith(".json")]
    read = in_parallel(lambda name: Shard.model_validate_json(storage.read(storage.join(journal, name))), files)
    return {shard.file: shard for _, shard in read}


def _tidy(url: str, shards: set[str]) -> None:
    """Remove the journals, and shards that another, abandoned pack left."""
    for name in storage.names(url):
        if name.startswith(_JOURNAL) or (_SHARD.match(name) and name not in shards):
            storage.remove(storage.join(url, name))


def check(url: str, done: Callable[[int], None]) -> tuple[Index, list[str]]:
    """The index of a data set, and a sentence for each shard that is not what it says.

    Raises:
        StorageError: there is no index.
    """
    index, _ = read_index(url)

    def problem(shard: Shard) -> str | None:
        try:
            return _broken_image(url, shard, index)
        except (storage.StorageError, OSError) as error:
            return str(error)

    found = []
    for shard, sentence in in_parallel(problem, [shard for split in SPLITS for shard in index.splits[split]]):
        found += [sentence] if sentence else []
        done(shard.samples)
    return index, sorted(found)


def _broken_image(url: str, shard: Shard, index: Index) -> str | None:
    """What is wrong with an image of a shard; all other things are errors of :func:`fetch`."""
    table = fetch(url, shard, index)
    if index.stored_as != "files":
        return None
    inputs, labels = np.empty((1, *index.shape), np.uint8), np.empty(1, np.int64)
    rows = Rows(table, index)
    for row in range(len(table)):
        try:
            rows.take(np.array([row]), inputs, labels)
        except OSError:
            return f"{storage.join(url, shard.file)}: row {row + 1} is no image that can be read"
    return None
