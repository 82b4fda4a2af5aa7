"""Fusion's planner against SkyPilot's optimizer: the same demands over the same catalog, in one run.

    python -m benchmarks.planner [--demands 400] [--json PATH]

Warm is the median of repeated answers in one process; cold is the first of a fresh process, with the reading of the
catalog and without imports; a whole process is the command as a user runs it. Fusion's processor time stands beside the
clock's: on a machine that is shared it says what the clock would where nothing else ran (one thread, nothing waits). Every random demand is asked of both, and each choice is
priced by Fusion's catalog: Fusion must never take the dearer one. SkyPilot does not predict; Fusion's answers hold predictions.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import multiprocessing
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks import skypilot
from planner.calibration.store import builtin
from planner.catalog import Catalog, load
from planner.choices import Answer, Ceilings
from planner.errors import PlanError
from planner.goals import TrainingGoal
from planner.market import Where
from planner.optimizer import Optimizer
from planner.performance.training import TrainingRun
from planner.plan import choose_offer
from planner.profiles.model import profile
from planner.workloads import Needs, TrainingJob

SEED = 20261125
OFFERS = 200_000
REPEATS = 7
PROCESSOR = ", of the processor"
PRECISIONS = ("bf16", "fp16", "fp32")
"""Older chips have no bf16."""
WARM_AIM, PROCESS_AIM_S, LARGE_AIM_MS = 100, 0.5, 100
FUSION = Path(sys.executable).parent / "fusion"


@dataclasses.dataclass(frozen=True, slots=True)
class Demand:
    """Nodes of so many accelerators each, bought one way, in a place or anywhere."""

    accelerator: str
    count: int
    spot: bool = False
    cloud: str | None = None
    region: str | None = None
    nodes: int = 1

    def as_asked(self) -> dict[str, Any]:
        """In SkyPilot's words."""
        return dataclasses.asdict(self) | {"accelerator": skypilot.name(self.accelerator)}


H100 = Demand("H100", 8)
TIMED = {"one 8×H100 task": [H100], "ten 8×H100 tasks": [H100] * 10}


def milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def median_ms(work: Callable[[], object]) -> float:
    return statistics.median(milliseconds(work) for _ in range(REPEATS))


def processor_ms(work: Callable[[], object], clock: Callable[[], float] = time.process_time) -> tuple[float, float]:
    """By the clock, and of the processor."""
    spent = clock()
    by_clock = milliseconds(work)
    return by_clock, (clock() - spent) * 1e3


