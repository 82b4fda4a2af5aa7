"""What a server tells Prometheus; names end in their unit, as Prometheus asks."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
STAGES = ("queue", "batch", "compute", "transfer", "total")
LABELS = ("model", "version")
REASONS = ("overload", "late", "memory")
"""Why requests are refused: they would be late; they are, after waiting; bodies fill `bodies_max_mib`."""


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
            "fusion_request_seconds",
            "Time of answered requests: until their batch was taken (queue), until it was gathered (batch), in the "
            "model (compute), reading the request and writing the answer (transfer), whole (total).",
            (*LABELS, "stage"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._rows = Histogram(
            "fusion_batch_rows", "Rows of the batches.", LABELS, buckets=ROWS, registry=self.registry
        )
        self._busy = Counter("fusion_compute_seconds", "Seconds in which a batch ran.", LABELS, registry=self.registry)
        self._refused = Counter(
            "fusion_refused_requests", "Requests not served, by why.", (*LABELS, "reason"), registry=self.registry
        )
        self._failed = Counter(
            "fusion_failed_requests", "Requests whose batch raised an error.", LABELS, registry=self.registry
        )
        self._slow = Counter(
            "fusion_slow_requests",
            "Requests answered later than the SLO, from the whole request on.",
            LABELS,
            registry=self.registry,
        )
        self.internal_errors = Counter(
            "fusion_internal_errors", "Requests answered with 500: mistakes of this server.", registry=self.registry
        )
        self.body_bytes = Gauge("fusion_body_bytes", "Of the bodies of all requests under way.", registry=self.registry)
        self._rows_max = Gauge("fusion_batch_max_rows", "Rows of the largest batch.", LABELS, registry=self.registry)
        self.ready = Gauge("fusion_ready", "1 while the server takes requests.", registry=self.registry)
        self.tasks = Gauge("fusion_tasks", "Of the server's event loop.", registry=self.registry)
        self._waiting = Gauge("fusion_waiting_rows", "Rows that wait for a batch.", LABELS, registry=self.registry)
        self._cache_hits = Counter(
            "fusion_cache_hits", "Requests answered from the cache.", LABELS, registry=self.registry
        )
        self._cache_misses = Counter(
            "fusion_cache_misses", "Requests that the cache had no answer to.", LABELS, registry=self.registry
        )
        self._cache_bytes = Gauge("fusion_cache_bytes", "Of the answers kept.", LABELS, registry=self.registry)
        self._slo = Gauge("fusion_slo_seconds", "What a request may take.", LABELS, registry=self.registry)

    def of(self, model: str, version: str, *, slo_s: float, batch_max: int) -> ModelMetrics:
        """Those of one model's version."""
        self._rows_max.labels(model, version).set(batch_max)
        self._slo.labels(model, version).set(slo_s)
        return ModelMetrics(
            seconds={stage: self._seconds.labels(model, version, stage) for stage in STAGES},
            rows=self._rows.labels(model, version),
            busy=self._busy.labels(model, version),
            refused={reason: self._refused.labels(model, version, reason) for reason in REASONS},
            failed=self._failed.labels(model, version),
            slow=self._slow.labels(model, version),
            waiting=self._waiting.labels(model, version),
            cache_hits=self._cache_hits.labels(model, version),
            cache_misses=self._cache_misses.labels(model, version),
            cache_bytes=self._cache_bytes.labels(model, version),
        )

    def forget(self, model: str, version: str) -> None:
        """Drop those of a version that is not served any more: its last numbers would be shown for ever."""
        cache = (self._cache_hits, self._cache_misses, self._cache_bytes)
        for each in (
            self._rows,
            self._busy,
            self._failed,
            self._slow,
            self._rows_max,
            self._waiting,
            self._slo,
            *cache,
        ):
            each.remove(model, version)
        for stage in STAGES:
            self._seconds.remove(model, version, stage)
        for reason in REASONS:
            self._refused.remove(model, version, reason)

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self.registry)


class ModelMetrics:
    """The metrics of one model's version; labels are looked up once."""

    def __init__(
        self,
        *,
        seconds: dict[str, Histogram],
        rows: Histogram,
        busy: Counter,
        refused: dict[str, Counter],
        failed: Counter,
        slow: Counter,
        waiting: Gauge,
        cache_hits: Counter,
        cache_misses: Counter,
        cache_bytes: Gauge,
    ) -> None:
        self.seconds = seconds
        self.rows = rows
        self.busy = busy
        self.refused = refused
        self.failed = failed
        self.slow = slow
        self.waiting = waiting
        self.cache_hits = cache_hits
        self.cache_misses = cache_misses
        self.cache_bytes = cache_bytes
