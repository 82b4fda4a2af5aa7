"""The guardrails that judge a plan. The program and the policy pack apply the same list.

A violation says by how much a limit is broken and what the nearest change is that would pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from planner.catalog import Catalog
from planner.guardrails import capacity, cost, latency, unit_cost
from planner.guardrails.settings import GuardrailSettings, Level
from planner.plan import Plan


@dataclass(frozen=True, slots=True)
class PlanRule:
    """One guardrail on plans.

    Attributes:
        name: such as `monthly-cost-limit`; the key of its level and of its policy.
        description: one sentence that says what holds when it passes.
        settings: the fields of `GuardrailSettings` that it reads.
        judge: one message for each violation; nothing where the setting is not made.
        level: how hard it is enforced unless the stack says otherwise.
    """

    name: str
    description: str
    settings: tuple[str, ...]
    judge: Callable[[Plan, GuardrailSettings, Catalog], Iterable[str]]
    level: Level = "mandatory"


@dataclass(frozen=True, slots=True)
class Violation:
    """A guardrail that a plan breaks: its name, one paragraph for the user, and whether that stops the update."""

    guardrail: str
    message: str
    level: Level = "mandatory"


PLAN_RULES: tuple[PlanRule, ...] = (
    PlanRule(
        "monthly-cost-limit",
        "The stack costs no more a month than its limit, at the autoscaler's maximum.",
        ("monthly_cost_limit_usd",),
        cost.over_the_monthly_limit,
    ),
    PlanRule(
        "expected-monthly-cost",
        "The stack costs no more a month than its limit for the expected load.",
        ("expected_monthly_cost_limit_usd",),
        cost.over_the_expected_limit,
    ),
    PlanRule(
        "budget-with-alarms",
        "The stack has a budget that tells somebody before it is spent.",
        ("budget_required",),
        cost.without_a_budget,
    ),
    PlanRule(
        "workload-cost-limit",
        "Each workload costs no more a month than its own limit, at the autoscaler's maximum.",
        ("workload_cost_limits_usd",),
        unit_cost.over_a_workloads_limit,
    ),
    PlanRule(
        "pool-hourly-limit",
        "No pool costs more an hour than the limit, with all its nodes.",
        ("pool_hourly_limit_usd",),
        unit_cost.over_the_pools_limit,
    ),
    PlanRule(
        "request-cost-limit",
        "1,000 requests to an inference service cost no more than the limit.",
        ("usd_per_1000_requests_max",),
        unit_cost.too_dear_by_request,
    ),
    PlanRule(
        "training-run-limit",
        "One run of a training job costs no more than the limit.",
        ("training_run_usd_max",),
        unit_cost.too_dear_a_run,
    ),
    PlanRule(
        "latency-slo",
        "Each inference service keeps the p50, p95 and p99 of its target, at its declared rate and at its peak.",
        ("latency_margin",),
        latency.over_latency_limits,
    ),
    PlanRule(
        "token-latency",
        "Each language model keeps its times to the first and to a further token, at its declared load and at its "
        "peak.",
        ("latency_margin",),
        latency.over_token_limits,
    ),
    PlanRule(
        "utilisation-headroom",
        "Each inference service uses no more of what it can bear than is allowed, at its declared rate and its peak.",
        ("utilisation_max",),
        latency.without_headroom,
    ),
    PlanRule(
        "minimum-replicas",
        "Each inference service keeps as many replicas, in as many zones, as are asked for.",
        ("service_replicas_min", "service_zones_min"),
        latency.too_few_replicas,
    ),
    PlanRule(
        "cold-start",
        "An inference service without replicas has its first in time, and while new replicas start, those of each bear "
        "the climb to its peak.",
        ("node_startup_seconds",),
        latency.too_slow_for_the_ramp,
    ),
    PlanRule(
        "training-deadline",
        "Each training job ends within the hours of its target.",
        ("latency_margin",),
        latency.over_the_deadline,
    ),
    PlanRule(
        "memory-fit",
        "Each workload fits in the memory of the accelerators that it runs on.",
        (),
        capacity.without_memory,
    ),
    PlanRule(
        "quotas",
        "The account's quotas, as they are read before the update, grant all that the plan takes at its maximum.",
        (),
        capacity.over_quotas,
    ),
    PlanRule(
        "quotas-read",
        "The account's quotas can be read.",
        (),
        capacity.unread_quotas,
        level="advisory",
    ),
    PlanRule(
        "instance-types",
        "Every instance type is known to its cloud and still sold.",
        (),
        capacity.unknown_instance_types,
    ),
    PlanRule(
        "sold-in-region",
        "Accelerators are asked for only where they are sold.",
        (),
        capacity.not_sold_there,
    ),
    PlanRule(
        "tpu-topology",
        "Every slice of TPUs is one that exists.",
        (),
        capacity.impossible_slices,
    ),
    PlanRule(
        "spot-checkpoints",
        "Each training job on spot leaves a checkpoint before its end.",
        ("checkpoint_write_mb_per_s",),
        capacity.spot_without_checkpoints,
    ),
    PlanRule(
        "checkpoint-interval",
        "Each training job on spot saves about as often as Young's and Daly's optimum.",
        ("checkpoint_write_mb_per_s", "checkpoint_factor_max"),
        capacity.far_from_the_best_interval,
    ),
)


def check_plan(plan: Plan, settings: GuardrailSettings, catalog: Catalog) -> list[Violation]:
    """What the plan breaks of all rules that are not disabled, in the order of the rules.

    Judged on the catalog's prices and not on those that the plan states.

    Raises:
        planner.errors.PlanError, planner.catalog.UnknownOffer: something in the plan has no price.
    """
    found = []
    for rule in PLAN_RULES:
        level = settings.level_of(rule.name, rule.level)
        if level != "disabled":
            found += [Violation(rule.name, message, level) for message in rule.judge(plan, settings, catalog)]
    return found
