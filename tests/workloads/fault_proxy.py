"""A server before an S3 server that passes requests on and spoils some of them, as networks and services do."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

FAULTS = ("503", "cut", "500", "half")
"""An answer, a connection closed before it, another answer, and half of the right one."""
_SLOW_SECONDS = 0.3
_PIECES = 4


class FaultProxy(ThreadingHTTPServer):
    """Spoils every so many requests, with the faults by turns.

    `reset` is a connection that breaks off as a machine's that is switched off; `lost` is a request that is done, but
    whose answer never comes; `slow` comes in pieces; `stall` comes never.
    """

    daemon_threads = True

    def __init__(self, upstream: str, faults: Sequence[str], every: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream.removeprefix("http://")
        self.faults, self.every = faults, every
        self.count = 0
        self.made: Counter[str] = Counter()
        self.spoiled: set[tuple[str, str]] = set()
        """(method, path) of what was spoiled."""
        self.spoils: Callable[[str, str], bool] = lambda method, path: True
        """Which requests may be spoiled, by method and path."""
        self.half_way: Callable[[str, str], None] = lambda method, path: None
        """Called with method and path when half of a request's body is here."""
        self.lock = threading.Lock()
        self.over = threading.Event()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def next_fault(self, method: str, path: str) -> str | None:
        with self.lock:
            if not self.spoils(method, path):
                return None
            self.count += 1
            if not self.faults or self.count % self.every:
                return None
            fault = self.faults[self.count // self.every % len(self.faults)]
            self.made[fault] += 1
            self.spoiled.add((method, path.partition("?")[0]))
            return fault

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Cut connections are what this server is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultProxy

    def _serve(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(size // 2)
        self.server.half_way(self.command, self.path)
        body += self.rfile.read(size - len(body))
        if len(body) < size:  # the client is gone, and a server takes no half object
            self.close_connection = True
            return
        fault = self.server.next_fault(self.command, self.path)
        if fault in {"500", "503"}:
            self._answer(int(fault), [], b"", None)
        elif fault in {"cut", "reset"}:
            self._hang_up(fault)
        elif fault == "stall":
            self.server.over.wait()
        else:
            self._pass_on(body, fault)

    def _pass_on(self, body: bytes, fault: str | None) -> None:
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=30)
        upstream.request(self.command, self.path, body, dict(self.headers))
        answer = upstream.getresponse()
        data = answer.read()
        if fault == "lost":
            self._hang_up("reset")
        else:
            self._answer(answer.status, answer.getheaders(), data, fault)

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, fault: str | None) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in {"transfer-encoding", "connection", "server", "date"}:
                self.send_header(name, value)
        if "content-length" not in {name.lower() for name, _ in headers} and self.command != "HEAD":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if fault == "half" and len(data) > 1:
            self.wfile.write(data[: len(data) // 2])
            self._hang_up("cut")
            return
        step = max(1, -(-len(data) // (_PIECES if fault == "slow" else 1)))
        for start in range(0, len(data), step):
            if fault == "slow":
                time.sleep(_SLOW_SECONDS / _PIECES)
            self.wfile.write(data[start : start + step])

    def _hang_up(self, how: str) -> None:
        self.close_connection = True
        if how == "reset":  # no linger: closing sends RST
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

    def log_message(self, format: str, *args: Any) -> None:
        """The test's output stays readable."""


@contextmanager
def spoiling(
    monkeypatch: pytest.MonkeyPatch, upstream: str, faults: Sequence[str] = FAULTS, every: int = 3
) -> Iterator[FaultProxy]:
    """What the test and the processes that it starts reach the bucket through."""
    proxy = FaultProxy(upstream, faults, every)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy
    proxy.over.set()
    proxy.shutdown()
    proxy.server_close()
