"""What the plan costs more than the one that is deployed already, which the stack's own state tells."""

from __future__ import annotations

import pulumi
from pydantic import ValidationError

from infra.plan_resource import PLAN_TYPE
from planner.catalog import Catalog
from planner.cost import CostItem, repriced, to_the_cent, total
from planner.errors import PlanError
from planner.guardrails.cost import IncreaseLimit, over
from planner.guardrails.rules import Violation
from planner.guardrails.settings import GuardrailSettings
from planner.plan import Plan, items_in

GUARDRAIL = "monthly-cost-increase"

READ = "pulumi:pulumi:readStackResourceOutputs"
"""A function of the engine, which needs no provider and leaves nothing in the state."""


def increases(plan: Plan, settings: GuardrailSettings, catalog: Catalog) -> list[Violation]:
    """What the plan breaks of the limit on its increase; where nothing is deployed, that is said instead.

    Plan against plan: what a program makes beside them is counted by the policy pack alone.
    """
    percent, level = settings.monthly_cost_increase_max_percent, settings.level_of(GUARDRAIL)
    if percent is None or level == "disabled":
        return []
    try:
        deployed = repriced(deployed_items(), catalog)
    except PlanError as error:
        return [Violation(GUARDRAIL, str(error), level)]
    deployed_usd = to_the_cent(total(deployed).max)
    if not deployed_usd:
        pulumi.log.info(f"{GUARDRAIL}: nothing of the plan is deployed yet, so it passes")
        return []
    limit = IncreaseLimit(deployed_usd, percent)
    return [Violation(GUARDRAIL, message, level) for message in over(limit, plan, catalog)]


def cloud() -> str | None:
    """The cloud that the deployed plan is on, where its stack stays; None where none is deployed.

    Raises:
        PlanError: as `deployed_items`.
    """
    items = deployed_items()
    return items[0].tariff.cloud if items else None


def deployed_items() -> tuple[CostItem, ...]:
    """The bill of the deployed plan; empty where none is deployed.

    Raises:
        PlanError: the state can't be read, or was written by another version of Fusion.
    """
    name = f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}"
    try:
        resources = pulumi.runtime.invoke(READ, {"stackName": name}).value["outputs"]
    except Exception as error:  # the SDK raises what the engine answered as Exception itself
        raise PlanError(f"the deployed stack can't be read: {' '.join(str(error).split())}") from None
    plans = [each["outputs"] for each in resources.values() if each["type"] == PLAN_TYPE]
    try:
        return items_in(plans[-1]) if plans else ()
    except ValidationError:
        raise PlanError("the plan in the stack's state was written by another version of Fusion") from None
