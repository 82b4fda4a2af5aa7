"""In which order samples are seen: a pure function of (shard sizes, seed, epoch, streams).

It does not know how many ranks there are. The shuffled shards are dealt to so many *streams*; each stream goes through
its shards one after another, each shuffled within, and the streams are interleaved in proportion to their lengths. At
any moment only about one shard of each stream is needed. The ranks cut each global batch of that one order between
them, stream by stream, so each sample is seen exactly once an epoch whatever the world size; a run that resumes with
another world size goes on with the same samples; and a node reads the shards of its own streams and hardly any other.

Only the bit generator's raw stream is used, which NumPy keeps stable between versions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STREAMS = 8

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Order:
    """The samples of one pass, in global order."""

    numbers: Numbers
    """(samples,): shard after shard, as the index lists them."""
    streams: Numbers
    """(samples,): the stream of each."""

    def part(self, *, batch_size: int, start: int = 0, rank: int = 0, world_size: int = 1) -> Part:
        """What one rank takes of each global batch, from the sample at ``start`` on.

        The ranks' parts of a batch differ by at most one sample.
        """
        samples = len(self.numbers) - start
        batch, place = np.divmod(np.arange(samples), batch_size)
        by_stream = np.argsort(batch * (self.streams.max(initial=0) + 1) + self.streams[start:], kind="stable")
        sizes = np.minimum(batch_size, samples - np.arange(0, samples, batch_size))
        begins, ends = sizes * rank // world_size, sizes * (rank + 1) // world_size
        mine = (place >= begins[batch]) & (place < ends[batch])
        return Part(self.numbers[start:][by_stream[mine]], np.cumsum(ends - begins), sizes)


@dataclass(frozen=True)
class Part:
    """One rank's samples, batch after batch."""

    numbers: Numbers
    ends: Numbers
    """(batches,): where in ``numbers`` each batch ends."""
    global_samples: Numbers
    """(batches,): of each batch over all ranks."""


def epoch_order(shard_samples: Sequence[int], *, seed: int, epoch: int, streams: int = STREAMS) -> Order:
    """All samples in the order of one epoch."""
    random = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64))
    starts = np.concatenate(([0], np.cumsum(shard_samples)))[:-1].astype(np.int64)
    shards = _shuffled(np.arange(len(shard_samples), dtype=np.int64), random)
    lanes = [
        np.concatenate([_shuffled(starts[shard] + np.arange(shard_samples[shard]), random) for shard in lane])
        for lane in (shards[first::streams] for first in range(min(streams, len(shards))))
    ]
    progress = np.concatenate([(np.arange(len(lane)) + 0.5) / len(lane) for lane in lanes])
    interleaved = np.argsort(progress, kind="stable")
    stream = np.repeat(np.arange(len(lanes)), [len(lane) for lane in lanes])
    return Order(np.concatenate(lanes)[interleaved], stream[interleaved])


def drawn_part(
    samples: int, *, batch_size: int, batches: int, secret: Sequence[int], rank: int, world_size: int
) -> Part:
    """One rank's part of batches for which each sample was drawn by itself, with chance ``batch_size / samples``.

    A batch's size is binomial and its samples are any of that many: the same as a toss for each sample, in less time.
    Equal on all ranks that have the same ``secret``.
    """
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence(secret)))
    sizes = random.binomial(samples, batch_size / samples, batches)
    drawn = [np.sort(random.choice(samples, size, replace=False, shuffle=False)) for size in sizes.tolist()]
    parts = [each[len(each) * rank // world_size : len(each) * (rank + 1) // world_size] for each in drawn]
    numbers = np.concatenate([np.empty(0, dtype=np.int64), *parts])
    return Part(numbers, np.cumsum([len(each) for each in parts]), sizes)


def stored_order(samples: int) -> Order:
    """All samples as they are stored."""
    return Order(np.arange(samples, dtype=np.int64), np.zeros(samples, dtype=np.int64))


def _shuffled(values: Numbers, random: np.random.Philox) -> Numbers:
    keys = random.random_raw(len(values))
    return values[np.argsort(keys, kind="stable")]
