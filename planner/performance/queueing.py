"""Waiting and response of requests that are served in batches by several replicas behind one dispatcher.

The dispatcher is the serving layer's: one queue in order of arrival; an idle replica takes what waits, up to
`batch_max`, as soon as the batch is full or its oldest request has waited `batch_wait_s` (0: at once). A batch of b
takes `service_s[b - 1]`. Before that each request passes its replica's front station, one at a time in `front_s`: the
event loop that reads and answers requests, with the demands of both visits added up (P. Denning, J. Buzen, "The
operational analysis of queueing network models", Computing Surveys 10, 1978: demand = visits · service). So it is a
tandem of an M/D/c queue and the batch-service queue, whose arrivals are the first one's departures.

Method. No closed form covers this queue (load-dependent deterministic batches, several servers, a deadline), so the
recursion of J. Kiefer and J. Wolfowitz, "On the theory of queues with many servers" (Trans. AMS 78, 1955), extended
by batches, is evaluated on one fixed Poisson trace: the same arrivals for every query (common random numbers), so
that answers are smooth and ordered in the parameters. What the trace's own luck does in heavy traffic is removed by a
control variate (P. Glasserman, "Monte Carlo Methods", 4.1): the M/D/1 queue at the same utilisation, to which such
queues tend (W. Whitt, "Stochastic-Process Limits", chapter 5), on the same trace, against its exact quantile (A.
Erlang 1909; D. Gross et al., "Fundamentals of Queueing Theory", 5.1.6; tail root from J. Kingman 1970).
"""

from __future__ import annotations

import functools
import heapq
import math
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from planner.performance.checks import PerformanceError, fraction, not_negative, positive, whole

Seconds = npt.NDArray[np.float64]
SEED = 20261123
CALM_ARRIVALS = 40_000
WIDE_ARRIVALS = 160_000
"""Of queues that hold `WIDE` requests in service at once: fewer batches fit a trace, and they drift apart slowly."""
WIDE = 64
BUSY_ARRIVALS = 240_000
BUSY_UTILISATION = 0.7
FULLEST = 0.9999
"""At 1 the exact wait has no end; nearer to it the same correction is taken."""
STEP_ARRIVALS = 600_000
"""Where p99 lies on a step between two batch sizes, so that its share decides; see `_on_a_step`."""
STEP, STEP_QUANTILES = 0.08, (0.9885, 0.9915)
QUANTILES = (0.5, 0.95, 0.99)
KNOWN_MOST = 4096
CHECKS = 16
"""How often a replay looks whether so many requests were late already that p99 is."""
ROUNDING = 1e-9


class Overloaded(PerformanceError):
    """Requests arrive faster than all replicas together can answer; the text says how many would do."""


