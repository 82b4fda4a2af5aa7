"""`python -m workloads.serving --config serving.yaml`: what the inference container runs."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from workloads.config import ConfigError
from workloads.storage import StorageError


@click.command()
@click.option("--config", "path", type=click.Path(path_type=Path), help="serving.yaml  [default: FUSION_PACKAGE_URL]")
def main(path: Path | None) -> None:
    """Serve models until SIGTERM; SIGHUP reads the config again.

    Exit status: 0 stopped and drained; 1 an error, said in one sentence, or a runtime that hangs.
    """
    try:
        from workloads.serving.config import from_environment, load
        from workloads.serving.package import PackageError
        from workloads.serving.server import run
    except ModuleNotFoundError as error:
        fail(f"serving needs {error.name}, which is not installed; install fusion[serve]")

    try:
        status = run(from_environment if path is None else functools.partial(load, path))
    except (ConfigError, PackageError, StorageError) as error:
        fail(str(error))
    # The runtimes' modules complain about one another when the interpreter takes them down.
    sys.stdout.flush()
    os._exit(status)


def fail(sentence: str) -> NoReturn:
    """Say what is wrong and leave."""
    click.echo(sentence, err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
