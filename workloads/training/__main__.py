"""`python -m workloads.training --config training.yaml`: what the training container runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from workloads.training.stopping import RESUMABLE_EXIT_CODE, Interrupted, StopRequest

TORCHRUN = ("-m", "torch.distributed.run", "-m")


def torchrun_is_needed() -> bool:
    """True where the environment names several ranks, in torchrun's own words, and torchrun has not started us."""
    several = any(os.environ.get(name, "1") != "1" for name in ("PET_NNODES", "PET_NPROC_PER_NODE"))
    return several and "TORCHELASTIC_RUN_ID" not in os.environ


@click.command()
@click.option("--config", "path", required=True, type=click.Path(path_type=Path), help="The run's training.yaml.")
def main(path: Path) -> None:
    """Train a model; run the same command again to go on after an interruption.

    Exit status: 0 finished; 1 an error, said in one sentence; 75 interrupted and saved.
    """
    if torchrun_is_needed():
        os.execv(sys.executable, [sys.executable, *TORCHRUN, "workloads.training", "--config", str(path)])
    stop = StopRequest()
    stop.listen()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it

    from workloads.models import ModelError  # PyTorch takes seconds to import
    from workloads.storage import StorageError
    from workloads.training.checkpoint import ResumeError
    from workloads.training.config import ConfigError, load
    from workloads.training.logs import Log
    from workloads.training.run import run
    from workloads.training.world import WorldError

    try:
        run(load(path), stop)
    except Interrupted:
        Log().info("interrupted", exit_code=RESUMABLE_EXIT_CODE, resume="run the same command again")
        sys.exit(RESUMABLE_EXIT_CODE)
    except ConfigError as error:
        sentence = str(error)
        click.echo(sentence if sentence.startswith(str(path)) else f"{path}: {sentence}", err=True)
        sys.exit(1)
    except (ModelError, StorageError, ResumeError, WorldError) as error:
        click.echo(f"{path}: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
