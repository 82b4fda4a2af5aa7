"""What a search asks for: a training run, an inference service or a language model, each with the shapes it may take.

A goal knows of a machine: the shapes that may run on it, the least seconds that a shape can take (almost free, then
cheap), and what the performance model predicts for it (dear). `planner.optimizer` needs nothing else.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from planner.calibration.store import Calibration
from planner.machines import Machine
from planner.performance.checks import PerformanceError, positive, whole
from planner.performance.chip import BYTES, Chip
from planner.performance.inference import (
    InferenceLoad,
    InferencePrediction,
    batch_queue,
    predict_inference,
    service_times,
    with_server,
)
from planner.performance.language_model import DecoderTraffic
from planner.performance.memory import check_fit, inference_memory
from planner.performance.parallel import Parallelism, pipeline_bubble
from planner.performance.queueing import ROUNDING, BatchQueue, queue_times, queue_times_within
from planner.performance.roofline import forward_time
from planner.performance.serving import LanguageModelPrediction, predict_language_model
from planner.performance.split import EdgeSide, Split, best_split
from planner.performance.training import TrainingPrediction, TrainingRun, predict_training
from planner.profiles.decoder import DecoderConfig
from planner.profiles.model import ModelProfile

Prediction = TrainingPrediction | InferencePrediction | LanguageModelPrediction
MICROBATCHES_PER_STAGE = 4
"""At which GPipe found the bubble negligible (arXiv 1811.06965, section 2.3)."""
NEVER = 1_000_000
"""More replicas than any service may have."""
LimitFields = Mapping[str, tuple[str, float]]
"""By field of `Ceilings`: the field of a target that sets it, and what the first is times to be the second."""
Column = npt.NDArray[np.float64]
_LAYERS: dict[int, tuple[ModelProfile, _Layers]] = {}
TENSOR_DEGREES = (1, 2, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class Shape:
    """One way to run a goal on a machine."""

    precision: str
    batch: int
    """Training: samples by data-parallel replica; inference: the most requests of a batch; language models: 1."""
    parallelism: Parallelism
    """Of a training job; of one replica of a service."""
    replicas: int = 1
    """Of a service."""

    @property
    def devices(self) -> int:
        """Of all replicas or nodes."""
        return self.parallelism.devices * self.replicas


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a shape is predicted to do."""

    seconds: float
    """Training: of the whole run; inference: p99 of a request; language models: to the first token."""
    token_s: float = 0.0
    """By output token of a language model."""

    def worse(self, other: Outcome) -> Outcome:
        """The longer of both times each."""
        return Outcome(max(self.seconds, other.seconds), max(self.token_s, other.token_s))


