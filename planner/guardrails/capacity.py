"""Whether what a stack asks for can be had and can run: memory, instance types, TPU slices, checkpoints on spot."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from planner.catalog import Catalog, TpuTopology
from planner.catalog.catalog import near
from planner.catalog.instances import not_sold, unknown_type
from planner.catalog.tpus import GENERATIONS, chips_of, slice_of_config, slice_of_type
from planner.errors import PlanError
from planner.guardrails.by_cloud import on_each_cloud
from planner.guardrails.settings import GuardrailSettings
from planner.plan import Plan, PoolPlan
from planner.quotas import FILE_CACHE, SYSTEM_NODES, Taken, amount, aws_quotas, named, taken, unit
from planner.workloads import AnyWorkload, Quota, TrainingJob, TrainingTarget

if TYPE_CHECKING:  # numpy comes with it, and only plans with targets need that
    from planner.repredict import Run

CHECKPOINT_BYTES_PER_PARAMETER = 12.0
"""The weights and Adam's two moments, all in fp32: what workloads/training/checkpoint.py writes."""
MB = 1e6
SLICES_SHOWN = 3
PARTS_SHOWN = 4
GCP_CONSOLE = "https://console.cloud.google.com/iam-admin/quotas"
KINDS_TRIED = 64
"""Memory is quick to judge, so more kinds of machines are looked at than for a limit of time."""
CHIPS_OF_OLD = {"TPUv2": (4, 16, 64, 128, 256), "TPUv3": (4, 16, 64, 128, 256, 512, 1024)}
"""Slices that no GKE node pool has ("TPU v2" and "TPU v3", Cloud TPU documentation)."""


@on_each_cloud
def without_memory(plan: Plan, settings: GuardrailSettings, catalog: Catalog) -> Iterator[str]:
    """Each workload in the memory of what it runs on: predicted from its model, and as it declares it."""
    for workload in plan.workloads:
        pool = _pool_of(plan, workload)
        if pool is None:
            continue
        has_gib = catalog.offer(plan.cloud, plan.region, pool.instance_type).accelerator_memory_gib or 0.0
        missing_gib = workload.needs.accelerator_memory_gib - has_gib
        if missing_gib > 0:
            yield (
                f"workload {workload.name} asks for {workload.needs.accelerator_memory_gib:g} GiB an accelerator, and "
                f"{pool.instance_type} has {has_gib:g}: {missing_gib:g} GiB are missing. Lower "
                "needs.accelerator_memory_gib, or choose another instance_type"
            )
    for run in _runs(plan, catalog):
        if (reason := _too_large(run)) is not None:
            yield (
                f"workload {run.workload.name} on {run.runs_on}: {reason}. Nearest change that passes: "
                f"{_what_fits(run, plan, catalog)}."
            )


@on_each_cloud
def unknown_instance_types(plan: Plan, settings: GuardrailSettings, catalog: Catalog) -> Iterator[str]:
    """The instance type of each pool, by name."""
    for where, instance_type in _instance_types(plan):
        if plan.cloud == "gcp" and instance_type.startswith("tpu-"):
            continue  # a slice, which `impossible_slices` judges
        if reason := unknown_type(plan.cloud, instance_type, catalog):
            yield f"{where}: {instance_type} {reason}"


@on_each_cloud
def not_sold_there(plan: Plan, settings: GuardrailSettings, catalog: Catalog) -> Iterator[str]:
    """The accelerators of each pool, in the plan's region."""
    for where, instance_type in _instance_types(plan):
        if reason := not_sold(plan.cloud, plan.region, instance_type, catalog):
            yield f"{where}: {instance_type} {reason}"


@on_each_cloud
def impossible_slices(plan: Plan, settings: GuardrailSettings, catalog: Catalog) -> Iterator[str]:
    """The chips of each pool of TPUs."""
    for pool in plan.pools:
        chip = catalog.accelerators.get(pool.accelerator or "")
        if chip is not None and chip.kind == "tpu":
            reason = no_such_slice(chip.name, pool.accelerators_per_node, catalog)
            if reason:
                yield f"pool {pool.name}: {reason}"


def no_such_slice(accelerator: str, chips: float, catalog: Catalog) -> str | None:
    """Why no slice of a TPU generation has that many chips; None where one has, or nothing is known of the generation.

    The nearest sizes are named.
    """
    known = sorted({each.chips for each in catalog.topologies(accelerator)} or set(CHIPS_OF_OLD.get(accelerator, ())))
    if not known or chips in known:
        return None
    nearest = sorted(sorted(known, key=lambda each: abs(each - chips))[:SLICES_SHOWN])
    return f"{accelerator} has no slice of {chips:g} chips; nearest: {', '.join(map(str, nearest))}"


