"""`fusion preview`: what a change will do, cost and keep, before it exists."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fusion.errors import FusionError
from fusion.review.writing import Outputs, output_options
from fusion.stack import LOGS_EVENTS, Stack, pulumi_command, pulumi_environment

if TYPE_CHECKING:
    from fusion.review.events import Preview


@click.command(name="preview")
@click.option("-s", "--stack", "name", default="local", show_default=True, help="A stack of stacks/.")
@output_options
@click.option("--refresh", is_flag=True, help="Ask the cloud first what is really there.")
@click.option("--expect-no-changes", is_flag=True, help="Fail if anything would change: the check for drift.")
def command(
    name: str,
    markdown: Path | None,
    html: Path | None,
    json_file: Path | None,
    refresh: bool,
    expect_no_changes: bool,
) -> None:
    """Run `pulumi preview` with the policy pack and say what it means: cost, latency, guardrails, changes.

    The files are written when the preview fails as well, and say why. The exit status is Pulumi's: not 0 when a
    mandatory guardrail is broken or anything went wrong.
    """
    outputs = Outputs(markdown, html, json_file)
    outputs.check()
    flags = [flag for flag, is_set in (("--refresh", refresh), ("--expect-no-changes", expect_no_changes)) if is_set]
    status = 1
    try:
        stack = Stack.find(name)
        _ = stack.config  # what is wrong in the stack's file is told with the file's name, before Pulumi reads it
        stack.select()
        status, preview = _previewed(stack, flags)
    except FusionError as error:
        _tell(_failed(str(error)), name, outputs, expect_no_changes)
        raise
    _tell(preview, name, outputs, expect_no_changes)
    sys.exit(status)


def _previewed(stack: Stack, flags: list[str]) -> tuple[int, Preview]:
    """Run the preview, shown as it goes; its exit status and what it said.

    Raises:
        FusionError: there is no pulumi.
    """
    from fusion.review.changes import changes, drift
    from fusion.review.events import read

    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "events.jsonl"
        command = [
            pulumi_command(),
            "preview",
            "--stack",
            stack.name,
            "--non-interactive",
            "--event-log",
            str(log),
            *flags,
        ]
        with subprocess.Popen(
            command, cwd=stack.root, env=pulumi_environment() | LOGS_EVENTS, text=True, stderr=subprocess.PIPE
        ) as process:
            assert process.stderr is not None  # it is a pipe
            said = []
            for line in process.stderr:
                click.echo(line, err=True, nl=False)
                said.append(line)
        stack.pass_over_salt()
        told = "".join(said)
        if not log.is_file() or not log.stat().st_size:
            return process.returncode, _failed(told or f"pulumi preview ended with status {process.returncode}")
        preview = read(log)
    is_told = preview.failed or ("--expect-no-changes" in flags and (changes(preview) or drift(preview)))
    if process.returncode and not is_told:
        failed = _failed(told or f"pulumi preview ended with status {process.returncode}")
        preview = dataclasses.replace(preview, failed=True, diagnostics=(*preview.diagnostics, *failed.diagnostics))
    return process.returncode, preview


def _failed(message: str) -> Preview:
    from fusion.review.events import Diagnostic, Preview, plain

    said = plain(message).removeprefix("error: ")
    return Preview(diagnostics=(Diagnostic("error", said, ""),), ended=False, failed=True)


def _tell(preview: Preview, stack: str, outputs: Outputs, expects_no_changes: bool) -> None:
    from fusion.review.review import review
    from fusion.review.wording import sum_of
    from planner.catalog import CatalogError, load

    try:
        found = review(preview, load(), stack=stack, expects_no_changes=expects_no_changes)
    except CatalogError as error:
        raise FusionError(str(error)) from None
    click.echo(f"\n{found.stack}: {found.verdict.sentence}")
    if found.cost is not None:
        click.echo(f"{sum_of(found.cost)} (predicted)")
    for path in outputs.write(found):
        click.echo(f"wrote {path}")