@dataclass(frozen=True, eq=False)
class TrainingGoal:
    """Train a model once. `run` holds what does not vary; its batch, precision and parallelism are searched."""

    limit_fields: ClassVar[LimitFields] = {"usd": ("run_usd_max", 1), "seconds": ("hours_max", 1 / 3600)}

    run: TrainingRun
    global_batch: int
    precisions: tuple[str, ...] = ("bf16",)
    nodes: tuple[int, ...] = (1, 2, 4, 8)
    _floors: dict[tuple[object, ...], float] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        whole("global_batch", self.global_batch, at_most=10**9)
        _counts("nodes", self.nodes)

    def shapes(self, machine: Machine) -> Iterator[Shape]:
        """Every split of the devices over data, tensor and pipeline, sharded or not, that divides the batch."""
        layers = len(self.run.profile.layers)
        for nodes in self.nodes:
            devices = nodes * machine.count
            for tensor in _powers(machine.count):
                for pipeline in _powers(devices // tensor):
                    data = devices // (tensor * pipeline)
                    if pipeline > layers or self.global_batch % data:
                        continue
                    batch = self.global_batch // data
                    micro = 1 if pipeline == 1 else math.gcd(batch, MICROBATCHES_PER_STAGE * pipeline)
                    for fsdp in (False, True) if data > 1 else (False,):
                        split = Parallelism(machine.count, nodes, tensor, pipeline, micro, fsdp)
                        for precision in self.precisions:
                            yield Shape(precision, batch, split)

    def quick_floor_s(self, chip: Chip, shape: Shape, calibration: Calibration) -> float:
        """As `quick_pass_s`, for all passes of the run."""
        key = ("quick", *_chip_key(chip), shape.precision, shape.batch)
        if key not in self._floors:
            self._floors[key] = quick_pass_s(chip, self.run.profile, shape.precision, shape.batch, calibration)
        return self._computing_s(self._floors[key], shape)

    def floor_s(self, chip: Chip, shape: Shape, calibration: Calibration) -> float:
        """Computing alone, with nothing exchanged, updated, read or lost.

        Raises:
            PerformanceError: the shape can't run.
        """
        key = (*_chip_key(chip), shape.precision, shape.batch)
        if key not in self._floors:
            self._floors[key] = forward_time(chip, self.run.profile, shape.precision, shape.batch, calibration).total_s
        return self._computing_s(self._floors[key], shape)

    def _computing_s(self, forward_s: float, shape: Shape) -> float:
        """Seconds of all steps whose forward pass takes so long, with the pipeline's idle time."""
        split = shape.parallelism
        passes = 4 if self.run.checkpoint_activations else 3
        steps = math.ceil(self.run.samples * self.run.epochs / self.global_batch)
        return steps * forward_s * passes / (split.tensor * split.pipeline) * (1 + pipeline_bubble(split))

    def node_hours(self, seconds: float, shape: Shape) -> float:
        """What is billed."""
        return seconds / 3600 * shape.parallelism.nodes

    def predict(self, chip: Chip, machine: Machine, shape: Shape, calibration: Calibration) -> TrainingPrediction:
        """Raises PerformanceError where the shape can't run."""
        run = dataclasses.replace(
            self.run,
            batch_per_device=shape.batch,
            precision=shape.precision,
            parallelism=shape.parallelism,
            interruptions_per_node_hour=machine.interruptions_per_node_hour,
            restart_s=self.run.restart_s + machine.away_hours * 3600,
        )
        return predict_training(chip, run, calibration)

    def outcome(self, chip: Chip, machine: Machine, shape: Shape, calibration: Calibration) -> Outcome:
        """Raises PerformanceError where the shape can't run."""
        return Outcome(self.predict(chip, machine, shape, calibration).total_s.value)


@dataclass(frozen=True, eq=False)
class ServiceGoal:
    """Answer requests. `load` holds what does not vary; its precision, batch and replicas are searched."""

    limit_fields: ClassVar[LimitFields] = {"usd": ("usd_per_hour_max", 1), "seconds": ("p99_ms_max", 1e3)}

    load: InferenceLoad
    precisions: tuple[str, ...] = ("bf16",)
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    replicas_min: int = 1
    replicas_max: int = 16
    peak: ServiceGoal | None = None
    """The same at its peak, which `replicas_max` of it bear however few answer otherwise; the limits hold then too."""
    edge: EdgeSide | None = None
    """What runs the model's first layers, where clients do; its link takes the place of the load's network."""
    _services: dict[tuple[object, ...], tuple[float, ...]] = field(default_factory=dict, init=False, repr=False)
    """Seconds by batch, which many numbers of replicas share; by chip, precision and largest batch."""
    _splits: dict[tuple[object, ...], Split] = field(default_factory=dict, init=False, repr=False)
    """By chip and precision."""

    def __post_init__(self) -> None:
        _counts("batches", self.batches)
        _counts("replicas", (self.replicas_min, self.replicas_max))

    def shapes(self, machine: Machine) -> Iterator[Shape]:
        """By precision and largest batch, with one replica."""
        for precision in self.precisions:
            for batch in self.batches:
                yield Shape(precision, batch, Parallelism())

    def quick_replicas(self, chip: Chip, shape: Shape, calibration: Calibration) -> int:
        """As `replicas_floor`, with batches as fast as `quick_pass_s`; of a part of a model nothing so soon."""
        if self.edge is not None:
            return self.replicas_min
        batch_s = quick_pass_s(chip, self.load.profile, shape.precision, shape.batch, calibration)
        busy = self.load.requests_per_s * batch_s / shape.batch
        return NEVER if busy >= NEVER else max(self.replicas_min, math.floor(busy) + 1)

    def replicas_floor(self, chip: Chip, shape: Shape, calibration: Calibration) -> int:
        """The fewest replicas whose queue does not grow for ever.

        Raises:
            PerformanceError: the shape can't run.
        """
        _check_peak(self, chip, shape, calibration)
        load = self.load_on(chip, shape, calibration)
        what = f"serving {load.profile.name} in batches of {load.batch_max}"
        check_fit(inference_memory(load.profile, load.precision, load.batch_max), chip, what)
        by_request_s = max(self._service(chip, load, calibration)[-1] / load.batch_max, load.front_s_per_request)
        return max(self.replicas_min, math.floor(load.requests_per_s * by_request_s) + 1)

    def floor_s(self, chip: Chip, shape: Shape, calibration: Calibration) -> float:
        """Network and the fastest batch. Raises PerformanceError where the shape can't run."""
        load = self.load_on(chip, shape, calibration)
        return _network_s(load) + min(self._service(chip, load, calibration))

    def predict(self, chip: Chip, machine: Machine, shape: Shape, calibration: Calibration) -> InferencePrediction:
        """Raises PerformanceError where the shape can't run."""
        predicted = predict_inference(chip, self.load_on(chip, shape, calibration), calibration)
        if self.edge is None:
            return predicted
        split = self._split(self.edge, chip, shape.precision, calibration)
        parts = dataclasses.replace(predicted.parts, edge_s=split.edge_s, network_s=split.link_s)
        reasons = (*predicted.reasons, split.reason)
        return dataclasses.replace(predicted, split=split, parts=parts, network_s=split.link_s, reasons=reasons)

    def outcome(self, chip: Chip, machine: Machine, shape: Shape, calibration: Calibration) -> Outcome:
        """The queue once (and at the peak), without the two replays more that the prediction's interval takes.

        Raises:
            PerformanceError: the shape can't run.
        """
        load = self.load_on(chip, shape, calibration)
        usual = Outcome(queue_times(self._queue(chip, load, calibration)).response.p99_s + _network_s(load))
        return usual if self.peak is None else usual.worse(at_peak(self.peak, chip, machine, shape, calibration))

    def is_slower(self, chip: Chip, shape: Shape, calibration: Calibration, seconds: float) -> bool:
        """Whether p99 is longer than that, at the peak too; found sooner than how long. False where it can't run."""
        load = self.load_on(chip, shape, calibration)
        within_s = (seconds - _network_s(load)) * (1 + ROUNDING)
        try:
            if queue_times_within(self._queue(chip, load, calibration), within_s) is None:
                return True
        except PerformanceError:
            return False
        if self.peak is None:
            return False
        at_most = dataclasses.replace(shape, replicas=self.peak.replicas_max)
        return self.peak.is_slower(chip, at_most, calibration, seconds)

    def _queue(self, chip: Chip, load: InferenceLoad, calibration: Calibration) -> BatchQueue:
        return batch_queue(load, self._service(chip, load, calibration))

    def _service(self, chip: Chip, load: InferenceLoad, calibration: Calibration) -> tuple[float, ...]:
        key = (*_chip_key(chip), load.precision, load.batch_max)
        if key not in self._services:
            self._services[key] = service_times(chip, load, calibration)
        return self._services[key]

    def load_on(self, chip: Chip, shape: Shape, calibration: Calibration) -> InferenceLoad:
        """What one shape on a chip has to do: of a split model, the layers behind the best cut for that chip; with what
        the server costs beside the model, where that was measured.

        Raises:
            PerformanceError: the profile can't be split.
        """
        load = dataclasses.replace(self.load, precision=shape.precision, batch_max=shape.batch, replicas=shape.replicas)
        load = with_server(load, calibration)
        if self.edge is None:
            return load
        split = self._split(self.edge, chip, shape.precision, calibration)
        return dataclasses.replace(
            load,
            profile=split.rest,
            network_round_trip_s=split.edge_s + split.link_s,
            request_bytes=0.0,
            response_bytes=0.0,
        )

    def _split(self, edge: EdgeSide, chip: Chip, precision: str, calibration: Calibration) -> Split:
        key = (*_chip_key(chip), precision)
        if key not in self._splits:
            self._splits[key] = best_split(edge, self.load.profile, chip, precision, calibration)
        return self._splits[key]


@dataclass(frozen=True, eq=False)
class LanguageModelGoal:
    """Serve a decoder to requests that are spread evenly over replicas of some devices each, which cut every layer
    (tensor parallelism), or hold a run of layers each (pipeline), or both.

    Either `requests_per_s` of all users (a Poisson stream) or their `concurrency` (each waits for the last answer).
    """

    limit_fields: ClassVar[LimitFields] = {
        "usd": ("usd_per_hour_max", 1),
        "seconds": ("ttft_ms_max", 1e3),
        "token_s": ("tpot_ms_max", 1e3),
    }

    config: DecoderConfig
    input_tokens: int
    output_tokens: int
    requests_per_s: float | None = None
    concurrency: int | None = None
    precisions: tuple[str, ...] = ("bf16",)
    replicas_min: int = 1
    replicas_max: int = 16
    tensors: tuple[int, ...] = TENSOR_DEGREES
    """Devices of one replica."""
    engine: str = "vllm"
    network_s: float = 0.0
    """Of a request and the first token; the further ones stream."""
    peak: LanguageModelGoal | None = None
    """As of `ServiceGoal`."""

    def __post_init__(self) -> None:
        if (self.requests_per_s is None) == (self.concurrency is None):
            raise PerformanceError("give either concurrency or requests_per_s, not both and not neither")
        positive("requests_per_s", self.requests_per_s if self.requests_per_s is not None else 1.0)
        _counts("replicas", (self.replicas_min, self.replicas_max))

    def shapes(self, machine: Machine) -> Iterator[Shape]:
        """By precision and devices of one replica, which are of one node, and how many stages they form."""
        for devices in self.tensors:
            for stages in _powers(devices) if devices <= machine.count else ():
                if self.config.heads % (devices // stages) == 0 and stages <= self.config.layers:
                    for precision in self.precisions:
                        yield Shape(precision, 1, Parallelism(devices, 1, devices // stages, stages))

    def quick_replicas(self, chip: Chip, shape: Shape, calibration: Calibration) -> int:
        """As `replicas_floor`."""
        return self.replicas_min if shape.precision in chip.peak_flops else NEVER

    def replicas_floor(self, chip: Chip, shape: Shape, calibration: Calibration) -> int:
        """The prediction is a closed form, so nothing cheaper is needed than to know nothing."""
        return self.replicas_min

    def floor_s(self, chip: Chip, shape: Shape, calibration: Calibration) -> float:
        """The network alone; see `replicas_floor`."""
        return self.network_s

    def is_slower(self, chip: Chip, shape: Shape, calibration: Calibration, seconds: float) -> bool:
        """Nothing says so sooner than the prediction; see `replicas_floor`."""
        return False

    def predict(self, chip: Chip, machine: Machine, shape: Shape, calibration: Calibration) -> LanguageModelPrediction:
        """Of one replica. Raises PerformanceError where the shape can't run."""
        users = None if self.concurrency is None else math.ceil(self.concurrency / shape.replicas)
        rate = None if self.requests_per_s is None else self.requests_per_s / shape.replicas
        predicted = predict_language_model(
            chip,
            self.config,
            DecoderTraffic(self.input_tokens, self.output_tokens, concurrency=users, requests_per_s=rate),
            calibration,
            precision=shape.precision,
            tensor_parallel=shape.parallelism.tensor,
            pipeline_parallel=shape.parallelism.pipeline,
            engine=self.engine,
        )
        if not self.network_s:
            return predicted
        return dataclasses.replace(
            predicted,
            time_to_first_token_s=predicted.time_to_first_token_s.later(self.network_s),
            network_s=self.network_s,
            reasons=(*predicted.reasons, f"of the time to the first token, {self.network_s * 1e3:.3g} ms are network"),
        )

    def outcome(self, chip: Chip, machine: Machine, shape: Shape, calibration: Calibration) -> Outcome:
        """Raises PerformanceError where the shape can't run."""
        predicted = self.predict(chip, machine, shape, calibration)
        usual = Outcome(predicted.time_to_first_token_s.value, predicted.time_per_output_token_s.value)
        return usual if self.peak is None else usual.worse(at_peak(self.peak, chip, machine, shape, calibration))


ReplicaGoal = ServiceGoal | LanguageModelGoal
Goal = TrainingGoal | ReplicaGoal


def at_peak(peak: ReplicaGoal, chip: Chip, machine: Machine, shape: Shape, calibration: Calibration) -> Outcome:
    """What its most replicas do.

    Raises:
        PerformanceError: they can't bear it; says at which rate.
    """
    try:
        return peak.outcome(chip, machine, dataclasses.replace(shape, replicas=peak.replicas_max), calibration)
    except PerformanceError as error:
        raise PerformanceError(f"at its peak, with the {peak.replicas_max} of replicas.max: {error}") from None


def _check_peak(goal: ServiceGoal, chip: Chip, shape: Shape, calibration: Calibration) -> None:
    """Full batches on all replicas are the least that a peak takes: found at once, before any queue is replayed."""
    if (
        goal.peak is not None
        and (needed := goal.peak.replicas_floor(chip, shape, calibration)) > goal.peak.replicas_max
    ):
        raise PerformanceError(
            f"its peak of {goal.peak.load.requests_per_s:g} requests/s takes at least {needed} replicas, and "
            f"replicas.max is {goal.peak.replicas_max}"
        )


def quick_pass_s(chip: Chip, profile: ModelProfile, precision: str, batch: int, calibration: Calibration) -> float:
    """Less than `forward_time`, at a hundredth of its cost: products as if their tiles filled every wave of the
    chip and all that they read came at once, other layers as there; infinite where nothing is known at the precision.
    """
    if precision not in chip.peak_flops:
        return math.inf
    try:
        if calibration.host_costs(chip.name, precision) is not None:
            return 0.0
        parameters = calibration.gemm(chip.name, precision).parameters
    except PerformanceError:
        return math.inf
    layers, peak, bandwidth = _layers(profile), chip.peak(precision), chip.memory_bandwidth_bytes_per_s
    product_rate = peak * min(1.0, chip.sustained * parameters.compute_efficiency)
    convolution = max(calibration.convolution_share, calibration.convolution_share_few_channels or 0.0)
    compute_s = layers.product_flops * (batch / product_rate)
    compute_s += layers.convolution_flops * (batch / (product_rate * convolution))
    compute_s += layers.other_flops * (batch / (peak * parameters.compute_efficiency))
    moved = (layers.moved_numbers * batch + layers.weight_numbers) * BYTES[precision]
    slow, fast = (
        bandwidth * parameters.bandwidth_efficiency,
        chip.l2_bandwidth_bytes_per_s * parameters.cache_efficiency,
    )
    rate = np.where(moved < chip.l2_bytes / 2, max(slow, fast), slow)
    for operation, share in calibration.class_bandwidth_share.items():
        rate[layers.operations == operation] = bandwidth * share
    work_s = float((np.maximum(compute_s, moved / rate) * layers.counts).sum())
    passes_s = work_s + float(layers.counts.sum()) * parameters.launch_s + calibration.pass_overhead_s
    return passes_s * (1 - ROUNDING)


@dataclass(frozen=True, slots=True)
class _Layers:
    """A profile's distinct layers as columns; FLOPs and numbers by sample, weights by pass."""

    counts: Column
    operations: npt.NDArray[np.str_]
    product_flops: Column
    convolution_flops: Column
    other_flops: Column
    moved_numbers: Column
    """Zero for matrix products, whose operands may come from a cache."""
    weight_numbers: Column


def _layers(profile: ModelProfile) -> _Layers:
    """Kept by identity, for a profile is long and never changes."""
    known = _LAYERS.get(id(profile))
    if known is None or known[0] is not profile:
        known = _LAYERS[id(profile)] = (profile, _new_layers(profile))
    return known[1]


def _new_layers(profile: ModelProfile) -> _Layers:
    each = [layer for layer, _ in profile.distinct]
    moves = [layer.operation != "gemm" or layer.product is None for layer in each]
    reads = [layer.read_numbers * (2 if layer.operation == "normalisation" else 1) for layer in each]
    products = np.array([2.0 * p.m * p.n * p.k * p.count if (p := layer.product) else 0.0 for layer in each])
    convolution = np.array([layer.operation == "conv" for layer in each])
    return _Layers(
        counts=np.array([float(count) for _, count in profile.distinct]),
        operations=np.array([layer.operation for layer in each]),
        product_flops=np.where(convolution, 0.0, products),
        convolution_flops=np.where(convolution, products, 0.0),
        other_flops=np.array([0.0 if layer.product else float(layer.flops) for layer in each]),
        moved_numbers=np.array(moves) * (np.array(reads) + [float(layer.written_numbers) for layer in each]),
        weight_numbers=np.array(moves) * np.array([float(layer.weight_numbers) for layer in each]),
    )


def _chip_key(chip: Chip) -> tuple[object, ...]:
    """Tells apart parts of one chip, and shares of one processor."""
    return chip.name, chip.memory_bytes, chip.memory_bandwidth_bytes_per_s


def _network_s(load: InferenceLoad) -> float:
    return load.network_round_trip_s + (load.request_bytes + load.response_bytes) / load.network_bytes_per_s


def _powers(most: int) -> Iterator[int]:
    """1, 2, 4 … that divide `most`."""
    power = 1
    while most % power == 0:
        yield power
        power *= 2


def _counts(field: str, values: tuple[int, ...]) -> None:
    if not values:
        raise PerformanceError(f"{field} is empty; expected at least one whole number")
    for value in values:
        whole(field, value, at_most=100_000)
