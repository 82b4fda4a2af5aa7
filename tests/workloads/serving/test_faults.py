"""What clients see when a server's runtime, its packages, its process or other clients fail.

Every request ends: with the right answer, or with a reason and a status that says whose fault it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families
from torch import nn

from tests.workloads.serving.conftest import CLASSES, SHAPE, Running, Start, exported, images, servers
from tests.workloads.serving.faulty import CRASHES, HANGS, MISTAKEN, RAISES, SLOW
from workloads.models.fusionnet import FusionNet
from workloads.serving import server as server_module
from workloads.serving.answering import Answering
from workloads.serving.config import ServingConfig
from workloads.serving.package import Array

RAW, INFER = "/v2/models/small/raw", "/v2/models/small/infer"
ROW_BYTES = 4 * int(np.prod(SHAPE))
CLIENTS = 8
ANSWERS = (b"200", b"400", b"408", b"413", b"431")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    with servers(tmp_path_factory.mktemp("faulty"), "tests.workloads.serving.faulty") as start:
        yield start


@pytest.fixture(scope="module")
def other(module: FusionNet) -> FusionNet:
    torch.manual_seed(1)
    return FusionNet(shape=SHAPE, classes=CLASSES).eval()


@pytest.fixture(scope="module")
def other_url(other: FusionNet, tmp_path_factory: pytest.TempPathFactory) -> str:
    return exported(other, tmp_path_factory.mktemp("packages") / "2", "2")


def served(*packages: str, **settings: object) -> dict[str, object]:
    return {"versions": [{"package": url} for url in packages], "slo_ms": 5000, "backends": ["onnxruntime"], **settings}


@pytest.fixture(scope="module")
def server(start: Start, package_url: str) -> Running:
    """One for all tests that leave it as it was."""
    return start(served(package_url), device="cpu", body_max_mib=1, body_timeout_s=1)


def does(fault: float) -> bytes:
    row = images(1)
    row.flat[0] = fault
    return row.tobytes()


def answer_of(module: nn.Module, inputs: Array) -> Array:
    with torch.no_grad():
        output: Array = module(torch.from_numpy(inputs)).numpy()
    return output


def said(server: Running) -> list[dict[str, object]]:
    """The log; every line of it is a JSON object with an event."""
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert all(line["event"] for line in lines)
    return lines


@dataclass
class Load:
    """Clients that ask one after the other until they are told to stop, and what came of each request."""

    ports: Callable[[], list[int]]
    answers: dict[str, Array]
    inputs: Array = field(default_factory=lambda: images(1))
    outcomes: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        self._pool = ThreadPoolExecutor(CLIENTS)
        self._clients = [self._pool.submit(self._client, number) for number in range(CLIENTS)]
        self.wait_for("1", 20)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._pool.shutdown()
        for each in self._clients:
            each.result()

    def wait_for(self, outcome: str, more: int) -> None:
        goal = self.outcomes[outcome] + more
        for _ in range(600):
            if self.outcomes[outcome] >= goal:
                return
            time.sleep(0.05)
        raise AssertionError(self.outcomes)

    def _client(self, number: int) -> None:
        while not self.stop.is_set():
            ports = self.ports()
            start = time.monotonic()
            self.outcomes[self._ask(ports[number % len(ports)])] += 1
            self.longest_s = max(self.longest_s, time.monotonic() - start)
            number += 1

    def _ask(self, port: int) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("POST", RAW, self.inputs.tobytes())
            answer = connection.getresponse()
            body = answer.read()
        except ConnectionError:
            time.sleep(0.05)
            return "unreachable"
        finally:
            connection.close()
        if answer.status != 200:
            return str(answer.status)
        version = answer.headers["fusion-model-version"]
        np.testing.assert_allclose(np.frombuffer(body, np.float32), self.answers[version][0], rtol=1e-3, atol=1e-5)
        return version


def test_a_batch_that_fails_says_so_and_the_next_one_is_served(server: Running, module: FusionNet) -> None:
    status, _, body = server.ask(RAW, does(RAISES))
    assert (status, json.loads(body)["error"]) == (503, "small: the batch failed: RuntimeError: the runtime failed")
    np.testing.assert_allclose(server.classify(images(2)), answer_of(module, images(2)), rtol=1e-3, atol=1e-5)


def test_a_runtime_that_hangs_keeps_nobody_waiting_and_ends_the_process_so_that_it_is_started_again(
    start: Start, package_url: str
) -> None:
    server = start(served(package_url, slo_ms=500, batch_max=1), device="cpu")
    outcomes: list[tuple[int, float]] = []

    def ask(body: bytes) -> None:
        begin = time.monotonic()
        outcomes.append((server.ask(RAW, body)[0], time.monotonic() - begin))

    with ThreadPoolExecutor(9) as clients:
        hanging = clients.submit(ask, does(HANGS))
        time.sleep(0.1)
        list(clients.map(ask, [images(1).tobytes()] * 8))
        assert not hanging.done()
        assert max(seconds for _, seconds in outcomes) < 5, "their time is over, whatever the runtime does"
        hanging.result()
    assert {status for status, _ in outcomes} <= {429, 503}
    assert server.process.wait(20) == 1
    assert [line["event"] for line in said(server)][-3:] == ["hanging", "draining", "stopped"]


def test_of_two_replicas_one_killed_under_load_costs_only_what_it_was_doing(
    start: Start, package_url: str, module: FusionNet
) -> None:
    first, second = (start(served(package_url), device="cpu") for _ in range(2))
    up = [first.port, second.port]
    with Load(lambda: up, {"1": answer_of(module, images(1))}) as load:
        with pytest.raises(OSError):
            first.ask(RAW, does(CRASHES))
        load.wait_for("1", 50)
        assert first.process.wait(10) == -signal.SIGSEGV
        first = start(served(package_url), device="cpu")
        up[0] = first.port
        load.wait_for("1", 50)
    assert set(load.outcomes) <= {"1", "unreachable"}, "never a 500"
    assert load.longest_s < 10, "never a hang"


def test_a_package_that_is_damaged_is_not_served_and_what_was_served_goes_on(
    server: Running, start: Start, package_url: str, module: FusionNet, other_url: str, tmp_path: Path
) -> None:
    damaged = tmp_path / "2"
    shutil.copytree(other_url.removeprefix("file://"), damaged)
    (model_file,) = damaged.glob("*.onnx")
    content = bytearray(model_file.read_bytes())
    content[len(content) // 2] ^= 1
    model_file.write_bytes(content)
    before = server.config.read_text()
    with Load(lambda: [server.port], {"1": answer_of(module, images(1))}) as load:
        for url in (f"file://{damaged}", f"file://{tmp_path}/nowhere"):
            failures = len(server.events("reload_failed"))
            document = {"port": server.port, "device": "cpu", "models": [served(package_url, url)]}
            server.reload(document, says="reload_failed")
            server.wait_until(lambda seen=failures: len(server.events("reload_failed")) > seen)
            load.wait_for("1", 20)
    assert set(load.outcomes) == {"1"}
    assert model_file.name in server.events("reload_failed")[0]["reason"]
    server.config.write_text(before)
    with pytest.raises(AssertionError, match=model_file.name):
        start(served(f"file://{damaged}"), device="cpu")


def test_a_reload_under_load_loses_no_request_not_even_one_whose_body_still_comes(
    server: Running, package_url: str, module: FusionNet, other: FusionNet, other_url: str
) -> None:
    before = server.config.read_text()
    inputs = images(1)
    answers = {"1": answer_of(module, inputs), "2": answer_of(other, inputs)}
    with Load(lambda: [server.port], answers) as load:
        slow = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        slow.putrequest("POST", RAW)
        slow.putheader("content-length", str(ROW_BYTES))
        slow.endheaders(inputs.tobytes()[:100])
        document = {"host": "127.0.0.1", "port": server.port, "device": "cpu"}
        server.config.write_text(json.dumps(document | {"models": [served(other_url)]}))
        server.process.send_signal(signal.SIGHUP)
        load.wait_for("2", 5)
        slow.send(inputs.tobytes()[100:])
        answer = slow.getresponse()
        assert (answer.status, answer.headers["fusion-model-version"]) == (200, "1"), "it was given to version 1"
        server.wait_until(lambda: bool(server.events("reloaded")))
        load.wait_for("2", 20)
        server.config.write_text(before)
        server.process.send_signal(signal.SIGHUP)
        load.wait_for("1", 20)
    assert set(load.outcomes) == {"1", "2"}


def test_told_to_stop_under_load_it_is_not_ready_first_and_loses_no_request(
    start: Start, package_url: str, module: FusionNet
) -> None:
    first, second = (start(served(package_url), device="cpu") for _ in range(2))
    up = [first.port, second.port]
    with Load(lambda: up, {"1": answer_of(module, images(1))}) as load:
        first.process.send_signal(signal.SIGTERM)
        first.wait_until(lambda: first.ask("/ready")[0] == 503)
        load.wait_for("1", 20)
        up.remove(first.port)  # as a load balancer does when it sees that
        assert first.process.wait(30) == 0
        load.wait_for("1", 20)
    assert set(load.outcomes) == {"1"}


@dataclass
class ShortRequests:
    """Each is answered before the server that goes away looks again whether there is one."""

    left: int
    config: ServingConfig
    under_way: int = 0

    @property
    def asked(self) -> int:
        self.left = max(0, self.left - 1)
        return -self.left


def test_told_to_stop_it_goes_on_while_short_requests_come(package_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "QUIET_S", 0.05)
    requests = ShortRequests(30, ServingConfig.model_validate({"models": [served(package_url)]}))
    asyncio.run(server_module._quiet(cast("Answering", requests)))
    assert requests.left == 0


def unsent(server: Running, length: int, path: str = RAW) -> http.client.HTTPConnection:
    """A request whose header is sent and whose body is not."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.putrequest("POST", path)
    connection.putheader("content-length", str(length))
    connection.endheaders()
    return connection


