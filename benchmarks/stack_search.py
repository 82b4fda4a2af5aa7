"""How long the joint search of ten workloads over the whole catalog takes. `python -m benchmarks.stack_search`.

Cold is the first search of a process that has its columns, warm the second; seconds of CPU time of one core.
"""

from __future__ import annotations

import time

from pydantic import TypeAdapter

from planner.catalog import load
from planner.targets import Scope, answer
from planner.workloads import AnyWorkload

WORKLOADS: TypeAdapter[AnyWorkload] = TypeAdapter(AnyWorkload)


def training(number: int) -> AnyWorkload:
    return WORKLOADS.validate_python(
        {
            "kind": "training",
            "name": f"train{number}",
            "image": "x",
            "price_model": "any",
            "spot_fallback": True,
            "needs": {"accelerators": "any"},
            "nodes": {"max": 4},
            "training": {"batch_size": 1024, "epochs": 10 + number},
            "target": {"profile": ("resnet-50", "vit-b-16", "bert-base-128")[number % 3], "samples": 1_281_167},
        }
    )


def service(number: int) -> AnyWorkload:
    return WORKLOADS.validate_python(
        {
            "kind": "inference",
            "name": f"serve{number}",
            "image": "x",
            "needs": {"accelerators": 1},
            "replicas": {"min": 1, "max": 8},
            "target": {"profile": "resnet-50", "requests_per_s": 300 + 100 * number, "p99_ms_max": 20},
        }
    )


def on_cpu(number: int) -> AnyWorkload:
    return WORKLOADS.validate_python(
        {
            "kind": "inference",
            "name": f"small{number}",
            "image": "x",
            "needs": {"accelerators": 0, "vcpus": 1 + number % 3, "memory_gib": 4},
            "replicas": {"min": 1, "max": 8},
            "target": {"profile": "fusionnet-8", "requests_per_s": 300 + 50 * number, "p99_ms_max": 20},
        }
    )


def main() -> None:
    catalog = load()
    answer([on_cpu(100)], catalog, Scope())  # the columns
    print(f"{'ten of':28}{'cold s':>10}{'warm s':>10}{'USD a month':>14}{'pools':>8}")
    for what, make in (
        ("training jobs", training),
        ("services on accelerators", service),
        ("services on CPUs", on_cpu),
    ):
        workloads = [make(number) for number in range(10)]
        seconds: list[float] = []
        for _ in range(2):
            start = time.process_time()
            found = answer(workloads, catalog, Scope())
            seconds.append(time.process_time() - start)
        print(f"{what:28}{seconds[0]:10.2f}{seconds[1]:10.3f}{found.usd_per_month:14,.2f}{len(found.pools):8}")


if __name__ == "__main__":
    main()
