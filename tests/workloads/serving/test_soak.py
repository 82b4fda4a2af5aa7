"""A server that is asked everything, right and wrong, for a while: never a 500, never a hang, and nothing grows.

`FUSION_SOAK_SECONDS` says for how long; CI's time is short, `python -m benchmarks.soak` is the long form.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.soak import MAY_GROW, growth
from tests.workloads.serving.conftest import SHAPE, Running, servers

SECONDS = float(os.environ.get("FUSION_SOAK_SECONDS", "20"))
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


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
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


def test_under_load_faults_reloads_and_kills_every_answer_is_right_and_nothing_grows(tmp_path: Path) -> None:
    report = tmp_path / "soak.json"
    command = [sys.executable, "-m", "benchmarks.soak", "--minutes", str(SECONDS / 60), "--json", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS + 300)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert found["faults"] == []
    right = sum(count for what, count in found["outcomes"].items() if what.endswith(": 200"))
    assert right > 100
    kinds = {what.partition(":")[0] for what in found["outcomes"]}
    assert {"raw", "json", "binary", "compressed", "rpc", "malformed", "leaves", "reload", "kill"} <= kinds
    assert {what for what in found["outcomes"] if what.startswith("reload")} == {
        "reload: reloaded",
        "reload: reload_failed",
    }


@pytest.mark.parametrize("leak", sorted(MAY_GROW))
def test_what_grows_with_time_is_a_fault(leak: str) -> None:
    samples = [{name: 100.0 + (name == leak) * minute for name in MAY_GROW} for minute in range(120)]
    grown = growth(samples)
    assert {name for name, by in grown.items() if by > MAY_GROW[name]} == {leak}
