"""Time of a training job: step, input, checkpoints, interruptions.

Sources: J. Daly, "A higher order estimate of the optimum checkpoint interval" (FGCS 22, 2006), equations 20 and 37;
J. Young, "A first order approximation to the optimum checkpoint interval" (CACM 17, 1974).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from planner.calibration.runs import correction
from planner.calibration.store import Calibration, Interval
from planner.performance.checks import PerformanceError, not_negative, positive, whole
from planner.performance.chip import BYTES, Chip
from planner.performance.collectives import Link, inside_link
from planner.performance.memory import STATE_BYTES, Optimizer, check_fit, training_memory
from planner.performance.parallel import (
    Parallelism,
    exposed_s,
    fsdp_exchange_s,
    gradient_exchange_s,
    pipeline_bubble,
    stage_exchange_s,
    tensor_parallel_s,
)
from planner.performance.roofline import forward_time
from planner.profiles.model import ModelProfile

BETWEEN_LATENCY_S = 25e-6
"""Message latency of NCCL over EFA or TCP between nodes (general knowledge)."""


ONE_DEVICE = Parallelism()


@dataclass(frozen=True)
class TrainingRun:
    """A training job, in numbers."""

    profile: ModelProfile
    samples: int
    """Samples of one epoch."""
    epochs: float
    batch_per_device: int
    precision: str = "bf16"
    parallelism: Parallelism = ONE_DEVICE
    optimizer: Optimizer = "adam"
    checkpoint_activations: bool = False
    network_bytes_per_s: float = 12.5e9
    """One node's, in one direction."""
    input_bytes_per_sample: float = 0.0
    input_bytes_per_s: float = math.inf
    """What storage and decoding give one node; infinite: data is in memory."""
    checkpoint_write_s: float = 0.0
    """Seconds that training stands still while a checkpoint is written."""
    restart_s: float = 300.0
    """Until training goes on after an interruption: a new node, image, and the checkpoint read."""
    interruptions_per_node_hour: float = 0.0

    def __post_init__(self) -> None:
        whole("samples", self.samples, at_most=10**15)
        positive("epochs", self.epochs)
        whole("batch_per_device", self.batch_per_device, at_most=10**7)
        positive("network_bytes_per_s", self.network_bytes_per_s)
        not_negative("input_bytes_per_sample", self.input_bytes_per_sample)
        if not self.input_bytes_per_s > 0:
            raise PerformanceError(f"input_bytes_per_s is {self.input_bytes_per_s!r}; it must be above zero")
        not_negative("checkpoint_write_s", self.checkpoint_write_s)
        not_negative("restart_s", self.restart_s)
        not_negative("interruptions_per_node_hour", self.interruptions_per_node_hour)


@dataclass(frozen=True, slots=True)
class TrainingPrediction:
    """What a training job takes; intervals hold nine of ten measured cases of the calibration's held-out rows."""

    step_s: Interval
    samples_per_s: Interval
    total_s: Interval
    node_hours: Interval
    """For the cost: nodes × hours."""
    compute_s: float
    exposed_communication_s: float
    input_s: float
    checkpoint_every_s: float
    lost_fraction: float
    """Share of the total time spent on checkpoints, repeated work and restarts."""
    memory_fraction: float
    model_flops_utilisation: float
    bound_by: str
    reasons: tuple[str, ...]
    calibration: str
    profile: str
    """The model's, by its own name."""
    peak_flops: float
    """Of one device, in the run's precision."""
    corrected_by: float = 1.0
    """Measured ÷ predicted step time of runs of this model on this machine, which is in the numbers already."""


def predict_training(chip: Chip, run: TrainingRun, calibration: Calibration) -> TrainingPrediction:
    """Step and total time of a training job.

    step = max(compute·imbalance·(1 + bubble) + exposed communication, input); total = steps · step, lengthened by
    Daly's equation 20. The imbalance is the slowest pipeline stage's time over that of an equal share.

    Raises:
        DoesNotFit: the memory; says by how much.
        PerformanceError: a number is wrong; names it.
    """
    shape = run.parallelism
    fit = _memory_fraction(chip, run)
    ways = shape.tensor * shape.pipeline
    forward = forward_time(chip, run.profile, run.precision, run.batch_per_device, calibration)
    passes = 4 if run.checkpoint_activations else 3
    imbalance = run.profile.stages(shape.pipeline).slowest_share * shape.pipeline
    computing = forward.total_s * passes / ways * imbalance * (1 + pipeline_bubble(shape))
    compute = computing + _update_s(chip, run, ways, calibration)
    exchange = _exchange_s(chip, run, ways, forward.total_s * 2 / ways)
    input_s = run.batch_per_device * shape.data * run.input_bytes_per_sample / (run.input_bytes_per_s * shape.nodes)
    step = max(compute + exchange, input_s)
    steps = math.ceil(run.samples * run.epochs / (run.batch_per_device * shape.data))
    every, stretch = checkpointing(run.checkpoint_write_s, run.restart_s, run.interruptions_per_node_hour * shape.nodes)
    efficiency = calibration.model(chip.name, run.precision, run.profile)
    measured = correction(calibration.runs, run.profile.name, run.precision) if input_s < step else None
    step_interval = efficiency.interval(step) if input_s < step else Interval(step, step, step)
    if measured:
        step = max(step * measured.ratio, input_s)
        step_interval = measured.interval(step)
    total = step_interval.scaled(steps * stretch)
    per_step = run.batch_per_device * shape.data
    bound = _bound(input_s >= step, exchange > compute, stretch > 2, forward.bound_by)
    return TrainingPrediction(
        step_s=step_interval,
        samples_per_s=step_interval.inverse(per_step),
        total_s=total,
        node_hours=total.scaled(shape.nodes / 3600),
        compute_s=compute,
        exposed_communication_s=exchange,
        input_s=input_s,
        checkpoint_every_s=every,
        lost_fraction=1 - 1 / stretch,
        memory_fraction=fit,
        model_flops_utilisation=3 * run.profile.flops * per_step / (step * shape.devices * chip.peak(run.precision)),
        bound_by=bound,
        reasons=(
            f"a step of {per_step} samples takes {step * 1e3:.3g} ms, bound by {bound}: compute "
            f"{compute * 1e3:.3g} ms, exposed "
            f"communication {exchange * 1e3:.3g} ms, input {input_s * 1e3:.3g} ms",
            f"{(1 - 1 / stretch):.1%} of the time goes to checkpoints and interruptions",
            f"memory is {fit:.0%} full",
            *((f"steps took {measured.ratio:.3g} times the model's prediction in measured runs",) if measured else ()),
        ),
        calibration=measured.note if measured else efficiency.note,
        profile=run.profile.name,
        peak_flops=chip.peak(run.precision),
        corrected_by=measured.ratio if measured else 1.0,
    )


