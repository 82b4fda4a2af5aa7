"""What a plan says, in the words and units that people read; the table, the JSON and the page render nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from planner.calibration.store import Interval
from planner.choices import Answer, Choice
from planner.cost import CostItem, Quantity, total
from planner.goals import Shape
from planner.performance.inference import InferencePrediction
from planner.performance.serving import LanguageModelPrediction
from planner.performance.training import TrainingPrediction
from planner.prediction import WorkloadPrediction
from planner.targets import prediction_of
from planner.workloads import InferenceService, LanguageModelTarget, TrainingJob, TrainingTarget

Kind = Literal["training", "inference", "language model"]
USD_BY: Mapping[Kind, str] = {"training": "a run", "inference": "an hour", "language model": "an hour"}
TIME: Mapping[Kind, str] = {
    "training": "run time",
    "inference": "p99 latency",
    "language model": "time to first token",
}


@dataclass(frozen=True, slots=True)
class Way:
    """One way to run a workload, and why it was taken or not."""

    instance_type: str
    cloud: str
    region: str
    price_model: str
    nodes: int
    accelerators_per_node: int
    accelerator: str
    how: str
    """Precision, batch and split over the accelerators."""
    usd: float
    """A run of training, an hour of a service."""
    seconds: float
    """The run, or the 99th percentile of a request, at the peak where that is longer."""
    verdict: str

    @property
    def place(self) -> str:
        """Cloud and region."""
        return f"{self.cloud} {self.region}"

    @property
    def nodes_said(self) -> str:
        """Nodes and what is in them."""
        return f"{self.nodes} x {self.instance_type} ({self.accelerators_per_node} {self.accelerator})"


@dataclass(frozen=True, slots=True)
class Part:
    """A named share of a cost or a time."""

    name: str
    value: float
    """USD, or seconds."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A predicted quantity with its interval."""

    name: str
    unit: str
    value: Interval


@dataclass(frozen=True, slots=True)
class WorkloadFindings:
    """What was found for a workload with a target."""

    name: str
    kind: Kind
    chosen: Way
    others: tuple[Way, ...]
    """What comes next, and what a limit kept out."""
    prediction: WorkloadPrediction
    estimates: tuple[Estimate, ...]
    """Of `prediction`, those that there are."""
    reasons: tuple[str, ...]
    calibration: str
    cost_parts: tuple[Part, ...]
    """Of `chosen.usd`."""
    time_parts: tuple[Part, ...]
    """Of `chosen.seconds`."""
    usd_max: float
    seconds_max: float
    """Infinite where nothing is asked."""
    frontier: tuple[Way, ...] = ()
    """Empty where it was not asked for."""


@dataclass(frozen=True, slots=True)
class Bill:
    """What a stack costs by month, component by component."""

    lines: tuple[tuple[str, Quantity], ...]
    """The dearest first."""
    monthly_usd: Quantity


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that a plan of one document says."""

    source: str
    workloads: tuple[WorkloadFindings, ...]
    without_target: Mapping[str, str]
    """By workload: its offer, chosen by needs and price."""
    bill: Bill | None
    """Of a stack."""
    notes: tuple[str, ...] = ()
    """What a reader must know of the plan as a whole."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing before and after a change."""

    subject: str
    what: str
    before: str
    after: str
    change: str
    """Signed, of numbers; empty of words that are the same."""


def workload_findings(
    workload: TrainingJob | InferenceService, answer: Answer, frontier: Iterable[Choice] = ()
) -> WorkloadFindings:
    """What was found for one workload."""
    kind = _kind(workload)
    prediction = prediction_of(workload, answer)
    best, predicted = answer.best, answer.prediction
    usd_max, seconds_max = _limits(workload)
    peak = prediction.peak
    named = (
        ("run time", "hours", prediction.run_hours),
        ("run cost", "USD", prediction.run_usd),
        ("p50 latency", "ms", prediction.p50_ms),
        ("p95 latency", "ms", prediction.p95_ms),
        ("p99 latency", "ms", prediction.p99_ms),
        ("time to first token", "ms", prediction.ttft_ms),
        ("time by output token", "ms", prediction.tpot_ms),
        ("p99 latency at peak", "ms", peak.p99_ms if peak else None),
        ("time to first token at peak", "ms", peak.ttft_ms if peak else None),
        ("time by output token at peak", "ms", peak.tpot_ms if peak else None),
    )
    return WorkloadFindings(
        name=workload.name,
        kind=kind,
        chosen=_way(best, kind, "chosen"),
        others=(
            *(_way(each, kind, each.reason) for each in answer.runners_up),
            *(_way(each.choice, kind, each.reason) for each in answer.rejected),
        ),
        prediction=prediction,
        estimates=tuple(Estimate(name, unit, value) for name, unit, value in named if value is not None),
        reasons=prediction.reasons,
        calibration=prediction.calibration,
        cost_parts=_scaled(_cost_shares(predicted), best.usd),
        time_parts=_time_parts(_slower(answer)),
        usd_max=usd_max,
        seconds_max=seconds_max,
        frontier=tuple(_on_frontier(each, best, kind, (usd_max, seconds_max)) for each in frontier),
    )


