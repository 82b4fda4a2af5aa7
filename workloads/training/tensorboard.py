"""The TensorBoard log of a run, in the bucket.

The events are kept in memory, as the records of an event file, and written whole at each `upload`: an object can't be
appended to, and TensorBoard's own writer needs a local disk and flushes on a timer, which on a bucket means a request
each time. A resumed run adds a file of its own to the folder, with a purge step, so that TensorBoard drops what was
logged after the checkpoint it came from.
"""

from __future__ import annotations

import io
import os
import platform
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from workloads import storage

HOURS = "run/hours"

_VERSION = "brain.Event:2"
_LENGTH, _CHECKSUM_BYTES = struct.Struct("<Q"), 4
"""Of a record: its length with a checksum, its data with another."""


class TensorBoardLog:
    """Scalars of one run; only the first rank has one."""

    def __init__(self, url: str, *, from_step: int) -> None:
        self.url = url
        before = read_curve(url, HOURS) if from_step else []
        self._hours_before = before[-1][1] if before else 0.0
        self._began = time.monotonic()
        self._name = f"events.out.tfevents.{time.time():.9f}.{platform.node()}.{os.getpid()}"  # TensorBoard sorts them
        self._records = io.BytesIO()
        self._writer = RecordWriter(self._records)
        self._add(file_version=_VERSION)
        if from_step:
            self._add(step=from_step + 1, session_log=SessionLog(status=SessionLog.START))

    @property
    def hours(self) -> float:
        """In which the run was trained, with what the processes before this one saved of it."""
        return self._hours_before + (time.monotonic() - self._began) / 3_600

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add points to the curves."""
        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._add(step=step, summary=Summary(value=points))

    def upload(self, step: int) -> None:
        """Bring the log in the bucket up to date."""
        self.scalars(step, {HOURS: self.hours})
        storage.write(storage.join(self.url, self._name), self._records.getvalue())

    def _add(self, **fields: Any) -> None:
        self._writer.write(Event(wall_time=time.time(), **fields).SerializeToString())


def read_curve(url: str, name: str) -> list[tuple[int, float]]:
    """(step, value) of a curve over the whole run: of all processes whose logs lie there."""
    points: list[tuple[int, float]] = []
    for file in storage.names(url):
        for event in _events(storage.read(storage.join(url, file))):
            if event.session_log.status == SessionLog.START:
                points = [(step, value) for step, value in points if step < event.step]
            points += [(event.step, each.simple_value) for each in event.summary.value if each.tag == name]
    return points


def _events(file: bytes) -> Iterator[Event]:
    at = 0
    while at < len(file):
        (size,) = _LENGTH.unpack_from(file, at)
        at += _LENGTH.size + _CHECKSUM_BYTES
        yield Event.FromString(file[at : at + size])
        at += size + _CHECKSUM_BYTES
