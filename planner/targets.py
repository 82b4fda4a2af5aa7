"""From declared workloads to the search for the best way to run them, and what that is predicted to do."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import math
import weakref
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from planner.calibration.own import own_calibrations
from planner.calibration.store import Interval, builtin
from planner.catalog import Catalog, UnknownService
from planner.catalog.catalog import near
from planner.choices import Answer, Ask, Ceilings, Choice
from planner.cost import HOURS_PER_MONTH
from planner.errors import PlanError
from planner.goals import TENSOR_DEGREES, Goal, LanguageModelGoal, Prediction, ServiceGoal, TrainingGoal
from planner.market import Buying, Where
from planner.optimizer import Optimizer, Options
from planner.packing import NODE_RESERVED_MEMORY_FRACTION, NODE_RESERVED_VCPUS, Demand
from planner.performance.inference import InferenceLoad, InferencePrediction
from planner.performance.link import Link
from planner.performance.serving import LanguageModelPrediction
from planner.performance.split import EdgeSide, Split, edge_devices
from planner.performance.training import TrainingPrediction, TrainingRun
from planner.prediction import PeakPrediction, SplitPrediction, WorkloadPrediction
from planner.profiles.decoder import DecoderConfig, decoder, published
from planner.profiles.model import ModelProfile, profile, read_profile, shipped
from planner.stack import StackAnswer, search
from planner.workloads import (
    AnyWorkload,
    Bounds,
    Budget,
    Data,
    EdgeDevice,
    InferenceService,
    LanguageModelTarget,
    Needs,
    Quota,
    ServiceTarget,
    TrainingJob,
    TrainingTarget,
)

NODES_TRIED = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Nodes of a training job that may have several; its most are tried too."""

