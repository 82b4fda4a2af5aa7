"""What parts of a stack may cost: a workload by month, a pool by hour, 1,000 requests, one training run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from planner.catalog import Catalog
from planner.cost import HOURS_PER_MONTH, CostItem, Tariff, price_usd_per_month, to_the_cent
from planner.errors import PlanError
from planner.guardrails.by_cloud import on_each_cloud
from planner.guardrails.cost import Bound, usd
from planner.guardrails.settings import GuardrailSettings
from planner.packing import Demand, room_of
from planner.plan import Plan, PoolPlan
from planner.workloads import AnyWorkload, InferenceService, TrainingJob, TrainingTarget

if TYPE_CHECKING:  # numpy comes with it, and only plans with targets need that
    from planner.repredict import Run

SECONDS_PER_HOUR = 3600


def over_a_workloads_limit(plan: Plan, settings: GuardrailSettings, catalog: Catalog) -> Iterator[str]:
    """Each workload's share of its pools at the autoscaler's maximum."""
    by_name = {each.name: each for each in plan.workloads}
    for name, limit_usd in settings.workload_cost_limits_usd.items():
        if name not in by_name:
            yield (
                f"fusion:guardrails workload_cost_limits_usd names {name}, and the stack has "
                f"{', '.join(by_name) or 'no workloads'}; correct the name"
            )
            continue
        on_all = sum(_workload_usd_per_month(part, by_name[name], catalog, "max") for part in plan.parts)
        cost_usd = to_the_cent(on_all)
        if cost_usd > limit_usd:
            pools = ", ".join(each.name for each in plan.all_pools if name in each.workloads)
            yield (
                f"workload {name} costs {usd(cost_usd)} a month at the autoscaler's maximum, "
                f"{usd(cost_usd - limit_usd)} over its limit of {usd(limit_usd)} (fusion:guardrails "
                f"workload_cost_limits_usd): its share of {pools}. It would pass with "
                f"{_smaller_workload(plan, by_name[name], cost_usd, limit_usd)}a limit of {math.ceil(cost_usd)}"
            )


def _smaller_workload(plan: Plan, workload: AnyWorkload, cost_usd: float, limit_usd: float) -> str:
    """The most nodes or replicas that keep its limit, where it alone is in one pool."""
    pools = [each for each in plan.all_pools if workload.name in each.workloads]
    if len(pools) > 1 or pools[0].workloads != (workload.name,):
        return ""
    (pool,) = pools
    nodes = math.floor(limit_usd / (cost_usd / pool.nodes_max) + 1e-9)
    if isinstance(workload, TrainingJob):
        return f"nodes.max: {nodes}, or with " if nodes >= max(1, workload.nodes.min) else ""
    on_each = math.floor(1 / _share_of_a_node(plan, pool, workload) + 1e-9)
    replicas = nodes * on_each
    return f"replicas.max: {replicas}, or with " if replicas >= max(1, workload.replicas.min) else ""


@on_each_cloud
def over_the_pools_limit(plan: Plan, settings: GuardrailSettings, catalog: Catalog) -> Iterator[str]:
    """Each pool's nodes by hour at the autoscaler's maximum."""
    limit_usd = settings.pool_hourly_limit_usd
    if limit_usd is None:
        return
    for pool in plan.pools:
        tariff = Tariff(plan.cloud, plan.region, pool.instance_type, pool.price_model)
        hourly_usd = price_usd_per_month(catalog, tariff) / HOURS_PER_MONTH
        cost_usd = round(hourly_usd * pool.nodes_max, 4)
        if cost_usd > limit_usd:
            yield (
                f"pool {pool.name} ({', '.join(pool.workloads)}) costs {usd(cost_usd)} an hour with its "
                f"{pool.nodes_max} nodes, {usd(cost_usd - limit_usd)} over the limit of {usd(limit_usd)} "
                "(fusion:guardrails pool_hourly_limit_usd). Nearest change that fits: "
                f"{_smaller_pool(hourly_usd, limit_usd)}"
            )


def _smaller_pool(hourly_usd: float, limit_usd: float) -> str:
    nodes = math.floor(limit_usd / hourly_usd + 1e-9)
    return f"at most {nodes} of them" if nodes else f"an instance type of at most {usd(limit_usd)} an hour"


@on_each_cloud
def too_dear_by_request(plan: Plan, settings: GuardrailSettings, catalog: Catalog) -> Iterator[str]:
    """Each inference service's share of its pool while it answers its declared rate."""
    limit_usd = settings.usd_per_1000_requests_max
    if limit_usd is None:
        return
    for workload in plan.workloads:
        requests_per_s = getattr(workload.target, "requests_per_s", None)
        if requests_per_s is None:
            continue
        hourly_usd = _workload_usd_per_month(plan, workload, catalog, "expected") / HOURS_PER_MONTH
        cost_usd = hourly_usd / (requests_per_s * SECONDS_PER_HOUR) * 1000
        if cost_usd > limit_usd:
            yield (
                f"inference service {workload.name} costs ${cost_usd:.4g} for 1,000 requests ({usd(hourly_usd)} an "
                f"hour at {requests_per_s:g} requests/s), ${cost_usd - limit_usd:.4g} over the limit of ${limit_usd:g} "
                f"(fusion:guardrails usd_per_1000_requests_max). At most {usd(hourly_usd * limit_usd / cost_usd)} an "
                f"hour would pass, or a limit of {math.ceil(cost_usd * 1e6) / 1e6:g}"
            )


