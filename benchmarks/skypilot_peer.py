"""SkyPilot's optimizer as a program of its own: demands in, its choices and times out.

`benchmarks/planner.py` runs it in SkyPilot's environment.

    python skypilot_peer.py DEMANDS.json ANSWERS.json

The check for cloud accounts is replaced, so that the three clouds count as enabled; nothing else is changed. The catalog is
the one under `$SKY_RUNTIME_DIR`.
"""

from __future__ import annotations

import itertools
import json
import logging
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def dag_of(demands: list[dict[str, Any]]) -> Any:
    """A chain of one task a demand."""
    import sky
    from sky import dag as dag_lib

    clouds = {"aws": sky.AWS, "azure": sky.Azure, "gcp": sky.GCP}
    with dag_lib.Dag() as dag:
        tasks = []
        for number, demand in enumerate(demands):
            task = sky.Task(name=f"task{number}", run="true", num_nodes=demand["nodes"])
            cloud = demand["cloud"] and clouds[demand["cloud"]]()
            task.set_resources(
                sky.Resources(
                    cloud=cloud,
                    region=demand["region"],
                    accelerators={demand["accelerator"]: demand["count"]},
                    use_spot=demand["spot"],
                )
            )
            tasks.append(task)
        for before, after in itertools.pairwise(tasks):
            before >> after
    return dag


def optimize(demands: list[dict[str, Any]]) -> list[Any]:
    """The chosen resources, one by demand."""
    from sky.optimizer import Optimizer

    dag = dag_of(demands)
    Optimizer.optimize(dag, quiet=True)
    return [task.best_resources for task in dag.tasks]


def choice(demand: dict[str, Any]) -> dict[str, Any]:
    """What SkyPilot takes for one demand, in words of Fusion's catalog; None where it finds nothing."""
    from sky import exceptions

    try:
        (best,) = optimize([demand])
    except (exceptions.ResourcesUnavailableError, ValueError, AssertionError) as error:
        return {"why": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    return {
        "cloud": str(best.cloud).lower(),
        "region": best.region,
        "instance_type": best.instance_type,
        "usd_per_hour": best.get_cost(3600) * demand["nodes"],
    }


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    started = time.perf_counter()
    import sky.check
    from sky import clouds

    enabled = [clouds.AWS(), clouds.GCP(), clouds.Azure()]
    sky.check.get_cached_enabled_clouds_or_refresh = lambda *_, **__: enabled
    logging.disable(logging.CRITICAL)
    asked = json.loads(Path(sys.argv[1]).read_text())
    answers = {"import_ms": (time.perf_counter() - started) * 1e3, "timings": {}}
    for name, demands in asked["timed"].items():
        cold = timed(lambda demands=demands: optimize(demands))
        warm = [timed(lambda demands=demands: optimize(demands)) for _ in range(asked["repeats"])]
        answers["timings"][name] = {"cold_ms": cold, "warm_ms": statistics.median(warm) if warm else None}
    answers["choices"] = [choice(demand) for demand in asked["choices"]]
    Path(sys.argv[2]).write_text(json.dumps(answers))


main()
