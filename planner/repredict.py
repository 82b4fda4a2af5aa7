"""What the workloads of a plan will do, predicted anew from what the plan runs and not from what it states.

A guardrail that believed a plan's own predictions would pass whatever an edited plan says of itself.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from planner.calibration.own import own_calibrations
from planner.calibration.store import Calibration, builtin
from planner.catalog import Catalog, Offer
from planner.errors import PlanError
from planner.goals import (
    MICROBATCHES_PER_STAGE,
    Goal,
    LanguageModelGoal,
    Prediction,
    ServiceGoal,
    Shape,
    TrainingGoal,
)
from planner.machines import Machine, chip_of, chips_of, cpu_calibration, machine_of
from planner.market import AWAY_HOURS, interruptions_per_hour
from planner.packing import NODE_RESERVED_MEMORY_FRACTION, NODE_RESERVED_VCPUS
from planner.performance.chip import Chip
from planner.performance.inference import service_times
from planner.performance.parallel import Parallelism
from planner.plan import Plan, PoolPlan
from planner.prediction import WorkloadPrediction
from planner.profiles import FOLDERS
from planner.targets import goal_of
from planner.workloads import AnyWorkload, InferenceService

KINDS_TRIED = 12
"""Kinds of machines that are looked at for a change that would pass, cheapest first."""
BISECTIONS = 40


@dataclass(frozen=True, slots=True)
class Run:
    """A workload with a target, on what its plan gives it."""

    workload: AnyWorkload
    pool: PoolPlan
    offer: Offer
    machine: Machine
    chip: Chip
    calibration: Calibration
    goal: Goal
    shape: Shape

    @property
    def runs_on(self) -> str:
        """In words: `2 replicas on g5.xlarge (A10G, bf16)`."""
        chip = "" if self.machine.vcpus else f"{self.offer.accelerator}, "
        return f"{self.count} on {self.offer.instance_type} ({chip}{self.shape.precision})"

    @property
    def count(self) -> str:
        """Its replicas or nodes, in words."""
        number = self.shape.parallelism.nodes if isinstance(self.goal, TrainingGoal) else self.shape.replicas
        kind = "node" if isinstance(self.goal, TrainingGoal) else "replica"
        return f"{number} {kind}{'s' if number > 1 else ''}"

    def predict(self, requests_per_s: float | None = None) -> Prediction:
        """At its declared rate, or another.

        Raises:
            PlanError: it can't run so: memory, or more requests than it can answer; says by how much.
        """
        goal = self.goal
        if requests_per_s is not None and isinstance(goal, ServiceGoal):
            goal = dataclasses.replace(goal, load=dataclasses.replace(goal.load, requests_per_s=requests_per_s))
        elif requests_per_s is not None and isinstance(goal, LanguageModelGoal):
            goal = dataclasses.replace(goal, requests_per_s=requests_per_s)
        return goal.predict(self.chip, self.machine, self.shape, self.calibration)

    def bears_at_most_per_s(self) -> float:
        """Requests a second above which the queue of a service grows without end.

        Raises:
            PlanError: it can't run at all.
        """
        goal = self.goal
        if isinstance(goal, ServiceGoal):
            load = goal.load_on(self.chip, self.shape, self.calibration)
            full_batch_s = service_times(self.chip, load, self.calibration)[-1]
            return self.shape.replicas * self.shape.batch / full_batch_s
        low, high = 0.0, 1e7
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            try:
                self.predict(middle)
                low = middle
            except PlanError:
                high = middle
        return low

    def with_replicas(self, replicas: int) -> Run:
        """The same service with other replicas."""
        return dataclasses.replace(self, shape=dataclasses.replace(self.shape, replicas=replicas))


def runs(plan: Plan, catalog: Catalog) -> Iterator[Run]:
    """Every workload of the plan that has a target.

    Raises:
        PlanError: the plan leaves out what decides a prediction, or contradicts itself; names the workload.
    """
    declared = {each.name for each in plan.workloads}
    for stated in plan.predictions:
        if stated.workload not in declared:
            raise PlanError(f"the plan predicts of the workload {stated.workload} and doesn't declare it")
    for workload in plan.workloads:
        if workload.target is not None:
            yield run_of(plan, workload, catalog)


def run_of(plan: Plan, workload: AnyWorkload, catalog: Catalog) -> Run:
    """A workload with a target as the plan runs it.

    Raises:
        PlanError, planner.catalog.UnknownOffer: the plan leaves out what decides, or contradicts itself.
    """
    stated = plan.prediction_of(workload.name)
    pool = next((each for each in plan.pools if workload.name in each.workloads), None)
    if stated is None or pool is None:
        raise PlanError(f"the plan has no {'pool' if stated else 'prediction'} for the workload {workload.name}")
    goal, _, _ = goal_of(workload, FOLDERS)
    if goal is None:
        raise PlanError(f"workload {workload.name}: target: not set, so nothing can be predicted")
    offer = catalog.offer(plan.cloud, plan.region, pool.instance_type)
    has_fallback = any(each.stands_in_for == pool.name for each in plan.pools)
    return _on(offer, workload, pool, goal, _shape(stated, workload, goal), catalog, has_fallback)


def on_other_machines(run: Run, plan: Plan, catalog: Catalog, most: int = KINDS_TRIED) -> Iterator[Run]:
    """The same workload on other kinds of machines of its region that have what it needs, cheapest first."""
    seen = {(run.offer.accelerator, run.offer.accelerator_count)}
    offers = sorted(
        catalog.find(cloud=plan.cloud, region=plan.region, architecture=run.workload.needs.architecture),
        key=lambda offer: (offer.price_usd_per_hour or math.inf, offer.instance_type),
    )
    for offer in offers:
        kind = (offer.accelerator, offer.accelerator_count)
        if kind in seen or offer.price_usd_per_hour is None or not _has_what_is_needed(offer, run):
            continue
        seen.add(kind)
        try:
            yield _on(offer, run.workload, run.pool, run.goal, run.shape, catalog, False)
        except PlanError:
            continue
        if len(seen) > most:
            return


def least(lowest: int, highest: int, passes: Callable[[int], bool]) -> int | None:
    """The least number from `lowest` to `highest` that passes, where all above it pass too; None where none does.

    Small numbers are tried first, for they are the quick ones to predict.
    """
    step, last_failed, tried = 1, lowest - 1, lowest
    while tried < highest and not passes(tried):
        last_failed, tried, step = tried, min(tried + step, highest), step * 2
    if tried >= highest and (lowest > highest or not passes(highest)):
        return None
    while last_failed + 1 < tried:
        middle = (last_failed + tried) // 2
        last_failed, tried = (last_failed, middle) if passes(middle) else (middle, tried)
    return tried


def _has_what_is_needed(offer: Offer, run: Run) -> bool:
    needs = run.workload.needs
    count = run.shape.parallelism.devices_per_node if needs.accelerators else 0
    return (
        (offer.accelerator is None) == (count == 0)
        and offer.accelerator_count >= count
        and (offer.accelerator_memory_gib or 0.0) >= needs.accelerator_memory_gib
        and offer.vcpus >= needs.vcpus + NODE_RESERVED_VCPUS
        and offer.memory_gib * (1 - NODE_RESERVED_MEMORY_FRACTION) >= needs.memory_gib
    )


def _on(
    offer: Offer,
    workload: AnyWorkload,
    pool: PoolPlan,
    goal: Goal,
    shape: Shape,
    catalog: Catalog,
    has_fallback: bool,
) -> Run:
    chips = chips_of(catalog.accelerators)
    machine = machine_of(offer, chips)
    if machine is None:
        raise PlanError(f"workload {workload.name}: nothing is known of {offer.instance_type} that predicts its speed")
    if machine.vcpus:
        needs = workload.needs
        machine = dataclasses.replace(machine, vcpus=needs.vcpus, memory_gib=needs.memory_gib)
    if pool.price_model == "spot":
        machine = dataclasses.replace(
            machine,
            interruptions_per_node_hour=interruptions_per_hour(offer.spot_interruption_bucket),
            away_hours=0.0 if has_fallback else AWAY_HOURS,
        )
    usual = cpu_calibration() if machine.vcpus else builtin()
    chip, calibration = own_calibrations().of(machine, chip_of(machine, chips), usual, goal.precisions)
    return Run(workload, pool, offer, machine, chip, calibration, goal, shape)


def _shape(stated: WorkloadPrediction, workload: AnyWorkload, goal: Goal) -> Shape:
    """What the plan runs: its choices, within the bounds that the workload declares."""
    each = max(1, stated.accelerators_each)
    if not isinstance(goal, TrainingGoal):
        assert isinstance(workload, InferenceService)
        bounds = workload.replicas
        split = Parallelism()
        if isinstance(goal, LanguageModelGoal):
            split = Parallelism(each, 1, each // stated.pipeline_parallel, stated.pipeline_parallel)
        return Shape(stated.precision, stated.batch, split, min(max(stated.replicas, bounds.min), bounds.max))
    data = max(1, each * stated.nodes // (stated.tensor_parallel * stated.pipeline_parallel))
    batch = max(1, goal.global_batch // data)
    pipeline = stated.pipeline_parallel
    micro = 1 if pipeline == 1 else math.gcd(batch, MICROBATCHES_PER_STAGE * pipeline)
    split = Parallelism(each, stated.nodes, stated.tensor_parallel, pipeline, micro, stated.fsdp)
    return Shape(stated.precision, batch, split)
