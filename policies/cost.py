"""Cost guardrails."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from pulumi_policy import (
    PolicyConfigSchema,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
)
from pydantic import TypeAdapter, ValidationError

from planner.catalog import UnknownOffer, load
from planner.errors import PlanError
from planner.guardrails import CostLedger, check_plan, usd
from planner.plan import Plan
from policies import stack_config
from policies.priced_resources import UnpricedResource, quantities

PLAN_TYPE = "fusion:platform:Plan"
LIMIT = "monthly_cost_limit_usd"


def monthly_cost_limit() -> ResourceValidationPolicy:
    """The stack's cost at the autoscaler's maximum stays within `fusion:guardrails` `monthly_cost_limit_usd`.

    The registered plan is judged first, before any other resource; then every priced resource, of the components or
    not, by a running total. A limit in the pack's own config holds as well: the lower of the two counts.
    """
    return ResourceValidationPolicy(
        name="monthly-cost-limit",
        description="The stack costs no more a month than its limit, at the autoscaler's maximum.",
        config_schema=PolicyConfigSchema(properties={LIMIT: {"type": "number", "exclusiveMinimum": 0}}),
        validate=_MonthlyCost(),
    )


@dataclass
class _MonthlyCost:
    """Judges resources one at a time, in the order that the engine registers them."""

    ledger: CostLedger = field(default_factory=lambda: CostLedger(load()))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, args: ResourceValidationArgs, report: ReportViolation) -> None:
        limit_usd = _limit_usd(args)
        if limit_usd is None:
            return
        with self.lock:
            if args.resource_type == PLAN_TYPE:
                self._judge_plan(args, report, limit_usd)
            else:
                self._judge_resource(args, report, limit_usd)

    def _judge_plan(self, args: ResourceValidationArgs, report: ReportViolation, limit_usd: float) -> None:
        catalog = self.ledger.catalog
        try:
            plan = _plan(args.props)
            violations = check_plan(plan, catalog, monthly_cost_limit_usd=limit_usd)
        except (ValidationError, PlanError, UnknownOffer) as error:
            report(f"the registered plan can't be priced: {error}", None)
            return
        for violation in violations:
            report(violation.message, None)
        self.ledger.allow(plan)

    def _judge_resource(self, args: ResourceValidationArgs, report: ReportViolation, limit_usd: float) -> None:
        try:
            billed = quantities(args.resource_type, args.props, region=_region(args), catalog=self.ledger.catalog)
            excess = self.ledger.add(args.urn, billed, limit_usd) if billed else None
        except (UnpricedResource, PlanError, UnknownOffer) as error:
            report(f"{args.name} ({args.resource_type}): its cost can't be known: {error}", None)
            return
        if excess:
            report(
                f"{args.name} ({args.resource_type}) costs up to {usd(excess.resource_usd)} a month and would take the "
                f"stack to {usd(excess.total_usd)}, {usd(excess.total_usd - limit_usd)} over the limit of "
                f"{usd(limit_usd)} (fusion:guardrails {LIMIT}). Remove it, make it smaller, or declare it as a "
                "workload so that it is planned.",
                None,
            )


def _limit_usd(args: ResourceValidationArgs) -> float | None:
    """The lower of the limits in the stack's config and in the pack's; None where neither sets one."""
    limits = [source.get(LIMIT) for source in (stack_config.mapping("fusion:guardrails"), args.get_config())]
    return min((float(limit) for limit in limits if isinstance(limit, int | float)), default=None)


def _region(args: ResourceValidationArgs) -> str:
    """The region of the resource's own provider, else the stack's."""
    of_provider = args.provider.props.get("region") if args.provider else None
    return str(of_provider or stack_config.text("aws:region") or "")


_PLAN: TypeAdapter[Plan] = TypeAdapter(Plan)


def _plan(props: Any) -> Plan:
    """The plan from the plain values that it was registered with."""
    # predictions are for people: no cost is judged by them
    judged = [name for name in Plan.__dataclass_fields__ if name in props and name != "predictions"]
    return _PLAN.validate_python({name: _unwrapped(props[name]) for name in judged})


def _unwrapped(value: Any) -> Any:
    if hasattr(value, "keys"):
        return {key: _unwrapped(value[key]) for key in value}
    if isinstance(value, str) or not hasattr(value, "__len__"):
        return value
    return [_unwrapped(each) for each in value]
