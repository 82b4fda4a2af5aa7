"""A link of a stated bandwidth and round trip between this network namespace and another, for real TCP.

Linux shapes bandwidth itself (tbf) but delays packets only with the module `sch_netem`, which the kernels of small
virtual machines leave out. So both ends are TUN devices, and a process of its own carries the packets between them:
each waits for its turn at the bandwidth, then for half the round trip. Everything above IP is the kernel's.

`python -m tests.shaped_link NAMESPACE` is that process; it is told `MBIT_PER_S RTT_MS` or `cut` by lines.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import sys
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
MTU_BYTES = 9_000
"""Fewer and larger packets than on Ethernet: so the process keeps up with 1 Gbit/s."""
QUEUE_BYTES = 4 * 2**20
"""In front of the link; what comes when it is full is lost."""


def why_not() -> str:
    """Why there can be no such link here; empty where there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not Path("/dev/net/tun").exists():
        return "the kernel has no TUN devices"
    return ""


@dataclass
class ShapedLink:
    """The link's process, and where the other end is."""

    process: subprocess.Popen[str]
    namespace: str
    address: str
    """Of the other end."""

    def shape(self, mbit_per_s: float, rtt_ms: float) -> None:
        self._tell(f"{mbit_per_s} {rtt_ms}")

    def cut(self) -> None:
        self._tell("cut")

    def _tell(self, line: str) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command, to be run at the other end."""
        return ["ip", "netns", "exec", self.namespace, *command]


@contextmanager
def shaped_link() -> Iterator[ShapedLink]:
    name = f"fs{uuid.uuid4().hex[:8]}"
    subnet = f"10.203.{int(name[2:4], 16)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.shaped_link", name, subnet],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "done\n"
        yield ShapedLink(process, name, f"{subnet}.2")
    finally:
        process.kill()
        process.wait()
        subprocess.run(["ip", "netns", "delete", name], check=True)


def _tun(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return device


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _ends(namespace: str, subnet: str) -> tuple[int, int]:
    here, there = f"{namespace}a", f"{namespace}b"
    ends = _tun(here), _tun(there)
    _ip("link", "set", there, "netns", namespace)
    for at, device, address in (([], here, 1), (["-n", namespace], there, 2)):
        _ip(*at, "address", "add", f"{subnet}.{address}/30", "dev", device)
        _ip(*at, "link", "set", device, "mtu", str(MTU_BYTES), "txqueuelen", "2000", "up")
    _ip("-n", namespace, "link", "set", "lo", "up")
    return ends


class _Direction:
    """Packets on their way from one end to the other."""

    def __init__(self, source: int, sink: int) -> None:
        self.source, self.sink = source, sink
        self.waiting: deque[tuple[float, float, bytes]] = deque()
        self.free_at = 0.0

    def take(self, bytes_per_s: float, delay_s: float) -> None:
        while True:
            try:
                packet = os.read(self.source, 65_536)
            except BlockingIOError:
                return
            now = time.perf_counter()
            queued_s = max(0.0, self.free_at - now)
            if bytes_per_s and queued_s * bytes_per_s <= QUEUE_BYTES:
                self.free_at = now + queued_s + len(packet) / bytes_per_s
                self.waiting.append((self.free_at + delay_s, self.free_at, packet))

    def give(self) -> float | None:
        """Deliver what is due; seconds until the next is."""
        while self.waiting:
            left = self.waiting[0][0] - time.perf_counter()
            if left > 0:
                return left
            packet = self.waiting.popleft()[2]
            try:
                os.write(self.sink, packet)
            except OSError:
                continue
        return None


def _carry(ends: tuple[int, int]) -> None:
    directions = [_Direction(*ends), _Direction(*reversed(ends))]
    bytes_per_s, delay_s = 125e6, 0.0
    while True:
        due = [each.give() for each in directions]
        timeout = min((each for each in due if each is not None), default=1.0)
        ready, _, _ = select.select([*ends, sys.stdin], [], [], timeout)
        if sys.stdin in ready:
            line = sys.stdin.readline()
            if not line:
                return
            if line == "cut\n":
                bytes_per_s = 0.0
                for each in directions:
                    each.waiting.clear()
            else:
                mbit_per_s, rtt_ms = map(float, line.split())
                bytes_per_s, delay_s = mbit_per_s * 125e3, rtt_ms / 2e3
            print("done", flush=True)
        for each in directions:
            each.take(bytes_per_s, delay_s)


if __name__ == "__main__":
    made = _ends(sys.argv[1], sys.argv[2])
    print("done", flush=True)
    _carry(made)
