"""Where a review is written to: the options that `fusion preview` and `fusion report` share."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from fusion.errors import FusionError

if TYPE_CHECKING:
    from fusion.review.review import Review

Command = TypeVar("Command", bound=Callable[..., None])
NEEDED_BY_PAGE = ("jinja2", "matplotlib")


@dataclass(frozen=True, slots=True)
class Outputs:
    """Files to write; None for those that were not asked for."""

    markdown: Path | None
    html: Path | None
    json: Path | None

    def check(self) -> None:
        """Say what can't be written before anything that takes long.

        Raises:
            FusionError: a folder is not there, or a library of the page.
        """
        for option, path in self._asked():
            if not path.parent.is_dir():
                raise FusionError(f"--{option} {path}: can't be written: {path.parent} is no folder")
        missing = [name for name in NEEDED_BY_PAGE if self.html and importlib.util.find_spec(name) is None]
        if missing:
            raise FusionError(f"--html needs {missing[0]}, which is not installed; install fusion[report]")

    def write(self, review: Review) -> list[Path]:
        """Write what was asked for; returns the paths."""
        for option, path in self._asked():
            try:
                path.write_text(_rendered(option, review), encoding="utf-8")
            except OSError as error:
                raise FusionError(f"--{option} {path}: can't be written: {error.strerror}") from None
        return [path for _, path in self._asked()]

    def _asked(self) -> list[tuple[str, Path]]:
        options = (("markdown", self.markdown), ("html", self.html), ("json", self.json))
        return [(option, path) for option, path in options if path is not None]


def _rendered(option: str, review: Review) -> str:
    if option == "json":
        return json.dumps(review.as_json(), indent=2) + "\n"
    if option == "html":
        from fusion.review.page import page

        return page(review)
    from fusion.review.markdown import markdown

    return markdown(review)


def output_options(command: Command) -> Command:
    """`--markdown`, `--html` and `--json` of a command."""
    path = click.Path(path_type=Path, dir_okay=False)
    for option in (
        click.option("--json", "json_file", type=path, metavar="FILE", help="Write everything as JSON."),
        click.option("--html", type=path, metavar="FILE", help="Write one page with pictures, whole in itself."),
        click.option("--markdown", type=path, metavar="FILE", help="Write the comment for the pull request."),
    ):
        command = option(command)
    return command
