"""`fusion comment`: one comment by stack on the pull request, kept up to date."""

from __future__ import annotations

from pathlib import Path

import click

from fusion.errors import FusionError
from fusion.github import AUTHOR, Repository, add_to_summary, pull_request


@click.command(name="comment")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("-s", "--stack", required=True, help="Whose preview FILE is.")
@click.option("--author", default=AUTHOR, show_default=True, help="Whom the token writes as.")
def command(file: Path | None, stack: str, author: str) -> None:
    """Write FILE, the Markdown of `fusion preview`, as the stack's comment on the pull request of this workflow.

    The comment of an earlier run is written over. A pull request of a fork has no token that may write, so its report
    is added to the run's summary only; without FILE the summary says why there is no preview.
    """
    from fusion.review.markdown import marker

    request = pull_request()
    if file is None:
        if not request.is_from_fork:
            raise FusionError("FILE is not given; only a pull request of a fork has no preview")
        add_to_summary(_without_preview(stack))
        click.echo(f"no preview of {stack}: the pull request comes from a fork, which gets no credentials")
        return
    body = read_report(file, marker(stack))
    add_to_summary(body)
    if request.is_from_fork:
        click.echo("the pull request comes from a fork, whose token may not comment; see the run's summary")
        return
    click.echo(Repository.of_environment(author).write_comment(request.number, marker(stack), body))


def read_report(file: Path, marker: str) -> str:
    """The Markdown of a preview of that stack.

    Raises:
        FusionError: it can't be read, or is of another stack.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FusionError(f"{file}: can't be read: {error}") from None
    if not text.startswith(marker):
        raise FusionError(
            f"{file}: does not start with {marker}; expected what `fusion preview --markdown` wrote of it"
        )
    return text


def _without_preview(stack: str) -> str:
    from fusion.review.escaping import code

    return (
        f"### {code(stack)}: not previewed\n\nThis pull request comes from a fork, and forks get no credentials of the "
        "cloud. Whoever may write here can push its branch to this repository to preview it.\n"
    )
