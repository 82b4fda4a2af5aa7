"""What a plan predicts of a workload, in the units that people read."""

from __future__ import annotations

from dataclasses import dataclass

from planner.calibration.store import Interval


@dataclass(frozen=True, slots=True)
class WorkloadPrediction:
    """What the chosen offer is predicted to do for a workload; nine of ten measured cases lie in each interval."""

    workload: str
    nodes: int
    accelerators: int
    """Of all nodes together; of a service, its replicas."""
    precision: str
    batch: int
    """Training: samples by data-parallel replica; services: the most requests of a batch."""
    run_hours: Interval | None
    run_usd: Interval | None
    p50_ms: Interval | None
    p95_ms: Interval | None
    p99_ms: Interval | None
    usd_per_hour: float
    reasons: tuple[str, ...]
    calibration: str
