"""A real server over HTTP: right answers, health that means it, reload, drain, overload, and clients that misbehave."""

from __future__ import annotations

import http.client
import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import zstandard
from PIL import Image
from torch import Tensor, nn

from tests.workloads.serving.conftest import CLASSES, SHAPE, Running, Start, exported, images
from workloads.models.fusionnet import FusionNet
from workloads.serving.export import Source, export
from workloads.serving.package import Array

EAGER = {"backends": ["eager"]}


def model(*packages: str, **settings: object) -> dict[str, object]:
    return {"versions": [{"package": url} for url in packages], "slo_ms": 10_000, **EAGER, **settings}


def expected(module: nn.Module, inputs: Array) -> Array:
    with torch.no_grad():
        output: Array = module(torch.from_numpy(inputs)).numpy()
    return output


def test_concurrent_clients_get_their_own_answers_in_every_form(
    serve: Start, package_url: str, module: FusionNet
) -> None:
    server = serve(model(package_url))

    def ask(seed: int) -> None:
        inputs = images(1 + seed % 5, seed)
        wanted = expected(module, inputs)
        np.testing.assert_allclose(server.classify(inputs), wanted, rtol=1e-3, atol=1e-5)
        tensor = {"name": "input", "datatype": "FP32", "shape": list(inputs.shape), "data": inputs.ravel().tolist()}
        status, _, body = server.ask("/v2/models/small/infer", json.dumps({"inputs": [tensor]}).encode())
        assert status == 200, body
        (output,) = json.loads(body)["outputs"]
        np.testing.assert_allclose(np.reshape(output["data"], output["shape"]), wanted, rtol=1e-3, atol=1e-5)

    with ThreadPoolExecutor(16) as clients:
        list(clients.map(ask, range(64)))
    _, _, metrics = server.ask("/metrics")
    (rows,) = [line for line in metrics.decode().splitlines() if line.startswith("fusion_batch_rows_sum")]
    assert float(rows.split()[-1]) == 2 * sum(1 + seed % 5 for seed in range(64))


def test_the_api_says_what_it_is(serve: Start, package_url: str) -> None:
    server = serve(model(package_url))
    status, _, body = server.ask("/v2/models/small")
    assert (status, json.loads(body)["inputs"]) == (
        200,
        [{"name": "input", "datatype": "FP32", "shape": [-1, *SHAPE]}],
    )
    for path in ("/live", "/ready", "/v2/health/live", "/v2/health/ready", "/v2/models/small/versions/1/ready", "/v2"):
        assert server.ask(path)[0] == 200, path
    assert "/v2/models/small/raw" in json.loads(server.ask("/openapi.json")[2])["paths"]
    assert json.loads(server.ask("/v2/repository/index", b"")[2])[0]["backend"] == "eager"
    for path, body in (
        ("/v2/models/large", None),
        ("/v2/models/small/versions/7", None),
        ("/nowhere", None),
        ("/live", b""),
    ):
        status, _, body = server.ask(path, body)
        assert status in (404, 405)
        assert json.loads(body)["error"]


