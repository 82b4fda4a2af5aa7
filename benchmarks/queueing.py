"""p99 of the queueing model against a discrete-event simulation (simpy): `python -m benchmarks.queueing [--quick]`.

Utilisations 0.1 to 0.95, batches of up to 1 to 64, 1 to 16 replicas, with and without a batching deadline; prints a
table, writes JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import time
from collections import deque
from collections.abc import Generator
from pathlib import Path
from typing import Any

import simpy

from planner.performance.queueing import BatchQueue, queue_times


class Simulation:
    """The serving layer's dispatcher as simpy processes; shares no code with the model."""

    def __init__(self, queue: BatchQueue, arrivals: int, seed: int) -> None:
        self.queue, self.arrivals, self.random = queue, arrivals, random.Random(seed)
        self.env = simpy.Environment()
        self.waiting: deque[float] = deque()
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
            self.waiting.append(self.env.now)
            self._dispatch()
            if self.queue.batch_wait_s:
                self.env.process(self._deadline())

    def _deadline(self) -> Generator[Any, Any, None]:
        yield self.env.timeout(self.queue.batch_wait_s)
        self._dispatch()

    def _dispatch(self) -> None:
        while self.idle and self.waiting:
            overdue = self.env.now - self.waiting[0] >= self.queue.batch_wait_s - 1e-12
            if len(self.waiting) < self.queue.batch_max and not overdue:
                return
            batch = [self.waiting.popleft() for _ in range(min(len(self.waiting), self.queue.batch_max))]
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


def grid(quick: bool) -> list[BatchQueue]:
    """Every combination that is compared."""
    utilisations = (0.1, 0.6, 0.95) if quick else (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
    batches = (1, 8, 64) if quick else (1, 2, 4, 8, 16, 32, 64)
    replicas = (1, 4, 16) if quick else (1, 2, 4, 8, 16)
    queues = []
    for rho, batch, count, fixed, waits in itertools.product(utilisations, batches, replicas, (0.9, 0.5), (0.0, 1.0)):
        service = service_times(batch, fixed)
        if batch == 1 and (fixed != 0.9 or waits):
            continue
        queues.append(BatchQueue(rho * count * batch / service[-1], service, count, waits * 0.01))
    return queues


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--arrivals", type=int, default=200_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for queue in grid(options.quick):
        # a heavily used queue forgets slowly: its simulation needs more arrivals for the same certainty
        arrivals = (
            options.arrivals
            * (5 if queue.utilisation > 0.85 else 2 if queue.utilisation > 0.75 else 1)
            // (5 if options.quick else 1)
        )
        began = time.perf_counter()
        p99 = queue_times(queue).response.p99_s
        model_ms = (time.perf_counter() - began) * 1e3
        ordered = Simulation(queue, arrivals, seed=7).run()
        simulated = ordered[int(0.99 * len(ordered))]
        rows.append(
            {
                "utilisation": round(queue.utilisation, 3),
                "batch_max": queue.batch_max,
                "replicas": queue.replicas,
                "batch_wait_ms": queue.batch_wait_s * 1e3,
                "service_ms": [queue.service_s[0] * 1e3, queue.service_s[-1] * 1e3],
                "p99_ms": p99 * 1e3,
                "simulated_p99_ms": simulated * 1e3,
                "error": p99 / simulated - 1,
                "model_ms": model_ms,
            }
        )
    rows.sort(key=lambda row: -abs(row["error"]))
    print(
        f"{'util':>5} {'batch':>5} {'repl':>4} {'wait':>5} {'model p99':>10} {'simpy p99':>10} {'error':>7} {'took':>8}"
    )
    for row in rows[:20]:
        print(
            f"{row['utilisation']:5.2f} {row['batch_max']:5d} {row['replicas']:4d} {row['batch_wait_ms']:5.0f} "
            f"{row['p99_ms']:8.2f}ms "
            f"{row['simulated_p99_ms']:8.2f}ms {row['error']:+7.1%} {row['model_ms']:6.1f}ms"
        )
    within = sum(abs(row["error"]) <= 0.1 for row in rows)
    took = sorted(row["model_ms"] for row in rows)
    print(
        f"{within} of {len(rows)} within 10 %; worst {abs(rows[0]['error']):.1%}; model takes "
        f"{took[len(took) // 2]:.0f} ms (median)"
    )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
