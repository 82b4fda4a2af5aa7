"""The bucket fails now and then: 503, a connection cut in the middle of an answer, slow answers."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import s3fs

from workloads import storage
from workloads.data.loader import Dataset, Loader
from workloads.storage import StorageError
from workloads.training.config import TrainingConfig
from workloads.training.run import run
from workloads.training.stopping import StopRequest


class FlakyProxy(ThreadingHTTPServer):
    """Passes requests on to a server, but spoils every third: by turns 503, a cut, 500, and half an answer."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream.removeprefix("http://")
        self.faults = ("503", "cut", "500", "half")
        self.every = 3
        self.count = 0
        self.made: Counter[str] = Counter()
        self.lock = threading.Lock()

    def next_fault(self) -> str | None:
        with self.lock:
            self.count += 1
            if self.count % self.every:
                return None
            fault = self.faults[self.count // self.every % len(self.faults)]
            self.made[fault] += 1
            return fault

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Cut connections are what this server is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FlakyProxy

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.next_fault()
        if fault == "cut":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault in {"500", "503"}:
            self.send_response(int(fault))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=30)
        upstream.request(self.command, self.path, body, dict(self.headers))
        answer = upstream.getresponse()
        data = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"transfer-encoding", "connection", "server", "date"}:
                self.send_header(name, value)
        if answer.getheader("Content-Length") is None and self.command != "HEAD":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if fault == "half" and len(data) > 1:
            self.wfile.write(data[: len(data) // 2])
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

    def log_message(self, format: str, *args: Any) -> None:
        """The test's output stays readable."""


@pytest.fixture
def flaky(digits: str, moto_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlakyProxy]:
    proxy = FlakyProxy(moto_endpoint)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_port}")
    s3fs.S3FileSystem.clear_instance_cache()
    yield proxy
    proxy.shutdown()
    s3fs.S3FileSystem.clear_instance_cache()


def test_reads_and_writes_are_retried(flaky: FlakyProxy, bucket: str) -> None:
    for number in range(8):
        url = f"s3://{bucket}/object-{number}"
        storage.write(url, b"content" * 1000)
        assert storage.read(url) == b"content" * 1000
    assert flaky.made.total() >= 4


def test_a_data_set_is_read_whole_from_a_flaky_bucket(flaky: FlakyProxy, digits: str) -> None:
    assert sum(len(batch.labels) for batch in Loader(Dataset(digits, "train"), 64).epoch(0)) == 1437
    assert flaky.made.total() >= 2


def test_a_run_gets_through_a_flaky_bucket(
    flaky: FlakyProxy, configured: Callable[..., TrainingConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    run(configured(epochs=1), StopRequest())
    assert '"event": "finished"' in capsys.readouterr().out.splitlines()[-1]
    assert set(flaky.made) == {"503", "cut", "500", "half"}


def test_a_bucket_that_stays_away_is_one_sentence_within_a_minute(digits: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    began = time.monotonic()
    with pytest.raises(StorageError, match="could not read s3://"):
        Dataset(digits, "train")
    assert time.monotonic() - began < 60
