"""From a declared workload with a target to the best way to run it, and what that is predicted to do."""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Collection

from planner.calibration.store import builtin
from planner.catalog import Catalog
from planner.errors import PlanError
from planner.goals import Goal, ServiceGoal, TrainingGoal
from planner.optimizer import Answer, Ceilings, Choice, NothingFits, Optimizer, Where
from planner.performance.inference import InferenceLoad, InferencePrediction
from planner.performance.training import TrainingPrediction, TrainingRun
from planner.plan import NODE_RESERVED_MEMORY_FRACTION, NODE_RESERVED_VCPUS
from planner.prediction import WorkloadPrediction
from planner.profiles.model import profile
from planner.workloads import InferenceService, Needs, ServiceTarget, TrainingJob, TrainingTarget

NODES_MOST = 16
"""Nodes of a service that are tried; a larger service is a matter for several pools."""

_optimizers: weakref.WeakKeyDictionary[Catalog, Optimizer] = weakref.WeakKeyDictionary()


def best_of(
    workload: TrainingJob | InferenceService,
    catalog: Catalog,
    place: tuple[str, str] | None = None,
    not_built: Collection[str] = (),
) -> Answer:
    """The cheapest way to run a workload that has a target, within it.

    Args:
        place: the cloud and region that it must be in; None is anywhere.
        not_built: instance types of that place that can't be provisioned.

    Raises:
        PlanError: there is none, with the limit to relax and its least value; or the profile is not known.
    """
    where = _where(workload, catalog, place, not_built)
    try:
        goal, limits = _goal(workload)
        return _optimizer(catalog).search(goal, where, limits)
    except NothingFits as error:
        raise NothingFits(f"workload {workload.name}: {error}", error.relaxed) from None
    except PlanError as error:
        raise PlanError(f"workload {workload.name}: target: {error}") from None


def frontier_of(
    workload: TrainingJob | InferenceService,
    catalog: Catalog,
    place: tuple[str, str] | None = None,
    not_built: Collection[str] = (),
) -> tuple[Choice, ...]:
    """Every choice for a workload with a target that no other beats in both cost and time, limits aside.

    Raises:
        PlanError: the profile is not known.
    """
    goal, _ = _goal(workload)
    return _optimizer(catalog).frontier(goal, _where(workload, catalog, place, not_built))


def prediction_of(workload: str, answer: Answer) -> WorkloadPrediction:
    """The answer's prediction in the units that people read."""
    best, predicted = answer.best, answer.prediction
    hourly = best.shape.nodes * best.price_usd_per_hour
    training = predicted if isinstance(predicted, TrainingPrediction) else None
    service = predicted if isinstance(predicted, InferencePrediction) else None
    return WorkloadPrediction(
        workload=workload,
        nodes=best.shape.nodes,
        accelerators=best.shape.parallelism.devices,
        precision=best.shape.precision,
        batch=best.shape.batch,
        run_hours=training.total_s.scaled(1 / 3600) if training else None,
        run_usd=training.node_hours.scaled(best.price_usd_per_hour) if training else None,
        p50_ms=service.p50_s.scaled(1e3) if service else None,
        p95_ms=service.p95_s.scaled(1e3) if service else None,
        p99_ms=service.p99_s.scaled(1e3) if service else None,
        usd_per_hour=hourly,
        reasons=predicted.reasons,
        calibration=predicted.calibration,
    )


def _optimizer(catalog: Catalog) -> Optimizer:
    if catalog not in _optimizers:
        _optimizers[catalog] = Optimizer(catalog, builtin())
    return _optimizers[catalog]


def _goal(workload: TrainingJob | InferenceService) -> tuple[Goal, Ceilings]:
    return _training(workload) if isinstance(workload, TrainingJob) else _service(workload)


def _where(
    workload: TrainingJob | InferenceService,
    catalog: Catalog,
    place: tuple[str, str] | None,
    not_built: Collection[str],
) -> Where:
    needs = workload.needs
    return Where(
        places=None if place is None else frozenset({place}),
        accelerators=_accelerators(needs, catalog),
        # exactly what the pod of a training job or of a replica takes, so that what is predicted is what runs
        counts=frozenset({needs.accelerators}),
        instance_types=None if needs.instance_type is None else frozenset({needs.instance_type}),
        price_models=(workload.price_model,),
        min_vcpus=needs.vcpus + NODE_RESERVED_VCPUS,
        min_memory_gib=needs.memory_gib / (1 - NODE_RESERVED_MEMORY_FRACTION),
        architecture=needs.architecture,
        not_built=frozenset() if needs.instance_type else frozenset(not_built),
    )


def _accelerators(needs: Needs, catalog: Catalog) -> frozenset[str]:
    return frozenset(
        name
        for name, each in catalog.accelerators.items()
        if needs.accelerator in (None, name) and (each.memory_gib or 0) >= needs.accelerator_memory_gib
    )


def _training(job: TrainingJob) -> tuple[Goal, Ceilings]:
    target = job.target
    if target is None:
        raise PlanError("not set, so nothing can be predicted")
    goal = _training_goal(target, job.training.epochs, job.training.batch_size, max(1, job.nodes.expected))
    hours = math.inf if target.hours_max is None else target.hours_max
    return goal, Ceilings(usd=_limit(target.run_usd_max), seconds=hours * 3600)


def _service(service: InferenceService) -> tuple[Goal, Ceilings]:
    target = service.target
    if target is None:
        raise PlanError("not set, so nothing can be predicted")
    seconds = _limit(target.p99_ms_max) / 1e3
    return _service_goal(target, service.replicas.max), Ceilings(usd=_limit(target.usd_per_hour_max), seconds=seconds)


@functools.lru_cache(maxsize=256)
def _training_goal(target: TrainingTarget, epochs: int, batch_size: int, nodes: int) -> TrainingGoal:
    """The same goal for the same target, so that what was predicted for it is found again."""
    run = TrainingRun(profile(target.profile), target.samples, epochs, 1)
    return TrainingGoal(run, batch_size, (target.precision,), (nodes,))


@functools.lru_cache(maxsize=256)
def _service_goal(target: ServiceTarget, replicas_max: int) -> ServiceGoal:
    load = InferenceLoad(profile(target.profile), target.requests_per_s)
    nodes = tuple(range(1, min(replicas_max, NODES_MOST) + 1))
    return ServiceGoal(load, (target.precision,), nodes=nodes, replicas_max=replicas_max)


def _limit(value: float | None) -> float:
    return math.inf if value is None else value
