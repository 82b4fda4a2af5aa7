"""Memory that a model's pass takes from the system anew each time, because the allocator had given it back.

The allocator is glibc's, replayed (malloc/malloc.c, 2.36): a piece above a threshold is mapped for itself and unmapped
when it is freed, which raises the threshold to its size, at most to `MAPPED_MOST`; smaller pieces come from one heap,
whose free top is given back when it reaches twice the threshold. What was given back costs a page fault a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

MAPPED_MOST = 32 * 2**20
PAD = 128 * 1024
"""DEFAULT_MMAP_THRESHOLD_MAX and DEFAULT_TOP_PAD of a 64-bit system."""
STARTED = 1024 * 1024
"""The threshold of a Python process that has loaded PyTorch and a model: it starts at 128 KiB, and what loading frees
raises it; seen from the sizes below which no chain of operations faulted."""
TRIM_FACTOR = 2
SMALL = 64 * 1024
"""Pieces below this come from the holes between others."""
ALIGNMENT = 128
"""A tensor's piece starts at a multiple of 64: a hole must be larger by that and by malloc's own words."""
PASSES = 4


@dataclass(frozen=True, slots=True)
class Step:
    """Bytes that one operation takes: its result, and what it frees when it returns."""

    result: float
    scratch: tuple[float, ...] = ()
    """Taken before the result."""
    second: float = 0.0
    """A second result that nobody reads, taken after the first."""


def refaulted_bytes(steps: Sequence[Step], largest: Sequence[Step]) -> float:
    """Bytes of page faults of one pass in steady state, where each step's input is freed after it.

    Args:
        largest: the steps of the largest batch that the process has run: it set the threshold.
    """
    heap = _Heap()
    _passes(heap, largest)
    heap.faulted = 0.0
    _passes(heap, steps)
    before = heap.faulted
    _passes(heap, steps)
    return (heap.faulted - before) / PASSES


def _passes(heap: _Heap, steps: Sequence[Step]) -> None:
    for _ in range(PASSES):
        result: float | None = None
        for step in steps:
            scratch = [heap.take(size) for size in step.scratch]
            made = heap.take(step.result)
            for piece in [*scratch, heap.take(step.second)]:
                heap.free(piece)
            heap.free(result)
            result = made
        heap.free(result)


@dataclass(slots=True)
class _Heap:
    """Pieces by where they start; those that are mapped for themselves have negative places."""

    threshold: float = STARTED
    pieces: dict[float, float] = field(default_factory=dict)
    end: float = 0.0
    """Of what the system gave."""
    touched: float = 0.0
    """Up to where pages are there."""
    faulted: float = 0.0

    def take(self, size: float) -> float | None:
        """Where a piece of that size now starts; None for a small one."""
        if size < SMALL:
            return None
        if size >= self.threshold:
            self.faulted += size
            where = min([0.0, *self.pieces]) - 1
            self.pieces[where] = size
            return where
        where = self._place(size + ALIGNMENT)
        self.pieces[where] = size + ALIGNMENT / 2
        if where + size > self.end:
            self.end = where + size + PAD
        self.faulted += max(0.0, where + size - max(self.touched, where))
        self.touched = max(self.touched, where + size)
        return where

    def free(self, where: float | None) -> None:
        """The piece that starts there."""
        if where is None:
            return
        size = self.pieces.pop(where)
        if where < 0:
            self.threshold = max(self.threshold, min(size + ALIGNMENT, MAPPED_MOST))
            return
        top = max((start + length for start, length in self.pieces.items() if start >= 0), default=0.0)
        if self.end - top >= TRIM_FACTOR * self.threshold:
            self.end = top + PAD
            self.touched = min(self.touched, self.end)

    def _place(self, size: float) -> float:
        """The smallest hole that holds it, else the top."""
        at, holes = 0.0, []
        for start, length in sorted(self.pieces.items()):
            if start < 0:
                continue
            if start - at >= size:
                holes.append((start - at, at))
            at = start + length
        return min(holes)[1] if holes else at
