"""What a client knows of its link and of each way, from its own requests and from probes."""

from __future__ import annotations

import math
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass, field

from planner.performance.link import FIRST_WINDOW_BYTES, Link

LEARNING_RATE = 0.4
"""Of an exponentially weighted mean: links change within a few requests."""
STALE_S = 10.0
"""A slow measurement says nothing of later; then the base counts again, so that the way is tried once more."""
SLOWEST, FASTEST = 1e3, 1e11
"""Bytes a second that a link may have."""
BISECTIONS = 40
ROUND_TRIPS_KEPT = 3
"""The least of the last ones counts: what is above it waited behind other bytes."""
OBSERVABLE = 0.1
"""Of an exchange, the share that its bytes must have taken to say anything of the bandwidth."""

_TCP_INFO = struct.Struct("=8B24I")
_RTO_US, _MSS, _LAST_SENT_MS, _WINDOW = 8 + 0, 8 + 2, 8 + 9, 8 + 18
"""Places in Linux' `struct tcp_info` (include/uapi/linux/tcp.h)."""


@dataclass(slots=True)
class Mean:
    """An exponentially weighted mean of what was measured, from a first value that was expected."""

    base: float
    value: float = field(init=False)
    deviation: float = 0.0
    at_s: float = -math.inf

    def __post_init__(self) -> None:
        self.value = self.base

    def add(self, measured: float, now_s: float) -> None:
        """The first measurement counts whole."""
        if self.at_s == -math.inf:
            self.base = self.value = measured
        self.deviation += LEARNING_RATE * (abs(measured - self.value) - self.deviation)
        self.value += LEARNING_RATE * (measured - self.value)
        self.at_s = now_s

    def now(self, now_s: float) -> float:
        """The mean; the base where that is lower and nothing was measured lately."""
        return min(self.value, self.base) if now_s - self.at_s > STALE_S else self.value


class LinkMeter:
    """The link as exchanges show it; may be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._round_trips_s: deque[float] = deque(maxlen=ROUND_TRIPS_KEPT)
        self._seconds_by_byte = 1 / 1e6
        self.exchanged_at_s = -math.inf

    def link(self, window_bytes: float = FIRST_WINDOW_BYTES) -> Link:
        """As it is expected to be for the next exchange."""
        with self._lock:
            return Link(1 / self._seconds_by_byte, self._round_trip_s, window_bytes)

    @property
    def _round_trip_s(self) -> float:
        return min(self._round_trips_s, default=0.0)

    def small(self, seconds: float) -> None:
        """An exchange of a few bytes took so long: the round trip."""
        with self._lock:
            self._round_trips_s.append(seconds)

    def forget(self) -> None:
        """The round trips of a link that was lost."""
        with self._lock:
            self._round_trips_s.clear()

    def exchange(
        self, sent: int, received: int, seconds: float, window_bytes: float, *, is_first: bool = False
    ) -> None:
        """An exchange took so long without the server's time: the bandwidth, where its bytes took a good part of it."""
        with self._lock:
            self.exchanged_at_s = time.monotonic()
            if seconds < self._round_trip_s:
                self._round_trips_s.append(seconds)
            fastest_s = Link(FASTEST, self._round_trip_s, window_bytes).exchange_s(sent, received)
            if seconds - fastest_s < OBSERVABLE * seconds:
                bound = seconds / (sent + received)
                self._seconds_by_byte = min(self._seconds_by_byte, bound)
                return
            observed = 1 / _bandwidth(sent, received, seconds, self._round_trip_s, window_bytes)
            rate = 1.0 if is_first else LEARNING_RATE
            self._seconds_by_byte *= (observed / self._seconds_by_byte) ** rate


def _bandwidth(sent: int, received: int, seconds: float, round_trip_s: float, window_bytes: float) -> float:
    """At which the exchange takes so long."""
    low, high = SLOWEST, FASTEST
    for _ in range(BISECTIONS):
        middle = math.sqrt(low * high)
        if Link(middle, round_trip_s, window_bytes).exchange_s(sent, received) > seconds:
            low = middle
        else:
            high = middle
    return low


def window_of(connection: socket.socket) -> float:
    """Bytes that TCP would have under way if it sent now; the first window where the system does not say."""
    try:
        data = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        info = _TCP_INFO.unpack(data)
    except (AttributeError, OSError, struct.error):
        return float(FIRST_WINDOW_BYTES)
    if info[_LAST_SENT_MS] * 1e3 > info[_RTO_US]:
        return float(min(info[_WINDOW] * info[_MSS], FIRST_WINDOW_BYTES))
    return float(max(1, info[_WINDOW]) * max(1, info[_MSS]))
