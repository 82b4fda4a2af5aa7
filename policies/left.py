"""What stays in the cloud though no bill of the stack counts it: what left the program and is not deleted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from planner.guardrails.cost import usd
from policies.deployed import billed_in
from policies.guardrail import stack_guardrail
from policies.pricing import machines
from policies.resource import Resource
from policies.state import State, StateNotRead
from policies.update import Update

BY_OPTION = (
    "is kept when it leaves the program (retain_on_delete), where no limit of the stack counts it any more. Declare it "
    "again; or let it go: update once with retain_on_delete off, and remove it then"
)
IS_LEFT = (
    "has left the stack and stays in the cloud (retain_on_delete), where no limit counts it any more. Delete it there, "
    "or declare it again with import_"
)
BY_REPLACEMENT = (
    "is replaced and kept beside the new one (retain_on_delete), where no limit counts it any more. Update "
    "once with retain_on_delete off, and change it then"
)
BY_FLAG = (
    "is not declared any more and stays, since --target or --exclude leaves it out, so no limit of this update counts "
    "it. Update without them, or declare it again"
)


def _before(update: Update) -> State | StateNotRead:
    """The state as it is before the update, which takes out of it what leaves; or why nobody knows it."""
    try:
        return update.state
    except StateNotRead as error:
        return error


def _remember(_: Resource, update: Update) -> Iterator[str]:
    """Nothing yet; with the first resource of an update, when all is there still, the state is read."""
    if update.settings.limits_the_stacks_cost and not update.is_preview:
        update.remembered(_before)
    yield from ()


@stack_guardrail("nothing-left-behind", judge=_remember)
def nothing_left_behind(resources: Sequence[Resource], update: Update) -> Iterator[str]:
    """Under a limit of cost, what has a price and leaves the program is deleted.

    Told in the preview before anything is done; with `--skip-preview` only when it is left.
    """
    if not update.settings.limits_the_stacks_cost:
        return
    state = update.remembered(_before)
    if isinstance(state, StateNotRead):
        yield f"whether anything with a price stays behind can't be known: {state}"
    else:
        yield from _left(state, resources, update)


def _left(state: State, resources: Sequence[Resource], update: Update) -> Iterator[str]:
    standing = {urn: each for each in resources for urn in (each.urn, *each.aliases)}
    why = {
        each["urn"]: reason
        for each in state
        if not each.get("external") and (reason := _staying(each, standing.get(each["urn"]), update.is_preview))
    }
    if not why:
        return
    for resource, billed in billed_in(update, state):
        cost_usd = machines.monthly_usd(update.catalog, billed)
        if resource.urn in why and cost_usd:
            yield f"{resource.name} ({resource.type}) costs up to {usd(cost_usd)} a month and {why[resource.urn]}"


def _staying(before: Mapping[str, Any], now: Resource | None, is_preview: bool) -> str | None:
    """Why something of the state stays and no limit counts it; None where it is declared as it is, or deleted."""
    if now is not None and not now.is_declared:
        return BY_FLAG
    if not before.get("retainOnDelete"):
        return None
    if now is None:
        return BY_OPTION if is_preview else IS_LEFT
    return BY_REPLACEMENT if is_preview and _is_replaced(before, now) else None


def _is_replaced(before: Mapping[str, Any], now: Resource) -> bool:
    """Whether nothing that its provider told of it is known as it was: of what is to be made anew nothing is."""
    outputs = before.get("outputs", {})
    told = outputs.keys() - before.get("inputs", {}).keys()
    return bool(told) and not any(now.props.value.get(each) == outputs[each] for each in told)


GUARDRAILS = [nothing_left_behind]