def checkpointing(write_s: float, restart_s: float, interruptions_per_hour: float) -> tuple[float, float]:
    """Seconds between checkpoints, and by how much the total time is stretched, at the best interval.

    Daly 2006: W = √(2δM)·[1 + ⅓√(δ/2M) + δ/(18M)] - δ for δ < 2M (equation 37), else M; T/T_s =
    M·e^(R/M)·(e^((W+δ)/M) - 1)/W (equation 20) with M the mean time between interruptions, δ the write and R the
    restart.
    """
    if interruptions_per_hour == 0:
        return math.inf, 1.0
    mean = 3600 / interruptions_per_hour
    write = max(write_s, 1e-3)
    every = optimal_interval_s(write, mean)
    exponent = (every + write + restart_s) / mean
    if exponent > 50:
        raise PerformanceError(
            f"an interruption every {mean:.0f} s with checkpoints of {write_s:.0f} s and restarts of "
            f"{restart_s:.0f} s lets no training "
            "finish; take fewer nodes, faster checkpoints, or on-demand capacity"
        )
    return every, mean * math.exp(restart_s / mean) * math.expm1((every + write) / mean) / every


def optimal_interval_s(write_s: float, mean_between_s: float) -> float:
    """Daly's higher-order optimum of the computing time between checkpoints (equation 37); Young's √(2δM) is its
    first term."""
    write, mean = positive("checkpoint_write_s", write_s), positive("mean_between_s", mean_between_s)
    if write >= 2 * mean:
        return mean
    root = math.sqrt(write / (2 * mean))
    return math.sqrt(2 * write * mean) * (1 + root / 3 + root * root / 9) - write


def _memory_fraction(chip: Chip, run: TrainingRun) -> float:
    shape = run.parallelism
    use = training_memory(
        run.profile,
        run.precision,
        run.batch_per_device,
        optimizer=run.optimizer,
        zero_stage=3 if shape.fsdp else 0,
        data_parallel=shape.data,
        tensor_parallel=shape.tensor,
        pipeline_parallel=shape.pipeline,
        checkpoint_activations=run.checkpoint_activations,
    )
    return check_fit(use, chip, f"training {run.profile.name} with {run.batch_per_device} samples a device")


def _update_s(chip: Chip, run: TrainingRun, ways: int, calibration: Calibration) -> float:
    """The optimizer reads and writes weights and state once, and reads gradients."""
    shards = run.parallelism.data if run.parallelism.fsdp else 1
    size = BYTES[run.precision]
    master = 4.0 if size < 4 else 0.0
    moved = run.profile.parameters / (ways * shards) * (2 * (size + master + STATE_BYTES[run.optimizer]) + size)
    parameters = calibration.gemm(chip.name, run.precision).parameters
    return moved / (chip.memory_bandwidth_bytes_per_s * parameters.bandwidth_efficiency)


def _exchange_s(chip: Chip, run: TrainingRun, ways: int, backward_s: float) -> float:
    """Communication of a step that nothing hides."""
    shape = run.parallelism
    inside = inside_link(chip, shape.devices_per_node)
    between = Link(run.network_bytes_per_s / shape.devices_per_node, BETWEEN_LATENCY_S)
    exposed = tensor_parallel_s(run.profile, run.precision, run.batch_per_device, shape, inside)
    exposed += stage_exchange_s(run.profile, run.precision, run.batch_per_device, shape, inside, between)
    if shape.data == 1:
        return exposed
    size = run.profile.parameters / ways * BYTES[run.precision]
    if shape.fsdp:
        return exposed + exposed_s(fsdp_exchange_s(size, shape, inside, between), backward_s * 1.5)
    return exposed + exposed_s(gradient_exchange_s(size, shape, inside, between), backward_s)


def _bound(input_bound: bool, network_bound: bool, interruptions: bool, inside: str) -> str:
    if interruptions:
        return "interruptions and checkpoints"
    if input_bound:
        return "input"
    return "network" if network_bound else inside
