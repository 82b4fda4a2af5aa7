"""Batches of one split for one rank, read ahead of the training loop.

Threads fetch the shards that come next into the cache, others put batches together from the cache's memory. Both hold
Python's lock for moments only: downloading, checking, decompressing, decoding images and copying happen without it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from workloads import storage
from workloads.data.cache import GIB, ShardCache
from workloads.data.format import (
    INPUT_TYPES,
    Index,
    Inputs,
    Labels,
    Rows,
    Shard,
    Split,
    fetch,
    read_index,
)
from workloads.data.order import STREAMS, Numbers, Order, Part, drawn_part, epoch_order, stored_order
from workloads.storage import StorageError

READ_AHEAD_BATCHES = 4
READ_AHEAD_SHARDS = 4
"""Beyond those that the batches read ahead need."""
FETCHES = 4
"""Shards on their way at a time."""


@dataclass(frozen=True)
class Batch:
    """What one rank trains on in one step."""

    inputs: Tensor
    """(samples, *the index's shape): uint8 images, float32 columns or int32 tokens."""
    labels: Tensor
    """(samples,), int64; all 0 where the data set has none."""
    global_samples: int
    """Over all ranks; an epoch's last batch may be smaller than the others."""


class Dataset:
    """A split of a data set in a bucket."""

    def __init__(self, url: str, split: Split, cache: ShardCache | None = None) -> None:
        self.url = url
        self.cache = cache or ShardCache()
        self.index: Index
        self.index, self.digest = read_index(url)
        self.shards: tuple[Shard, ...] = self.index.splits[split]
        self._ends = np.cumsum([shard.samples for shard in self.shards])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def order(self, *, seed: int, epoch: int, streams: int = STREAMS) -> Order:
        """Every sample's number, in the order of this epoch."""
        return epoch_order([shard.samples for shard in self.shards], seed=seed, epoch=epoch, streams=streams)

    def shards_of(self, numbers: Numbers) -> Numbers:
        """The shard of each sample."""
        return np.searchsorted(self._ends, numbers, side="right")

    def rows_in(self, shard: int, numbers: Numbers) -> Numbers:
        """Where in their shard samples are."""
        rows: Numbers = numbers - (self._ends[shard] - self.shards[shard].samples)
        return rows

    def rows(self, shard: int) -> Rows:
        """Access to a shard's samples, from the cache or the bucket.

        Raises:
            StorageError: it can't be read, or is not what the index says.
        """
        entry = self.shards[shard]
        return Rows(self.cache.table(entry.sha256, lambda: fetch(self.url, entry, self.index)), self.index)

    def take(self, numbers: Numbers) -> tuple[Inputs, Labels]:
        """The samples with these numbers, in this order."""
        return self.gather(numbers, {shard: self.rows(shard) for shard in np.unique(self.shards_of(numbers)).tolist()})

    def gather(self, numbers: Numbers, rows: dict[int, Rows]) -> tuple[Inputs, Labels]:
        """The samples with these numbers, in this order, from these shards."""
        inputs = np.empty((len(numbers), *self.index.shape), dtype=INPUT_TYPES[self.index.kind])
        labels = np.empty(len(numbers), dtype=np.int64)
        shard_of = self.shards_of(numbers)
        cuts = np.flatnonzero(np.diff(shard_of)) + 1  # neighbours are of one shard, mostly
        edges = [0, *cuts.tolist(), len(numbers)] if len(numbers) else []
        for begin, end in pairwise(edges):
            shard = int(shard_of[begin])
            try:
                rows[shard].take(self.rows_in(shard, numbers[begin:end]), inputs[begin:end], labels[begin:end])
            except OSError as error:
                url = storage.join(self.url, self.shards[shard].file)
                raise StorageError(f"{url} holds an image that can't be read; `fusion data check` names it") from error
        return inputs, labels


@dataclass(frozen=True)
class Loader:
    """Cuts a data set's order into global batches and gives one rank its part of each."""

    dataset: Dataset
    batch_size: int
    """Samples of a global batch, over all ranks."""
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    streams: int = STREAMS
    threads: int = field(default_factory=lambda: max(2, len(os.sched_getaffinity(0))))
    """That put batches together."""

    @property
    def batches(self) -> int:
        """How many an epoch has."""
        return -(-len(self.dataset) // self.batch_size)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, without its first ``start`` samples (over all ranks): where a run resumes."""
        order = self.dataset.order(seed=self.seed, epoch=epoch, streams=self.streams)
        return self._batches(self._part(order, start))

    def drawn(self, epoch: int, *, secret: int, first_batch: int = 0) -> Iterator[Batch]:
        """An epoch's batches, from one on, for which each sample is drawn by chance: some may be empty.

        Who knows the secret knows the batches; with another secret they are other ones.
        """
        part = drawn_part(
            len(self.dataset),
            batch_size=self.batch_size,
            batches=self.batches - first_batch,
            secret=(secret, epoch),
            rank=self.rank,
            world_size=self.world_size,
        )
        return self._batches(part)

    def once(self) -> Iterator[Batch]:
        """The batches of the split as it is stored, for evaluation."""
        return self._batches(self._part(stored_order(len(self.dataset)), 0))

    def _part(self, order: Order, start: int) -> Part:
        return order.part(batch_size=self.batch_size, start=start, rank=self.rank, world_size=self.world_size)

    def _batches(self, part: Part) -> Iterator[Batch]:
        begins = np.concatenate(([0], part.ends[:-1])).astype(np.int64)
        ahead = max(READ_AHEAD_BATCHES, self.threads + 1)
        pending: deque[Future[Batch]] = deque()
        window = _Window(self.dataset, part, ahead)
        assemblers = ThreadPoolExecutor(self.threads, thread_name_prefix="batch")
        try:
            for number in range(len(part.ends) + ahead):
                if number < len(part.ends):
                    numbers = part.numbers[begins[number] : part.ends[number]]
                    rows = window.advance(number, numbers)
                    pending.append(assemblers.submit(self._batch, numbers, rows, int(part.global_samples[number])))
                if number >= ahead:
                    yield pending.popleft().result()
        finally:
            assemblers.shutdown(wait=False, cancel_futures=True)
            window.close()

    def _batch(self, numbers: Numbers, rows: dict[int, Future[Rows]], global_samples: int) -> Batch:
        found = {shard: future.result() for shard, future in rows.items()}
        inputs, labels = (torch.from_numpy(array) for array in self.dataset.gather(numbers, found))
        if torch.cuda.is_available():  # only from pinned memory does a copy run beside the GPU's work
            inputs, labels = inputs.pin_memory(), labels.pin_memory()
        return Batch(inputs, labels, global_samples)


class _Window:
    """The shards that one pass needs about now: fetched in the order of their first use, let go after their last."""

    def __init__(self, dataset: Dataset, part: Part, ahead_batches: int) -> None:
        """Find first and last uses.

        Raises:
            StorageError: the cache can't hold the shards that are needed at one time.
        """
        self._dataset = dataset
        self._ahead_batches = ahead_batches
        batches = np.repeat(np.arange(len(part.ends)), np.diff(part.ends, prepend=0))
        shards = dataset.shards_of(part.numbers)
        used, first = np.unique(shards, return_index=True)
        last = len(shards) - 1 - np.unique(shards[::-1], return_index=True)[1]
        in_order = np.argsort(first, kind="stable")
        self._queue: list[int] = used[in_order].tolist()
        self._first_batch = batches[first[in_order]]
        self._last_batch: dict[int, int] = dict(zip(used.tolist(), batches[last].tolist(), strict=True))
        self._check_room()
        self._live: dict[int, Future[Rows]] = {}
        self._submitted = 0
        self._fetchers = ThreadPoolExecutor(FETCHES, thread_name_prefix="fetch")

    def advance(self, batch: int, numbers: Numbers) -> dict[int, Future[Rows]]:
        """The shards of a batch's samples; lets go of those that only finished batches needed."""
        for shard in [shard for shard in self._live if self._last_batch[shard] < batch - self._ahead_batches]:
            del self._live[shard]
        until = int(np.searchsorted(self._first_batch, batch, side="right")) + READ_AHEAD_SHARDS
        for shard in self._queue[self._submitted : until]:
            self._live[shard] = self._fetchers.submit(self._dataset.rows, shard)
        self._submitted = max(self._submitted, until)
        return {shard: self._live[shard] for shard in np.unique(self._dataset.shards_of(numbers)).tolist()}

    def close(self) -> None:
        """Stop fetching."""
        self._fetchers.shutdown(wait=False, cancel_futures=True)

    def _check_room(self) -> None:
        last = np.sort(list(self._last_batch.values()))
        begun = np.searchsorted(self._first_batch, self._first_batch, side="right") + READ_AHEAD_SHARDS
        ended = np.searchsorted(last, self._first_batch - self._ahead_batches)
        shards = min(int((begun - ended).max(initial=0)), len(last))
        needed = shards * max(shard.decoded_bytes for shard in self._dataset.shards) * 1.01
        if needed > (limit := self._dataset.cache.limit_bytes):
            raise StorageError(
                f"data.cache.limit_gib: got {limit / GIB:.3g}; {self._dataset.url} needs {needed / GIB:.3g} for the "
                f"{shards} shards that are read at a time; raise it, or lower data.streams"
            )
