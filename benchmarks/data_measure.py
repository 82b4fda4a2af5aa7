"""How `benchmarks/data.py` measures a reader, the same for Fusion and its peers, in the reader's own process."""

from __future__ import annotations

import json
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BUCKET = "benchmark"
BATCH = 128
SHARD_MIB = 8
SIDE = 224

Batches = Iterator[tuple[Any, Any]]


def measure(reader: Callable[[Path, int], Batches], cache: Path) -> None:
    """Print, as JSON, two epochs: with an empty cache and with a full one. A sample's label is its number."""
    print(json.dumps([_epoch(reader, cache, epoch) for epoch in range(2)]), flush=True)


def _epoch(reader: Callable[[Path, int], Batches], cache: Path, epoch: int) -> dict[str, float]:
    memory = _Memory()
    began, busy = time.perf_counter(), _processor_seconds()
    first, numbers = 0.0, []
    for inputs, found in reader(cache, epoch):
        first = first or time.perf_counter() - began
        if len(inputs) != len(found):
            raise RuntimeError(f"a batch has {len(inputs)} samples and {len(found)} labels")
        numbers += found.tolist()
    seconds = time.perf_counter() - began
    return {
        "samples": len(numbers),
        "different_samples": len(set(numbers)),
        "samples_per_s": len(numbers) / seconds,
        "first_batch_s": first,
        "processor_ms_a_sample": (_processor_seconds() - busy) / len(numbers) * 1e3,
        "memory_mib": memory.peak(),
    }


def _processor_seconds() -> float:
    """Of this process and of its workers, which have ended with the epoch."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


class _Memory:
    """The most memory that this process and its children held that no file backs, looked at ten times a second."""

    def __init__(self) -> None:
        self._most = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def peak(self) -> float:
        self._stop.set()
        self._thread.join()
        return self._most / 1024

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            self._most = max(self._most, sum(_held_kib(process) for process in _family(os.getpid())))


def _family(root: int) -> list[int]:
    found = [root]
    for process in found:
        for task in Path(f"/proc/{process}/task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text().split()]
            except OSError:
                continue
    return found


def _held_kib(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