def of_children() -> float:
    """Seconds of the processor that ended child processes took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def goal(number: int) -> TrainingGoal:
    """A job of its own, so that nothing that was predicted for another one is found again."""
    return TrainingGoal(TrainingRun(profile("resnet-50"), 1_281_167 + number, 10, 1), 1024, nodes=(1,))


@functools.cache
def small(nodes: int) -> TrainingGoal:
    """A job that every chip can hold, of a batch that every count divides."""
    return TrainingGoal(TrainingRun(profile("fusionnet-8"), 10_000_000, 10, 1), 3072, PRECISIONS, nodes=(nodes,))


def search(optimizer: Optimizer, demand: Demand, wanted: TrainingGoal, catalog: Catalog) -> Answer:
    where = Where(
        places=frozenset(places(demand, catalog)),
        accelerators=frozenset({demand.accelerator}),
        counts=frozenset({demand.count}),
        buyings=("spot_fallback" if demand.spot else "on_demand",),
    )
    return optimizer.search(wanted, where, Ceilings())


def places(demand: Demand, catalog: Catalog) -> Iterator[tuple[str, str]]:
    for cloud, region in catalog.places:
        if demand.cloud in (None, cloud) and demand.region in (None, region):
            yield cloud, region


def fusion_timings() -> dict[str, dict[str, float]]:
    """Cold and warm; call it in a fresh process."""
    return {name: _cold_and_warm(demands) for name, demands in TIMED.items()}


def _cold_and_warm(demands: list[Demand]) -> dict[str, float]:
    goals = [goal(number) for number in range(len(demands))]
    held: list[tuple[Catalog, Optimizer]] = []

    def answer() -> None:
        catalog, optimizer = held[0]
        for demand, wanted in zip(demands, goals, strict=True):
            search(optimizer, demand, wanted, catalog)

    def first() -> None:
        load.cache_clear()
        catalog = load()
        held.append((catalog, Optimizer(catalog, builtin())))
        answer()

    return {"cold_ms": milliseconds(first), "warm_ms": median_ms(answer)}


def large_timings() -> dict[str, float]:
    """Over `OFFERS` synthetic offers: the columns once a process, then searches."""
    catalog = multiplied(load())
    made: list[Optimizer] = []
    figures = {"columns, once a process": milliseconds(lambda: made.append(Optimizer(catalog, builtin())))}
    for what, where in (
        ("8×H100 anywhere", Where(accelerators=frozenset({"H100"}), counts=frozenset({8}))),
        ("any machine anywhere", Where()),
    ):
        wanted = goal(0)
        run = functools.partial(made[0].search, wanted, where, Ceilings())
        figures[f"{what}, first"], figures[f"{what}, first{PROCESSOR}"] = processor_ms(run)
        figures[f"{what}, warm"] = median_ms(run)
    return figures


def multiplied(catalog: Catalog) -> Catalog:
    """The shipped offers over made-up regions, each with a price of its own."""
    chance = random.Random(SEED)
    own = [offer for offer in catalog.offers if offer.accelerator and offer.price_usd_per_hour]
    offers = [
        dataclasses.replace(own[number % len(own)], region=f"region-{number // len(own)}", price_usd_per_hour=price)
        for number in range(OFFERS)
        if (price := (own[number % len(own)].price_usd_per_hour or 0) * chance.uniform(1, 1.4))
    ]
    return Catalog(offers, catalog.accelerators)


def random_demands(count: int, catalog: Catalog) -> list[Demand]:
    """Accelerators that are sold as whole GPUs or Neuron devices, with the counts, places and price models they have."""
    chance = random.Random(SEED)
    sold = [
        offer
        for offer in catalog.offers
        if offer.accelerator and catalog.accelerators[offer.accelerator].kind != "tpu" and offer.accelerator_count >= 1
    ]
    kinds = sorted({(offer.accelerator or "", int(offer.accelerator_count)) for offer in sold})
    demands = []
    while len(demands) < count:
        accelerator, number = chance.choice(kinds)
        at = chance.choice([o for o in sold if o.accelerator == accelerator and o.accelerator_count == number])
        cloud, region = chance.choice([(None, None), (at.cloud, None), (at.cloud, at.region)])
        nodes = chance.choice([1, 1, 2, 8])
        demands.append(Demand(accelerator, number, chance.random() < 0.5, cloud, region, nodes))
    return demands


def by_price(demand: Demand, catalog: Catalog) -> float | None:
    """USD by hour of Fusion's choice by needs and price alone."""
    job = TrainingJob(
        kind="training",
        name="demand",
        image="image",
        price_model="spot" if demand.spot else "on_demand",
        needs=Needs(accelerator=demand.accelerator, accelerators=demand.count),
    )
    jobs = [job, job.model_copy(update={"needs": job.needs.model_copy(update={"architecture": "arm64"})})]
    found = []
    for each in jobs:
        for cloud, region in places(demand, catalog):
            try:
                found.append(choose_offer(each, cloud, region, catalog, price_model=each.price_model))
            except PlanError:
                continue
    field = "spot_price_usd_per_hour" if demand.spot else "price_usd_per_hour"
    return min((getattr(offer, field) * demand.nodes for offer in found), default=None)


