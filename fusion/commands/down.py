"""`fusion down`: destroy a stack; on the local cloud, look that nothing is left, and stop its server."""

from __future__ import annotations

from collections.abc import Collection

import click

from fusion.errors import FusionError
from fusion.stack import Stack
from planner import sold_out


@click.command(name="down")
@click.option("--stack", "name", default="local", show_default=True, help="A stack of stacks/.")
def command(name: str) -> None:
    """Destroy a stack and check that nothing is left."""
    stack = Stack.find(name)
    cloud = stack.local_cloud  # read first: what is wrong in the stack's file is told with the file's name
    stack.select()
    sold_out.forget(name)
    if cloud is None:
        stack.destroy()
        click.echo(f"\nStack {name} is destroyed.")
        return
    in_state = [each["id"] for each in stack.resources() if "id" in each]
    for urn in cloud.remove_leftovers_of(name, in_state):
        click.echo(f"removed what an interrupted update left: {urn}")
    stack.destroy()
    left = cloud.left(stack.region)
    if standing := stack.others_with_resources():
        left = [each for each in left if _is_of(each, in_state)]
    else:
        left += [str(path) for path in sorted(stack.manifests.rglob("*.yaml"))]
    if left:
        listed = "\n  ".join(left)
        raise FusionError(f"stack {name} is destroyed, but the local cloud still holds:\n  {listed}")
    asked = f"asked through {cloud.asked_through}"
    if standing:
        click.echo(
            f"\nStack {name} is destroyed: the local cloud has nothing of it ({asked}). Its server runs on "
            f"for {', '.join(standing)}."
        )
        return
    cloud.stop()
    click.echo(f"\nStack {name} is destroyed; the local cloud is empty ({asked}) and its server is stopped.")


def _is_of(line: str, ids: Collection[str]) -> bool:
    """Whether a line of the inventory is of one of these ids; node groups are `cluster/group` in it."""
    _, _, found = line.partition(" ")
    return found in ids or found.replace("/", ":") in ids
