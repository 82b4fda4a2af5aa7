"""What a plan predicts of a workload, in the units that people read."""

from __future__ import annotations

from dataclasses import dataclass

from planner.calibration.store import Interval


@dataclass(frozen=True, slots=True)
class PeakPrediction:
    """What a service is predicted to do at the peak that its target states, with all replicas of its maximum."""

    requests_per_s: float
    replicas: int
    """`replicas.max`: what the autoscaler may reach."""
    utilisation: float
    """As of `WorkloadPrediction`."""
    p50_ms: Interval | None
    p95_ms: Interval | None
    p99_ms: Interval | None
    """Of a request; None for language models."""
    ttft_ms: Interval | None
    tpot_ms: Interval | None
    """Of language models, means; None for others."""


@dataclass(frozen=True, slots=True)
class SplitPrediction:
    """Where the model of a service is cut, whose clients run its first layers on an edge device."""

    device: str
    after: str
    """The last layer on the edge; empty where all run in the cloud."""
    layers_on_edge: int
    sent_kb: float
    edge_ms: float
    link_ms: float
    edge_alone_ms: float
    """Of the whole model on the edge, with nothing sent."""


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
    requests_per_s: float | None = None
    """Declared, of all replicas; None where users wait for each other's end (`concurrency`), and for training."""
    utilisation: float | None = None
    """At that rate and `replicas`: of a service, its share of what full batches could answer; of a language model, the
    sequences under way over those that fit into the memory; None for training."""
    peak: PeakPrediction | None = None
    """None where the target states no peak."""
    p50_ms_max: float | None = None
    p95_ms_max: float | None = None
    p99_ms_max: float | None = None
    ttft_ms_max: float | None = None
    tpot_ms_max: float | None = None
    """The limits that the target asks for, at the declared rate and at the peak; None where it asks for none."""
    hours_max: float | None = None
    """A training job's deadline."""
    throughput_per_s: Interval | None = None
    """Samples of a training job; requests that a service can bear at most; output tokens of a language model."""
    profile: str = ""
    """The name of a training job's model profile."""
    peak_flops: float | None = None
    """Of one of a training job's devices, in its precision."""
    corrected_by: float = 1.0
    """Measured ÷ predicted step time of a training job's earlier runs, which is in the numbers already."""
    bound_by: str = ""
    """The resource that limits it, such as memory bandwidth."""
    split: SplitPrediction | None = None
    """None where clients run nothing of the model."""