def by_prediction(optimizer: Optimizer, demand: Demand, catalog: Catalog) -> Answer | None:
    try:
        return search(optimizer, demand, small(demand.nodes), catalog)
    except PlanError:
        return None


def compared(demands: list[Demand], theirs: list[dict[str, Any]], catalog: Catalog) -> dict[str, Any]:
    """Both choices of each demand, by hourly price and, with Fusion's predictions, by the expected cost of a run."""
    optimizer = Optimizer(catalog, builtin())
    predictable = {name for name, chip in catalog.accelerators.items() if chip.fp16_tflops or chip.bf16_tflops}
    rows = []
    for demand, their in zip(demands, theirs, strict=True):
        predicted = by_prediction(optimizer, demand, catalog)
        row = {
            "demand": dataclasses.asdict(demand),
            "skypilot": their,
            "by_price_usd_per_hour": by_price(demand, catalog),
            "by_prediction_usd": predicted.best.usd if predicted else None,
            "skypilot_usd": None,
            "predictable": demand.accelerator in predictable,
        }
        if predicted and "usd_per_hour" in their:
            only = Demand(demand.accelerator, demand.count, demand.spot, their["cloud"], their["region"], demand.nodes)
            same = by_prediction(optimizer, only, catalog)
            # an attached GPU's host is named otherwise, so the cheapest of the place stands in: never dearer than theirs
            row["skypilot_usd"] = same.best.usd if same else None
        rows.append(row)
    return {"by price": _verdict(rows, "by_price_usd_per_hour"), "by prediction": _verdict(rows, ""), "rows": rows}


def _verdict(rows: list[dict[str, Any]], price: str) -> dict[str, Any]:
    verdict: dict[str, Any] = {
        "cheaper": 0,
        "same": 0,
        "dearer": [],
        "only Fusion": 0,
        "only SkyPilot": [],
        "neither": 0,
    }
    verdict |= {"no peak sourced": 0}
    for row in rows:
        ours = row[price] if price else row["by_prediction_usd"]
        their = row["skypilot"].get("usd_per_hour") if price else row["skypilot_usd"]
        kind = _kind(ours, their, "usd_per_hour" in row["skypilot"])
        if kind == "only SkyPilot" and not price and not row["predictable"]:
            kind = "no peak sourced"
        if isinstance(verdict[kind], list):
            verdict[kind].append(row)
        else:
            verdict[kind] += 1
    return verdict


def _kind(ours: float | None, their: float | None, answered: bool) -> str:
    if ours is None:
        return "only SkyPilot" if answered else "neither"
    if their is None:
        return "only Fusion"
    if math.isclose(ours, their, rel_tol=1e-6):
        return "same"
    return "cheaper" if ours < their else "dearer"


def process_times(folder: Path) -> dict[str, float]:
    """Whole processes: `fusion plan` of a file, and SkyPilot's optimizer with the demand in Python."""
    job = {
        "kind": "training",
        "name": "job0",
        "image": "image",
        "needs": {"accelerator": "H100", "accelerators": 8},
        "training": {"batch_size": 1024, "epochs": 10},
        "target": {"profile": "resnet-50", "samples": 1_281_167},
    }
    figures = {}
    for name, demands in TIMED.items():
        jobs = [
            job | {"name": f"job{number}", "target": {"profile": "resnet-50", "samples": 1_281_167 + number}}
            for number in range(len(demands))
        ]
        file = folder / f"{len(jobs)}.yaml"
        file.write_text(yaml.safe_dump({"workloads": jobs}))
        figures |= _process(f"fusion plan, {name}", "plan", file)
        ask = {"timed": {name: [each.as_asked() for each in demands]}, "repeats": 0, "choices": []}
        figures[f"SkyPilot, {name}"] = min(milliseconds(lambda ask=ask: skypilot.ask(folder, ask)) for _ in range(2))
    return figures | _process("fusion plan local", "plan", "local")


