"""OpenTelemetry traces: a span for each request with its stages as children, and one for each batch, sent by OTLP.

Configured by the variables of the OpenTelemetry specification: `OTEL_EXPORTER_OTLP_ENDPOINT` switches traces on. A
caller's W3C `traceparent` is taken over. A batch serves requests of several traces, so its span has no parent but a
link to each of them, as the semantic conventions have it for batches. Attributes are those of the conventions for HTTP
and RPC.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from workloads.config import ConfigError
from workloads.training.logs import Log

PROTOCOLS = ("http/protobuf", "grpc")
FLUSH_S = 2.0
"""For the last spans, when the server ends."""
ACTIONS = ("infer", "raw")
OTHERS = ("/v2/probe", "/v2/repository/index")
RPC_FAULTS = frozenset(("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"))
"""The statuses that are errors of a server."""

Attributes = Mapping[str, Any]


@dataclass(slots=True)
class RequestTrace:
    """The span of one request; its stages become children. Times are those of `time.monotonic()`."""

    span: Span
    batches: Tracer
    _tracer: Tracer
    _context: Context
    _offset_ns: int

    def stage(self, name: str, start_s: float, end_s: float, links: Sequence[Link] = ()) -> None:
        """A part of the request that is over."""
        if self.span.is_recording():
            span = self._tracer.start_span(name, self._context, links=links, start_time=self.ns(start_s))
            span.end(self.ns(end_s))

    def serves(self, model: str, version: str) -> None:
        """Which model's version was given the request."""
        self.span.set_attributes({"fusion.model.name": model, "fusion.model.version": version})

    def answered(self, status: int) -> None:
        """HTTP's answer; a 4xx is the client's error, not the server's."""
        self.span.set_attribute("http.response.status_code", status)
        if status >= 500:
            self._failed(str(status))
        self.span.end()

    def answered_rpc(self, code: str) -> None:
        """gRPC's answer, by the name of its code."""
        self.span.set_attribute("rpc.response.status_code", code)
        if code in RPC_FAULTS:
            self._failed(code)
        self.span.end()

    def _failed(self, kind: str) -> None:
        self.span.set_attribute("error.type", kind)
        self.span.set_status(StatusCode.ERROR)

    def ns(self, monotonic_s: float) -> int:
        """Of the clock on the wall."""
        return int(monotonic_s * 1e9) + self._offset_ns


class Traces:
    """Makes the spans of one server."""

    def __init__(self, exporter: SpanExporter) -> None:
        resource = _resource()
        self._processor = BatchSpanProcessor(exporter)
        self._requests = self._tracer(TracerProvider(resource=resource, shutdown_on_exit=False))
        # Whether a batch is recorded is decided by its requests, not by the sampler.
        self._batches = self._tracer(TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False))
        self._propagator = TraceContextTextMapPropagator()

    def _tracer(self, provider: TracerProvider) -> Tracer:
        provider.add_span_processor(self._processor)
        return provider.get_tracer("fusion.serving")

    def http(self, scope: Any) -> RequestTrace:
        """The span of an HTTP request, in RSGI's form."""
        route = _route(scope.path)
        carrier = {name: value for name in self._propagator.fields if (value := scope.headers.get(name)) is not None}
        attributes = {
            "http.request.method": scope.method,
            "http.route": route,
            "url.path": scope.path,
            "url.scheme": scope.scheme,
            "network.protocol.version": scope.http_version,
        }
        return self._request(f"{scope.method} {route}", carrier, attributes)

    def rpc(self, method: str, metadata: Iterable[tuple[str, Any]]) -> RequestTrace:
        """The span of a gRPC call.

        Args:
            method: with its service, `package.Service/Method`.
            metadata: what the client sent beside its message.
        """
        carrier = {name: value for name, value in metadata if name in self._propagator.fields}
        return self._request(method, carrier, {"rpc.system.name": "grpc", "rpc.method": method})

    def _request(self, name: str, carrier: Mapping[str, str], attributes: Attributes) -> RequestTrace:
        context = self._propagator.extract(carrier)
        span = self._requests.start_span(name, context, kind=SpanKind.SERVER, attributes=attributes)
        offset_ns = time.time_ns() - time.monotonic_ns()
        return RequestTrace(span, self._batches, self._requests, set_span_in_context(span), offset_ns)

    def flush(self) -> None:
        """Send the last spans, for at most `FLUSH_S`: a collector that is away must not hold the server."""
        sending = threading.Thread(target=self._processor.force_flush, daemon=True)
        sending.start()
        sending.join(FLUSH_S)


def trace_batch(
    traces: Sequence[tuple[RequestTrace, float]],
    *,
    name: str,
    attributes: Attributes,
    taken_s: float,
    start_s: float,
    end_s: float,
    reason: str | None = None,
) -> None:
    """The span of a batch, and the stages of its requests.

    Args:
        traces: of the requests that have one, with the time at which each came into the queue.
        name: of the model.
        attributes: of the batch.
        taken_s: when it was taken from the queue.
        start_s: when it was gathered.
        end_s: when it was computed.
        reason: why it failed; None where it did not.
    """
    recorded = [each for each, _ in traces if each.span.is_recording()]
    if not recorded:
        return
    first = recorded[0]
    links = [Link(each.span.get_span_context()) for each in recorded]
    span = first.batches.start_span(
        f"batch {name}", Context(), links=links, attributes=attributes, start_time=first.ns(taken_s)
    )
    if reason is not None:
        span.set_status(StatusCode.ERROR, reason)
    span.end(first.ns(end_s))
    batch = (Link(span.get_span_context()),)
    for trace, arrival_s in traces:
        trace.stage("queue", arrival_s, taken_s)
        trace.stage("batch", taken_s, start_s)
        trace.stage("compute", start_s, end_s, batch)


def from_environment(variable: str, endpoint: str, log: Log) -> Traces:
    """Traces as the variables of the OpenTelemetry specification say, the first of which names where they go.

    Raises:
        ConfigError: a variable is wrong.
    """
    exporter = _exporter(variable, endpoint)
    logger = logging.getLogger("opentelemetry")  # the exporter says there that a collector does not answer
    logger.propagate = False
    logger.handlers = [_Said(log)]
    return Traces(exporter)


def _exporter(variable: str, endpoint: str) -> SpanExporter:
    if not endpoint.startswith(("http://", "https://")):
        raise ConfigError(f"{variable}: got {endpoint!r}; expected a URL such as http://collector:4318")
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if (protocol or PROTOCOLS[0]) not in PROTOCOLS:
        raise ConfigError(f"OTEL_EXPORTER_OTLP_PROTOCOL: got {protocol!r}; expected any of {', '.join(PROTOCOLS)}")
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


class _Said(logging.Handler):
    """Lines of the SDK in the server's own log."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        self._log.warning("traces", reason=" ".join(record.getMessage().split())[:300])


def _resource() -> Resource:
    """What the environment says of this server; where it names no service, the stack's workload does."""
    resource = Resource.create()
    if not str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        return resource
    return resource.merge(Resource({SERVICE_NAME: os.environ.get("FUSION_WORKLOAD") or "fusion-serve"}))


def _route(path: str) -> str:
    """A path without the names in it, for there are few routes and many paths; `/` for what is no page."""
    parts = path.split("/")
    if parts[:3] == ["", "v2", "models"] and parts[-1] in ACTIONS and len(parts) in (5, 7):
        return f"/v2/models/{{model}}{'/versions/{version}' if len(parts) == 7 else ''}/{parts[-1]}"
    return path if path in OTHERS else "/"
