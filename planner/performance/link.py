"""Time of a request and its answer on a link, as TCP on a connection that stays open has it.

Source: N. Cardwell, S. Savage, T. Anderson, "Modeling TCP Latency" (INFOCOM 2000), without loss: while the window is
less than what the link holds, it doubles each round trip; then the link's bandwidth decides. The first window is that
of RFC 6928, to which a sender that was silent falls back (RFC 2861).
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.performance.checks import not_negative, positive

FIRST_WINDOW_BYTES = 10 * 1448
"""Ten segments of an Ethernet frame."""


@dataclass(frozen=True, slots=True)
class Link:
    """Between an edge device and a cloud."""

    bytes_per_s: float
    round_trip_s: float
    window_bytes: float = FIRST_WINDOW_BYTES
    """What the sender may have under way when a request begins."""

    def __post_init__(self) -> None:
        positive("bytes_per_s", self.bytes_per_s)
        not_negative("round_trip_s", self.round_trip_s)
        positive("window_bytes", self.window_bytes)

    def exchange_s(self, request_bytes: float, answer_bytes: float) -> float:
        """From the first byte of a request to the last one of its answer, without the time of the server."""
        return self.round_trip_s + self._sending_s(request_bytes) + self._sending_s(answer_bytes)

    def _sending_s(self, left_bytes: float) -> float:
        seconds, window = 0.0, self.window_bytes
        while left_bytes > window and window < self.bytes_per_s * self.round_trip_s:
            left_bytes -= window
            seconds += self.round_trip_s
            window *= 2
        return seconds + left_bytes / self.bytes_per_s
