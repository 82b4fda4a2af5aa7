"""The TensorBoard log of a run, in the bucket.

The event file is written locally and uploaded whole at each `upload`: an object can't be appended to, and TensorBoard's
own writer flushes on a timer, which on a bucket means a request each time. A resumed run adds a file of its own to the
folder, with a purge step, so that TensorBoard drops what was logged after the checkpoint it came from.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from workloads import storage

HOURS = "run/hours"


class TensorBoardLog:
    """Scalars of one run; only the first rank has one."""

    def __init__(self, url: str, *, from_step: int) -> None:
        self.url = url
        self._folder = tempfile.TemporaryDirectory(prefix="tensorboard-")
        before = read_curve(url, HOURS) if from_step else []
        self._hours_before = before[-1][1] if before else 0.0
        self._began = time.monotonic()
        self._writer = SummaryWriter(self._folder.name, purge_step=from_step + 1 if from_step else None)

    @property
    def hours(self) -> float:
        """In which the run was trained, with what the processes before this one saved of it."""
        return self._hours_before + (time.monotonic() - self._began) / 3_600

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add points to the curves."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def upload(self, step: int) -> None:
        """Bring the log in the bucket up to date."""
        self._writer.add_scalar(HOURS, self.hours, step)
        self._writer.flush()
        for file in sorted(Path(self._folder.name).iterdir()):
            storage.upload(file, storage.join(self.url, file.name))

    def close(self, step: int) -> None:
        """Upload what is left and remove the local copy."""
        self.upload(step)
        self._writer.close()
        self._folder.cleanup()


def read_curve(url: str, name: str) -> list[tuple[int, float]]:
    """(step, value) of a curve over the whole run: of all processes whose logs lie there."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # takes a second

    with tempfile.TemporaryDirectory(prefix="tensorboard-") as folder:
        for file in storage.names(url):
            (Path(folder) / file).write_bytes(storage.read(storage.join(url, file)))
        # It would say on standard error that it drops what a resumed run made anew: that is meant.
        logging.getLogger("tensorboard").setLevel(logging.ERROR)
        events = EventAccumulator(folder, size_guidance={"scalars": 0})  # 0: all points
        events.Reload()
        known = name in events.Tags()["scalars"]
        return [(event.step, event.value) for event in events.Scalars(name)] if known else []
