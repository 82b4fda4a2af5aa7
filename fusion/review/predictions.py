"""What is predicted of each workload, before and after, beside the limit that the stack declares for it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fusion.review.cost import Plans
from planner.calibration.store import Interval
from planner.plan import Plan
from planner.prediction import WorkloadPrediction

THROUGHPUT = "throughput"
MEASURES: Mapping[str, tuple[str, str]] = {
    "run_hours": ("time of a run", "h"),
    "run_usd": ("cost of a run", "USD"),
    "p50_ms": ("p50 latency", "ms"),
    "p95_ms": ("p95 latency", "ms"),
    "p99_ms": ("p99 latency", "ms"),
    "ttft_ms": ("time to first token", "ms"),
    "tpot_ms": ("time by further token", "ms"),
}
"""By field of a prediction: its name for readers, and its unit."""
LIMITS: Mapping[str, str] = {
    "run_hours": "hours_max",
    "run_usd": "run_usd_max",
    "p50_ms": "p50_ms_max",
    "p95_ms": "p95_ms_max",
    "p99_ms": "p99_ms_max",
    "ttft_ms": "ttft_ms_max",
    "tpot_ms": "tpot_ms_max",
}
"""By field of a prediction: the field of the workload's target that limits it, at the peak as well."""
RATES: Mapping[str, str] = {"training": "samples/s", "service": "requests/s", "language model": "output tokens/s"}


@dataclass(frozen=True, slots=True)
class Measure:
    """One predicted quantity with its interval, as it was and as it will be, and its limit."""

    name: str
    unit: str
    before: Interval | None
    after: Interval
    limit: float | None

    @property
    def is_over(self) -> bool:
        """Whether the predicted value breaks the limit."""
        return self.limit is not None and self.after.value > self.limit


@dataclass(frozen=True, slots=True)
class WorkloadReview:
    """What a workload will do on what it will run on."""

    name: str
    kind: str
    """A key of `RATES`."""
    runs_on: str
    load: str
    """What the stack declares that it must bear."""
    measures: tuple[Measure, ...]
    bound_by: str
    """What limits its throughput."""
    reasons: tuple[str, ...]
    calibration: str


def workloads(both: Plans, config: Mapping[str, str]) -> tuple[WorkloadReview, ...]:
    """Those of the new plan that have a target, in its order."""
    if both.after is None:
        return ()
    if not both.after.others:
        declared = _declared(config)
        return tuple(_review(each, both.after, both.before, declared) for each in both.after.predictions)
    return tuple(each for part in both.after.parts for each in _on_one_of_two(part, both.before))


def _on_one_of_two(part: Plan, before: Plan | None) -> Iterator[WorkloadReview]:
    """Of a stack that serves on two clouds: each with the load that this one must bear by itself."""
    earlier = next((each for each in before.parts if each.cloud == part.cloud), None) if before else None
    declared = {each.name: _numbers(each.target.model_dump()) for each in part.workloads if each.target is not None}
    for each in part.predictions:
        found = _review(each, part, earlier, declared)
        yield dataclasses.replace(found, name=f"{found.name} on {part.cloud}")


def _review(
    found: WorkloadPrediction, plan: Plan, before: Plan | None, declared: Mapping[str, Mapping[str, Any]]
) -> WorkloadReview:
    target = declared.get(found.workload, {})
    kind = "training" if found.run_hours else "language model" if found.ttft_ms else "service"
    earlier = before.prediction_of(found.workload) if before else None
    return WorkloadReview(
        name=found.workload,
        kind=kind,
        runs_on=_runs_on(found, plan),
        load=_load(kind, target),
        measures=tuple(_measures(found, earlier, target, RATES[kind])),
        bound_by=found.bound_by,
        reasons=found.reasons,
        calibration=found.calibration,
    )


def _measures(
    found: WorkloadPrediction, earlier: WorkloadPrediction | None, target: Mapping[str, Any], rate: str
) -> Iterator[Measure]:
    """At the declared load, then at its peak where it has one, then the throughput."""
    for said, now, before in (
        ("", found, earlier),
        (" at peak", found.peak, earlier.peak if earlier else None),
    ):
        for field, (name, unit) in MEASURES.items():
            value = getattr(now, field, None)
            if value is not None:
                limit = target.get(LIMITS[field])
                yield Measure(
                    name + said,
                    unit,
                    getattr(before, field, None),
                    value,
                    float(limit) if isinstance(limit, int | float) else None,
                )
    if found.throughput_per_s is not None:
        yield Measure(THROUGHPUT, rate, earlier.throughput_per_s if earlier else None, found.throughput_per_s, None)


def _runs_on(found: WorkloadPrediction, plan: Plan) -> str:
    pool = next((each for each in plan.pools if found.workload in each.workloads), None)
    if pool is None:  # a plan that somebody else registered
        return f"{found.nodes} nodes, {found.precision}"
    how = "spot" if pool.price_model == "spot" else "on demand"
    count = f"{found.nodes} × {pool.instance_type}"
    chips = f" ({found.accelerators} {pool.accelerator})" if pool.accelerator else ""
    replicas = f", {found.replicas} replicas" if found.replicas > 1 else ""
    return f"{count}{chips} {how}{replicas}, {found.precision}"


def _load(kind: str, target: Mapping[str, Any]) -> str:
    said = []
    if (rate := target.get("requests_per_s")) is not None:
        said.append(f"{rate:g} requests/s")
    if (users := target.get("concurrency")) is not None:
        said.append(f"{users:g} users at once")
    if (peak := target.get("peak_requests_per_s")) is not None:
        said.append(f"{peak:g} requests/s at peak (with the most replicas)")
    if kind == "training" and (samples := target.get("samples")) is not None:
        said.append(f"{samples:,} samples by epoch")
    return ", ".join(said)


def _declared(config: Mapping[str, str]) -> Mapping[str, Mapping[str, Any]]:
    """Targets by workload, from the stack's config as the program was given it."""
    try:
        listed = json.loads(config.get("fusion:workloads", "[]"))
    except ValueError:
        return {}
    found = {}
    for each in listed if isinstance(listed, list) else ():
        if isinstance(each, dict) and isinstance(each.get("target"), dict):
            found[str(each.get("name"))] = _numbers(each["target"])
    return found


def _numbers(target: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in target.items() if isinstance(value, int | float)}
