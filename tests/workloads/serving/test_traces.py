"""Traces of a real server, as a collector receives them by OTLP over HTTP, or over gRPC."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from tests.workloads.serving.conftest import Running, images, servers
from tests.workloads.serving.faulty import RAISES
from tests.workloads.serving.test_rpc import address, message
from workloads.config import ConfigError
from workloads.serving.config import traces_endpoint
from workloads.serving.traces import from_environment
from workloads.training.logs import Log

RAW = "/v2/models/small/raw"
CALLER_TRACE, CALLER_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{CALLER_TRACE}-{CALLER_SPAN}-01"
UNSAMPLED = f"00-{'1' * 32}-{CALLER_SPAN}-00"
STAGES = ["transfer in", "queue", "batch", "compute", "transfer out"]


@dataclass
class Collector:
    """Receives what a server exports."""

    spans: list[Span] = field(default_factory=list)
    services: set[str] = field(default_factory=set)
    port: int = 0

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        for each in request.resource_spans:
            self.services |= {a.value.string_value for a in each.resource.attributes if a.key == "service.name"}
            self.spans += [span for scope in each.scope_spans for span in scope.spans]

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def children(self, parent: Span) -> list[Span]:
        found = [span for span in self.spans if span.parent_span_id == parent.span_id]
        return sorted(found, key=lambda span: (span.start_time_unix_nano, span.end_time_unix_nano))

    def wait_for(self, is_so: Callable[[], bool]) -> None:
        for _ in range(200):
            if is_so():
                return
            time.sleep(0.05)
        raise AssertionError([span.name for span in self.spans])


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert (self.path, self.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
            found.take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.port = server.server_port
        Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()


@pytest.fixture(scope="module")
def server(collector: Collector, package_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.port}")
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        environment.setenv("FUSION_WORKLOAD", "classify")
        with servers(tmp_path_factory.mktemp("traced"), "tests.workloads.serving.faulty") as start:
            model = {
                "slo_ms": 10_000,
                "batch_max": 8,
                "backends": ["onnxruntime"],
                "versions": [{"package": package_url}],
            }
            yield start(model, grpc_port=0, device="cpu")


@pytest.fixture(autouse=True)
def nothing_yet(collector: Collector) -> None:
    collector.spans.clear()


def attributes(span: Span) -> dict[str, Any]:
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in span.attributes}


def test_a_request_is_a_span_of_its_callers_trace_with_its_stages_in_their_order(
    server: Running, collector: Collector
) -> None:
    assert server.ask(RAW, images(2).tobytes(), {"traceparent": TRACEPARENT})[0] == 200
    collector.wait_for(lambda: bool(collector.named("POST /v2/models/{model}/raw") and collector.named("batch small")))
    (span,) = collector.named("POST /v2/models/{model}/raw")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (CALLER_TRACE, CALLER_SPAN)
    assert span.kind == Span.SPAN_KIND_SERVER
    given = attributes(span)
    assert (given["http.response.status_code"], given["http.route"], given["url.path"]) == (
        200,
        "/v2/models/{model}/raw",
        RAW,
    )
    assert (given["fusion.model.name"], given["fusion.model.version"]) == ("small", "1")
    stages = collector.children(span)
    assert [each.name for each in stages] == STAGES
    assert all(each.trace_id == span.trace_id for each in stages)
    assert all(a.end_time_unix_nano <= b.start_time_unix_nano for a, b in pairwise(stages))
    assert span.start_time_unix_nano <= stages[0].start_time_unix_nano
    assert stages[-1].end_time_unix_nano <= span.end_time_unix_nano
    assert collector.services == {"classify"}


def test_a_batch_is_a_span_linked_to_those_of_its_requests_and_they_to_it(
    server: Running, collector: Collector
) -> None:
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda seed: server.classify(images(1, seed)), range(6)))
    collector.wait_for(lambda: len(collector.named("POST /v2/models/{model}/raw")) == 6)
    collector.wait_for(lambda: sum(len(each.links) for each in collector.named("batch small")) == 6)
    requests = {each.span_id: each for each in collector.named("POST /v2/models/{model}/raw")}
    for batch in collector.named("batch small"):
        assert not batch.parent_span_id
        assert attributes(batch)["fusion.batch.requests"] == attributes(batch)["fusion.batch.rows"] == len(batch.links)
        for link in batch.links:
            request = requests.pop(link.span_id)
            assert request.trace_id == link.trace_id != batch.trace_id
            (compute,) = (each for each in collector.children(request) if each.name == "compute")
            assert [each.span_id for each in compute.links] == [batch.span_id]
            assert compute.end_time_unix_nano == pytest.approx(batch.end_time_unix_nano, abs=1_000_000)
    assert not requests


def test_a_grpc_call_is_a_span_of_its_callers_trace(server: Running, collector: Collector) -> None:
    with grpc.insecure_channel(address(server)) as channel:
        stub = GRPCInferenceServiceStub(channel)
        stub.ModelInfer(message(images(1)), metadata=(("traceparent", TRACEPARENT),), timeout=10)
        with pytest.raises(grpc.RpcError):
            stub.ModelInfer(message(images(1), model_name="large"), timeout=10)
    name = "inference.GRPCInferenceService/ModelInfer"
    collector.wait_for(lambda: len(collector.named(name)) == 2)
    good, bad = collector.named(name)
    assert (good.trace_id.hex(), good.parent_span_id.hex()) == (CALLER_TRACE, CALLER_SPAN)
    assert attributes(good)["rpc.response.status_code"] == "OK"
    assert [each.name for each in collector.children(good)] == STAGES
    assert attributes(bad)["rpc.response.status_code"] == "NOT_FOUND"
    assert bad.status.code == Status.STATUS_CODE_UNSET  # the caller's mistake


def test_a_request_whose_batch_fails_is_a_failed_span_with_the_reason_at_the_batch(
    server: Running, collector: Collector
) -> None:
    row = images(1)
    row.flat[0] = RAISES
    assert server.ask(RAW, row.tobytes())[0] == 503
    collector.wait_for(lambda: bool(collector.named("POST /v2/models/{model}/raw") and collector.named("batch small")))
    (span,), (batch,) = collector.named("POST /v2/models/{model}/raw"), collector.named("batch small")
    assert (span.status.code, attributes(span)["error.type"]) == (Status.STATUS_CODE_ERROR, "503")
    assert batch.status.code == Status.STATUS_CODE_ERROR
    assert batch.status.message


def test_a_collector_that_speaks_grpc_gets_the_same_spans(
    package_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Collector()

    class Service(TraceServiceServicer):
        def Export(self, request: ExportTraceServiceRequest, context: object) -> ExportTraceServiceResponse:
            found.take(request.SerializeToString())
            return ExportTraceServiceResponse()

    collecting = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(Service(), collecting)
    port = collecting.add_insecure_port("127.0.0.1:0")
    collecting.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("FUSION_WORKLOAD", "rank")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with servers(tmp_path) as start:
        server = start({"backends": ["onnxruntime"], "slo_ms": 5000, "versions": [{"package": package_url}]})
        assert server.ask(RAW, images(1).tobytes(), {"traceparent": TRACEPARENT})[0] == 200
        found.wait_for(lambda: bool(found.named("POST /v2/models/{model}/raw") and found.named("batch small")))
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=20) == 0
        assert not server.events("traces")
    (span,) = found.named("POST /v2/models/{model}/raw")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (CALLER_TRACE, CALLER_SPAN)
    assert [each.name for each in found.children(span)] == STAGES
    assert found.services == {"rank"}
    collecting.stop(None)


def test_what_its_caller_does_not_sample_and_probes_leave_no_span(server: Running, collector: Collector) -> None:
    assert server.ask(RAW, images(1).tobytes(), {"traceparent": UNSAMPLED})[0] == 200
    assert server.ask("/ready")[0] == server.ask("/metrics")[0] == 200
    server.classify(images(1))
    collector.wait_for(lambda: bool(collector.named("batch small")))
    (span,) = (each for each in collector.spans if each.kind == Span.SPAN_KIND_SERVER)
    (batch,) = collector.named("batch small")
    assert [each.span_id for each in batch.links] == [span.span_id]


def test_a_collector_that_is_away_costs_no_answer_and_no_stop(
    package_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    with servers(tmp_path) as start:
        server = start({"backends": ["onnxruntime"], "slo_ms": 5000, "versions": [{"package": package_url}]})
        server.classify(images(1))
        server.wait_until(lambda: bool(server.events("traces")))
        server.classify(images(1))
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=20) == 0
        assert all(line.startswith("{") for line in server.log.read_text().splitlines())


def test_without_a_collector_nothing_of_opentelemetry_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    assert traces_endpoint() is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    assert traces_endpoint() == ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert traces_endpoint() is None
    code = "import sys, workloads.serving.server; print([name for name in sys.modules if 'opentelemetry' in name])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "expected a URL such as http://collector:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "OTEL_EXPORTER_OTLP_PROTOCOL: got 'http/json'"),
    ],
)
def test_a_wrong_variable_is_one_sentence(
    name: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    monkeypatch.setenv(name, value)
    found = traces_endpoint()
    assert found
    with pytest.raises(ConfigError, match=expected):
        from_environment(*found, Log())
