"""A server that is asked everything, right and wrong, for a while: never a 500, never a hang, and nothing grows.

`FUSION_SOAK_SECONDS` says for how long; CI's time is short.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.workloads.serving.conftest import SHAPE, Running, images, servers
from tests.workloads.serving.faulty import RAISES
from workloads.models.fusionnet import FusionNet

SECONDS = float(os.environ.get("FUSION_SOAK_SECONDS", "6"))
CLIENTS, SAMPLES = 4, 4
RAW, INFER = "/v2/models/small/raw", "/v2/models/small/infer"
WRONG = {400, 404, 405, 408, 411, 413, 414, 429, 431}
"""Statuses that tell a client what it did wrong."""


@pytest.fixture(scope="module")
def server(package_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    model = {"versions": [{"package": package_url}], "slo_ms": 5000, "backends": ["onnxruntime"]}
    with servers(tmp_path_factory.mktemp("soak"), "tests.workloads.serving.faulty") as start:
        yield start(model, device="cpu", body_max_mib=1, body_timeout_s=1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
TENSOR = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("input") | JSON,
        "datatype": st.sampled_from(["FP32", "INT64", "BYTES"]) | JSON,
        "shape": st.just([1, *SHAPE]) | st.lists(st.integers(-1, 2**70), max_size=4) | JSON,
        "data": st.just([0.5] * 64) | JSON,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(-1, 10**20) | JSON}) | JSON,
    },
)
DOCUMENT = JSON | st.fixed_dictionaries(
    {"inputs": st.lists(TENSOR, max_size=3) | JSON},
    optional={
        "id": st.text(max_size=5) | JSON,
        "outputs": st.lists(st.fixed_dictionaries({"name": st.text(max_size=5)}), max_size=2) | JSON,
        "parameters": st.fixed_dictionaries({}, optional={"priority": JSON, "timeout": JSON}) | JSON,
    },
)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "inference-header-content-length",
            "fusion-priority",
            "fusion-timeout-ms",
            "content-type",
            "content-encoding",
            "accept",
            "te",
        ]
    ),
    st.sampled_from(["", "0", "1", "3", "-1", "1e3", "99999999999999999999", "zstd", "image/png", "application/json"])
    | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8),
    max_size=3,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from([INFER, RAW, "/v2/models/small", "/v2/models/small/versions/1/infer", "/v2/health/ready"])
    | st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12).map(lambda text: f"/{text}"),
    method=st.sampled_from(["POST"] * 6 + ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"]),
    headers=HEADERS,
    body=DOCUMENT.map(lambda each: json.dumps(each).encode()) | st.binary(max_size=300),
    tail=st.binary(max_size=300) | st.just(bytes(256)),
)
def test_whatever_is_asked_is_answered_at_once_by_what_is_right_or_wrong_about_it(
    server: Running, path: str, method: str, headers: dict[str, str], body: bytes, tail: bytes
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request(method, path, body + tail, headers)
        answer = connection.getresponse()
        said = answer.read()
    finally:
        connection.close()
    assert answer.status == 200 or answer.status in WRONG, (answer.status, said)
    if answer.status in (400, 404, 413) and method != "HEAD" and said:
        assert json.loads(said)["error"]


def test_after_thousands_of_requests_right_and_wrong_nothing_has_grown(server: Running, module: FusionNet) -> None:
    inputs = images(8)
    with torch.no_grad():
        expected = module(torch.from_numpy(inputs)).numpy()
    raises = inputs[:1].copy()
    raises.flat[0] = RAISES
    statuses: Counter[int] = Counter()

    def ask(connection: http.client.HTTPConnection, number: int) -> None:
        rows = 1 + number % 8
        wrong = {0: b"", 1: b"x" * 255, 2: bytes(2**20 + 1), 3: raises.tobytes()}.get(number % 16)
        connection.request("POST", RAW, wrong if wrong is not None else inputs[:rows].tobytes())
        if number % 50 == 7:
            connection.close()  # without waiting for the answer
            return
        answer = connection.getresponse()
        body = answer.read()
        statuses[answer.status] += 1
        if wrong is None:
            assert answer.status == 200, body
            found = np.frombuffer(body, np.float32).reshape(rows, -1)
            np.testing.assert_allclose(found, expected[:rows], rtol=1e-3, atol=1e-5)
        else:
            assert answer.status in (400, 413, 503)

    def client(seed: int, until: float) -> None:
        numbers, connection = random.Random(seed), http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        while time.monotonic() < until:
            try:
                ask(connection, numbers.randrange(10_000))
            except ConnectionError:  # a body that was refused unread: the server closed while it was sent
                connection.close()
                statuses[413] += 1
        connection.close()

    def load(seconds: float) -> None:
        until = time.monotonic() + seconds
        with ThreadPoolExecutor(CLIENTS) as clients:
            for done in [clients.submit(client, seed, until) for seed in range(CLIENTS)]:
                done.result()

    load(SECONDS / SAMPLES)  # what a server allocates once
    before = uses(server)
    for _ in range(SAMPLES - 1):
        load(SECONDS / SAMPLES)
    server.wait_until(lambda: uses(server)["files"] <= before["files"] + CLIENTS)
    after = uses(server)
    assert statuses[200] > 100 and statuses[503] > 5 and statuses[400] > 5
    assert after["threads"] <= before["threads"] + 1, (before, after)
    assert after["mib"] <= before["mib"] + 24, (before, after)
    assert all(line.startswith("{") for line in server.log.read_text().splitlines())
    assert not server.events("internal_error")


def uses(server: Running) -> dict[str, float]:
    """What the operating system counts of its process."""
    process = Path(f"/proc/{server.process.pid}")
    pages = int((process / "statm").read_text().split()[1])
    return {
        "mib": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "files": len(list((process / "fd").iterdir())),
        "threads": len(list((process / "task").iterdir())),
    }
