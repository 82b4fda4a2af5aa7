"""`fusion down`: destroy a stack; on the local cloud, look that nothing is left, and stop its server."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

import click

from fusion.errors import FusionError
from fusion.stack import Stack
from planner import sold_out

if TYPE_CHECKING:
    from localcloud.clouds import LocalCloud


@click.command(name="down")
@click.option("--stack", "name", default="local", show_default=True, help="A stack of stacks/.")
def command(name: str) -> None:
    """Destroy a stack and check that nothing is left."""
    stack = Stack.find(name)
    clouds = stack.local_clouds  # read first: what is wrong in the stack's file is told with the file's name
    stack.select()
    sold_out.forget(name)
    if not clouds:
        stack.destroy()
        click.echo(f"\nStack {name} is destroyed.")
        return
    in_state = [each["id"] for each in stack.resources() if "id" in each]
    for cloud in clouds.values():
        for urn in cloud.remove_leftovers_of(name, in_state):
            click.echo(f"removed what an interrupted update left: {urn}")
    stack.destroy()
    others = stack.others_with_resources()
    for key, cloud in clouds.items():
        _end(stack, key, cloud, [other for other in others if _shares(other, cloud)], in_state)
    if not others and (rendered := sorted(stack.manifests.rglob("*.yaml"))):
        raise _still_there(stack, map(str, rendered))


def _end(stack: Stack, key: str, cloud: LocalCloud, standing: list[str], in_state: Collection[str]) -> None:
    """Look that a cloud has nothing of the stack any more, and stop its server if no other stack needs it.

    Raises:
        FusionError: it has; lists what.
    """
    left = cloud.left(stack.region(key))
    if left := [each for each in left if not standing or _is_of(each, in_state)]:
        raise _still_there(stack, left)
    asked = f"asked through {cloud.asked_through}"
    if standing:
        click.echo(
            f"\nStack {stack.name} is destroyed: the local cloud has nothing of it ({asked}). Its server runs on "
            f"for {', '.join(standing)}."
        )
        return
    cloud.stop()
    click.echo(f"\nStack {stack.name} is destroyed; the local cloud is empty ({asked}) and its server is stopped.")


def _still_there(stack: Stack, left: Iterable[str]) -> FusionError:
    listed = "\n  ".join(left)
    return FusionError(f"stack {stack.name} is destroyed, but the local cloud still holds:\n  {listed}")


def _shares(other: str, cloud: LocalCloud) -> bool:
    """Whether another stack is on the same local cloud; one whose file is gone may be."""
    try:
        return cloud in Stack.find(other).local_clouds.values()
    except FusionError:
        return True


def _is_of(line: str, ids: Collection[str]) -> bool:
    """Whether a line of the inventory is of one of these ids; node groups are `cluster/group` in it."""
    _, _, found = line.partition(" ")
    return found in ids or found.replace("/", ":") in ids
