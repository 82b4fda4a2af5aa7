"""`fusion issue`: one issue by stack while it drifts."""

from __future__ import annotations

from pathlib import Path

import click

from fusion.github import AUTHOR, Repository, add_to_summary


@click.command(name="issue")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("-s", "--stack", required=True, help="Whose preview FILE is.")
@click.option("--author", default=AUTHOR, show_default=True, help="Whom the token writes as.")
def command(file: Path | None, stack: str, author: str) -> None:
    """Open the stack's issue with FILE, the Markdown of a preview that found drift, or write the open one anew.

    Without FILE nothing drifts, and an open issue is closed.
    """
    from fusion.commands.comment import read_report
    from fusion.review.markdown import marker

    repository = Repository.of_environment(author)
    if file is None:
        closed = repository.close_issue(marker(stack))
        click.echo(f"closed {closed}" if closed else f"{stack} does not drift, and has no open issue")
        return
    body = read_report(file, marker(stack))
    add_to_summary(body)
    click.echo(repository.write_issue(marker(stack), f"Stack {stack} is not as its program says", body))
