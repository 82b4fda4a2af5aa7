"""`fusion report`: what a saved preview says."""

from __future__ import annotations

from pathlib import Path

import click

from fusion.errors import FusionError
from fusion.review.writing import Outputs, output_options


@click.command(name="report")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--stack", default="", help="The stack's name, where the file names none.")
@output_options
def command(file: Path, stack: str, markdown: Path | None, html: Path | None, json_file: Path | None) -> None:
    """Say what a saved preview means: cost, latency, guardrails, changes.

    FILE is an event log (`pulumi preview --event-log FILE`, with PULUMI_DEBUG_COMMANDS=true) or what `pulumi preview
    --json` printed, which holds less: no guardrails, and only what changes. Without an option the Markdown is printed.
    """
    from fusion.review.events import read
    from fusion.review.review import review
    from planner.catalog import CatalogError, load

    outputs = Outputs(markdown, html, json_file)
    outputs.check()
    preview = read(file)
    if not preview.ended:
        raise FusionError(f"{file}: is cut off: it has no end of the preview; write it again")
    try:
        found = review(preview, load(), stack=stack)
    except CatalogError as error:
        raise FusionError(str(error)) from None
    written = outputs.write(found)
    if written:
        click.echo(f"wrote {', '.join(map(str, written))}")
    else:
        from fusion.review.markdown import markdown as rendered

        click.echo(rendered(found), nl=False)
