"""How fast a stack will be: each service's latency and head-room, its way up to a peak, each training job's deadline.

Everything is predicted anew from what the plan runs (`planner.repredict`); what it states of itself is not believed.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.catalog import Catalog
from planner.errors import PlanError
from planner.guardrails.by_cloud import on_each_cloud
from planner.guardrails.settings import GuardrailSettings
from planner.plan import Plan
from planner.workloads import InferenceService, LanguageModelTarget, ServiceTarget, TrainingTarget

if TYPE_CHECKING:  # numpy comes with it, and only plans with targets need that
    from planner.calibration.store import Interval
    from planner.goals import Prediction
    from planner.repredict import Run

AUTOSCALER_REACTION_S = 30.0
"""metrics-server resolves 15 s (its `--metric-resolution`), and the HorizontalPodAutoscaler looks every 15 s
(kube-controller-manager's `--horizontal-pod-autoscaler-sync-period`): both are Kubernetes' defaults."""
REPLICAS_TRIED = 1024
REPLICAS_TRIED_ELSEWHERE = 64
NODES_TRIED = 64


@dataclass(frozen=True, slots=True)
class _Load:
    """What a service must bear, and with what."""

    run: Run
    requests_per_s: float | None
    """None: the users of a closed loop."""
    is_peak: bool
    field: str
    """The field of the stack's file that sets its replicas."""

    @property
    def when(self) -> str:
        """In words."""
        if self.requests_per_s is None:
            return "with its users"
        return f"at {'its peak of ' if self.is_peak else ''}{self.requests_per_s:g} requests/s"

    def on(self, run: Run) -> _Load:
        """The same load on something else."""
        return dataclasses.replace(self, run=run)

    def predicted(self) -> Prediction:
        """Raises PlanError where it can't be borne at all."""
        return self.run.predict(self.requests_per_s)


@dataclass(frozen=True, slots=True)
class _Climb:
    """From the usual rate to the peak, in requests a second."""

    usual: float
    peak: float
    ramp_s: float
    ready_s: float
    """Until new replicas answer."""
    arriving: float
    """Then."""
    borne: float
    """At most, by the replicas in place."""


@dataclass(frozen=True, slots=True)
class _Excess:
    """A limit that a prediction breaks."""

    what: str
    field: str
    predicted: Interval
    judged: float
    limit: float
    unit: str

    def __str__(self) -> str:
        low, high = _number(self.predicted.low), _number(self.predicted.high)
        end = "" if self.judged == self.predicted.value else " at the high end of its interval"
        by = "without end" if math.isinf(self.judged) else f"{_number(self.judged - self.limit)} {self.unit}"
        return (
            f"{self.what} is predicted to be {_number(self.predicted.value)} {self.unit} ({low} to {high}){end}, "
            f"{by} over its limit of {self.limit:g} {self.unit}"
        )


@on_each_cloud
def over_latency_limits(plan: Plan, settings: GuardrailSettings, catalog: Catalog) -> Iterator[str]:
    """p50, p95 and p99 of each service against its target, at its declared rate and at its peak."""
    yield from _over(plan, settings, catalog, ServiceTarget)


@on_each_cloud
def over_token_limits(plan: Plan, settings: GuardrailSettings, catalog: Catalog) -> Iterator[str]:
    """Times to the first and to a further token of each language model, at its declared load and at its peak."""
    yield from _over(plan, settings, catalog, LanguageModelTarget)


@on_each_cloud
def over_the_deadline(plan: Plan, settings: GuardrailSettings, catalog: Catalog) -> Iterator[str]:
    """Each training run against its hours."""
    for run in _runs(plan, catalog):
        target = run.workload.target
        if not isinstance(target, TrainingTarget) or target.hours_max is None:
            continue
        try:
            excess = _excess(run, run.predict(), settings)
        except PlanError as error:
            yield f"training job {run.workload.name} on {run.runs_on}: {error}"
            continue
        if excess:
            yield (
                f"training job {run.workload.name} on {run.runs_on}: {excess[0]}. Nearest change that passes: "
                f"{_faster_training(run, plan, settings, catalog, excess[0])}."
            )


@on_each_cloud
def without_headroom(plan: Plan, settings: GuardrailSettings, catalog: Catalog) -> Iterator[str]:
    """The utilisation of each service against the limit for all of them."""
    limit = settings.utilisation_max
    if limit is None:
        return
    relaxed = "a lower rate"
    for load in _loads(plan, catalog):
        named = f"inference service {load.run.workload.name} {load.when} on {load.run.runs_on}"
        try:
            used = _utilisation(load.predicted())
        except PlanError as error:
            broken = f"{named}: {error}"
        else:
            if used <= limit:
                continue
            relaxed = f"utilisation_max: {math.ceil(used * 100) / 100:g}"
            broken = (
                f"{named} uses {used:.0%} of what it can bear, over the limit of {limit:.0%} (fusion:guardrails "
                "utilisation_max)"
            )
        change = _nearest(load, plan, catalog, lambda other: _utilisation(other.predicted()) <= limit, relaxed)
        yield f"{broken}. Nearest change that passes: {change}."


@on_each_cloud
def too_few_replicas(plan: Plan, settings: GuardrailSettings, _: Catalog) -> Iterator[str]:
    """The least replicas of each service and the zones of the plan."""
    services = [each for each in plan.workloads if isinstance(each, InferenceService)]
    least, zones = settings.service_replicas_min, len(set(plan.platform.zones))
    for service in services:
        if least is not None and service.replicas.min < least:
            most = f" and replicas.max: {least}" if service.replicas.max < least else ""
            yield (
                f"inference service {service.name} keeps {service.replicas.min} of the {least} replicas that are asked "
                f"for (fusion:guardrails service_replicas_min); set replicas.min: {least}{most}"
            )
    if services and settings.service_zones_min is not None and zones < settings.service_zones_min:
        yield (
            f"the plan has {zones} zones, {settings.service_zones_min} are asked for its inference services "
            "(fusion:guardrails service_zones_min); name more under fusion:network zones"
        )


@on_each_cloud
def too_slow_for_the_ramp(plan: Plan, settings: GuardrailSettings, catalog: Catalog) -> Iterator[str]:
    """Whether a service without replicas has one in time, and those at the declared rate bear a climb to the peak.

    The load climbs in a straight line: r(t) = usual + (peak - usual)·t/ramp. New replicas answer after t = reaction of
    the autoscaler + start of a node + start of a replica; until then r(t) must stay below what those in place can
    bear, or the queue grows without end.
    """
    yield from _too_late_for_the_first(plan, settings)
    for load in _loads(plan, catalog):
        run, target = load.run, load.run.workload.target
        if load.is_peak or not isinstance(target, ServiceTarget | LanguageModelTarget) or target.peak_ramp_s is None:
            continue
        usual, peak = target.requests_per_s or 0.0, target.peak_requests_per_s or 0.0
        ready_s = AUTOSCALER_REACTION_S + _replica_start_s(run, settings)
        arriving = usual + (peak - usual) * min(1.0, ready_s / target.peak_ramp_s)
        borne = run.bears_at_most_per_s()
        if arriving >= borne:
            yield _ramp_sentence(run, _Climb(usual, peak, target.peak_ramp_s, ready_s, arriving, borne))


def _too_late_for_the_first(plan: Plan, settings: GuardrailSettings) -> Iterator[str]:
    """The first request of a service that has no replica waits for the autoscaler, a node and the replica's start."""
    for service in plan.workloads:
        if not isinstance(service, InferenceService) or service.replicas.min or service.cold_start_seconds_max is None:
            continue
        pool = plan.pool_of(service.name)
        node_s = settings.node_startup_seconds if pool.nodes_min == 0 else 0.0
        start_s, limit_s = AUTOSCALER_REACTION_S + node_s + service.startup_seconds, service.cold_start_seconds_max
        if start_s > limit_s:
            yield (
                f"inference service {service.name} may have no replica, and its first request then waits {start_s:g} s "
                f"(autoscaler {AUTOSCALER_REACTION_S:g} s, node {node_s:g} s, startup_seconds "
                f"{service.startup_seconds:g} s), {start_s - limit_s:g} s over its limit of {limit_s:g} s. Nearest "
                f"change that passes: replicas.min: 1, or cold_start_seconds_max: {math.ceil(start_s)}."
            )


def _over(
    plan: Plan, settings: GuardrailSettings, catalog: Catalog, kind: type[ServiceTarget | LanguageModelTarget]
) -> Iterator[str]:
    for load in _loads(plan, catalog):
        name, target = load.run.workload.name, load.run.workload.target
        if not isinstance(target, kind) or not _limits(target):
            continue
        try:
            excess = _excess(load.run, load.predicted(), settings)
        except PlanError as error:
            broken, relaxed = str(error), "a lower rate"
        else:
            broken = "; ".join(map(str, excess))
            relaxed = " and ".join(f"{each.field}: {_rounded_up(each.judged)}" for each in excess)
        if broken:
            change = _nearest(load, plan, catalog, lambda other: _keeps(other, settings), relaxed)
            yield (
                f"inference service {name} {load.when} on {load.run.runs_on}: {broken}. Nearest change that passes: "
                f"{change}."
            )


def _runs(plan: Plan, catalog: Catalog) -> Iterator[Run]:
    if not any(each.target for each in plan.workloads) and not plan.predictions:
        return
    from planner.repredict import runs

    yield from runs(plan, catalog)


def _loads(plan: Plan, catalog: Catalog) -> Iterator[_Load]:
    """Every service with a target at its declared load, and at its peak with all the replicas that it may have."""
    for run in _runs(plan, catalog):
        target = run.workload.target
        if not isinstance(target, ServiceTarget | LanguageModelTarget):
            continue
        assert isinstance(run.workload, InferenceService)
        yield _Load(run, target.requests_per_s, False, "replicas.desired")
        if target.peak_requests_per_s is not None:
            most = run.with_replicas(run.workload.replicas.max)
            yield _Load(most, target.peak_requests_per_s, True, "replicas.max")


def _limits(target: ServiceTarget | LanguageModelTarget | TrainingTarget) -> dict[str, tuple[str, str, float]]:
    """By field of the target: what it limits, its unit and the limit."""
    fields = {
        "p50_ms_max": ("p50", "ms"),
        "p95_ms_max": ("p95", "ms"),
        "p99_ms_max": ("p99", "ms"),
        "ttft_ms_max": ("the time to the first token", "ms"),
        "tpot_ms_max": ("the time of a further token", "ms"),
        "hours_max": ("a run", "h"),
    }
    found = {}
    for field, (what, unit) in fields.items():
        limit = getattr(target, field, None)
        if limit is not None:
            found[field] = (what, unit, float(limit))
    return found


def _excess(run: Run, predicted: Prediction, settings: GuardrailSettings) -> list[_Excess]:
    target = run.workload.target
    assert target is not None
    found = []
    for field, (what, unit, limit) in _limits(target).items():
        interval = _interval(field, predicted)
        judged = interval.high if settings.latency_margin == "high" else interval.value
        if judged > limit:
            found.append(_Excess(what, field, interval, judged, limit, unit))
    return found


def _interval(field: str, predicted: Prediction) -> Interval:
    attribute, scale = {
        "p50_ms_max": ("p50_s", 1e3),
        "p95_ms_max": ("p95_s", 1e3),
        "p99_ms_max": ("p99_s", 1e3),
        "ttft_ms_max": ("time_to_first_token_s", 1e3),
        "tpot_ms_max": ("time_per_output_token_s", 1e3),
        "hours_max": ("total_s", 1 / 3600),
    }[field]
    interval: Interval = getattr(predicted, attribute)
    return interval.scaled(scale)


def _utilisation(predicted: Prediction) -> float:
    """Share of what a service can bear: of its requests, or of the sequences that a language model's cache holds."""
    from planner.performance.inference import InferencePrediction
    from planner.performance.serving import LanguageModelPrediction

    if isinstance(predicted, LanguageModelPrediction):
        return predicted.running / predicted.most_sequences
    assert isinstance(predicted, InferencePrediction)
    return predicted.utilisation


def _keeps(load: _Load, settings: GuardrailSettings) -> bool:
    return not _excess(load.run, load.predicted(), settings)


def _nearest(load: _Load, plan: Plan, catalog: Catalog, passes: Callable[[_Load], bool], relaxed: str) -> str:
    """The change that asks least: more replicas, another precision, another machine, else a higher limit."""
    from planner.repredict import least, on_other_machines

    def tried(run: Run) -> bool:
        try:
            return passes(load.on(run))
        except PlanError:
            return False

    def on_replicas(on: Run, replicas: int) -> bool:
        return tried(on.with_replicas(replicas))

    run = load.run
    more = least(run.shape.replicas + 1, REPLICAS_TRIED, functools.partial(on_replicas, run))
    if more is not None:
        assert isinstance(run.workload, InferenceService)
        most = f" and replicas.max: {more}" if load.field != "replicas.max" and more > run.workload.replicas.max else ""
        return f"{load.field}: {more}{most}"
    for precision in sorted(run.chip.peak_flops.keys() - {run.shape.precision}):
        if tried(dataclasses.replace(run, shape=dataclasses.replace(run.shape, precision=precision))):
            return f"target.precision: {precision}"
    others = list(on_other_machines(run, plan, catalog))
    other = next((each for each in others if tried(each)), None)
    if other is not None:
        return f"needs.instance_type: {other.offer.instance_type}"
    for each in others:
        number = least(run.shape.replicas, REPLICAS_TRIED_ELSEWHERE, functools.partial(on_replicas, each))
        if number is not None:
            return f"needs.instance_type: {each.offer.instance_type} and {load.field}: {number}"
    return relaxed


def _faster_training(run: Run, plan: Plan, settings: GuardrailSettings, catalog: Catalog, excess: _Excess) -> str:
    from planner.goals import TrainingGoal
    from planner.repredict import on_other_machines

    def passes(other: Run) -> bool:
        try:
            return not _excess(other, other.predict(), settings)
        except PlanError:
            return False

    goal = run.goal
    assert isinstance(goal, TrainingGoal)
    nodes = run.shape.parallelism.nodes
    while nodes < NODES_TRIED:
        nodes *= 2
        for shape in dataclasses.replace(goal, nodes=(nodes,)).shapes(run.machine):
            if passes(dataclasses.replace(run, shape=shape)):
                return f"nodes.desired: {nodes} and nodes.max of at least that"
    other = next((each for each in on_other_machines(run, plan, catalog) if passes(each)), None)
    if other is not None:
        return f"needs.instance_type: {other.offer.instance_type}"
    return f"hours_max: {_rounded_up(excess.judged)}"


def _replica_start_s(run: Run, settings: GuardrailSettings) -> float:
    assert isinstance(run.workload, InferenceService)
    node_s = settings.node_startup_seconds if run.pool.nodes_max > run.pool.nodes_expected else 0.0
    return node_s + run.workload.startup_seconds


def _ramp_sentence(run: Run, climb: _Climb) -> str:
    assert isinstance(run.workload, InferenceService)
    enough = math.floor(climb.arriving / climb.borne * run.shape.replicas) + 1
    most = f" and replicas.max: {enough}" if enough > run.workload.replicas.max else ""
    ways = [f"replicas.min: {enough}{most}"]
    if climb.borne > climb.usual:
        share = (climb.borne - climb.usual) / (climb.peak - climb.usual)
        ways.append(f"replicas that answer {math.ceil(climb.ramp_s * share) - 1} s after the climb begins")
        ways.append(f"a climb of {math.floor(climb.ready_s / share) + 1} s (peak_ramp_s)")
    return (
        f"inference service {run.workload.name} climbs from {climb.usual:g} to {climb.peak:g} requests/s in "
        f"{climb.ramp_s:g} s; new replicas answer after {climb.ready_s:g} s (autoscaler {AUTOSCALER_REACTION_S:g} s, "
        f"node and startup_seconds {climb.ready_s - AUTOSCALER_REACTION_S:g} s), when {climb.arriving:.4g} arrive and "
        f"{climb.borne:.4g} is the most for {run.runs_on}. It would pass with {', or with '.join(ways)}."
    )


def _number(value: float) -> str:
    return "no end" if math.isinf(value) else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _rounded_up(value: float) -> str:
    """Three digits, never less than the value; a limit of `inf` is none."""
    if not math.isfinite(value):
        return "no limit"
    step = 10 ** (math.floor(math.log10(value)) - 2)
    return f"{math.ceil(value / step) * step:g}"
