"""What a request sees: network, transfer, waiting for a batch and for a replica, service; and what a service can bear.

The sum is D. Menascé, V. Almeida, "Capacity Planning for Web Services" (2001), chapter 3; each part names its own
source.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from planner.calibration.store import Calibration, Interval, ServingCosts
from planner.performance.checks import not_negative, positive, whole
from planner.performance.chip import Chip
from planner.performance.memory import check_fit, inference_memory
from planner.performance.queueing import BatchQueue, Overloaded, Quantiles, queue_times
from planner.performance.roofline import forward_time
from planner.performance.split import Split
from planner.profiles.model import ModelProfile


@dataclass(frozen=True)
class InferenceLoad:
    """A service and what is asked of it."""

    profile: ModelProfile
    requests_per_s: float
    precision: str = "bf16"
    replicas: int = 1
    batch_max: int = 1
    batch_wait_s: float = 0.0
    network_round_trip_s: float = 0.0
    network_bytes_per_s: float = 125e6
    request_bytes: float = 0.0
    response_bytes: float = 0.0
    overhead_s_per_batch: float = 0.0
    """Of the host: dispatch, copies to and from the device."""
    overhead_s_per_request: float = 0.0
    """Of the host, beside a batch: gathering its rows; on one processor parsing and answering too."""
    front_s_per_request: float = 0.0
    """Of the event loop, which has a processor of its own: parsing, answering; see `BatchQueue.front_s`."""
    service_variation: float = 0.0

    def __post_init__(self) -> None:
        positive("requests_per_s", self.requests_per_s)
        whole("replicas", self.replicas, at_most=100_000)
        whole("batch_max", self.batch_max, at_most=65_536)
        positive("network_bytes_per_s", self.network_bytes_per_s)
        for field in [
            "batch_wait_s",
            "network_round_trip_s",
            "request_bytes",
            "response_bytes",
            "overhead_s_per_batch",
            "overhead_s_per_request",
            "front_s_per_request",
            "service_variation",
        ]:
            not_negative(field, getattr(self, field))


@dataclass(frozen=True, slots=True)
class LatencyParts:
    """What a request at the 99th percentile spends its time on, in seconds; together they are its latency."""

    network_s: float
    """The round trip."""
    transfer_s: float
    """Of request and answer."""
    batch_wait_s: float
    """For the batch to fill, while a replica is idle."""
    queue_s: float
    """For a replica."""
    service_s: float
    edge_s: float = 0.0
    """Of the layers that the client runs, where the model is split."""


@dataclass(frozen=True, slots=True)
class InferencePrediction:
    """What requests see, with intervals; an upper end is infinite where the slow case would overload the replicas."""

    p50_s: Interval
    p95_s: Interval
    p99_s: Interval
    capacity_per_s: Interval
    utilisation: float
    mean_batch: float
    network_s: float
    waiting_p99_s: float
    service_s: float
    """Of a batch of the mean size."""
    parts: LatencyParts
    memory_fraction: float
    bound_by: str
    reasons: tuple[str, ...]
    calibration: str
    split: Split | None = None
    """Where the client runs the first layers; its times are part of the quantiles."""


def predict_inference(chip: Chip, load: InferenceLoad, calibration: Calibration) -> InferencePrediction:
    """Latency quantiles and capacity of a batched inference service under a Poisson load.

    Raises:
        DoesNotFit: the memory; says by how much.
        Overloaded: the load exceeds the capacity; says how many replicas would do.
    """
    fit = check_fit(
        inference_memory(load.profile, load.precision, load.batch_max),
        chip,
        f"serving {load.profile.name} in batches of {load.batch_max}",
    )
    service = service_times(chip, load, calibration)
    efficiency = calibration.model(chip.name, load.precision, load.profile)
    network = load.network_round_trip_s + (load.request_bytes + load.response_bytes) / load.network_bytes_per_s
    times = queue_times(batch_queue(load, service))
    low, high = _responses(load, service, efficiency.low), _responses(load, service, efficiency.high)
    batch = min(len(service), max(1, round(times.mean_batch)))
    pass_time = forward_time(chip, load.profile, load.precision, batch, calibration)
    waiting = times.waiting.p99_s
    bound = (
        "queue"
        if waiting > max(service[batch - 1], network)
        else "network"
        if network > service[batch - 1]
        else pass_time.bound_by
    )
    capacity = times.capacity_per_s
    return InferencePrediction(
        p50_s=Interval(times.response.p50_s, low.p50_s, high.p50_s).later(network),
        p95_s=Interval(times.response.p95_s, low.p95_s, high.p95_s).later(network),
        p99_s=Interval(times.response.p99_s, low.p99_s, high.p99_s).later(network),
        capacity_per_s=Interval(capacity, capacity / efficiency.high, capacity / efficiency.low),
        utilisation=times.utilisation,
        mean_batch=times.mean_batch,
        network_s=network,
        waiting_p99_s=waiting,
        service_s=service[batch - 1],
        parts=LatencyParts(
            network_s=load.network_round_trip_s,
            transfer_s=network - load.network_round_trip_s,
            batch_wait_s=times.held_p99_s,
            queue_s=max(0.0, waiting - times.held_p99_s),
            service_s=times.response.p99_s - max(waiting, times.held_p99_s),
        ),
        memory_fraction=fit,
        bound_by=bound,
        reasons=(
            f"p99 is {(times.response.p99_s + network) * 1e3:.3g} ms, bound by {bound}: network "
            f"{network * 1e3:.3g} ms, waiting "
            f"{waiting * 1e3:.3g} ms at p99, service {service[batch - 1] * 1e3:.3g} ms for {batch} at once "
            f"({pass_time.bound_by})",
            f"{load.replicas} replicas answer {capacity:.4g} requests/s at most; {times.utilisation:.0%} of "
            "that is used",
        ),
        calibration=efficiency.note,
    )


def on_server(load: InferenceLoad, costs: ServingCosts, processors: int, threads: int) -> InferenceLoad:
    """The load on `fusion serve`, whose model runs on so many threads, with what `fusion calibrate` found it to cost.

    Where there is no processor beside the model's, the server's threads take turns with the model, and all that they do
    is part of a batch's time (the work of a queue does not depend on its order: L. Kleinrock, "Queueing Systems II",
    1976, 3.4). Where there is, requests pass the event loop before they meet the batches, and the HTTP threads beside it.
    """
    bytes_ = load.request_bytes
    http_s, loop_s, model_s = (each.of_request(bytes_) for each in (costs.http, costs.loop, costs.model))
    batch_s = costs.loop.batch_s + costs.model.batch_s
    if processors <= threads:
        return replace(
            load,
            network_round_trip_s=load.network_round_trip_s + costs.wake_ups_s,
            overhead_s_per_batch=batch_s + costs.http.batch_s,
            overhead_s_per_request=http_s + loop_s + model_s,
        )
    return replace(
        load,
        network_round_trip_s=load.network_round_trip_s + costs.wake_ups_s + http_s + costs.http.batch_s,
        overhead_s_per_batch=batch_s,
        overhead_s_per_request=model_s,
        front_s_per_request=loop_s,
    )


def with_server(load: InferenceLoad, calibration: Calibration) -> InferenceLoad:
    """As `on_server`, on the machine of a calibration; unchanged where it did not measure the server."""
    if calibration.serving is None or calibration.measured_on is None:
        return load
    host = calibration.host.get(load.precision)
    threads = 0 if host is None else host.threads  # of an accelerator, which leaves the processors to the server
    return on_server(load, calibration.serving, calibration.measured_on.processors, threads)


def service_times(chip: Chip, load: InferenceLoad, calibration: Calibration) -> tuple[float, ...]:
    """Seconds of a batch of 1, 2, … batch_max: calculated at powers of two, straight lines between."""
    knots = sorted({min(2**power, load.batch_max) for power in range(load.batch_max.bit_length() + 1)})
    times = [
        forward_time(chip, load.profile, load.precision, batch, calibration).total_s
        + load.overhead_s_per_batch
        + batch * load.overhead_s_per_request
        for batch in knots
    ]
    seconds, at = [], 0
    for batch in range(1, load.batch_max + 1):
        while knots[at] < batch:
            at += 1
        if knots[at] == batch:
            seconds.append(times[at])
            continue
        share = (batch - knots[at - 1]) / (knots[at] - knots[at - 1])
        seconds.append(times[at - 1] + share * (times[at] - times[at - 1]))
    return tuple(seconds)


def batch_queue(load: InferenceLoad, service: tuple[float, ...], factor: float = 1.0) -> BatchQueue:
    """The queue of a load whose batches take `factor` times these seconds."""
    return BatchQueue(
        load.requests_per_s,
        tuple(seconds * factor for seconds in service),
        load.replicas,
        load.batch_wait_s,
        load.service_variation,
        load.front_s_per_request,
    )


def _responses(load: InferenceLoad, service: tuple[float, ...], factor: float) -> Quantiles:
    try:
        return queue_times(batch_queue(load, service, factor)).response
    except Overloaded:
        return Quantiles(math.inf, math.inf, math.inf, math.inf)