@dataclass(frozen=True, slots=True)
class BatchQueue:
    """A service: `service_s[b - 1]` seconds for a batch of b, on each of `replicas`."""

    arrivals_per_s: float
    service_s: tuple[float, ...]
    replicas: int = 1
    batch_wait_s: float = 0.0
    service_variation: float = 0.0
    """Coefficient of variation of the service time of one batch (log-normal)."""
    front_s: float = 0.0
    """Of one request at its replica's front station; 0: there is none."""

    def __post_init__(self) -> None:
        positive("arrivals_per_s", self.arrivals_per_s)
        whole("replicas", self.replicas, at_most=100_000)
        not_negative("batch_wait_s", self.batch_wait_s)
        not_negative("service_variation", self.service_variation)
        not_negative("front_s", self.front_s)
        whole("batch_max", len(self.service_s), at_most=100_000)
        for batch, seconds in enumerate(self.service_s, start=1):
            positive(f"service_s of a batch of {batch}", seconds)

    @property
    def batch_max(self) -> int:
        """Most requests of one batch."""
        return len(self.service_s)

    @property
    def capacity_per_s(self) -> float:
        """Requests by second when every batch is full, or that the front stations let through where that is less."""
        in_batches = self.replicas * self.batch_max / self.service_s[-1]
        return min(in_batches, self.replicas / self.front_s) if self.front_s else in_batches

    @property
    def utilisation(self) -> float:
        """Arrivals over capacity."""
        return self.arrivals_per_s / self.capacity_per_s


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Seconds that half, 95 % and 99 % of the requests stay below, and their mean."""

    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float


@dataclass(frozen=True, slots=True)
class QueueTimes:
    """What requests see: `waiting` for their batch to start, the front station included, and `response` until it is
    done."""

    waiting: Quantiles
    response: Quantiles
    held_p99_s: float
    """Of the waiting at p99: for the batch to fill while a replica was idle."""
    utilisation: float
    busy_fraction: float
    """Share of the time that a replica works; above `utilisation` where batches leave before they are full."""
    mean_batch: float
    capacity_per_s: float


def queue_times(queue: BatchQueue) -> QueueTimes:
    """Waiting and response of a batch queue in steady state; see the module's text for the method and its sources.

    Raises:
        Overloaded: the arrivals exceed the capacity; says how many replicas would do.
    """
    times = queue_times_within(queue, math.inf)
    assert times is not None
    return times


def queue_times_within(queue: BatchQueue, p99_s_max: float) -> QueueTimes | None:
    """The same; None where the response at p99 is longer than `p99_s_max`, which a part of the trace may show.

    Raises:
        Overloaded: as `queue_times`.
    """
    if queue.utilisation >= 1:
        needed = math.floor(queue.utilisation * queue.replicas) + 1
        raise Overloaded(
            f"arrivals_per_s is {queue.arrivals_per_s:g}; {queue.replicas} replicas answer at most "
            f"{queue.capacity_per_s:.4g} a second "
            f"in batches of {queue.batch_max}: take at least {needed} replicas, or larger batches"
        )
    times = _KNOWN.get(queue) or _new_times(queue, p99_s_max)
    if times is None:
        return None
    if len(_KNOWN) >= KNOWN_MOST:
        _KNOWN.clear()
    _KNOWN[queue] = times
    return times if times.response.p99_s <= p99_s_max else None


def _new_times(queue: BatchQueue, p99_s_max: float) -> QueueTimes | None:
    busy = queue.utilisation > BUSY_UTILISATION
    calm = WIDE_ARRIVALS if queue.batch_max * queue.replicas >= WIDE else CALM_ARRIVALS
    arrivals = BUSY_ARRIVALS if busy else calm
    corrections = [0.0] * (len(QUANTILES) + 1)
    if busy:
        unit = 1 / queue.arrivals_per_s
        corrections = [seconds * unit for seconds in _trace_luck(min(round(queue.utilisation, 4), FULLEST), arrivals)]
    replayed = _replay(queue, arrivals, p99_s_max - corrections[-1] if busy else math.inf)
    if replayed is not None and not busy and _on_a_step(replayed.responses_s):
        arrivals = STEP_ARRIVALS
        replayed = _replay(queue, arrivals, p99_s_max)
    if replayed is None:
        return None
    return QueueTimes(
        waiting=_quantiles(replayed.waits_s, corrections, 0.0),
        response=_quantiles(replayed.responses_s, corrections, min(queue.service_s)),
        held_p99_s=replayed.held_p99_s,
        utilisation=queue.utilisation,
        busy_fraction=min(1.0, replayed.worked_s / (replayed.span_s * queue.replicas)),
        mean_batch=replayed.mean_batch,
        capacity_per_s=queue.capacity_per_s,
    )


@dataclass(frozen=True, slots=True)
class _Replayed:
    """What the requests of a trace saw after a warm-up, in their order."""

    waits_s: Seconds
    responses_s: Seconds
    held_p99_s: float
    worked_s: float
    mean_batch: float
    span_s: float


_KNOWN: dict[BatchQueue, QueueTimes] = {}


def _replay(queue: BatchQueue, arrivals: int, p99_s_max: float = math.inf) -> _Replayed | None:
    """One trace through the queue; None as soon as it is certain that the response at p99 is above `p99_s_max`.

    Time runs in mean gaps between arrivals, so that one trace serves every rate.
    """
    trace, rate = _unit_times(arrivals), queue.arrivals_per_s
    ready = _behind_front(queue, trace)
    if queue.batch_max == 1 and not queue.service_variation:
        service = queue.service_s[0] * rate
        waits, held = ready - trace + _single_waits(ready, service, queue.replicas), 0.0
        responses, worked, batches = waits + service, arrivals * service, arrivals
        span = float((trace + responses).max())
    else:
        found = _batches(queue, ready, p99_s_max)
        if found is None:
            return None
        starts, firsts, services, holds = found
        sizes = np.diff(firsts, append=arrivals)
        waits = np.repeat(starts, sizes) - trace
        held = _near_p99(waits, np.minimum(np.repeat(holds, sizes), waits)) if queue.batch_wait_s else 0.0
        responses = np.repeat(starts + services, sizes) - trace
        worked, batches = float(services.sum()), len(starts)
        span = max(float(trace[-1]), float((starts + services).max()))
    warm = _warm_up(arrivals)
    counted = max(1, round(batches * (arrivals - warm) / arrivals))
    return _Replayed(
        waits_s=waits[warm:] / rate,
        responses_s=responses[warm:] / rate,
        held_p99_s=held / rate,
        worked_s=worked / rate,
        mean_batch=(arrivals - warm) / counted,
        span_s=span / rate,
    )


def _behind_front(queue: BatchQueue, trace: Seconds) -> Seconds:
    """When the requests of a trace have passed the front station, in its order and unit."""
    front = queue.front_s * queue.arrivals_per_s
    return trace + _single_waits(trace, front, queue.replicas) + front if front else trace


def _warm_up(arrivals: int) -> int:
    """Requests at the start of a trace that are not counted, since they found the queue empty."""
    return arrivals // 20


def _on_a_step(responses: Seconds) -> bool:
    """Whether p99 could be another time by a hair: batches of one more or one less lie `STEP` apart."""
    low, high = np.quantile(responses, STEP_QUANTILES)
    return bool(high > (1 + STEP) * low)


def _near_p99(values: Seconds, parts: Seconds) -> float:
    """The mean part of the values between the 98.5 % and 99.5 % quantile."""
    low, high = np.quantile(values, (0.985, 0.995))
    return float(parts[(values >= low) & (values <= high)].mean())


def _single_waits(trace: Seconds, service: float, replicas: int) -> Seconds:
    """Waits of requests that are served one by one in the same time each.

    Then replicas take turns, and each is a queue of its own (V. Iversen, L. Staalhagen, "Waiting time distribution in
    M/D/1 queueing systems", Electronics Letters 35, 1999), whose waits are D. Lindley's (Proc. Cambridge Phil. Soc.
    48, 1952): the sum of (service - gap) so far, less its least value so far.
    """
    turns = -(-len(trace) // replicas)
    padded = np.concatenate([trace, np.full(turns * replicas - len(trace), trace[-1])]).reshape(turns, replicas)
    drift = np.zeros_like(padded)
    np.cumsum(service - np.diff(padded, axis=0), axis=0, out=drift[1:])
    waits: Seconds = (drift - np.minimum.accumulate(drift, axis=0)).reshape(-1)[: len(trace)]
    return waits


def _batches(
    queue: BatchQueue, come: Seconds, p99_s_max: float
) -> tuple[Seconds, npt.NDArray[np.int64], Seconds, Seconds] | None:
    """Start, first request, service time of each batch of the requests that `come` then, and how long an idle
    replica waited for it to fill, in mean gaps between arrivals; None as `_replay`.
    """
    arrivals, most = len(come), queue.batch_max
    trace: list[float] = come.tolist() if queue.front_s else unit_trace(arrivals)
    service = [0.0, *(seconds * queue.arrivals_per_s for seconds in queue.service_s)]
    deadline = queue.batch_wait_s * queue.arrivals_per_s
    noise = _noise(queue.service_variation) if queue.service_variation else ()
    free = [0.0] * min(queue.replicas, arrivals)
    starts: list[float] = []
    firsts: list[int] = []
    holds: list[float] = []
    late = _Late(queue, arrivals, p99_s_max)
    first = 0
    for stop in late.checks():
        while first < stop:
            arrived, ready = trace[first], free[0]
            start = ready if ready > arrived else arrived
            end = first + most if first + most < arrivals else arrivals
            if deadline:
                full = trace[end - 1]
                ready, start = start, max(start, min(full, arrived + deadline))
                holds.append(start - ready)
            last = first + 1 if start == arrived else bisect_right(trace, start, first, end)
            took = service[last - first]
            if noise:
                took *= noise[len(starts) % len(noise)]
            heapq.heapreplace(free, start + took)
            starts.append(start)
            firsts.append(first)
            first = last
        if late.too_many(starts, firsts, first):
            return None
    sizes = np.diff(firsts, append=arrivals)
    services = np.array(service)[sizes]
    if noise:
        services *= np.resize(noise, len(starts))
    return np.array(starts), np.array(firsts), services, np.array(holds) if deadline else np.zeros(len(starts))


class _Late:
    """Counts the requests of a trace, while it is replayed, whose response is above what p99 may be."""

    def __init__(self, queue: BatchQueue, arrivals: int, p99_s_max: float) -> None:
        self._arrivals, self._warm = arrivals, _warm_up(arrivals)
        # no response is shorter than the least service, and corrections don't apply to it
        above_s = max(p99_s_max, min(queue.service_s)) * (1 + ROUNDING)
        self._above = above_s * queue.arrivals_per_s
        self._watched = p99_s_max < math.inf and not queue.service_variation
        self._service = np.array([0.0, *queue.service_s]) * queue.arrivals_per_s
        counted = arrivals - self._warm
        self._enough = counted - int(QUANTILES[-1] * (counted - 1))
        self._found, self._seen = 0, 0

    def checks(self) -> Sequence[int]:
        """Up to which requests to replay before each look."""
        parts = CHECKS if self._watched else 1
        return [self._arrivals * part // parts for part in range(1, parts + 1)]

    def too_many(self, starts: Sequence[float], firsts: Sequence[int], until: int) -> bool:
        """Whether p99 is above already, with the batches that start with the requests `firsts` up to `until`."""
        if not self._watched:
            return False
        sizes = np.diff(firsts[self._seen :], append=until)
        done = np.array(starts[self._seen :]) + self._service[sizes]
        requests = slice(firsts[self._seen], until)
        late = np.repeat(done, sizes) - _unit_times(self._arrivals)[requests] > self._above
        self._found += int(late[max(0, self._warm - requests.start) :].sum())
        self._seen = len(starts)
        return self._found >= self._enough


def _quantiles(values: Seconds, corrections: Sequence[float], floor: float) -> Quantiles:
    fixed = [
        max(floor, value + correction) if value > floor else value
        for value, correction in zip(_mean_and_quantiles(values), corrections, strict=True)
    ]
    return Quantiles(fixed[0], *accumulate(fixed[1:], max))


def _mean_and_quantiles(values: Seconds) -> list[float]:
    places = [int(quantile * (len(values) - 1)) for quantile in QUANTILES]
    return [float(values.mean()), *np.partition(values, places)[places].tolist()]


@functools.cache
def unit_trace(arrivals: int) -> list[float]:
    """Times of a Poisson stream of rate 1, always the same."""
    times: list[float] = _unit_times(arrivals).tolist()
    return times


@functools.cache
def _unit_times(arrivals: int) -> Seconds:
    draws = np.random.RandomState([SEED]).random_sample(arrivals)  # a stream that no version of numpy changes
    return np.asarray(np.cumsum(-np.log(1.0 - draws)))


@functools.cache
def _noise(variation: float) -> tuple[float, ...]:
    sigma = math.sqrt(math.log1p(variation * variation))
    draw = random.Random(SEED + 1)
    return tuple(draw.lognormvariate(-sigma * sigma / 2, sigma) for _ in range(50_021))


@functools.lru_cache(maxsize=4096)
def _trace_luck(utilisation: float, arrivals: int) -> tuple[float, ...]:
    """Exact less replayed mean and quantiles of the wait in M/D/1, in mean gaps between arrivals."""
    waits = _single_waits(_unit_times(arrivals), utilisation, 1)[_warm_up(arrivals) :]
    replayed = _mean_and_quantiles(waits)
    mean = utilisation * utilisation / (2 * (1 - utilisation))
    exact = [mean, *(md1_wait_quantile(utilisation, q) * utilisation for q in QUANTILES)]
    return tuple(a - b for a, b in zip(exact, replayed, strict=True))


def md1_wait_quantile(utilisation: float, quantile: float) -> float:
    """The wait, in service times, that a share `quantile` of the requests of an M/D/1 queue stays below.

    P(W > x) → c·exp(-ηx) with η the positive root of ρ(e^η - 1) = η and c = (1 - ρ)/(ρ·e^η - 1) (Kingman; exact but
    for terms that vanish within one service time; used above a utilisation of 0.7).
    """
    rho = fraction("utilisation", utilisation)
    low, high = 1e-12, 200.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if rho * math.expm1(middle) < middle else (low, middle)
    eta = high
    factor = (1 - rho) / (rho * math.exp(eta) - 1)
    return max(0.0, math.log(factor / (1 - quantile)) / eta)
