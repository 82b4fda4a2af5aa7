"""How long Fusion's search takes: one 8×H100 job, ten jobs, and 200,000 offers. `python -m benchmarks.planner`.

Cold is the first search of a fresh goal, warm the median of the next; the columns of the catalog are built before, once
a process, and timed apart.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable

from planner.calibration.store import builtin
from planner.catalog import Catalog, load
from planner.goals import TrainingGoal
from planner.optimizer import Ceilings, Optimizer, Where
from planner.performance.training import TrainingRun
from planner.profiles.model import profile

OFFERS = 200_000
H100 = Where(accelerators=frozenset({"H100"}), counts=frozenset({8}))


def milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def goals(count: int) -> list[TrainingGoal]:
    return [TrainingGoal(TrainingRun(profile("resnet-50"), 1_281_167 + each, 10, 1), 1024) for each in range(count)]


def measured(optimizer: Optimizer, count: int, where: Where) -> tuple[float, float]:
    wanted = goals(count)

    def search() -> None:
        for goal in wanted:
            optimizer.search(goal, where, Ceilings())

    return milliseconds(search), statistics.median(milliseconds(search) for _ in range(7))


def multiplied(catalog: Catalog) -> Catalog:
    own = [offer for offer in catalog.offers if offer.accelerator and offer.price_usd_per_hour]
    offers = [
        dataclasses.replace(offer, region=f"{offer.region}-{number}", price_usd_per_hour=price * (1 + number / 1e3))
        for number in range(OFFERS // len(own) + 1)
        for offer in own
        if (price := offer.price_usd_per_hour)
    ]
    return Catalog(offers[:OFFERS], catalog.accelerators)


def main() -> None:
    catalog = load()
    rows = []
    for name, held in (("catalog", catalog), (f"{OFFERS:,} offers", multiplied(catalog))):
        start = time.perf_counter()
        optimizer = Optimizer(held, builtin())
        built = (time.perf_counter() - start) * 1e3
        for what, count, where in (
            ("one 8×H100 job", 1, H100),
            ("ten 8×H100 jobs", 10, H100),
            ("one job on anything", 1, Where()),
        ):
            cold, warm = measured(optimizer, count, where)
            rows.append({"offers": name, "what": what, "built_ms": built, "cold_ms": cold, "warm_ms": warm})
    print(f"{'offers':16}{'search':22}{'columns ms':>12}{'cold ms':>10}{'warm ms':>10}")
    for row in rows:
        print(f"{row['offers']:16}{row['what']:22}{row['built_ms']:12.1f}{row['cold_ms']:10.1f}{row['warm_ms']:10.2f}")


if __name__ == "__main__":
    main()