class OfPixels(nn.Module):
    """Takes 8-bit images."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image: Tensor) -> Tensor:
        answer: Tensor = self.inner(image / 255)
        return answer


def test_compressed_bodies_and_image_files_are_answered_as_plain_ones(
    serve: Start, module: FusionNet, tmp_path: Path
) -> None:
    url = f"file://{tmp_path / 'pixels'}"
    pixels = np.random.default_rng(1).integers(0, 256, (4, *SHAPE), dtype=np.uint8)
    export(Source(OfPixels(module), {"image": pixels}), url, name="small", version="1", formats=())
    server = serve(model(url))
    wanted = expected(module, pixels[:1].astype(np.float32) / 255)[0]
    png = io.BytesIO()
    Image.fromarray(pixels[0, 0]).save(png, "png")
    for body, headers in (
        (pixels[:1].tobytes(), {}),
        (zstandard.compress(pixels[:1].tobytes()), {"content-encoding": "zstd"}),
        (png.getvalue(), {"content-type": "image/png"}),
    ):
        status, told, answer = server.ask("/v2/models/small/raw", body, headers)
        assert status == 200, answer
        np.testing.assert_allclose(np.frombuffer(answer, np.float32), wanted, rtol=1e-3, atol=1e-5)
        assert told["server-timing"].startswith("model;dur=")
    bomb = zstandard.compress(bytes(65 * 2**20))
    assert server.ask("/v2/models/small/raw", bomb, {"content-encoding": "zstd"})[0] == 413
    assert server.ask("/v2/models/small/raw", b"no", {"content-encoding": "zstd"})[0] == 400
    assert json.loads(server.ask("/v2/probe", bytes(5000))[2]) == {"bytes": 5000}


def test_told_to_stop_it_drains_and_ends_well(package_url: str, serve: Start) -> None:
    server = serve(model(package_url))
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    assert [event["event"] for event in map(json.loads, server.log.read_text().splitlines())][-2:] == [
        "draining",
        "stopped",
    ]


def test_new_versions_take_over_without_a_lost_request_and_share_by_weight(
    serve: Start, package_url: str, module: FusionNet, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    other = FusionNet(shape=SHAPE, classes=CLASSES).eval()
    other_url = exported(other, tmp_path / "2", "2")
    server = serve(model(package_url))
    inputs = images(1)
    answers = {"1": expected(module, inputs), "2": expected(other, inputs)}
    seen: list[str] = []
    stop = threading.Event()

    def keep_asking() -> None:
        while not stop.is_set():
            status, headers, body = server.ask("/v2/models/small/raw", inputs.tobytes())
            assert status == 200, body
            version = headers["fusion-model-version"]
            np.testing.assert_allclose(np.frombuffer(body, np.float32), answers[version][0], rtol=1e-3, atol=1e-5)
            seen.append(version)

    with ThreadPoolExecutor(4) as clients:
        asking = [clients.submit(keep_asking) for _ in range(4)]
        both = {"versions": [{"package": package_url, "weight": 1}, {"package": other_url, "weight": 1}], **EAGER}
        both["slo_ms"] = 10_000
        document = {"host": "127.0.0.1", "port": server.port, "models": [both]}
        server.reload(document, says='"reloaded"')
        while seen.count("2") < 10:
            time.sleep(0.05)
        before = len(server.events("reloaded"))
        server.config.write_text("models: 7")
        server.process.send_signal(signal.SIGHUP)
        server.wait_until(lambda: bool(server.events("reload_failed")))
        document["models"] = [model(other_url)]
        server.config.write_text(json.dumps(document))
        server.process.send_signal(signal.SIGHUP)
        server.wait_until(lambda: len(server.events("reloaded")) > before)
        time.sleep(0.3)
        stop.set()
        for each in asking:
            each.result()
    assert {"1", "2"} == set(seen)
    assert server.ask("/v2/models/small/versions/1")[0] == 404
    assert server.ask("/v2/models/small/versions/2")[0] == 200
    shown = server.ask("/metrics")[2]
    assert b'version="2"' in shown and b'version="1"' not in shown


class Slow(nn.Module):
    """Takes long for an answer that is easy to check."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((800, 800), 1 / 800))

    def forward(self, numbers: Tensor) -> Tensor:
        work = self.weight
        for _ in range(6):
            work = work @ self.weight
        return numbers + work.sum() * 0


@pytest.fixture(scope="module")
def slow_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"file://{tmp_path_factory.mktemp('slow')}/1"
    inputs = {"input": np.arange(8, dtype=np.float32).reshape(4, 2)}
    export(Source(Slow(), inputs), url, name="slow", version="1", formats=("pytorch",))
    return url


def slow_body(number: int) -> bytes:
    return np.full((1, 2), number, np.float32).tobytes()


def test_stopped_under_load_it_answers_what_it_has(serve: Start, slow_url: str) -> None:
    server = serve(model(slow_url, batch_max=1))

    def ask(number: int) -> float:
        status, _, body = server.ask("/v2/models/slow/raw", slow_body(number))
        assert status == 200, body
        return float(np.frombuffer(body, np.float32)[0])

    with ThreadPoolExecutor(8) as clients:
        asked = [clients.submit(ask, number) for number in range(8)]
        server.wait_until(lambda: b"fusion_batch_rows_count" in server.ask("/metrics")[2])
        time.sleep(0.1)
        server.process.send_signal(signal.SIGTERM)
        assert [each.result() for each in asked] == list(range(8))
    assert server.process.wait(60) == 0
    with pytest.raises(OSError):
        server.ask("/ready")


def test_beyond_its_capacity_it_refuses_early_keeps_its_deadline_and_recovers(serve: Start, slow_url: str) -> None:
    server = serve(model(slow_url, batch_max=1))
    one = batch_seconds(server)
    limited = model(slow_url, batch_max=1, slo_ms=20_000 * one)  # twenty batches, on whatever machine
    server.reload({"host": "127.0.0.1", "port": server.port, "models": [limited]}, says='"reloaded"')
    refused, answered, high = [], [], []
    turns = threading.Semaphore()

    def ask(number: int) -> None:
        priority = 1 if number % 8 == 0 else 3
        start = time.monotonic()
        status, headers, _ = server.ask("/v2/models/slow/raw", slow_body(number), {"fusion-priority": str(priority)})
        taken = time.monotonic() - start
        assert status in (200, 429, 503)
        if status == 200:
            answered.append(taken)
            turns.release()
        else:
            refused.append(taken)
            assert int(headers["retry-after"]) >= 1
            assert int(headers["fusion-retry-after-ms"]) >= 1
        if priority == 1:
            high.append(status)

    with ThreadPoolExecutor(64) as clients:
        for number in range(160):
            if number % 3 == 0:
                turns.acquire(timeout=20 * one)
            clients.submit(ask, number)
    assert len(answered) + len(refused) == 160
    assert refused, "three for each that is answered can't be served"
    assert len(answered) > 20
    assert high.count(200) / len(high) > 0.5, "the first priority is served first"
    for _ in range(5):
        assert server.ask("/v2/models/slow/raw", slow_body(1))[0] == 200
        time.sleep(one)


