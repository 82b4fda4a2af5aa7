"""`fusion`: each command is a module of `fusion.commands`, imported only when it is called."""

from __future__ import annotations

import gc
import importlib
import os
import sys

import click

os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # none is used; to look for any takes 50 to 100 ms

COMMANDS = {
    "up": "Provision a stack, run its training jobs on this machine if it is local, and sum up.",
    "down": "Destroy a stack and check that nothing is left.",
    "status": "Say what runs, what waits, on which nodes, and what it costs now.",
    "cluster": "Start a Kubernetes control plane on this machine, and give it nodes.",
    "plan": "Say where each workload should run, what it costs and takes, and why not elsewhere.",
    "preview": "Say what a change will do, cost and keep, before it exists.",
    "report": "Say what a saved preview means.",
    "changed": "List the stacks that a change of this repository can change.",
    "comment": "Write a preview as the stack's comment on a pull request.",
    "issue": "Keep one issue for a stack that drifts.",
    "data": "Write data sets to a bucket, and check them.",
    "export": "Make a package of a trained model, for every runtime that can serve it.",
    "optimize": "Make a trained model smaller and faster for a chip, if it stays accurate enough.",
    "migrate": "Make a package of a trained model for another chip, and say what changes.",
    "serve": "Serve a package under a latency SLO.",
    "partition": "Split a model between an edge device and the cloud.",
    "profile": "Trace a PyTorch module, so that it can be planned for.",
    "offers": "List what the clouds sell, with prices.",
    "catalog": "Check and refresh the catalog of offers.",
    "calibrate": "Measure this machine for the planner's predictions.",
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one only to run it or show its help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command, in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, from its module's `command`."""
        if cmd_name not in COMMANDS:
            return None
        gc.disable()  # what an import makes stays: looking through it again and again takes 30 ms and frees nothing
        try:
            command: click.Command = importlib.import_module(f"fusion.commands.{cmd_name}").command
        finally:
            gc.freeze()
            gc.enable()
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fusion")
def cli() -> None:
    """Infrastructure as code for AI accelerators: planned, priced and guarded before it exists."""


def main() -> None:
    """Run the command line; an error is one sentence on standard error and status 1."""
    from fusion.errors import FusionError

    try:
        cli()
    except FusionError as error:
        click.echo(f"fusion: {error}", err=True)
        sys.exit(1)
