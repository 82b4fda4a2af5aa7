"""How long the catalog takes: to load, to look up and to filter, shipped and with 200,000 synthetic offers.

    python benchmarks/catalog.py [--json PATH]

Each figure is the median of repeated runs in one process, warm file cache; `fusion offers` is a whole process.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from planner.catalog import Catalog, load
from planner.catalog.reading import check
from planner.catalog.writing import replace_offers

SYNTHETIC_OFFERS = 200_000
SEED = 20261123


def median_ms(run: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)


def synthetic(count: int) -> Catalog:
    """The shipped offers repeated over made-up regions, each with its own prices."""
    shipped, random_ = load(), random.Random(SEED)
    offers = []
    for number in range(count):
        offer = shipped.offers[number % len(shipped.offers)]
        factor = random_.uniform(0.8, 1.4)
        usd, spot_usd = offer.price_usd_per_hour, offer.spot_price_usd_per_hour
        offers.append(
            dataclasses.replace(
                offer,
                region=f"{offer.region}-r{number // len(shipped.offers)}",
                price_usd_per_hour=None if usd is None else usd * factor,
                spot_price_usd_per_hour=None if spot_usd is None else spot_usd * factor,
            )
        )
    return Catalog(offers, shipped.accelerators, shipped.services.values())


def fresh_load() -> Catalog:
    load.cache_clear()
    return load()


def look_ups(catalog: Catalog) -> dict[str, Callable[[], object]]:
    some = catalog.offers[len(catalog.offers) // 2]
    return {
        "one offer by name": lambda: catalog.offer(some.cloud, some.region, some.instance_type),
        "cloud and region": lambda: catalog.find(cloud=some.cloud, region=some.region),
        "8 x H100 with a spot price": lambda: catalog.find(accelerator="H100", min_accelerators=8, price_model="spot"),
        "any accelerator of 80 GiB below 5 USD/h": lambda: catalog.find(
            min_accelerator_memory_gib=80, max_price_usd_per_hour=5.0
        ),
    }


def measure() -> dict[str, float]:
    shipped = fresh_load()
    figures = {
        "load, shipped": median_ms(fresh_load, 30),
        "load and make every offer": median_ms(lambda: fresh_load().offers, 15),
        "load with every check": median_ms(check, 7),
    }
    large = synthetic(SYNTHETIC_OFFERS)
    for name, catalog in (("shipped", shipped), (f"{SYNTHETIC_OFFERS:,} offers", large)):
        for what, run in look_ups(catalog).items():
            run()  # the first look-up builds the index
            figures[f"{what}, {name}"] = median_ms(run, 30)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "offers.csv"
        replace_offers(path, large.offers, large.accelerators)
        figures[f"read and check a file of {SYNTHETIC_OFFERS:,} offers"] = median_ms(lambda: check(path), 1)
    command = [str(Path(sys.executable).parent / "fusion"), "offers", "--accelerator", "H100"]
    for form in ("table", "--json"):
        arguments = command if form == "table" else [*command, form]
        figures[f"fusion offers, whole process, {form}"] = median_ms(
            lambda arguments=arguments: subprocess.run(arguments, check=True, capture_output=True), 7
        )
    return figures


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--json", type=Path)
    path = arguments.parse_args().json
    figures = measure()
    print(f"{len(load().offers):,} shipped offers; Python {platform.python_version()}, {platform.processor()}")
    for name, milliseconds in figures.items():
        print(f"{name:<58} {milliseconds:>12,.3f} ms")
    if path:
        path.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