def batch_seconds(server: Running) -> float:
    """What one batch takes here and now."""
    times = []
    for number in range(5):
        start = time.monotonic()
        assert server.ask("/v2/models/slow/raw", slow_body(number))[0] == 200
        times.append(time.monotonic() - start)
    return sorted(times)[2]


def test_a_large_body_is_refused_unread_whether_or_not_it_says_its_length(serve: Start, package_url: str) -> None:
    server = serve(model(package_url), body_max_mib=1)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.putrequest("POST", "/v2/models/small/infer")
    connection.putheader("content-length", str(100 * 2**20))
    connection.endheaders()
    assert connection.getresponse().status == 413
    chunked = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        chunked.request("POST", "/v2/models/small/infer", iter([bytes(2**18)] * 40), encode_chunked=True)
        assert chunked.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server answered and closed while the rest was still being sent
    assert server.classify(images(1)).shape == (1, CLASSES)


def test_slow_silent_and_vanishing_clients_do_not_disturb_the_others(serve: Start, package_url: str) -> None:
    server = serve(model(package_url), body_timeout_s=1)
    head = b"POST /v2/models/small/raw HTTP/1.1\r\nhost: x\r\ncontent-length: 256\r\n\r\n"
    silent = []
    for sent in (b"", b"POST /v2/mod", head, head + b"x" * 100, b"\x00\xff garbage \r\n\r\n"):
        for vanishes in (True, False):
            client = socket.create_connection(("127.0.0.1", server.port))
            client.sendall(sent)
            if vanishes:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
                client.close()
            else:
                silent.append(client)
    for seed in range(20):
        assert server.classify(images(2, seed)).shape == (2, CLASSES)
    silent[2].settimeout(10)
    assert b"408" in silent[2].recv(1000), "what was not sent in time is given up"
    for client in silent:
        client.close()
    assert server.ask("/live")[0] == 200


def test_a_client_that_goes_away_while_it_waits_costs_no_batch(serve: Start, slow_url: str) -> None:
    server = serve(model(slow_url, batch_max=1))
    one = batch_seconds(server)
    before = batches(server)
    head = b"POST /v2/models/slow/raw HTTP/1.1\r\nhost: x\r\ncontent-length: 8\r\n\r\n"
    for number in range(30):
        client = socket.create_connection(("127.0.0.1", server.port))
        client.sendall(head + slow_body(number))
        time.sleep(0.01)
        client.close()
    assert server.ask("/v2/models/slow/raw", slow_body(5))[0] == 200
    time.sleep(one)
    assert batches(server) - before < 25


def batches(server: Running) -> float:
    lines = server.ask("/metrics")[2].decode().splitlines()
    return float(next(line for line in lines if line.startswith("fusion_batch_rows_count")).split()[-1])


@pytest.mark.parametrize(
    ("config", "expected_sentence"),
    [
        ("models: []", "models: got []"),
        ("models: [{versions: [{package: /tmp}]}]", "expected a URL that starts with"),
        ("models: [{versions: [{package: 'file:///nowhere'}]}]", "holds no package"),
        (
            "models: [{versions: [{package: 'file:///nowhere'}], backends: [fast]}]",
            "backends: got fast; expected any of",
        ),
        ("models: [{versions: [{package: 'file:///nowhere', weight: -1}]}]", "weight: got -1"),
        ("port: 99999\nmodels: [{versions: [{package: 'file:///nowhere'}]}]", "port: got 99999"),
        ("host: 192.0.2.1\nmodels: [{versions: [{package: 'file:///nowhere'}]}]", "host and port: got 192.0.2.1"),
        ("models: {", "is not YAML"),
    ],
)
def test_a_wrong_config_ends_it_with_one_sentence(config: str, expected_sentence: str, tmp_path: Path) -> None:
    assert expected_sentence in refusal(config, tmp_path)


def test_a_port_that_another_process_uses_is_refused_instead_of_shared(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        port = other.getsockname()[1]
        config = f"host: 127.0.0.1\nport: {port}\nmodels: [{{versions: [{{package: 'file:///nowhere'}}]}}]"
        assert f"host and port: got 127.0.0.1, {port}, where no server can listen" in refusal(config, tmp_path)


def refusal(config: str, folder: Path) -> str:
    path = folder / "serving.yaml"
    path.write_text(config)
    ended = subprocess.run(
        [sys.executable, "-m", "workloads.serving", "--config", str(path)], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr + ended.stdout
    return ended.stderr