@on_each_cloud
def too_dear_a_run(plan: Plan, settings: GuardrailSettings, catalog: Catalog) -> Iterator[str]:
    """One run of each training job, predicted anew, on what the plan gives it."""
    limit_usd = settings.training_run_usd_max
    if limit_usd is None or not any(isinstance(each.target, TrainingTarget) for each in plan.workloads):
        return
    from planner.performance.training import TrainingPrediction
    from planner.repredict import runs

    for run in runs(plan, catalog):
        named = f"training job {run.workload.name} on {run.runs_on}"
        try:
            predicted = run.predict()
        except PlanError as error:
            yield f"{named}: {error}"
            continue
        if not isinstance(predicted, TrainingPrediction):
            continue
        tariff = Tariff(plan.cloud, plan.region, run.pool.instance_type, run.pool.price_model)
        hourly_usd = price_usd_per_month(catalog, tariff) / HOURS_PER_MONTH
        node_hours = predicted.node_hours.value
        if (cost_usd := node_hours * hourly_usd) > limit_usd:
            fewer = _fewer_epochs(run, limit_usd / hourly_usd)
            yield (
                f"{named}: one run is predicted to cost {usd(cost_usd)} ({node_hours:.3g} node-hours at "
                f"{usd(hourly_usd)}), {usd(cost_usd - limit_usd)} over the limit of {usd(limit_usd)} "
                f"(fusion:guardrails training_run_usd_max). It would pass with {fewer}a limit of "
                f"{math.ceil(cost_usd * 100) / 100:g}"
            )


def _fewer_epochs(run: Run, node_hours: float) -> str:
    """The most epochs that take no more node-hours, where any do."""
    from planner.goals import TrainingGoal
    from planner.performance.training import TrainingPrediction
    from planner.repredict import least

    goal, workload = run.goal, run.workload
    assert isinstance(goal, TrainingGoal) and isinstance(workload, TrainingJob)
    epochs = workload.training.epochs

    def passes(without: int) -> bool:
        shorter = dataclasses.replace(goal, run=dataclasses.replace(goal.run, epochs=epochs - without))
        predicted = dataclasses.replace(run, goal=shorter).predict()
        assert isinstance(predicted, TrainingPrediction)
        return predicted.node_hours.value <= node_hours

    without = least(1, epochs - 1, passes)
    return "" if without is None else f"training.epochs: {epochs - without}, or with "


def _usd_per_month(items: Iterable[CostItem], catalog: Catalog, bound: Bound) -> float:
    quantities = ((each.quantity.max if bound == "max" else each.quantity.expected, each.tariff) for each in items)
    return sum(amount * price_usd_per_month(catalog, tariff) for amount, tariff in quantities)


def _workload_usd_per_month(plan: Plan, workload: AnyWorkload, catalog: Catalog, bound: Bound) -> float:
    """Its share of the pools that it runs on, by what it and its neighbours ask of a node."""
    cost_usd = 0.0
    for pool in plan.pools:
        if workload.name in pool.workloads:
            items = (each for each in plan.items if each.component == f"pool {pool.name}")
            whole_usd = _usd_per_month(items, catalog, bound)
            asked = {
                each.name: _nodes_asked(plan, pool, each, bound)
                for each in plan.workloads
                if each.name in pool.workloads
            }
            cost_usd += whole_usd * asked[workload.name] / (sum(asked.values()) or 1.0)
    return cost_usd


def _share_of_a_node(plan: Plan, pool: PoolPlan, workload: InferenceService) -> float:
    """Of a replica: the largest of what it takes of a node."""
    predicted = plan.prediction_of(workload.name)
    each = predicted.accelerators_each if predicted else workload.needs.accelerators_least
    room = room_of(pool.accelerators_per_node, pool.vcpus_per_node, pool.memory_gib_per_node)
    return Demand(each, workload.needs.vcpus, workload.needs.memory_gib).share_of(room)


def _nodes_asked(plan: Plan, pool: PoolPlan, workload: AnyWorkload, bound: Bound) -> float:
    """In nodes of the pool: a training job takes whole ones, a replica its largest share of one."""
    predicted = plan.prediction_of(workload.name)
    if isinstance(workload, TrainingJob):
        expected = predicted.nodes if predicted else workload.nodes.expected
        return float(workload.nodes.max if bound == "max" else expected)
    expected = predicted.replicas if predicted else workload.replicas.expected
    return _share_of_a_node(plan, pool, workload) * (workload.replicas.max if bound == "max" else expected)
