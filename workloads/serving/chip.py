"""The chip that the models of a server share: which of them runs its next batch, and what that costs the others.

A model's latency curve is measured alone. Two batches at once on one core, or on one GPU, would each take as long as
both, and every promise made by the curves would be broken. So batches of different models run at once only where there
are cores for both; else the models that have requests take turns, and each counts the others' batches in its promises.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workloads.serving.backends import Device
from workloads.serving.scheduler import Queue

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(eq=False, slots=True)
class Tenant:
    """A model on a chip.

    Attributes:
        queue: of the model.
        cores: that one of its batches takes.
        start: runs its next batch, and says whether there was one.
    """

    queue: Queue[Any]
    cores: int
    start: Callable[[], bool]
    is_active: bool = field(default=False, init=False)
    """It runs a batch, or waits for its turn."""


class Chip:
    """Gives the models of a server their turns; all methods are called on the event loop's thread."""

    def __init__(self, cores: int) -> None:
        """A chip on which batches run at once as long as they need no more than so many cores together."""
        self.cores = cores
        self._free = cores
        self._active: list[Tenant] = []
        self._waiting: deque[Tenant] = deque()

    def enter(self, tenant: Tenant) -> None:
        """A model has requests: run its next batch now, or when its turn comes."""
        if not tenant.is_active:
            tenant.is_active = True
            self._active.append(tenant)
            self._waiting.append(tenant)
            self._start_next()

    def leave(self, tenant: Tenant) -> None:
        """A model's batch ended."""
        self._end(tenant)
        self._start_next()

    def _end(self, tenant: Tenant) -> None:
        tenant.is_active = False
        self._active.remove(tenant)
        self._free += min(tenant.cores, self.cores)

    def _start_next(self) -> None:
        """In turn: a model that needs many cores is not passed over by those that need few."""
        while self._waiting and min(self._waiting[0].cores, self.cores) <= self._free:
            tenant = self._waiting.popleft()
            self._free -= min(tenant.cores, self.cores)
            if not tenant.start():
                self._end(tenant)

    def others_s(self, tenant: Tenant) -> float:
        """What the other models' batches take of the chip before each batch of this one."""
        if not self._active or (len(self._active) == 1 and tenant.is_active):
            return 0.0
        others = [each for each in self._active if each is not tenant]
        if sum(min(each.cores, self.cores) for each in (tenant, *others)) <= self.cores:
            return 0.0
        work = sum(each.queue.seconds_of(each.queue.usual_rows) * min(each.cores, self.cores) for each in others)
        return work / self.cores


def chip_of(device: Device) -> Chip:
    """The chip of this process: one batch at a time on a GPU; on a CPU all cores but the one that the server needs."""
    return Chip(1 if device == "cuda" else max(1, usable_cores() - 1))


def usable_cores(quota: Path = CPU_QUOTA) -> int:
    """Those that this process may use: of its affinity, and no more than the limit of its container."""
    cores = len(os.sched_getaffinity(0))
    try:
        microseconds, period = quota.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if microseconds == "max" else max(1, min(cores, int(microseconds) // int(period)))
