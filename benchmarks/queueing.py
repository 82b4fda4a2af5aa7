"""p99 of the queueing model against a discrete-event simulation (simpy): `python -m benchmarks.queueing [--grid GRID] [--rows FILE]`.

Utilisations 0.1 to 0.95, batches of up to 1 to 64, 1 to 16 replicas, two service curves, with and without a batching
deadline: 108 combinations, about ten minutes, or with `--grid fine` 875 and an hour and a half; `--grid tandem` has a
front station before the batches, a half to 1.2 times as busy as they are. `--rows` keeps what is done, so that a run can
be stopped.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import statistics
import time
from collections import deque
from collections.abc import Generator
from pathlib import Path
from typing import Any

import simpy

from planner.performance.queueing import BatchQueue, queue_times

LEAST_REPLICATIONS = 4
GRIDS: dict[str, tuple[tuple[float, ...], tuple[int, ...], tuple[int, ...], tuple[float, ...]]] = {
    "declared": ((0.1, 0.5, 0.9, 0.95), (1, 16, 64), (1, 4, 16), (0.0,)),
    "fine": ((0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95), (1, 2, 4, 8, 16, 32, 64), (1, 2, 4, 8, 16), (0.0,)),
    "tandem": ((0.3, 0.6, 0.8), (1, 8, 32), (1, 4), (0.5, 0.9, 1.2)),
}
"""Utilisations, largest batches, replicas, and utilisations of the front station over those of the batches."""


class Simulation:
    """The serving layer's dispatcher as simpy processes; shares no code with the model."""

    def __init__(self, queue: BatchQueue, arrivals: int, seed: int) -> None:
        self.queue, self.arrivals, self.random = queue, arrivals, random.Random(seed)
        self.env = simpy.Environment()
        self.front = simpy.Resource(self.env, queue.replicas)
        self.waiting: deque[tuple[float, float]] = deque()
        """When each came, and when it had passed the front station."""
        self.idle = queue.replicas
        self.responses: list[float] = []

    def run(self) -> list[float]:
        """Sorted responses (s) after a warm-up of a twentieth."""
        self.env.process(self._arrive())
        self.env.run()
        return sorted(self.responses[len(self.responses) // 20 :])

    def _arrive(self) -> Generator[Any, Any, None]:
        for _ in range(self.arrivals):
            yield self.env.timeout(self.random.expovariate(self.queue.arrivals_per_s))
            if self.queue.front_s:
                self.env.process(self._pass_front())
            else:
                self._wait(self.env.now)

    def _pass_front(self) -> Generator[Any, Any, None]:
        came = self.env.now
        with self.front.request() as turn:
            yield turn
            yield self.env.timeout(self.queue.front_s)
        self._wait(came)

    def _wait(self, came: float) -> None:
        self.waiting.append((came, self.env.now))
        self._dispatch()
        if self.queue.batch_wait_s:
            self.env.process(self._deadline())

    def _deadline(self) -> Generator[Any, Any, None]:
        yield self.env.timeout(self.queue.batch_wait_s)
        self._dispatch()

    def _dispatch(self) -> None:
        while self.idle and self.waiting:
            overdue = self.env.now - self.waiting[0][1] >= self.queue.batch_wait_s - 1e-12
            if len(self.waiting) < self.queue.batch_max and not overdue:
                return
            batch = [self.waiting.popleft()[0] for _ in range(min(len(self.waiting), self.queue.batch_max))]
            self.idle -= 1
            self.env.process(self._serve(batch))

    def _serve(self, batch: list[float]) -> Generator[Any, Any, None]:
        yield self.env.timeout(self.queue.service_s[len(batch) - 1])
        self.responses += [self.env.now - arrived for arrived in batch]
        self.idle += 1
        self._dispatch()


def service_times(batch_max: int, share_fixed: float) -> tuple[float, ...]:
    """10 ms for one; `share_fixed` of it does not grow with the batch."""
    return tuple(0.01 * (share_fixed + (1 - share_fixed) * batch) for batch in range(1, batch_max + 1))


def grid(name: str) -> list[BatchQueue]:
    """Every combination that is compared."""
    queues = []
    for rho, batch, count, front, fixed, waits in itertools.product(*GRIDS[name], (0.9, 0.5), (0.0, 1.0)):
        service = service_times(batch, fixed)
        if batch == 1 and (fixed != 0.9 or waits):
            continue
        rate = rho * count * batch / service[-1]
        front_s = front * rho * count / rate
        queues.append(BatchQueue(rate, service, count, waits * 0.01, front_s=front_s))
    return queues


def simulated_p99(queue: BatchQueue, arrivals: int, precision: float, limit_s: float) -> tuple[float, float, int]:
    """p99 (s) as the mean of independent replications, its relative standard error, and how many there were.

    Replications are added until the standard error is below `precision`, or `limit_s` is spent. Seeds are the same for
    every queue (common random numbers).
    """
    began, quantiles = time.perf_counter(), []
    while True:
        ordered = Simulation(queue, arrivals, seed=7 + len(quantiles)).run()
        quantiles.append(ordered[int(0.99 * len(ordered))])
        mean = statistics.fmean(quantiles)
        if len(quantiles) < LEAST_REPLICATIONS:
            continue
        error = statistics.stdev(quantiles) / mean / math.sqrt(len(quantiles))
        if error <= precision or time.perf_counter() - began > limit_s:
            return mean, error, len(quantiles)


def compared(queue: BatchQueue, options: argparse.Namespace) -> dict[str, Any]:
    """One row: the model beside the simulation."""
    began = time.perf_counter()
    p99 = queue_times(queue).response.p99_s
    model_ms = (time.perf_counter() - began) * 1e3
    # a heavily used queue, or one of many large batches, forgets slowly: longer replications, less of their bias
    arrivals = options.arrivals * (4 if queue.utilisation > 0.75 else 1)
    simulated, standard_error, replications = simulated_p99(queue, arrivals, options.precision, options.limit)
    return {
        "key": key(queue),
        "utilisation": round(queue.utilisation, 3),
        "batch_max": queue.batch_max,
        "replicas": queue.replicas,
        "batch_wait_ms": queue.batch_wait_s * 1e3,
        "service_ms": [queue.service_s[0] * 1e3, queue.service_s[-1] * 1e3],
        "p99_ms": p99 * 1e3,
        "simulated_p99_ms": simulated * 1e3,
        "simulated_standard_error": standard_error,
        "replications": replications,
        "error": p99 / simulated - 1,
        "model_ms": model_ms,
    }


def key(queue: BatchQueue) -> str:
    """Names a queue of the grid."""
    named = (
        f"{queue.utilisation:.3f}/{queue.batch_max}/{queue.replicas}/{queue.service_s[-1]:.6f}/{queue.batch_wait_s:g}"
    )
    return f"{named}/{queue.front_s:.6g}" if queue.front_s else named


def show(rows: list[dict[str, Any]]) -> None:
    """The worst rows, and how many are within 10 %."""
    rows = sorted(rows, key=lambda row: -abs(row["error"]))
    print("util  batch repl  wait  model p99  simpy p99 ± s.e.    error     took")
    for row in rows[:20]:
        print(
            f"{row['utilisation']:4.2f} {row['batch_max']:6d} {row['replicas']:4d} {row['batch_wait_ms']:5.0f} "
            f"{row['p99_ms']:8.2f}ms {row['simulated_p99_ms']:8.2f}ms {row['simulated_standard_error']:5.1%} "
            f"{row['error']:+8.1%} {row['model_ms']:6.1f}ms"
        )
    errors, took = [abs(row["error"]) for row in rows], sorted(row["model_ms"] for row in rows)
    coarse = sum(row["simulated_standard_error"] > 0.01 for row in rows)
    print(
        f"{sum(error <= 0.1 for error in errors)} of {len(rows)} within 10 %; median {statistics.median(errors):.1%}, "
        f"worst {errors[0]:.1%}; the simulation's own standard error is at most "
        f"{max(row['simulated_standard_error'] for row in rows):.1%}, above 1 % in {coarse}; the model takes "
        f"{took[len(took) // 2]:.0f} ms (median)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", choices=GRIDS, default="declared", help="108 or 875 combinations")
    parser.add_argument(
        "--arrivals", type=int, default=100_000, help="of one replication; four times as many when busy"
    )
    parser.add_argument("--precision", type=float, default=0.01, help="standard error of the simulated p99")
    parser.add_argument("--limit", type=float, default=40.0, help="seconds of simulation for one combination")
    parser.add_argument("--rows", type=Path, help="a file of JSON lines: rows are added as they come, and kept")
    options = parser.parse_args()
    queues = grid(options.grid)
    asked = {key(queue) for queue in queues}
    random.Random(1).shuffle(queues)  # so that a run that was stopped is a fair sample
    rows = []
    if options.rows and options.rows.exists():
        rows = [json.loads(line) for line in options.rows.read_text(encoding="utf-8").splitlines()]
    known = {row["key"] for row in rows}
    for queue in queues:
        if key(queue) in known:
            continue
        rows.append(compared(queue, options))
        if options.rows:
            with options.rows.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    show([row for row in rows if row["key"] in asked])


if __name__ == "__main__":
    main()