def no_such_topology(topology: str, machine_type: str | None, nodes: int | None, catalog: Catalog) -> str | None:
    """Why GKE can't make a slice; None where it can.

    Args:
        topology: chips along each axis, such as `2x2x4`.
        machine_type: of its nodes, where that is said.
        nodes: of its node pool, where that is said; a pool is one slice where that has several, and may be empty.
    """
    named = [each for each in catalog.tpu_topologies if machine_type in (None, each.machine_type)]
    if not named:
        return None  # no TPU, or one that the table does not know: unknown_type's to say
    found = next((each for each in named if each.topology == topology), None)
    if found is None:
        of = f"of {machine_type}" if machine_type else "of any machine type"
        return f"there is no slice {topology} {of}{near(topology, _nearest(topology, named))}"
    hosts = found.hosts
    if machine_type and hosts > 1 and nodes not in (None, 0, hosts):
        return f"a slice {topology} of {machine_type} has {hosts} nodes, and {nodes} are asked for; set {hosts}"
    return None


def no_such_accelerator_type(accelerator_type: str, catalog: Catalog) -> str | None:
    """Why Cloud TPU has no `v4-8` or `v5litepod-16`; None where it has."""
    asked = slice_of_type(accelerator_type)
    if asked is None:
        return (
            f"{accelerator_type} is no accelerator type of Cloud TPU; such as "
            f"{', '.join(f'{each}-8' for each in GENERATIONS)}"
        )
    reason = no_such_slice(asked.accelerator, asked.chips, catalog)
    return None if reason is None else f"{accelerator_type} is {asked.chips:g} chips: {reason}"


def no_such_accelerator_config(kind: str, topology: str, catalog: Catalog) -> str | None:
    """Why Cloud TPU can't make a slice of a generation that its API names, such as `V5LITE_POD`; None where it can."""
    asked = slice_of_config(kind, topology)
    if asked is None:
        return f"{kind} is no generation of Cloud TPU; such as V4, V5P, V5LITE_POD, V6E"
    named = catalog.topologies(asked.accelerator)
    if not named:
        return no_such_slice(asked.accelerator, asked.chips, catalog)
    if any(each.topology == topology for each in named):
        return None
    return f"there is no slice {topology} of {asked.accelerator}{near(topology, _nearest(topology, list(named)))}"


def _nearest(topology: str, known: list[TpuTopology]) -> list[str]:
    """Topologies of about as many chips."""
    chips = chips_of(topology)
    by_size = sorted(known, key=lambda each: (abs(each.chips - chips), each.topology))
    return list(dict.fromkeys(each.topology for each in by_size))[:SLICES_SHOWN]


@on_each_cloud
def over_quotas(plan: Plan, settings: GuardrailSettings, catalog: Catalog) -> Iterator[str]:
    """What the plan takes of each quota that was read, at the autoscaler's maximum."""
    for quota in plan.quotas:
        parts = taken(quota, plan, catalog)
        wanted, granted = math.ceil(sum(each.total for each in parts)), amount(quota)
        in_use = quota.in_use or 0
        missing = wanted + in_use - granted
        if missing > 0 and wanted:
            by_part = ", ".join(f"{each.part} {each.total:g}" for each in parts[:PARTS_SHOWN])
            others = f" and {in_use:,} are in use by others than this stack" if in_use else ""
            yield (
                f"{named(quota)}: the plan takes up to {wanted:,} {unit(quota)} ({by_part}), {granted:,} are granted"
                f"{others}: {missing:,} are missing. {_where_to_ask(quota, plan.region, wanted + in_use)}"
                f"{_fewer_nodes(parts, missing, plan)}"
            )


@on_each_cloud
def unread_quotas(plan: Plan, settings: GuardrailSettings, catalog: Catalog) -> Iterator[str]:
    """Whether it is known that the plan fits in the account's quotas."""
    if plan.quotas_unread:
        yield (
            f"the quotas of {plan.cloud} {plan.region} can't be read, so nobody knows whether the plan fits in them: "
            f"{plan.quotas_unread.rstrip('.')}. Let whoever runs the update read them (on AWS the rights "
            "servicequotas:GetServiceQuota and ec2:DescribeInstances, on Google Cloud cloudquotas.quotas.get with the "
            "Cloud Quotas API enabled)"
        )


