"""What stays in the cloud though no bill of the stack counts it: what left the program and is not deleted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from planner.guardrails.cost import usd
from policies.deployed import billed_in
from policies.guardrail import stack_guardrail
from policies.pricing import machines
from policies.resource import Resource
from policies.state import StateNotRead
from policies.update import Update

BY_OPTION = (
    "is kept when it leaves the program (retain_on_delete), where no limit of the stack counts it any more. Declare it "
    "again; or let it go: update once with retain_on_delete off, and remove it then"
)
BY_FLAG = (
    "is not declared any more and stays, since --target or --exclude leaves it out, so no limit of this update counts "
    "it. Update without them, or declare it again"
)


@stack_guardrail("nothing-left-behind")
def nothing_left_behind(resources: Sequence[Resource], update: Update) -> Iterator[str]:
    """Under a limit of cost, what has a price and leaves the program is deleted.

    In a preview, which `pulumi up` makes first: after an update what was left is in no state.
    """
    if not (update.is_preview and update.settings.limits_the_stacks_cost):
        return
    try:
        yield from _left(resources, update)
    except StateNotRead as error:
        yield f"whether anything with a price stays behind can't be known: {error}"


def _left(resources: Sequence[Resource], update: Update) -> Iterator[str]:
    declared = {urn for each in resources if each.is_declared for urn in (each.urn, *each.aliases)}
    untouched = {each.urn for each in resources if not each.is_declared}
    why: dict[str, str] = {}
    for each in update.state:
        if each.get("external") or each["urn"] in declared:
            continue
        if each["urn"] in untouched:
            why[each["urn"]] = BY_FLAG
        elif each.get("retainOnDelete"):
            why[each["urn"]] = BY_OPTION
    if not why:
        return
    for resource, billed in billed_in(update, update.state):
        cost_usd = machines.monthly_usd(update.catalog, billed)
        if resource.urn in why and cost_usd:
            yield f"{resource.name} ({resource.type}) costs up to {usd(cost_usd)} a month and {why[resource.urn]}"


GUARDRAILS = [nothing_left_behind]
