"""Batches of one split for one rank, read ahead of the training loop."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workloads import storage
from workloads.data.format import INPUT_TYPES, Index, Inputs, Labels, Shard, Split, decode, read_index
from workloads.data.order import BLOCK_SHARDS, Order, epoch_order, of_rank
from workloads.storage import StorageError

READ_AHEAD_BATCHES = 4


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
    """A split of a data set in a bucket; holds the decoded shards of two blocks of the order in memory."""

    def __init__(self, url: str, split: Split) -> None:
        self.url = url
        self.index: Index
        self.index, self.digest = read_index(url)
        self.shards: tuple[Shard, ...] = self.index.splits[split]
        self._ends = np.cumsum([shard.samples for shard in self.shards])
        self._decoded: OrderedDict[int, tuple[Inputs, Labels]] = OrderedDict()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def order(self, *, seed: int, epoch: int) -> Order:
        """Every sample's number, in the order of this epoch."""
        return epoch_order([shard.samples for shard in self.shards], seed=seed, epoch=epoch)

    def take(self, numbers: Order) -> tuple[Inputs, Labels]:
        """The samples with these numbers, in this order."""
        inputs = np.empty((len(numbers), *self.index.shape), dtype=INPUT_TYPES[self.index.kind])
        labels = np.empty(len(numbers), dtype=np.int64)
        shard_of = np.searchsorted(self._ends, numbers, side="right")
        for shard in np.unique(shard_of):
            chosen = shard_of == shard
            rows = numbers[chosen] - (self._ends[shard] - self.shards[shard].samples)
            shard_inputs, shard_labels = self._shard(int(shard))
            inputs[chosen], labels[chosen] = shard_inputs[rows], shard_labels[rows]
        return inputs, labels

    def _shard(self, number: int) -> tuple[Inputs, Labels]:
        if number not in self._decoded:
            self._decoded[number] = self._fetch(self.shards[number])
            if len(self._decoded) > 2 * BLOCK_SHARDS:
                self._decoded.popitem(last=False)
        self._decoded.move_to_end(number)
        return self._decoded[number]

    def _fetch(self, shard: Shard) -> tuple[Inputs, Labels]:
        url = storage.join(self.url, shard.file)
        data = storage.read(url)
        if storage.sha256(data) != shard.sha256:
            raise StorageError(f"{url} is not what its index says (SHA-256 differs); write the data set anew")
        return decode(data, self.index)


@dataclass(frozen=True)
class Loader:
    """Cuts a data set's order into global batches and gives one rank its part of each."""

    dataset: Dataset
    batch_size: int
    """Samples of a global batch, over all ranks."""
    seed: int = 0
    rank: int = 0
    world_size: int = 1

    @property
    def batches(self) -> int:
        """How many an epoch has."""
        return -(-len(self.dataset) // self.batch_size)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, without its first ``start`` samples (over all ranks): where a run resumes."""
        return self._batches(self.dataset.order(seed=self.seed, epoch=epoch)[start:])

    def once(self) -> Iterator[Batch]:
        """The batches of the split as it is stored, for evaluation."""
        return self._batches(np.arange(len(self.dataset), dtype=np.int64))

    def _batches(self, order: Order) -> Iterator[Batch]:
        starts = iter(range(0, len(order), self.batch_size))
        pending: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead") as reader:
            while True:
                while len(pending) < READ_AHEAD_BATCHES and (start := next(starts, None)) is not None:
                    pending.append(reader.submit(self._batch, order[start : start + self.batch_size]))
                if not pending:
                    return
                yield pending.popleft().result()

    def _batch(self, numbers: Order) -> Batch:
        inputs, labels = self.dataset.take(of_rank(numbers, rank=self.rank, world_size=self.world_size))
        return Batch(torch.from_numpy(inputs), torch.from_numpy(labels), global_samples=len(numbers))
