"""The edge's side at work: it answers every request by the way that is best now, and alone where the cloud is away.

An answer of the cloud that is late is not waited for: the edge begins the whole model by itself and the first of both
answers counts. While one is late, or the link is lost, nothing is sent but probes, which find out when it is back.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workloads import storage
from workloads.config import ConfigError
from workloads.partition import codings
from workloads.partition.measuring import LinkMeter, Mean
from workloads.partition.plan import HEAD_BYTES, Estimate, SplitPlan, Watts, Way, estimates, ranked, read_plan
from workloads.partition.remote import Exchange, Remote, RemoteError
from workloads.serving.backends import Forward, Runtime
from workloads.serving.choosing import choose
from workloads.serving.package import Array, Package, open_package

PROBE_EVERY_S = 1.0
"""Where no request of its own has shown the link."""
LOST_PROBE_EVERY_S = 0.2
PROBE_TIMEOUT_S = 2.0
PROBE_BYTES = (4_096, 32_768, 262_144)
"""Larger ones only where smaller ones were too quick to say anything."""
QUICK_S = 0.05
DEVIATIONS = 4
"""Of the latency, beyond what is expected, that an answer of the cloud may take (as TCP's timer, RFC 6298)."""
LEAST_PATIENCE_S = 0.02
WORTH_TRYING = 2.0
"""Ways that are expected to take up to so many times the best one's time are tried once when a client starts."""
AWAY_S = 1.0
"""For so long a server that refused is not asked, where it does not say itself."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The model's outputs for one row."""

    outputs: list[Array]
    way: str
    """As `Estimate.label`; `edge` where the edge stood in for the cloud."""
    seconds: float
    is_stand_in: bool = False


@dataclass(slots=True)
class _Known:
    """What a way takes, as measured here."""

    edge_s: Mean
    encode_s: dict[bool, Mean]
    cloud_s: Mean
    request_bytes: dict[bool, Mean]
    error_s: Mean


class SplitClient:
    """Answers requests of one row; may be used from several threads."""

    def __init__(
        self,
        plan_url: str,
        server: str,
        *,
        slo_s: float,
        threads: int,
        cache: Path,
        watts: Watts | None = None,
        backends: Sequence[str] = (),
    ) -> None:
        """Load every part that the edge may need, look at the link, and try the ways that may be best.

        Args:
            plan_url: the folder that `fusion partition plan` wrote.
            server: such as http://10.0.0.5:8080; serves the plan's cloud parts.
            slo_s: what a request may take, where the edge can keep it.
            threads: of the edge's parts.
            cache: a folder for packages.
            watts: of the edge device, where its energy and not the latency is to be least.
            backends: to try for the edge's parts; by default all that load at once.

        Raises:
            ConfigError: there is no plan, or the server's address is none.
            PackageError: a part can't be run here.
            StorageError: the bucket refused.
        """
        self.plan: SplitPlan = read_plan(plan_url)
        self.slo_s, self.watts = slo_s, watts
        self.last_error = ""
        self.counts: Counter[str] = Counter()
        self._computing = threading.Lock()
        self._forwards: dict[str, Forward] = {}
        self._floats: dict[str, list[tuple[str, bool]]] = {}
        self.edge_bytes = 0
        measured: dict[str, float] = {}
        for part in dict.fromkeys(way.edge for way in self.plan.ways if way.edge is not None):
            package = open_package(storage.join(plan_url, part), cache)
            choice = choose(package, Runtime(threads), batch_max=1, slo_s=slo_s, named=backends)
            self._forwards[part], measured[part] = choice.forward, choice.curve.at(1)
            self._floats[part] = [(each.name, each.dtype.kind == "f") for each in package.manifest.outputs]
            self.edge_bytes += max(sum(file.bytes for file in each.files) for each in package.manifest.artifacts)
            if part == self._alone.edge:
                self._of_whole(package)
        self._known = {way.name: _known(way, measured.get(way.edge or "", 0.0)) for way in self.plan.ways}
        self.meter = LinkMeter()
        self._remote = Remote(server, self.plan.version)
        self._late = 0
        self._counting = threading.Lock()
        self._away_until_s = 0.0
        self._is_lost = True
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="split")
        self._stop, self._quiet = threading.Event(), threading.Event()
        self._probe(is_first=True)
        self._try_ways()
        self._prober = threading.Thread(target=self._keep_probing, name="probe", daemon=True)
        self._prober.start()

    @property
    def _alone(self) -> Way:
        found = next((way for way in self.plan.ways if way.kind == "edge"), None)
        if found is None or found.edge is None:
            raise ConfigError("the plan has no way for the edge alone")
        return found

    def _of_whole(self, package: Package) -> None:
        inputs, _ = package.self_test()
        self.example = [np.ascontiguousarray(each[:1]) for each in inputs]
        self._input_floats = [each.dtype.kind == "f" for each in package.manifest.inputs]

    def close(self) -> None:
        """End the probes; requests under way are answered."""
        self._stop.set()
        self._quiet.set()
        self._prober.join()
        self._pool.shutdown(wait=False)
        self._remote.forget()

    # what is best now

    @property
    def is_cloud_usable(self) -> bool:
        """Whether a request would be sent anything of now."""
        return not self._is_lost and not self._late and time.monotonic() >= self._away_until_s

    def ranking(self) -> list[Estimate]:
        """Every way as it is expected to be now, the best first."""
        now_s = time.monotonic()
        link = self.meter.link(self._remote.window_bytes())
        found = []
        for each in estimates((self._as_known(way, now_s) for way in self.plan.ways), link):
            if each.way.kind == "edge" or self.is_cloud_usable:
                known = self._known[each.way.name]
                encode_s = known.encode_s[each.is_compressed].now(now_s)
                found.append(Estimate(each.way, each.is_compressed, each.edge_s, encode_s, each.link_s, each.cloud_s))
        return ranked(found, self.watts)

    def _as_known(self, way: Way, now_s: float) -> Way:
        known = self._known[way.name]
        return way.model_copy(
            update={
                "edge_s": known.edge_s.now(now_s),
                "cloud_s": known.cloud_s.now(now_s),
                "request_bytes": round(known.request_bytes[False].value),
                "zstd_bytes": None if way.zstd_bytes is None else round(known.request_bytes[True].value),
            }
        )

    # one request

    def infer(self, inputs: Sequence[Array]) -> Answer:
        """The model's outputs for one row of each input, by the best way, or by the edge alone where that is late."""
        return self.infer_by(self.ranking()[0], inputs)

    def by_way(self, estimate: Estimate, inputs: Sequence[Array]) -> Answer:
        """By one way, however long it takes.

        Raises:
            RemoteError: the cloud gave no answer.
        """
        start = time.perf_counter()
        if estimate.way.kind == "edge":
            return self._answer(self._locally(inputs), "edge", start)
        return self._answer(self._by_cloud(estimate, inputs, start), estimate.label, start)

    def infer_by(self, estimate: Estimate, inputs: Sequence[Array]) -> Answer:
        """By one way, or by the edge alone where that is late."""
        start = time.perf_counter()
        if estimate.way.kind == "edge":
            return self._answer(self._locally(inputs), "edge", start)
        asked = self._pool.submit(self._by_cloud, estimate, inputs, start)
        try:
            outputs = asked.result(self._patience_s(estimate))
        except TimeoutError:
            return self._stand_in(inputs, start, asked, estimate)
        except RemoteError as error:
            self._failed(error)
            return self._answer(self._locally(inputs), "edge", start, is_stand_in=True)
        return self._answer(outputs, estimate.label, start)

    def _patience_s(self, estimate: Estimate) -> float:
        """Until the edge begins by itself: longer than answers usually take, but so that it can still keep the SLO."""
        usual = estimate.latency_s
        error = self._known[estimate.way.name].error_s
        patience = usual + max(LEAST_PATIENCE_S, DEVIATIONS * error.deviation + error.value)
        latest = self.slo_s - self._known[self._alone.name].edge_s.value
        return min(patience, latest) if latest > usual else patience

    def _stand_in(
        self, inputs: Sequence[Array], start: float, asked: Future[list[Array]], estimate: Estimate
    ) -> Answer:
        with self._counting:
            self._late += 1
        asked.add_done_callback(self._no_longer_late)
        outputs = self._locally(inputs)
        if asked.done() and asked.exception() is None:
            return self._answer(asked.result(), estimate.label, start)
        return self._answer(outputs, "edge", start, is_stand_in=True)

    def _no_longer_late(self, asked: Future[list[Array]]) -> None:
        error = asked.exception()
        if isinstance(error, RemoteError):
            self._failed(error)
        with self._counting:
            self._late -= 1

    def _failed(self, error: RemoteError) -> None:
        with self._counting:
            self.counts["cloud failed"] += 1
        self.last_error = str(error)
        if error.retry_after_s is not None:
            self._away_until_s = time.monotonic() + max(error.retry_after_s, 0.01)
        else:
            self._away_until_s = time.monotonic() + AWAY_S
            self._is_lost = True
            self._remote.forget()

    def _answer(self, outputs: list[Array], way: str, start: float, *, is_stand_in: bool = False) -> Answer:
        with self._counting:
            self.counts[way] += 1
            self.counts["stand-in"] += is_stand_in
        return Answer(outputs, way, time.perf_counter() - start, is_stand_in)

    def _locally(self, inputs: Sequence[Array]) -> list[Array]:
        return self._forward(self._alone, inputs)

    def _forward(self, way: Way, inputs: Sequence[Array]) -> list[Array]:
        assert way.edge is not None
        with self._computing:
            start = time.perf_counter()
            outputs = self._forwards[way.edge]([np.ascontiguousarray(each) for each in inputs])
            self._known[way.name].edge_s.add(time.perf_counter() - start, time.monotonic())
        return outputs

    def _by_cloud(self, estimate: Estimate, inputs: Sequence[Array], start: float) -> list[Array]:
        way, is_compressed = estimate.way, estimate.is_compressed
        known = self._known[way.name]
        assert way.coding is not None
        sent = list(inputs) if way.edge is None else self._forward(way, inputs)
        floats = self._input_floats if way.edge is None else [is_float for _, is_float in self._floats[way.edge]]
        names = way.sends if way.edge is None else [name for name, _ in self._floats[way.edge]]
        encoding = time.perf_counter()
        scale = self.plan.scale or 1.0
        if way.coding in codings.IMAGE_FILES:
            file = codings.image_file(way.coding, sent[0], scale)
            encode_s = time.perf_counter() - encoding
            outputs, exchange = self._remote.infer_image(way, file, self._timeout_s)
        else:
            tensors = codings.coded(way.coding, sent, scale)
            coded_names = codings.names_of(way.coding, names, floats)
            outputs, exchange = self._remote.infer(way, tensors, coded_names, is_compressed, self._timeout_s)
            encode_s = time.perf_counter() - encoding - exchange.seconds
        now_s = time.monotonic()
        known.encode_s[is_compressed].add(encode_s, now_s)
        known.cloud_s.add(exchange.server_s, now_s)
        known.request_bytes[is_compressed].add(exchange.sent, now_s)
        known.error_s.add(max(0.0, time.perf_counter() - start - estimate.latency_s), now_s)
        self._learn(exchange)
        return outputs

    @property
    def _timeout_s(self) -> float:
        return max(2 * self.slo_s, PROBE_TIMEOUT_S)

    def _learn(self, exchange: Exchange, *, is_first: bool = False) -> None:
        self.meter.exchange(
            exchange.sent + HEAD_BYTES,
            len(exchange.body) + HEAD_BYTES,
            max(1e-6, exchange.seconds - exchange.server_s),
            exchange.window_bytes,
            is_first=is_first,
        )
        self._quiet.set()

    # the link

    def _probe(self, *, is_first: bool = False) -> None:
        """Look whether the server answers, how long a round trip is, and how many bytes a second go through."""
        is_new = is_first or self._is_lost
        try:
            if is_new:
                self._remote.probe(1, PROBE_TIMEOUT_S)  # connects
                self.meter.forget()
            self.meter.small(self._remote.probe(1, PROBE_TIMEOUT_S).seconds)
            for size in PROBE_BYTES if is_new or self._is_idle else ():
                exchange = self._remote.probe(size, self._timeout_s)
                self._learn(exchange, is_first=is_new)
                if exchange.seconds > QUICK_S:
                    break
        except RemoteError as error:
            self._is_lost, self.last_error = True, str(error)
            self._remote.forget()
        else:
            self._is_lost = False

    @property
    def _is_idle(self) -> bool:
        return time.monotonic() - self.meter.exchanged_at_s > PROBE_EVERY_S / 2

    def _keep_probing(self) -> None:
        """Right behind an exchange of a request, where there are such, since the link is quiet then."""
        while not self._stop.wait(LOST_PROBE_EVERY_S if self._is_lost else PROBE_EVERY_S):
            self._quiet.clear()
            if not self._is_lost and not self._is_idle:
                self._quiet.wait(PROBE_EVERY_S)
            self._probe()

    def _try_ways(self) -> None:
        """Once, so that what each takes in the cloud is measured and not expected."""
        best_s = self.ranking()[0].latency_s
        for each in self.ranking():
            if each.way.kind != "edge" and each.latency_s <= WORTH_TRYING * best_s and self.is_cloud_usable:
                try:
                    self._by_cloud(each, self.example, time.perf_counter())
                    self._by_cloud(each, self.example, time.perf_counter())
                except RemoteError as error:
                    self._failed(error)


def _known(way: Way, edge_s: float) -> _Known:
    return _Known(
        edge_s=Mean(edge_s),
        encode_s={False: Mean(way.encode_s), True: Mean(way.encode_s + way.zstd_s)},
        cloud_s=Mean(way.cloud_s),
        request_bytes={False: Mean(way.request_bytes), True: Mean(way.zstd_bytes or way.request_bytes)},
        error_s=Mean(0.0),
    )