def test_a_body_that_never_comes_does_not_hold_a_server_that_is_told_to_stop(start: Start, package_url: str) -> None:
    server = start(served(package_url), device="cpu", drain_s=1, body_timeout_s=600)
    connection = unsent(server, 256)
    server.wait_until(lambda: server.ask("/ready")[0] == 200)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    connection.close()


def test_a_mistake_of_the_server_is_a_500_that_is_logged_and_counted(server: Running) -> None:
    before = value(server, "fusion_internal_errors_total")
    status, _, body = server.ask(MISTAKEN)
    assert (status, "log says more" in json.loads(body)["error"]) == (500, True)
    assert value(server, "fusion_internal_errors_total") == before + 1
    assert "ZeroDivisionError" in server.events("internal_error")[-1]["reason"]


def test_bodies_under_way_take_no_more_memory_than_they_may_and_the_next_is_refused_unread(
    start: Start, package_url: str, module: FusionNet
) -> None:
    server = start(served(package_url), device="cpu", body_max_mib=1, bodies_max_mib=2)
    held = [unsent(server, 2**20, INFER) for _ in range(2)]
    server.wait_until(lambda: value(server, "fusion_body_bytes") == 2 * 2**20)
    for path, headers in ((INFER, {"content-length": str(2**19)}), (RAW, {"content-length": str(ROW_BYTES)})):
        asked = unsent(server, int(headers["content-length"]), path)
        answer = asked.getresponse()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert "bodies_max_mib" in json.loads(answer.read())["error"]
    chunked = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    chunked.request("POST", INFER, iter([bytes(1000)]), encode_chunked=True)
    assert chunked.getresponse().status == 503
    assert value(server, "fusion_refused_requests_total", reason="memory") == 3
    for each in held:
        each.close()
    server.wait_until(lambda: value(server, "fusion_body_bytes") == 0)
    np.testing.assert_allclose(server.classify(images(1)), answer_of(module, images(1)), rtol=1e-3, atol=1e-5)


