"""The Pulumi program: read the stack's config, plan, register the plan, then build the platform that it describes."""

import os
from typing import Any

import pulumi

from infra import assembly, config, deployed, planning
from infra.build import build_failover, build_platform, builder_of
from infra.errors import ArgumentError
from infra.plan_resource import PlanResource
from infra.run import without_what_only_costs_time
from planner.calibration.own import own_calibrations
from planner.catalog import Catalog, CatalogError
from planner.catalog import load as load_catalog
from planner.errors import PlanError
from planner.guardrails.rules import Violation
from planner.plan import Plan, joined

PACK_IS_LOADED = bool(os.environ.get("PULUMI_OPTION_POLICY_PACK"))
"""The pack then reports the same violations in preview; said twice they would only be noise."""

WITHOUT_THE_PACK = (
    "PULUMI_OPTION_POLICY_PACK is not set: unless --policy-pack names the pack, only the plan is judged, and no other "
    "resource. `source .fusion/env` sets it."
)


def main() -> None:
    """Plan and build the current stack; what is wrong is one error and nothing is created."""
    without_what_only_costs_time()
    stack = pulumi.get_stack()
    stack_file = f"stacks/Pulumi.{stack}.yaml"
    try:
        settings = config.load(pulumi.runtime.get_config_env(), stack=stack, stack_file=stack_file)
        catalog = load_catalog()
        for sentence in own_calibrations().refused:
            pulumi.log.warn(sentence)
        plan = _plan(settings, stack, catalog)
        plan = joined([builder_of(each.cloud).with_quotas(each, catalog) for each in plan.parts])
        platforms_args = assembly.platforms_args(settings, plan)
        failover_args = assembly.failover_args(settings, plan)
    except (config.ConfigError, CatalogError) as error:
        raise pulumi.RunError(str(error)) from None
    except (PlanError, ArgumentError) as error:
        raise pulumi.RunError(f"{stack_file}: {error}") from None

    for sentence in plan.notes:
        pulumi.log.warn(sentence)
    if not PACK_IS_LOADED:
        pulumi.log.warn(WITHOUT_THE_PACK)
    found = planning.violations(plan, settings, catalog)
    increases = deployed.increases(plan, settings.guardrails, catalog)
    broken = _broken(found if PACK_IS_LOADED else [*found, *increases])
    if broken and not pulumi.runtime.is_dry_run():
        raise pulumi.RunError(broken)
    registered = PlanResource(f"{stack}-plan", plan)
    first, *others = [build_platform(each, registered).outputs for each in platforms_args]
    outputs = planning.plan_outputs(plan, settings) | first | {"datasets": assembly.datasets(settings)}
    outputs |= _on_the_other_cloud(plan, others)
    if failover_args:
        outputs["failover"] = build_failover(stack, failover_args, registered)
    for name, value in outputs.items():
        pulumi.export(name, value)
    if broken and not PACK_IS_LOADED:
        raise pulumi.RunError(broken)


def _plan(settings: config.StackConfig, stack: str, catalog: Catalog) -> Plan:
    """The plan; a stack that could be on either cloud stays where it is deployed.

    Raises:
        PlanError: as `planning.plan_stack`.
    """
    cloud = deployed.cloud() if settings.cloud == "auto" else None
    if cloud is None:
        return planning.plan_stack(settings, stack, catalog)
    try:
        return planning.plan_stack(settings.on(cloud), stack, catalog)
    except PlanError as error:
        raise PlanError(f"{error}; the stack stays on {cloud}, where it is deployed, until it is destroyed") from None


def _on_the_other_cloud(plan: Plan, outputs: list[dict[str, Any]]) -> dict[str, Any]:
    """Of a stack that serves on two clouds, the outputs of the second, by its name."""
    found = {part.cloud: {"region": part.region, **each} for part, each in zip(plan.others, outputs, strict=True)}
    return {"others": found} if found else {}


def _broken(violations: list[Violation]) -> str:
    """What stops the update; what only advises is said as a warning."""
    for each in violations:
        if each.level == "advisory" and not PACK_IS_LOADED:
            pulumi.log.warn(f"{each.guardrail}: {each.message}")
    return "\n".join(f"{each.guardrail}: {each.message}" for each in violations if each.level == "mandatory")


main()