Places = frozenset[tuple[str, str]]
_optimizers: weakref.WeakKeyDictionary[Catalog, dict[Places | None, Optimizer]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Scope:
    """Where workloads may run, and what they share."""

    places: Places | None = None
    """(cloud, region); None is anywhere."""
    not_built: Collection[str] = ()
    """Instance types of those places that can't be provisioned; taken only where the user names one."""
    quotas: Sequence[Quota] = ()
    budget: Budget | None = None
    folders: tuple[Path, ...] = field(default_factory=lambda: (Path(),))
    """Against which the paths of profiles are looked up, in that order."""


def best_of(
    workload: AnyWorkload,
    catalog: Catalog,
    place: tuple[str, str] | None = None,
    not_built: Collection[str] = (),
) -> Answer:
    """The best way to run one workload by itself; arguments and errors as `answer`."""
    scope = Scope(None if place is None else frozenset({place}), not_built)
    return answer((workload,), catalog, scope).answers[workload.name]


def answer(workloads: Iterable[AnyWorkload], catalog: Catalog, scope: Scope) -> StackAnswer:
    """The best way to run workloads together.

    Raises:
        PlanError: there is none, with the limit to relax and its least value; or something named is not known.
    """
    asks = []
    for workload in workloads:
        try:
            asks.append(_ask(workload, catalog, scope))
        except PlanError as error:
            raise PlanError(f"workload {workload.name}: {error}") from None
    return search(_optimizer(catalog, scope.places), asks, scope.quotas, scope.budget)


def frontier_of(workload: AnyWorkload, catalog: Catalog, scope: Scope) -> tuple[Choice, ...]:
    """Every choice for a workload with a target that no other beats in both cost and time, limits aside.

    Raises:
        PlanError: something named is not known.
    """
    ask = _ask(workload, catalog, scope)
    return Options(_optimizer(catalog, scope.places).predictor, (ask,)).frontier(ask)


def prediction_of(workload: AnyWorkload, answer: Answer) -> WorkloadPrediction:
    """The answer's prediction in the units that people read.

    Raises:
        PlanError: nothing is predicted of a workload without a target.
    """
    best, predicted = answer.best, answer.prediction
    target = workload.target
    if predicted is None or best.shape is None or best.machine is None or target is None:
        raise PlanError(f"workload {workload.name}: target: not set, so nothing can be predicted")
    training = predicted if isinstance(predicted, TrainingPrediction) else None
    service = predicted if isinstance(predicted, InferencePrediction) else None
    model = predicted if isinstance(predicted, LanguageModelPrediction) else None
    split, on_cpu = best.shape.parallelism, bool(best.machine.vcpus)
    return WorkloadPrediction(
        workload=workload.name,
        nodes=best.nodes,
        accelerators=0 if on_cpu else best.shape.devices,
        precision=best.shape.precision,
        batch=best.shape.batch,
        run_hours=training.total_s.scaled(1 / 3600) if training else None,
        run_usd=training.node_hours.scaled(best.price_usd_per_hour) if training else None,
        p50_ms=service.p50_s.scaled(1e3) if service else None,
        p95_ms=service.p95_s.scaled(1e3) if service else None,
        p99_ms=service.p99_s.scaled(1e3) if service else None,
        usd_per_hour=best.nodes * best.price_usd_per_hour,
        reasons=predicted.reasons,
        calibration=predicted.calibration,
        replicas=best.shape.replicas,
        accelerators_each=0 if on_cpu else split.devices_per_node,
        tensor_parallel=split.tensor,
        pipeline_parallel=split.pipeline,
        data_parallel=split.data,
        fsdp=split.fsdp,
        ttft_ms=model.time_to_first_token_s.scaled(1e3) if model else None,
        tpot_ms=model.time_per_output_token_s.scaled(1e3) if model else None,
        requests_per_s=None if isinstance(target, TrainingTarget) else target.requests_per_s,
        utilisation=_utilisation(predicted),
        peak=_peak_of(workload, answer.peak),
        p50_ms_max=target.p50_ms_max if isinstance(target, ServiceTarget) else None,
        p95_ms_max=target.p95_ms_max if isinstance(target, ServiceTarget) else None,
        p99_ms_max=target.p99_ms_max if isinstance(target, ServiceTarget) else None,
        ttft_ms_max=target.ttft_ms_max if isinstance(target, LanguageModelTarget) else None,
        tpot_ms_max=target.tpot_ms_max if isinstance(target, LanguageModelTarget) else None,
        hours_max=target.hours_max if isinstance(target, TrainingTarget) else None,
        throughput_per_s=_throughput(predicted, best.shape.replicas),
        profile=training.profile if training else "",
        peak_flops=training.peak_flops if training else None,
        corrected_by=training.corrected_by if training else 1.0,
        bound_by=predicted.bound_by,
        split=_split_of(service.split) if service and service.split else None,
    )


def _split_of(split: Split) -> SplitPrediction:
    return SplitPrediction(
        device=split.device,
        after=split.after,
        layers_on_edge=split.layers_on_edge,
        sent_kb=split.sent_bytes / 1e3,
        edge_ms=split.edge_s * 1e3,
        link_ms=split.link_s * 1e3,
        edge_alone_ms=split.edge_alone_s * 1e3,
    )


def _peak_of(workload: AnyWorkload, predicted: Prediction | None) -> PeakPrediction | None:
    target = workload.target
    if not isinstance(workload, InferenceService) or target is None or predicted is None:
        return None
    service = predicted if isinstance(predicted, InferencePrediction) else None
    model = predicted if isinstance(predicted, LanguageModelPrediction) else None
    assert isinstance(target, ServiceTarget | LanguageModelTarget) and target.peak_requests_per_s is not None
    return PeakPrediction(
        requests_per_s=target.peak_requests_per_s,
        replicas=workload.replicas.max,
        utilisation=_utilisation(predicted) or 0.0,
        p50_ms=service.p50_s.scaled(1e3) if service else None,
        p95_ms=service.p95_s.scaled(1e3) if service else None,
        p99_ms=service.p99_s.scaled(1e3) if service else None,
        ttft_ms=model.time_to_first_token_s.scaled(1e3) if model else None,
        tpot_ms=model.time_per_output_token_s.scaled(1e3) if model else None,
    )


def _utilisation(predicted: Prediction) -> float | None:
    """As `WorkloadPrediction` has it."""
    if isinstance(predicted, LanguageModelPrediction):
        return predicted.running / predicted.most_sequences
    return predicted.utilisation if isinstance(predicted, InferencePrediction) else None


def _throughput(predicted: Prediction, replicas: int) -> Interval:
    """Of all replicas together."""
    match predicted:
        case TrainingPrediction():
            return predicted.samples_per_s
        case InferencePrediction():
            return predicted.capacity_per_s
        case LanguageModelPrediction():
            return predicted.output_tokens_per_s.scaled(replicas)


def places_of(patterns: Iterable[str], catalog: Catalog) -> frozenset[tuple[str, str]]:
    """The catalog's places that a pattern such as ``aws/eu-*`` names.

    Raises:
        PlanError: a pattern names none.
    """
    found: set[tuple[str, str]] = set()
    for pattern in patterns:
        matching = {place for place in catalog.places if fnmatch.fnmatchcase("/".join(place), pattern)}
        if not matching:
            known = sorted("/".join(place) for place in catalog.places)
            raise PlanError(f"regions: {pattern!r} names no region of the catalog{near(pattern, known)}")
        found |= matching
    return frozenset(found)


def _optimizer(catalog: Catalog, places: Places | None) -> Optimizer:
    made = _optimizers.setdefault(catalog, {})
    if places not in made:
        made[places] = Optimizer(catalog, builtin(), own_calibrations(), places)
    return made[places]


def _ask(workload: AnyWorkload, catalog: Catalog, scope: Scope) -> Ask:
    needs, training = workload.needs, isinstance(workload, TrainingJob)
    bounds = workload.nodes if isinstance(workload, TrainingJob) else workload.replicas
    try:
        goal, limits, runs = goal_of(workload, scope.folders)
    except PlanError as error:
        raise PlanError(f"target: {error}") from None
    return Ask(
        name=workload.name,
        where=_where(workload, catalog, scope),
        goal=goal,
        demand=Demand(needs.accelerators_least, needs.vcpus, needs.memory_gib),
        limits=limits,
        objective="cost" if workload.target is None else workload.target.objective,
        count=max(1, bounds.expected),
        most=bounds.max,
        whole_nodes=training,
        per_month=runs if training and goal else HOURS_PER_MONTH,
        egress_usd=_egress(workload.data, runs, catalog),
        pool=(workload.zone, workload.purchase),
    )


def _where(workload: AnyWorkload, catalog: Catalog, scope: Scope) -> Where:
    needs = workload.needs
    if needs.accelerator is not None and needs.accelerator not in catalog.accelerators:
        raise PlanError(
            f"needs.accelerator is {needs.accelerator!r}; the catalog has no such accelerator"
            f"{near(needs.accelerator, list(catalog.accelerators))}"
        )
    predicted = workload.target is not None
    names = None if needs.accelerator is None else frozenset({needs.accelerator})
    language_model = isinstance(workload.target, LanguageModelTarget)
    counts = None
    if predicted and needs.accelerators == 0:
        names, counts = frozenset(), frozenset({0})
    elif isinstance(workload, TrainingJob) and predicted and needs.accelerators != "any":
        counts = frozenset({needs.accelerators_least})  # what its pod takes, so that what is predicted is what runs
    part = needs.accelerators == "any" and not language_model
    return Where(
        places=scope.places,
        accelerators=names,
        counts=counts,
        min_count=0.01 if part else needs.accelerators_least,
        min_accelerator_memory_gib=needs.accelerator_memory_gib,
        instance_types=None if needs.instance_type is None else frozenset({needs.instance_type}),
        buyings=_buyings(workload),
        min_vcpus=needs.vcpus + NODE_RESERVED_VCPUS,
        min_memory_gib=needs.memory_gib / (1 - NODE_RESERVED_MEMORY_FRACTION),
        architecture=needs.architecture,
        not_built=frozenset() if needs.instance_type else frozenset(scope.not_built),
        predicted=predicted,
    )


def _buyings(workload: AnyWorkload) -> tuple[Buying, ...]:
    spot: Buying = "spot_fallback" if workload.spot_fallback else "spot"
    ways: Mapping[str, tuple[Buying, ...]] = {"spot": (spot,), "any": ("on_demand", spot)}
    return ways.get(workload.price_model, ("on_demand",))


def _egress(data: Data | None, runs: float, catalog: Catalog) -> Mapping[tuple[str, str], float]:
    """USD a month by place for data that is kept elsewhere; the cloud that holds it bills what leaves a region."""
    if data is None:
        return {}
    regions = [region for cloud, region in catalog.places if cloud == data.cloud]
    if data.region not in regions:
        raise PlanError(f"data.region is {data.region!r}; {data.cloud} has no such region{near(data.region, regions)}")
    gb = data.gb_per_month if data.gb_per_month is not None else (data.gb_per_run or 0.0) * runs
    within, out = (egress_service(data, cloud, catalog) for cloud in (data.cloud, ""))
    return {
        place: 0.0
        if place == (data.cloud, data.region)
        else gb * catalog.service_price(data.cloud, data.region, within if place[0] == data.cloud else out).price_usd
        for place in catalog.places
    }


def egress_service(data: Data, to_cloud: str, catalog: Catalog) -> str:
    """The tariff of what leaves a region, as ``services.csv`` names it."""
    if to_cloud == data.cloud:
        try:
            catalog.service_price(data.cloud, data.region, "egress_region_gb")
        except UnknownService:
            return "egress_gb"
        return "egress_region_gb"
    return "egress_gb"


def goal_of(workload: AnyWorkload, folders: tuple[Path, ...]) -> tuple[Goal | None, Ceilings, float]:
    """What is searched for, within what, and how often a month it is run.

    Raises:
        PlanError: something named is not known.
    """
    target = workload.target
    if target is None:
        return None, Ceilings(), 1.0
    default = "bf16" if workload.needs.accelerators else "fp32"
    precisions: tuple[str, ...] = target.precision or (default,)
    if isinstance(target, TrainingTarget) and isinstance(workload, TrainingJob):
        hours = math.inf if target.hours_max is None else target.hours_max
        settings = workload.training
        goal: Goal = _training_goal(
            target,
            _model(target.profile, folders),
            precisions,
            settings.epochs,
            settings.batch_size,
            _nodes(workload.nodes),
        )
        return goal, Ceilings(usd=_limit(target.run_usd_max), seconds=hours * 3600), target.runs_per_month
    assert isinstance(workload, InferenceService)
    least, most = _replicas(workload.replicas)
    peak_replicas = workload.replicas.max
    if isinstance(target, LanguageModelTarget):
        goal = _language_goal(
            target, decoder_of(target.model, folders), precisions, least, most, peak_replicas, _tensors(workload.needs)
        )
        limits = Ceilings(
            _limit(target.usd_per_hour_max), _limit(target.ttft_ms_max) / 1e3, _limit(target.tpot_ms_max) / 1e3
        )
        return goal, limits, 1.0
    assert isinstance(target, ServiceTarget)
    goal = _service_goal(target, _model(target.profile, folders), precisions, least, most, peak_replicas)
    return goal, Ceilings(usd=_limit(target.usd_per_hour_max), seconds=_limit(target.p99_ms_max) / 1e3), 1.0


def _nodes(bounds: Bounds) -> tuple[int, ...]:
    """Of a training job: as many as are desired, or those that may be tried."""
    if bounds.desired is not None:
        return (max(1, bounds.desired),)
    least = max(1, bounds.min)
    return tuple(sorted({least, bounds.max, *(nodes for nodes in NODES_TRIED if least <= nodes <= bounds.max)}))


def _replicas(bounds: Bounds) -> tuple[int, int]:
    """At the declared load a service that may have no replica has one."""
    if bounds.desired is not None:
        return max(1, bounds.desired), max(1, bounds.desired)
    return max(1, bounds.min), bounds.max


def _tensors(needs: Needs) -> tuple[int, ...]:
    return TENSOR_DEGREES if needs.accelerators == "any" else (needs.accelerators,)


# The same goal for the same target, so that what was predicted for it is found again.


@functools.lru_cache(maxsize=256)
def _training_goal(
    target: TrainingTarget,
    model: str,
    precisions: tuple[str, ...],
    epochs: int,
    batch_size: int,
    nodes: tuple[int, ...],
) -> TrainingGoal:
    return TrainingGoal(TrainingRun(_profile(model), target.samples, epochs, 1), batch_size, precisions, nodes)


@functools.lru_cache(maxsize=256)
def _service_goal(
    target: ServiceTarget, model: str, precisions: tuple[str, ...], least: int, most: int, peak_replicas: int
) -> ServiceGoal:
    network = target.network
    load = InferenceLoad(
        _profile(model),
        target.requests_per_s,
        network_round_trip_s=network.round_trip_ms / 1e3,
        network_bytes_per_s=network.bandwidth_mb_per_s * 1e6,
        request_bytes=network.request_kb * 1e3,
        response_bytes=network.response_kb * 1e3,
    )
    edge = None if target.edge is None else _edge_side(target.edge)
    goal = ServiceGoal(load, precisions, replicas_min=least, replicas_max=most, edge=edge)
    if target.peak_requests_per_s is None:
        return goal
    at_peak = dataclasses.replace(load, requests_per_s=target.peak_requests_per_s)
    return dataclasses.replace(goal, peak=ServiceGoal(at_peak, precisions, replicas_max=peak_replicas, edge=edge))


def _edge_side(edge: EdgeDevice) -> EdgeSide:
    """Raises PlanError: the device is not known."""
    devices = edge_devices()
    if edge.device not in devices:
        raise PlanError(f"edge.device is {edge.device!r}; expected one of {', '.join(devices)}")
    link = Link(edge.bandwidth_mbit_per_s * 125e3, edge.rtt_ms / 1e3)
    return EdgeSide(devices[edge.device], link, builtin())


@functools.lru_cache(maxsize=256)
def _language_goal(
    target: LanguageModelTarget,
    config: DecoderConfig,
    precisions: tuple[str, ...],
    least: int,
    most: int,
    peak_replicas: int,
    tensors: tuple[int, ...],
) -> LanguageModelGoal:
    goal = LanguageModelGoal(
        config,
        target.input_tokens,
        target.output_tokens,
        target.requests_per_s,
        target.concurrency,
        precisions,
        least,
        most,
        tensors,
        target.engine,
        network_s=(target.network.round_trip_ms + target.network.transfer_ms) / 1e3,
    )
    peak = target.peak_requests_per_s
    if peak is None:
        return goal
    at_peak = dataclasses.replace(goal, requests_per_s=peak, replicas_max=peak_replicas)
    return dataclasses.replace(goal, peak=at_peak)


def _model(name: str, folders: tuple[Path, ...]) -> str:
    """A shipped name, or where the user's own profile is."""
    return name if name in shipped() or not _is_path(name) else str(_found("profile", name, folders))


def _profile(model: str) -> ModelProfile:
    return profile(model) if model in shipped() or not _is_path(model) else read_profile(Path(model))


def decoder_of(name: str, folders: tuple[Path, ...]) -> DecoderConfig:
    """The configuration that a target's `model` names: a shipped one, or a file.

    Raises:
        PlanError: no such file in the folders, or it is wrong.
        PerformanceError: no such name.
    """
    if not _is_path(name):
        return decoder(name)
    path = _found("model", name, folders)
    try:
        written = path.read_bytes()
        if b'"num_hidden_layers"' in written:
            config = TypeAdapter(dict[str, object]).validate_json(written)
            return published(str(config.get("_name_or_path") or path.stem), config)
        return TypeAdapter(DecoderConfig).validate_json(written)
    except OSError as error:
        raise PlanError(f"model {path} can't be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        said = first["msg"].removeprefix("Value error, ")
        raise PlanError(": ".join([f"model {path}", *map(str, first["loc"]), said])) from None


def _is_path(name: str) -> bool:
    return name.endswith(".json") or "/" in name


def _found(what: str, name: str, folders: tuple[Path, ...]) -> Path:
    for folder in folders:
        if (path := folder / name).is_file():
            return path
    places = " or ".join(str(folder.absolute()) for folder in folders)
    raise PlanError(f"{what} is {name!r}; no such file in {places}")


def _limit(value: float | None) -> float:
    return math.inf if value is None else value
