"""What a search asks for: a training run, an inference service or a language model, each with the shapes it may take.

A goal knows three things of a machine: the shapes that may run on it, the least seconds that a shape can take (cheap),
and what the performance model predicts for it (dear). `planner.optimizer` needs nothing else.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from planner.calibration.store import Calibration
from planner.performance.checks import PerformanceError, positive, whole
from planner.performance.chip import Chip
from planner.performance.inference import InferenceLoad, InferencePrediction, predict_inference, service_times
from planner.performance.language_model import DecoderTraffic
from planner.performance.memory import check_fit, inference_memory
from planner.performance.parallel import Parallelism
from planner.performance.queueing import BatchQueue, queue_times
from planner.performance.roofline import forward_time
from planner.performance.serving import LanguageModelPrediction, predict_language_model
from planner.performance.training import TrainingPrediction, TrainingRun, predict_training
from planner.profiles.decoder import DecoderConfig

Prediction = TrainingPrediction | InferencePrediction | LanguageModelPrediction
MICROBATCHES_PER_STAGE = 4
"""At which GPipe found the bubble negligible (arXiv 1811.06965, section 2.3)."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What offers have in common that perform alike: one node's accelerators, and how often spot takes it back."""

    accelerator: str
    count: int
    interruptions_per_node_hour: float = 0.0
    """Zero on demand."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One way to run a goal on nodes of one machine."""

    nodes: int
    precision: str
    batch: int
    """Training: samples by data-parallel replica; inference: the most requests of a batch; language models: 1."""
    parallelism: Parallelism


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a shape is predicted to do."""

    seconds: float
    """Training: of the whole run; inference: p99 of a request; language models: to the first token."""
    billed_hours: float
    """By node: of the run; 1 for services, whose cost is by hour."""
    token_s: float = 0.0
    """By output token of a language model."""


@dataclass(frozen=True, eq=False)
class TrainingGoal:
    """Train a model once. `run` holds what does not vary; its batch, precision and parallelism are searched."""

    run: TrainingRun
    global_batch: int
    precisions: tuple[str, ...] = ("bf16",)
    nodes: tuple[int, ...] = (1, 2, 4, 8)

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
                            yield Shape(nodes, precision, batch, split)

    def floor_s(self, chip: Chip, shape: Shape, calibration: Calibration) -> float:
        """Computing alone, with nothing exchanged, read or lost."""
        split = shape.parallelism
        forward = forward_time(chip, self.run.profile, shape.precision, shape.batch, calibration).total_s
        passes = 4 if self.run.checkpoint_activations else 3
        steps = math.ceil(self.run.samples * self.run.epochs / self.global_batch)
        return steps * forward * passes / (split.tensor * split.pipeline)

    def floor_key(self, shape: Shape) -> tuple[object, ...]:
        """What the floor depends on, besides the chip."""
        return shape.precision, shape.batch, shape.parallelism.tensor * shape.parallelism.pipeline

    def billed_floor_hours(self, floor_s: float) -> float:
        """By node."""
        return floor_s / 3600

    def predict(self, chip: Chip, machine: Machine, shape: Shape, calibration: Calibration) -> TrainingPrediction:
        """Raises PerformanceError where the shape can't run."""
        run = dataclasses.replace(
            self.run,
            batch_per_device=shape.batch,
            precision=shape.precision,
            parallelism=shape.parallelism,
            interruptions_per_node_hour=machine.interruptions_per_node_hour,
        )
        return predict_training(chip, run, calibration)

    def outcome(self, chip: Chip, machine: Machine, shape: Shape, calibration: Calibration) -> Outcome:
        """Raises PerformanceError where the shape can't run."""
        total_s = self.predict(chip, machine, shape, calibration).total_s.value
        return Outcome(total_s, total_s / 3600)