def bill(items: Iterable[CostItem]) -> Bill:
    """A stack's cost items by component."""
    held = tuple(items)
    components = dict.fromkeys(each.component for each in held)
    lines = ((name, total(each for each in held if each.component == name)) for name in components)
    return Bill(tuple(sorted(lines, key=lambda line: -line[1].max)), total(held))


def differences(before: Findings, after: Findings) -> tuple[Difference, ...]:
    """What a change of the document changed, workload by workload, then the bill."""
    found: list[Difference] = []
    was = {each.name: each for each in before.workloads}
    for each in after.workloads:
        if each.name in was:
            found += _workload_differences(was[each.name], each)
        else:
            earlier = before.without_target.get(each.name, "not planned")
            found.append(Difference(each.name, "nodes", earlier, each.chosen.nodes_said, "changed"))
    for name, offer in after.without_target.items():
        earlier = before.without_target.get(name) or next(
            x.chosen.nodes_said for x in before.workloads if x.name == name
        )
        found.append(_words(name, "nodes", earlier, offer))
    if before.bill is not None and after.bill is not None:
        for what in ("min", "expected", "max"):
            values = (getattr(each.monthly_usd, what) for each in (before.bill, after.bill))
            found.append(_numbers("whole stack", f"{what} USD a month", *values))
    return tuple(found)


def _workload_differences(before: WorkloadFindings, after: WorkloadFindings) -> Iterable[Difference]:
    old, new = before.chosen, after.chosen
    yield _words(after.name, "nodes", old.nodes_said, new.nodes_said)
    yield _words(after.name, "place", old.place, new.place)
    yield _words(after.name, "bought", old.price_model, new.price_model)
    yield _words(after.name, "run", old.how, new.how)
    yield _numbers(after.name, f"USD {USD_BY[after.kind]}", old.usd, new.usd)
    earlier = {each.name: each for each in before.estimates}
    for each in after.estimates:
        if each.name in earlier and each.unit != "USD":
            yield _numbers(after.name, f"{each.name} ({each.unit})", earlier[each.name].value.value, each.value.value)


def _words(subject: str, what: str, before: str, after: str) -> Difference:
    return Difference(subject, what, before, after, "" if before == after else "changed")


def _numbers(subject: str, what: str, before: float, after: float) -> Difference:
    change = "" if math.isclose(before, after, rel_tol=1e-9) else f"{after - before:+,.4g}"
    if change and before:
        change += f" ({after / before - 1:+.1%})"
    return Difference(subject, what, f"{before:,.4g}", f"{after:,.4g}", change)


def _way(choice: Choice, kind: Kind, verdict: str) -> Way:
    assert choice.shape is not None and choice.machine is not None and choice.outcome is not None  # it has a target
    return Way(
        instance_type=choice.offer.instance_type,
        cloud=choice.offer.cloud,
        region=choice.offer.region,
        price_model=choice.price_model.replace("_", " "),
        nodes=choice.nodes,
        accelerators_per_node=choice.machine.count,
        accelerator=choice.machine.accelerator,
        how=_how(choice.shape, kind),
        usd=choice.usd,
        seconds=choice.outcome.seconds,
        verdict=verdict,
    )


def _kind(workload: TrainingJob | InferenceService) -> Kind:
    if isinstance(workload, TrainingJob):
        return "training"
    return "language model" if isinstance(workload.target, LanguageModelTarget) else "inference"


