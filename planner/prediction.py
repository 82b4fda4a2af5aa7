"""What a plan predicts of a workload, in the units that people read."""

from __future__ import annotations

from dataclasses import dataclass

from planner.calibration.store import Interval


@dataclass(frozen=True, slots=True)
class WorkloadPrediction:
    """What the chosen offer is predicted to do for a workload; nine of ten measured cases lie in each interval."""

    workload: str
    nodes: int
    """On nodes of its own; services that share a pool take fewer together."""
    accelerators: int
    """Of all nodes or replicas together; 0 on CPUs."""
    precision: str
    batch: int
    """Training: samples by data-parallel replica; services: the most requests of a batch."""
    run_hours: Interval | None
    run_usd: Interval | None
    p50_ms: Interval | None
    p95_ms: Interval | None
    p99_ms: Interval | None
    usd_per_hour: float
    """On nodes of its own."""
    reasons: tuple[str, ...]
    calibration: str
    replicas: int = 1
    """Of a service."""
    accelerators_each: int = 0
    """Of one node of a training job, or of one replica."""
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1
    fsdp: bool = False
    ttft_ms: Interval | None = None
    """Mean time to the first token."""
    tpot_ms: Interval | None = None
    """Mean time of a further token."""
    throughput_per_s: Interval | None = None
    """Samples of a training job; requests that a service can bear at most; output tokens of a language model."""
    bound_by: str = ""
    """The resource that limits it, such as memory bandwidth."""