@dataclass(frozen=True, eq=False)
class ServiceGoal:
    """Answer requests. `load` holds what does not vary; its precision, batch and replicas are searched."""

    load: InferenceLoad
    precisions: tuple[str, ...] = ("bf16",)
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    nodes: tuple[int, ...] = (1, 2, 3, 4, 6, 8)
    replicas_max: int = 100_000
    _services: dict[tuple[str, str, int], tuple[float, ...]] = field(default_factory=dict, init=False, repr=False)
    """Seconds by batch, which many numbers of replicas share; by chip, precision and largest batch."""

    def __post_init__(self) -> None:
        _counts("batches", self.batches)
        _counts("nodes", self.nodes)

    def shapes(self, machine: Machine) -> Iterator[Shape]:
        """A replica on every accelerator, by number of nodes, precision and largest batch."""
        for nodes in self.nodes:
            if nodes * machine.count > self.replicas_max:
                continue
            split = Parallelism(machine.count, nodes)
            for precision in self.precisions:
                for batch in self.batches:
                    yield Shape(nodes, precision, batch, split)

    def floor_s(self, chip: Chip, shape: Shape, calibration: Calibration) -> float:
        """Network and the fastest batch; infinite where the queue would grow for ever. No queue is replayed.

        Raises:
            PerformanceError: the shape can't run.
        """
        load = self._load(shape)
        what = f"serving {load.profile.name} in batches of {load.batch_max}"
        check_fit(inference_memory(load.profile, load.precision, load.batch_max), chip, what)
        service = self._service(chip, load, calibration)
        if load.requests_per_s * service[-1] >= load.replicas * load.batch_max:
            return math.inf
        return _network_s(load) + min(service)

    def floor_key(self, shape: Shape) -> tuple[object, ...]:
        """What the floor depends on, besides the chip."""
        return shape.precision, shape.batch, shape.parallelism.devices

    def billed_floor_hours(self, floor_s: float) -> float:
        """By node: a service is priced by hour."""
        return math.inf if floor_s == math.inf else 1.0

    def predict(self, chip: Chip, machine: Machine, shape: Shape, calibration: Calibration) -> InferencePrediction:
        """Raises PerformanceError where the shape can't run."""
        return predict_inference(chip, self._load(shape), calibration)

    def outcome(self, chip: Chip, machine: Machine, shape: Shape, calibration: Calibration) -> Outcome:
        """The queue once, without the two replays more that the prediction's interval takes.

        Raises:
            PerformanceError: the shape can't run.
        """
        load = self._load(shape)
        service = self._service(chip, load, calibration)
        queue = BatchQueue(load.requests_per_s, service, load.replicas, load.batch_wait_s, load.service_variation)
        return Outcome(queue_times(queue).response.p99_s + _network_s(load), 1.0)

    def _service(self, chip: Chip, load: InferenceLoad, calibration: Calibration) -> tuple[float, ...]:
        key = (chip.name, load.precision, load.batch_max)
        if key not in self._services:
            self._services[key] = service_times(chip, load, calibration)
        return self._services[key]

    def _load(self, shape: Shape) -> InferenceLoad:
        return dataclasses.replace(
            self.load, precision=shape.precision, batch_max=shape.batch, replicas=shape.parallelism.devices
        )


@dataclass(frozen=True, eq=False)
class LanguageModelGoal:
    """Serve a decoder to a Poisson stream of requests, spread evenly over replicas of `tensor` devices each."""

    config: DecoderConfig
    requests_per_s: float
    input_tokens: int
    output_tokens: int
    precisions: tuple[str, ...] = ("bf16",)
    nodes: tuple[int, ...] = (1, 2, 3, 4, 6, 8)
    engine: str = "vllm"

    def __post_init__(self) -> None:
        positive("requests_per_s", self.requests_per_s)
        _counts("nodes", self.nodes)

    def shapes(self, machine: Machine) -> Iterator[Shape]:
        """By number of nodes, precision, and devices of one replica."""
        for nodes in self.nodes:
            for tensor in _powers(machine.count):
                if self.config.heads % tensor == 0:
                    for precision in self.precisions:
                        yield Shape(nodes, precision, 1, Parallelism(machine.count, nodes, tensor))

    def floor_s(self, chip: Chip, shape: Shape, calibration: Calibration) -> float:
        """The prediction is a closed form, so nothing cheaper is needed than to know nothing."""
        return 0.0

    def floor_key(self, shape: Shape) -> tuple[object, ...]:
        """What the floor depends on, besides the chip."""
        return ()

    def billed_floor_hours(self, floor_s: float) -> float:
        """By node: a service is priced by hour."""
        return 1.0

    def predict(self, chip: Chip, machine: Machine, shape: Shape, calibration: Calibration) -> LanguageModelPrediction:
        """Of one replica. Raises PerformanceError where the shape can't run."""
        split = shape.parallelism
        rate = self.requests_per_s / split.data
        traffic = DecoderTraffic(self.input_tokens, self.output_tokens, requests_per_s=rate)
        return predict_language_model(
            chip,
            self.config,
            traffic,
            calibration,
            precision=shape.precision,
            tensor_parallel=split.tensor,
            engine=self.engine,
        )

    def outcome(self, chip: Chip, machine: Machine, shape: Shape, calibration: Calibration) -> Outcome:
        """Raises PerformanceError where the shape can't run."""
        predicted = self.predict(chip, machine, shape, calibration)
        return Outcome(predicted.time_to_first_token_s.value, 1.0, predicted.time_per_output_token_s.value)


Goal = TrainingGoal | ServiceGoal | LanguageModelGoal


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