def _where_to_ask(quota: Quota, region: str, wanted: int) -> str:
    if quota.cloud == "aws" and quota.code:
        service = next((each.service for each in aws_quotas() if each.code == quota.code), "ec2")
        return (
            f"Ask for them: aws service-quotas request-service-quota-increase --service-code {service} --quota-code "
            f"{quota.code} --desired-value {wanted} --region {region}"
        )
    return (
        f"Ask for {wanted:,} at {GCP_CONSOLE} (quota {quota.code}, region {region})" if quota.code else "Ask for them"
    )


def _fewer_nodes(parts: tuple[Taken, ...], missing: int, plan: Plan) -> str:
    """The pool that can do without the most, with what is left to it."""
    if any(each.part == FILE_CACHE for each in parts):
        return ", or lower fusion:object_store file_cache_gib"
    for each in parts:
        pool = next((pool for pool in plan.pools if f"pool {pool.name}" == each.part), None)
        left = each.nodes - math.ceil(missing / each.each)
        if pool is not None and left >= max(1, pool.nodes_min):
            return f", or lower the maximum of pool {pool.name} ({', '.join(pool.workloads)}) to {left}"
    if missing <= sum(each.total for each in parts if each.part != SYSTEM_NODES):
        return ", or remove a workload"
    return ", or make the system nodes fewer or smaller (fusion:cluster system_nodes, system_instance_type)"


