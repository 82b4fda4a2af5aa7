"""Answers that were given before, by the content of what was asked; none unless `cache_mib` gives them room."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

import numpy as np
from cachetools import LRUCache

from workloads.serving.metrics import ModelMetrics
from workloads.serving.package import Array, Manifest

OVERHEAD_BYTES = 1024
"""Of an entry beside its tensors: key, objects, links."""
LARGE_BYTES = 2**20
"""Inputs above it are hashed on a thread of their own: the event loop serves the others meanwhile."""


class AnswerCache:
    """The answers of one version of a model; the least recently used go when there is no room."""

    def __init__(self, manifest: Manifest, bytes_max: int, metrics: ModelMetrics) -> None:
        """An empty cache.

        Args:
            manifest: of the version whose answers they are.
            bytes_max: what all entries together may take.
            metrics: of the version.
        """
        self._salt = f"{manifest.name}\0{manifest.version}\0{manifest.self_test.sha256}\0".encode()
        self._answers: LRUCache[bytes, list[Array]] = LRUCache(bytes_max, getsizeof=_size)
        self._metrics = metrics
        metrics.cache_bytes.set(0)

    async def key(self, inputs: Sequence[Array]) -> bytes:
        """SHA-256 of the version and the tensors: their types, shapes and bytes in the order of the manifest."""
        if sum(each.nbytes for each in inputs) > LARGE_BYTES:
            return await asyncio.to_thread(self._digest, inputs)
        return self._digest(inputs)

    def _digest(self, inputs: Sequence[Array]) -> bytes:
        digest = hashlib.sha256(self._salt)
        for array in inputs:
            digest.update(f"{array.dtype.str}{array.shape}\0".encode())
            if array.dtype == object:  # BYTES
                for element in array.ravel():
                    digest.update(len(element).to_bytes(8, "little"))
                    digest.update(element)
            else:
                digest.update(np.ascontiguousarray(array).data)
        return digest.digest()

    def get(self, key: bytes) -> list[Array] | None:
        """What was answered to this, and is still here."""
        found = self._answers.get(key)
        (self._metrics.cache_misses if found is None else self._metrics.cache_hits).inc()
        return found

    def keep(self, key: bytes, answer: Sequence[Array]) -> None:
        """Keep an answer, as a copy: its arrays are parts of a whole batch's; one larger than the cache is not kept."""
        kept = [each.copy() for each in answer]
        for each in kept:
            each.flags.writeable = False
        if _size(kept) <= self._answers.maxsize:
            self._answers[key] = kept
            self._metrics.cache_bytes.set(self._answers.currsize)


def _size(answer: Sequence[Array]) -> int:
    return OVERHEAD_BYTES + sum(_bytes_of(each) for each in answer)


def _bytes_of(array: Array) -> int:
    return array.nbytes + (sum(len(each) + 64 for each in array.ravel()) if array.dtype == object else 0)
