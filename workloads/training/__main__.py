"""`python -m workloads.training --config training.yaml`: what the training container runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from workloads.config import ConfigError
from workloads.storage import StorageError
from workloads.training import launch
from workloads.training.config import TrainingConfig, load
from workloads.training.logs import Log
from workloads.training.stopping import RESUMABLE_EXIT_CODE, Interrupted, StopRequest


@click.command()
@click.option("--config", "path", required=True, type=click.Path(path_type=Path), help="The run's training.yaml.")
def main(path: Path) -> None:
    """Train a model; run the same command again to go on after an interruption.

    Exit status: 0 finished; 1 an error, said in one sentence; 75 interrupted and saved.
    """
    if launch.is_needed():
        sys.exit(launch.launch(path))
    stop = StopRequest()
    stop.listen()
    try:
        config = load(path)
        train(config, stop)
    except Interrupted:
        Log().info("interrupted", exit_code=RESUMABLE_EXIT_CODE, resume="run the same command again")
        sys.exit(RESUMABLE_EXIT_CODE)
    except ConfigError as error:
        sentence = str(error)
        fail(sentence if sentence.startswith(str(path)) else f"{path}: {sentence}")


def train(config: TrainingConfig, stop: StopRequest) -> None:
    """Import PyTorch, which takes seconds, only for a config that is right, and run."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
    from workloads.models import ModelError
    from workloads.training.fetching import ResumeError
    from workloads.training.run import run
    from workloads.training.world import WorldError

    try:
        run(config, stop)
    except (ModelError, StorageError, ResumeError, WorldError) as error:
        fail(str(error))


def fail(sentence: str) -> NoReturn:
    """Say what is wrong and leave."""
    click.echo(sentence, err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
