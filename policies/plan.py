"""Guardrails on the registered plan: the same rules that the program applies when it plans."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from pydantic import ValidationError

from planner.errors import PlanError
from planner.guardrails.rules import PLAN_RULES, PlanRule
from planner.plan import Plan
from policies.guardrail import Guardrail, guardrail
from policies.resource import Resource
from policies.update import Update

PLAN_TYPE = "fusion:platform:Plan"


@functools.lru_cache(maxsize=1)  # a guardrail after the other asks for the same
def registered_plan(resource: Resource) -> Plan:
    """The plan that was registered as `PLAN_TYPE`.

    Raises:
        PlanError: its inputs are not those of a plan.
        policies.resource.NotKnown: they are not all plain values.
    """
    resource.props.require_known()
    try:
        return Plan.from_props(resource.props.value)
    except ValidationError as error:
        raise PlanError(_unreadable(resource.name, error)) from None


def _unreadable(name: str, error: ValidationError) -> str:
    """The first thing that is wrong, and how many more there are."""
    first, *others = error.errors()
    field = ".".join(map(str, first["loc"]))
    more = f" ({len(others)} more are wrong)" if others else ""
    return (
        f"{name} can't be read as a plan: {field}: {first['msg']}{more}; register it as infra.plan_resource."
        "PlanResource does, unchanged"
    )


def on_plans(rule: PlanRule) -> Guardrail:
    """A rule on plans as a guardrail of the pack."""

    def judge(resource: Resource, update: Update) -> Iterator[str]:
        yield from rule.judge(registered_plan(resource), update.settings, update.catalog)

    return Guardrail(
        rule.name, rule.description, frozenset({PLAN_TYPE}), rule.settings, rule.level, "refused", judge=judge
    )


def _registered(_: Update) -> set[str]:
    return set()


@guardrail("one-plan", PLAN_TYPE)
def one_plan(resource: Resource, update: Update) -> Iterator[str]:
    """A stack has one plan.

    What the plan promises (spot nodes, replicas) is held against what is made after it; a second plan that promises
    less would take that away.
    """
    registered = update.remembered(_registered)
    registered.add(resource.urn)
    if len(registered) > 1:
        yield f"{resource.name} is a second {PLAN_TYPE}; register one, with all workloads in it"


def guardrails(besides: frozenset[str]) -> list[Guardrail]:
    """Those on plans alone: all rules besides those whose guardrails judge further resources as well."""
    return [one_plan, *(on_plans(rule) for rule in PLAN_RULES if rule.name not in besides)]
