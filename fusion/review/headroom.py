"""How much of each limit a stack uses, and the few lines on all guardrails that end `fusion up`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fusion.review.cost import plans
from fusion.review.events import Preview
from fusion.review.guardrails import GuardrailReview, Outcome, review_guardrails, settings_of
from fusion.review.predictions import WorkloadReview, workloads
from planner.catalog import Catalog
from planner.cost import HOURS_PER_MONTH, Tariff, price_usd_per_month
from planner.guardrails.cost import monthly_cost_usd, usd
from planner.guardrails.settings import GuardrailSettings
from planner.plan import Plan
from planner.quotas import amount, named, taken, unit

NEAR = 0.8
"""The share of a limit from which on it is told."""
SAID: dict[Outcome, str] = {
    "violated": "violated",
    "advisory": "advise",
    "passed": "passed",
    "not judged": "not judged",
    "not set": "without a limit set",
    "disabled": "disabled",
}
BY_KIND = {"service": "latency-slo", "language model": "token-latency", "training": "training-deadline"}


@dataclass(frozen=True, slots=True)
class Used:
    """What a stack uses of one limit."""

    guardrail: str
    share: float
    sentence: str


def used(preview: Preview, catalog: Catalog) -> tuple[Used, ...]:
    """Of the limits on the plan that it was held to, the fullest first."""
    both = plans(preview)
    if both.after is None:
        return ()
    settings = GuardrailSettings.model_validate(settings_of(preview.config))
    predicted = workloads(both, preview.config)
    found = [*_costs(both.after, settings, catalog), *_quotas(both.after, catalog), *_predictions(predicted)]
    return tuple(sorted(found, key=lambda each: -each.share))


def guardrail_lines(preview: Preview, catalog: Catalog) -> Iterator[str]:
    """How many guardrails passed, which advise or were not judged and why, and which limits are nearly used up."""
    from policies import guardrails

    judged = review_guardrails(preview, guardrails())
    yield ", ".join(_counted(judged))
    limits = used(preview, catalog)
    of_all = [each for each in limits if each.guardrail == "monthly-cost-limit"]
    near = [each for each in limits if each.share >= NEAR and each not in of_all]
    for each in (*of_all, *near):
        yield f"{each.guardrail}: {each.sentence} ({each.share:.0%})"
    for guardrail in judged:
        for finding in guardrail.findings:
            yield f"{guardrail.name} {guardrail.outcome}, {finding.name}: {finding.message}"
        if guardrail.outcome == "not judged":
            yield f"{guardrail.name} not judged: {guardrail.note}"


def _counted(judged: tuple[GuardrailReview, ...]) -> Iterator[str]:
    for outcome, said in SAID.items():
        names = [each.name for each in judged if each.outcome == outcome]
        if names or outcome == "passed":
            listed = f" ({', '.join(names)})" if outcome in ("violated", "advisory", "disabled") else ""
            yield f"{len(names)} {said}{listed}"


def _costs(plan: Plan, settings: GuardrailSettings, catalog: Catalog) -> Iterator[Used]:
    hourly = [
        each.nodes_max
        * price_usd_per_month(catalog, Tariff(plan.cloud, plan.region, each.instance_type, each.price_model))
        / HOURS_PER_MONTH
        for each in plan.pools
    ]
    for guardrail, usd_used, limit_usd in (
        ("monthly-cost-limit", monthly_cost_usd(plan, catalog, "max"), settings.monthly_cost_limit_usd),
        (
            "expected-monthly-cost",
            monthly_cost_usd(plan, catalog, "expected"),
            settings.expected_monthly_cost_limit_usd,
        ),
        ("pool-hourly-limit", max(hourly, default=0.0), settings.pool_hourly_limit_usd),
    ):
        if limit_usd is not None:
            yield Used(guardrail, usd_used / limit_usd, f"{usd(usd_used)} of {usd(limit_usd)}")


def _quotas(plan: Plan, catalog: Catalog) -> Iterator[Used]:
    for each in plan.quotas:
        wanted, granted = sum(part.total for part in taken(each, plan, catalog)), amount(each)
        if granted:
            yield Used("quotas", wanted / granted, f"{wanted:,g} of {granted:,} {unit(each)}, {named(each)}")


def _predictions(found: tuple[WorkloadReview, ...]) -> Iterator[Used]:
    for workload in found:
        for each in workload.measures:
            if each.limit and each.unit in ("ms", "h"):
                sentence = f"{workload.name}, {each.name} {each.after.value:.3g} of {each.limit:g} {each.unit}"
                yield Used(BY_KIND[workload.kind], each.after.value / each.limit, sentence)