def _how(shape: Shape, kind: Kind) -> str:
    split = shape.parallelism
    said = shape.precision if kind == "language model" else f"{shape.precision}, batch {shape.batch}"
    ways: tuple[tuple[str, int], ...] = (("data", split.data), ("tensor", split.tensor), ("pipeline", split.pipeline))
    if kind != "training":
        each = f" of {split.devices} accelerators" if split.devices > 1 else ""
        said += f", {shape.replicas} replica{'s' * (shape.replicas > 1)}{each}" if shape.replicas > 1 or each else ""
        ways = ways if split.pipeline > 1 else ()
    product = " x ".join(f"{count} {name}" for name, count in ways if count > 1)
    return said + (f", {product}" if product else "") + (" FSDP" if split.fsdp else "")


def _on_frontier(choice: Choice, best: Choice, kind: Kind, limits: tuple[float, float]) -> Way:
    broken = [
        f"over the {name} limit"
        for name, value, limit in zip(("cost", "time"), (choice.usd, choice.limited("seconds")), limits, strict=True)
        if value > limit
    ]
    return _way(choice, kind, "chosen" if choice == best else " and ".join(broken) or "within the limits")


def _limits(workload: TrainingJob | InferenceService) -> tuple[float, float]:
    """(USD, seconds), infinite where nothing is asked."""
    target = workload.target
    if target is None:
        return math.inf, math.inf
    if isinstance(target, TrainingTarget):
        usd, seconds = target.run_usd_max, (target.hours_max or math.inf) * 3600
    elif isinstance(target, LanguageModelTarget):
        usd, seconds = target.usd_per_hour_max, (target.ttft_ms_max or math.inf) / 1e3
    else:
        usd, seconds = target.usd_per_hour_max, (target.p99_ms_max or math.inf) / 1e3
    return usd or math.inf, seconds


def _slower(answer: Answer) -> object:
    """The prediction that `Way.seconds` is of: at the usual load, or at the peak."""
    usual, peak = answer.prediction, answer.peak
    if isinstance(usual, InferencePrediction) and isinstance(peak, InferencePrediction):
        return max(usual, peak, key=lambda each: each.p99_s.value)
    if isinstance(usual, LanguageModelPrediction) and isinstance(peak, LanguageModelPrediction):
        return max(usual, peak, key=lambda each: each.time_to_first_token_s.value)
    return usual


def _time_parts(prediction: object) -> tuple[Part, ...]:
    if isinstance(prediction, InferencePrediction):
        parts = prediction.parts
        return (
            Part("network", parts.network_s),
            Part("transfer", parts.transfer_s),
            Part("batch wait", parts.batch_wait_s),
            Part("queue", parts.queue_s),
            Part("service", parts.service_s),
        )
    if isinstance(prediction, TrainingPrediction):
        return _scaled(_training_shares(prediction), prediction.total_s.value)
    if isinstance(prediction, LanguageModelPrediction):
        first = prediction.first_token
        return (
            Part("network", prediction.network_s),
            Part("request", first.request_s),
            Part("waiting for memory", first.memory_s),
            Part("waiting for prompts", first.prompts_s),
            Part("reading the prompt", first.prefill_s),
            Part("first steps", first.steps_s),
            Part("serving process", first.process_s),
        )
    return ()


def _training_shares(prediction: TrainingPrediction) -> tuple[Part, ...]:
    step = prediction.step_s.value
    working = 1 - prediction.lost_fraction
    busy = prediction.compute_s + prediction.exposed_communication_s
    return (
        Part("computing", working * prediction.compute_s / step),
        Part("communication that nothing hides", working * prediction.exposed_communication_s / step),
        Part("waiting for input", working * max(0.0, step - busy) / step),
        Part("checkpoints and interruptions", prediction.lost_fraction),
    )


def _cost_shares(prediction: object) -> tuple[Part, ...]:
    """What is paid for: of a service, how much of what it can bear is used."""
    if isinstance(prediction, InferencePrediction):
        return Part("capacity in use", prediction.utilisation), Part("headroom", 1 - prediction.utilisation)
    return _training_shares(prediction) if isinstance(prediction, TrainingPrediction) else ()


def _scaled(shares: Iterable[Part], whole: float) -> tuple[Part, ...]:
    return tuple(Part(each.name, each.value * whole) for each in shares)
