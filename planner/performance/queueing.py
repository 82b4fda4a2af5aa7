"""Waiting and response of requests that are served in batches by several replicas behind one dispatcher.

The dispatcher is the serving layer's: one queue in order of arrival; an idle replica takes what waits, up to
`batch_max`, as soon as the batch is full or its oldest request has waited `batch_wait_s` (0: at once). A batch of b
takes `service_s[b - 1]`.

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

from planner.performance.checks import PerformanceError, fraction, not_negative, positive, whole

SEED = 20261123
CALM_ARRIVALS = 40_000
WIDE_ARRIVALS = 160_000
"""Of queues that hold `WIDE` requests in service at once: fewer batches fit a trace, and they drift apart slowly."""
WIDE = 64
BUSY_ARRIVALS = 240_000
BUSY_UTILISATION = 0.7
QUANTILES = (0.5, 0.95, 0.99)


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

    def __post_init__(self) -> None:
        positive("arrivals_per_s", self.arrivals_per_s)
        whole("replicas", self.replicas, at_most=100_000)
        not_negative("batch_wait_s", self.batch_wait_s)
        not_negative("service_variation", self.service_variation)
        whole("batch_max", len(self.service_s), at_most=100_000)
        for batch, seconds in enumerate(self.service_s, start=1):
            positive(f"service_s of a batch of {batch}", seconds)

    @property
    def batch_max(self) -> int:
        """Most requests of one batch."""
        return len(self.service_s)

    @property
    def capacity_per_s(self) -> float:
        """Requests by second when every batch is full."""
        return self.replicas * self.batch_max / self.service_s[-1]

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
    """What requests see: `waiting` for their batch to start, and `response` until it is done."""

    waiting: Quantiles
    response: Quantiles
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
    if queue.utilisation >= 1:
        needed = math.floor(queue.utilisation * queue.replicas) + 1
        raise Overloaded(
            f"arrivals_per_s is {queue.arrivals_per_s:g}; {queue.replicas} replicas answer at most "
            f"{queue.capacity_per_s:.4g} a second "
            f"in batches of {queue.batch_max}: take at least {needed} replicas, or larger batches"
        )
    return _queue_times(queue)


@functools.lru_cache(maxsize=4096)
def _queue_times(queue: BatchQueue) -> QueueTimes:
    busy = queue.utilisation > BUSY_UTILISATION
    calm = WIDE_ARRIVALS if queue.batch_max * queue.replicas >= WIDE else CALM_ARRIVALS
    arrivals = BUSY_ARRIVALS if busy else calm
    waits, responses, worked, batches, span = _replay(queue, arrivals)
    corrections = [0.0] * (len(QUANTILES) + 1)
    if busy:
        unit = 1 / queue.arrivals_per_s
        corrections = [seconds * unit for seconds in _trace_luck(round(queue.utilisation, 4), arrivals)]
    return QueueTimes(
        waiting=_quantiles(waits, corrections, 0.0),
        response=_quantiles(responses, corrections, min(queue.service_s)),
        utilisation=queue.utilisation,
        busy_fraction=min(1.0, worked / (span * queue.replicas)),
        mean_batch=len(waits) / batches,
        capacity_per_s=queue.capacity_per_s,
    )


def _replay(queue: BatchQueue, arrivals: int) -> tuple[list[float], list[float], float, int, float]:
    """Waits and responses (s) of the trace's requests after a warm-up, seconds worked, batches, and seconds of the
    trace.

    Time runs in mean gaps between arrivals, so that one trace serves every rate.
    """
    trace = unit_trace(arrivals)
    rate, most = queue.arrivals_per_s, queue.batch_max
    service = [seconds * rate for seconds in queue.service_s]
    deadline = queue.batch_wait_s * rate
    noise = _noise(queue.service_variation) if queue.service_variation else (1.0,)
    free = [0.0] * min(queue.replicas, arrivals)
    waits: list[float] = []
    responses: list[float] = []
    worked, batches, first = 0.0, 0, 0
    while first < arrivals:
        start = max(free[0], trace[first])
        end = first + most
        if deadline:
            full = trace[end - 1] if end <= arrivals else trace[-1]
            start = max(start, min(full, trace[first] + deadline))
        last = bisect_right(trace, start, first, min(end, arrivals))
        took = service[last - first - 1] * noise[batches % len(noise)]
        heapq.heapreplace(free, start + took)
        done = start + took
        if last - first == 1:
            waits.append(start - trace[first])
            responses.append(done - trace[first])
        else:
            waits.extend([start - arrived for arrived in trace[first:last]])
            responses.extend([done - arrived for arrived in trace[first:last]])
        worked += took
        batches += 1
        first = last
    warm = arrivals // 20
    return (
        [wait / rate for wait in waits[warm:]],
        [response / rate for response in responses[warm:]],
        worked / rate,
        max(1, round(batches * (arrivals - warm) / arrivals)),
        max(trace[-1], max(free)) / rate,
    )


def _quantiles(values: Sequence[float], corrections: Sequence[float], floor: float) -> Quantiles:
    ordered = sorted(values)
    raw = [math.fsum(values) / len(values), *(ordered[int(q * (len(ordered) - 1))] for q in QUANTILES)]
    fixed = [
        max(floor, value + correction) if value > floor else value
        for value, correction in zip(raw, corrections, strict=True)
    ]
    return Quantiles(fixed[0], *accumulate(fixed[1:], max))


@functools.cache
def unit_trace(arrivals: int) -> list[float]:
    """Times of a Poisson stream of rate 1, always the same."""
    draw = random.Random(SEED).expovariate
    return list(accumulate(draw(1.0) for _ in range(arrivals)))


@functools.cache
def _noise(variation: float) -> tuple[float, ...]:
    sigma = math.sqrt(math.log1p(variation * variation))
    draw = random.Random(SEED + 1)
    return tuple(draw.lognormvariate(-sigma * sigma / 2, sigma) for _ in range(50_021))


@functools.lru_cache(maxsize=4096)
def _trace_luck(utilisation: float, arrivals: int) -> tuple[float, ...]:
    """Exact less replayed mean and quantiles of the wait in M/D/1, in mean gaps between arrivals."""
    queue = BatchQueue(1.0, (utilisation,))
    waits = _replay(queue, arrivals)[0]
    ordered = sorted(waits)
    replayed = [math.fsum(waits) / len(waits), *(ordered[int(q * (len(ordered) - 1))] for q in QUANTILES)]
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