def value(server: Running, name: str, **labels: str) -> float:
    """Of a metric, over all its other labels."""
    families = text_string_to_metric_families(server.ask("/metrics")[2].decode())
    return sum(
        each.value
        for family in families
        for each in family.samples
        if each.name == name and labels.items() <= each.labels.items()
    )


def test_told_to_stop_while_it_loads_it_stops_at_once(package_url: str, tmp_path: Path) -> None:
    config, log = tmp_path / "serving.yaml", tmp_path / "log"
    config.write_text(json.dumps({"host": "127.0.0.1", "port": 0, "models": [served(package_url, backends=["eager"])]}))
    process = subprocess.Popen(
        [sys.executable, "-m", "workloads.serving", "--config", str(config)],
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)},
        stdout=log.open("w"),
    )
    loading = Running(process, 0, config, log)
    loading.wait_until(lambda: bool(loading.events("measuring")))
    process.terminate()
    assert process.wait(30) == 0
    assert [line["event"] for line in said(loading)] == ["measuring", "draining", "stopped"]


def test_clients_that_are_slow_vanish_or_send_garbage_cost_the_others_nothing_and_leave_no_line_in_the_log(
    server: Running, module: FusionNet
) -> None:
    lines = len(said(server))
    head = b"POST /v2/models/small/raw HTTP/1.1\r\nhost: x\r\n"
    length = b"content-length: %d\r\n\r\n" % ROW_BYTES
    beginnings = [
        b"",
        b"POST /v2/mod",
        head,
        head + length,
        head + length + b"x" * 100,
        head + length + does(SLOW),
        head + b"transfer-encoding: chunked\r\n\r\n10\r\nabc",
        head + b"transfer-encoding: chunked\r\n\r\n100\r\n" + does(SLOW) + b"\r\nzz",
        head + b"content-length: -1\r\n\r\n",
        head + b"content-length: 256\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 5000,
    ]
    stay = []
    with Load(lambda: [server.port], {"1": answer_of(module, images(1))}) as load:
        for beginning in beginnings * 3:
            for goes in ("away", "away rudely", "nowhere"):
                client = socket.create_connection(("127.0.0.1", server.port))
                client.settimeout(30)
                with contextlib.suppress(ConnectionError):  # it was answered and closed before all was sent
                    client.sendall(beginning)
                if goes == "away rudely":
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if goes == "nowhere":
                    stay.append((beginning, client))
                else:
                    client.close()
        load.wait_for("1", 50)
        for beginning, client in stay:
            if beginning:  # one that never said anything is only closed by its client
                with contextlib.suppress(ConnectionError):
                    heard = client.recv(100)
                    assert not heard.startswith(b"HTTP") or heard.split()[1] in ANSWERS, (beginning, heard)
            client.close()
    assert set(load.outcomes) == {"1"}
    assert said(server)[lines:] == []


@pytest.mark.parametrize("is_chunked", [False, True])
def test_bodies_beyond_the_limit_are_refused_unread_however_many_come(server: Running, is_chunked: bool) -> None:
    path, kind = "/v2/models/small/infer", b"transfer-encoding: chunked" if is_chunked else b"content-length: 104857600"
    before = resident_mib(server)
    piece = b"100000\r\n" + bytes(2**20) + b"\r\n" if is_chunked else bytes(2**20)

    def send(_: int) -> int:
        sent = 0
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"POST " + path.encode() + b" HTTP/1.1\r\nhost: x\r\n" + kind + b"\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                while sent < 100:
                    client.sendall(piece)
                    sent += 1
        return sent

    with ThreadPoolExecutor(8) as clients:
        assert max(clients.map(send, range(32))) < 100, "the connection is closed instead of read to the end"
    assert resident_mib(server) - before < 40
    with contextlib.suppress(OSError):  # it was answered and closed while the body was still being sent
        assert server.ask(path, bytes(2**20 + 1))[0] == 413
    assert server.classify(images(1)).shape == (1, CLASSES)


def resident_mib(server: Running) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    (line,) = [each for each in status.splitlines() if each.startswith("VmRSS")]
    return int(line.split()[1]) / 1024
