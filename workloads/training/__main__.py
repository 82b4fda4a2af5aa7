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
from workloads.training.failures import described
from workloads.training.logs import Log, says_all
from workloads.training.stopping import (
    RANK_LOST_EXIT_CODE,
    RESUMABLE_EXIT_CODE,
    Diverged,
    Interrupted,
    StopRequest,
    leave_with_parent,
)


@click.command()
@click.option("--config", "path", required=True, type=click.Path(path_type=Path), help="The run's training.yaml.")
def main(path: Path) -> None:
    """Train a model; run the same command again to go on after an interruption.

    Exit status: 0 finished; 1 an error, said in one sentence; 75 interrupted and saved; 76 another rank is gone,
    and the same command goes on from the last checkpoint.
    """
    if launch.is_needed():
        sys.exit(launch.launch(path))
    stop = StopRequest()
    stop.listen()
    if launch.started_us():
        leave_with_parent()
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
    """Import PyTorch, which takes seconds, only for a config that is right, and run.

    Raises:
        ConfigError: the config, its model's arguments among them, does not go with the data or the machine.
        Interrupted: the run is saved.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
    from workloads.models import ModelError
    from workloads.training.fetching import ResumeError
    from workloads.training.run import run
    from workloads.training.world import RankLost, WorldError

    try:
        run(config, stop)
    except RankLost as error:
        fail(str(error), RANK_LOST_EXIT_CODE)
    except ModelError as error:
        raise ConfigError(str(error)) from error
    except (Diverged, StorageError, ResumeError, WorldError) as error:
        fail(str(error))
    except (ConfigError, Interrupted):
        raise
    except Exception as error:
        if says_all(config):
            raise
        fail(described(error))


def fail(sentence: str, status: int = 1) -> NoReturn:
    """Say what is wrong and leave."""
    click.echo(sentence, err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
