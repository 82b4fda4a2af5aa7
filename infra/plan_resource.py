"""The plan as the engine sees it: registered first, so that guardrails judge it before anything else exists."""

from __future__ import annotations

from dataclasses import replace

import pulumi

from planner.plan import Plan

PLAN_TYPE = "fusion:platform:Plan"


class PlanResource(pulumi.ComponentResource):
    """The registered plan of a stack, `fusion:platform:Plan`; every other resource depends on it.

    It has no children. Its inputs are the plan's plain values (`Plan.as_props`), so that no policy that reads them
    meets an unknown one. Its notes, which are warnings of each preview, are no part of it: what else there was to
    choose from says nothing of what is built, and would be a change where nothing changes.

    Example:
        >>> registered = PlanResource("local-plan", planned)  # doctest: +SKIP
    """

    def __init__(self, name: str, plan: Plan, opts: pulumi.ResourceOptions | None = None) -> None:
        props = replace(plan, notes=()).as_props()
        super().__init__(PLAN_TYPE, name, props, opts)
        self.register_outputs(
            {
                "pools": [pool.name for pool in plan.pools],
                "monthly_cost_max_usd": props["monthly_cost_max_usd"],
                "items": props["items"],
            }
        )
