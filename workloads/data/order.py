"""In which order samples are seen: a pure function of (shard sizes, seed, epoch).

It does not know how many ranks there are. The ranks cut each global batch of that one order between them, so each
sample is seen exactly once an epoch whatever the world size, and a run that resumes with another world size goes on
with the same samples.

Shards are shuffled, then samples within blocks of `BLOCK_SHARDS` shards, so that at any moment only the shards of two
blocks are needed. Only the bit generator's raw stream is used, which NumPy keeps stable between versions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BLOCK_SHARDS = 8

Order = NDArray[np.int64]


def epoch_order(shard_samples: Sequence[int], *, seed: int, epoch: int) -> Order:
    """The numbers of all samples (shard after shard, as the index lists them) in the order of one epoch."""
    random = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64))
    starts = np.concatenate(([0], np.cumsum(shard_samples)))[:-1].astype(np.int64)
    shards = _shuffled(np.arange(len(shard_samples), dtype=np.int64), random)
    blocks = (shards[first : first + BLOCK_SHARDS] for first in range(0, len(shards), BLOCK_SHARDS))
    return np.concatenate(
        [
            _shuffled(np.concatenate([starts[shard] + np.arange(shard_samples[shard]) for shard in block]), random)
            for block in blocks
        ]
    )


def of_rank(global_batch: Order, *, rank: int, world_size: int) -> Order:
    """The part of a global batch that one rank takes; the ranks' parts differ by at most one sample."""
    return np.array_split(global_batch, world_size)[rank]


def _shuffled(values: Order, random: np.random.Philox) -> Order:
    keys = random.random_raw(len(values))
    return values[np.argsort(keys, kind="stable")]