@dataclass(frozen=True, slots=True)
class _Saving:
    """How a training run on spot saves itself."""

    run: Run
    every: int
    """Steps between two checkpoints, as declared."""
    steps: int
    """Of the whole run."""
    step_s: float
    write_s: float
    mean_between_s: float
    """Between two interruptions of any of its nodes."""

    @property
    def best(self) -> int:
        """Steps: Daly's optimum, and at most half of the run, so that there is a checkpoint to go on from."""
        from planner.performance.training import optimal_interval_s

        optimum_s = optimal_interval_s(max(self.write_s, 1e-3), self.mean_between_s)
        return min(max(1, round(optimum_s / self.step_s)), max(1, self.steps // 2))

    @property
    def named(self) -> str:
        """In words."""
        return f"training job {self.run.workload.name} on {self.run.runs_on}, on spot"


@on_each_cloud
def spot_without_checkpoints(plan: Plan, settings: GuardrailSettings, catalog: Catalog) -> Iterator[str]:
    """Each training job on spot, which must leave a checkpoint before its end."""
    for saving in _savings(plan, settings, catalog):
        if saving.every >= saving.steps > 1:
            yield (
                f"{saving.named}: it ends after {saving.steps:,} steps and would write its first checkpoint after "
                f"{saving.every:,}, so an interruption, one every {_duration(saving.mean_between_s)}, loses all of "
                f"it; set training.checkpoint_every_steps: {saving.best}, or price_model: on_demand"
            )


@on_each_cloud
def far_from_the_best_interval(plan: Plan, settings: GuardrailSettings, catalog: Catalog) -> Iterator[str]:
    """The time between checkpoints of each training job on spot, against Young's and Daly's optimum."""
    most = settings.checkpoint_factor_max
    for saving in _savings(plan, settings, catalog):
        if saving.every >= saving.steps:
            continue  # spot_without_checkpoints says it
        factor = saving.every / saving.best
        if max(factor, 1 / factor) > most:
            less = factor < 1
            yield (
                f"{saving.named}: a checkpoint every {saving.every:,} steps is one every "
                f"{_duration(saving.every * saving.step_s)}, {_times(max(factor, 1 / factor))} times "
                f"{'less' if less else 'more'} than the best, one every {_duration(saving.best * saving.step_s)} (a "
                f"write takes {_duration(saving.write_s)} at {settings.checkpoint_write_mb_per_s:g} MB/s a device, an "
                f"interruption comes every {_duration(saving.mean_between_s)}); up to {most:g} times is allowed "
                f"(fusion:guardrails checkpoint_factor_max). Set training.checkpoint_every_steps: {saving.best}"
            )


def _savings(plan: Plan, settings: GuardrailSettings, catalog: Catalog) -> Iterator[_Saving]:
    """Training runs on spot of which the length is known: those with a target."""
    for run in _runs(plan, catalog):
        workload, target = run.workload, run.workload.target
        if not isinstance(workload, TrainingJob) or not isinstance(target, TrainingTarget):
            continue
        if not run.machine.interruptions_per_node_hour:
            continue
        try:
            yield _saving(run, workload, target, settings)
        except PlanError:
            continue  # it can't run at all, which memory-fit and training-deadline say


def _saving(run: Run, workload: TrainingJob, target: TrainingTarget, settings: GuardrailSettings) -> _Saving:
    from planner.goals import TrainingGoal
    from planner.performance.training import TrainingPrediction

    predicted, shape = run.predict(), run.shape.parallelism
    assert isinstance(predicted, TrainingPrediction)
    assert isinstance(run.goal, TrainingGoal)
    written = run.goal.run.profile.parameters * CHECKPOINT_BYTES_PER_PARAMETER
    return _Saving(
        run=run,
        every=workload.training.checkpoint_every_steps,
        steps=math.ceil(target.samples * workload.training.epochs / (run.shape.batch * shape.data)),
        step_s=predicted.step_s.value,
        # the ranks divide the writing among themselves
        write_s=written / (settings.checkpoint_write_mb_per_s * MB * shape.devices),
        mean_between_s=3600 / (run.machine.interruptions_per_node_hour * shape.nodes),
    )


def _runs(plan: Plan, catalog: Catalog) -> Iterator[Run]:
    if any(each.target for each in plan.workloads):
        from planner.repredict import runs

        yield from runs(plan, catalog)


def _too_large(run: Run) -> PlanError | None:
    from planner.performance.checks import DoesNotFit

    try:
        run.predict()
    except DoesNotFit as error:
        return error
    except PlanError:
        return None  # it fits, and fails otherwise: the rules of latency say it
    return None


def _what_fits(run: Run, plan: Plan, catalog: Catalog) -> str:
    """The change that asks least: a lower precision, more accelerators, a smaller batch, another machine."""
    return next(
        (change for change, other in _changes(run, plan, catalog) if _too_large(other) is None), "a smaller model"
    )


def _changes(run: Run, plan: Plan, catalog: Catalog) -> Iterator[tuple[str, Run]]:
    from planner.repredict import on_other_machines

    yield from _precisions(run)
    yield from _more_devices(run)
    yield from _smaller_batches(run)
    for other in on_other_machines(run, plan, catalog, KINDS_TRIED):
        change = f"needs.instance_type: {other.offer.instance_type}"
        yield change, other
        yield from ((f"{change} and {more}", on_more) for more, on_more in _more_devices(other))


def _precisions(run: Run) -> Iterator[tuple[str, Run]]:
    """Lower ones, highest first; a training job has its own."""
    from planner.goals import TrainingGoal
    from planner.performance.chip import BYTES

    lower = [each for each in run.chip.peak_flops if BYTES[each] < BYTES[run.shape.precision]]
    for precision in sorted(lower, key=lambda each: -BYTES[each]) if not isinstance(run.goal, TrainingGoal) else ():
        yield f"target.precision: {precision}", _shaped(run, precision=precision)


def _more_devices(run: Run) -> Iterator[tuple[str, Run]]:
    """A language model with each replica on more devices of its node."""
    from planner.goals import TENSOR_DEGREES, LanguageModelGoal
    from planner.performance.parallel import Parallelism

    goal = run.goal
    if not isinstance(goal, LanguageModelGoal):
        return
    for degree in TENSOR_DEGREES:
        if run.shape.parallelism.tensor < degree <= run.machine.count and goal.config.heads % degree == 0:
            yield f"needs.accelerators: {degree}", _shaped(run, parallelism=Parallelism(degree, 1, degree))


def _smaller_batches(run: Run) -> Iterator[tuple[str, Run]]:
    """Of a training job."""
    from planner.goals import TrainingGoal

    batch = run.shape.batch if isinstance(run.goal, TrainingGoal) else 1
    while (batch := batch // 2) >= 1:
        yield f"training.batch_size: {batch * run.shape.parallelism.data}", _shaped(run, batch=batch)


def _shaped(run: Run, **changes: Any) -> Run:
    return dataclasses.replace(run, shape=dataclasses.replace(run.shape, **changes))


def _pool_of(plan: Plan, workload: AnyWorkload) -> PoolPlan | None:
    return next((each for each in plan.pools if workload.name in each.workloads), None)


def _instance_types(plan: Plan) -> Iterator[tuple[str, str]]:
    yield "system nodes", plan.platform.system_instance_type
    for pool in plan.pools:
        yield f"pool {pool.name} ({', '.join(pool.workloads)})", pool.instance_type


def _times(factor: float) -> str:
    """Three digits, or all before the point."""
    return f"{factor:,.0f}" if factor >= 1000 else f"{factor:.3g}"


def _duration(seconds: float) -> str:
    for symbol, length in (("days", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {symbol}"
    return f"{seconds:.3g} s"