def _process(name: str, *arguments: object) -> dict[str, float]:
    times = [processor_ms(lambda: _run(FUSION, *arguments), of_children) for _ in range(REPEATS)]
    by_clock, of_processor = (statistics.median(each) for each in zip(*times, strict=True))
    return {name: by_clock, f"{name}{PROCESSOR}": of_processor}


def _run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True, env=os.environ)


def report(results: dict[str, Any]) -> Iterator[str]:
    """The table."""
    yield f"{'in one process, ms':32}{'Fusion':>12}{'SkyPilot':>12}{'times':>8}"
    for name in TIMED:
        for what in ("cold_ms", "warm_ms"):
            ours, theirs = results["fusion"][name][what], results["skypilot"]["timings"][name][what]
            yield f"{name + ', ' + what.removesuffix('_ms'):32}{ours:12.2f}{theirs:12.1f}{theirs / ours:8.0f}"
    yield f"\n{'whole process, s':48}"
    for name, value in results["processes"].items():
        yield f"{name:48}{value / 1e3:8.2f}"
    yield f"\n{f'{OFFERS:,} offers, ms':48}"
    for name, value in results["large"].items():
        yield f"{name:48}{value:8.1f}"
    yield f"\n{len(results['choices']['rows'])} random demands"
    for by in ("by price", "by prediction"):
        counts = {kind: each if isinstance(each, int) else len(each) for kind, each in results["choices"][by].items()}
        yield f"{by:16}" + ", ".join(f"{kind} {count}" for kind, count in counts.items())
        for kind in ("dearer", "only SkyPilot"):
            for row in results["choices"][by][kind][:5]:
                yield f"  {kind}: {row}"
    yield ""
    yield from verdicts(results)


def verdicts(results: dict[str, Any]) -> Iterator[str]:
    """Each aim, met or not."""
    for name in TIMED:
        times = results["skypilot"]["timings"][name]["warm_ms"] / results["fusion"][name]["warm_ms"]
        yield f"{_met(times >= WARM_AIM)}: {name} warm, {times:.0f} times faster; aim {WARM_AIM}"
    for name, value in results["processes"].items():
        if name.startswith("fusion"):
            yield f"{_met(value / 1e3 < PROCESS_AIM_S)}: {name} in {value / 1e3:.2f} s; aim below {PROCESS_AIM_S} s"
    for name, value in results["large"].items():
        if not name.startswith("columns"):
            yield f"{_met(value < LARGE_AIM_MS)}: {OFFERS:,} offers, {name}, {value:.1f} ms; aim below {LARGE_AIM_MS} ms"
    for by in ("by price", "by prediction"):
        dearer = len(results["choices"][by]["dearer"]) + len(results["choices"][by]["only SkyPilot"])
        yield f"{_met(dearer == 0)}: {by}, {dearer} dearer or missing choices; aim 0"


def _met(met: bool) -> str:
    return "met" if met else "NOT MET"


def measured(demands: int) -> dict[str, Any]:
    catalog = load()
    wanted = random_demands(demands, catalog)
    fresh = multiprocessing.get_context("spawn")
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        skypilot.write_catalog(folder, catalog)
        timed = {name: [demand.as_asked() for demand in each] for name, each in TIMED.items()}
        with fresh.Pool(1, maxtasksperchild=1) as pool:
            results["fusion"] = pool.apply(fusion_timings)
            results["skypilot"] = skypilot.ask(folder, {"timed": timed, "repeats": REPEATS, "choices": []})
            results["processes"] = process_times(folder)
            results["large"] = pool.apply(large_timings)
        theirs = skypilot.ask(folder, {"timed": {}, "repeats": 0, "choices": [each.as_asked() for each in wanted]})
    return results | {"choices": compared(wanted, theirs["choices"], catalog)}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--demands", type=int, default=400)
    arguments.add_argument("--json", type=Path)
    given = arguments.parse_args()
    results = measured(given.demands)
    for line in report(results):
        print(line)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
