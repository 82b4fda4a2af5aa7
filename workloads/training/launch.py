"""Starts the ranks of a node by torchrun, and says as one what became of them.

torchrun's own command ends with status 1 whatever its ranks ended with, and kills those that take more than 30 seconds
to save. A cluster must tell a run that was interrupted from one that failed.
"""

from __future__ import annotations

import argparse
import os
import signal
import uuid
from collections.abc import Iterable
from pathlib import Path

import click

from workloads.training.stopping import RANK_LOST_EXIT_CODE, RESUMABLE_EXIT_CODE

SAVE_SECONDS = 110
"""That ranks get between a SIGTERM and their end: less than the two minutes that spot and our pods have."""

TORCHRUN_PORT = 29500
"""Of the first node, where none is said; its own command's default."""


def is_needed() -> bool:
    """True where the environment names several ranks, in torchrun's own words, and torchrun has not started us."""
    several = any(os.environ.get(name, "1") != "1" for name in ("PET_NNODES", "PET_NPROC_PER_NODE"))
    return several and not started_us()


def started_us() -> bool:
    """True in a rank that torchrun, its own command's or ours, has started."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def launch(config_path: Path) -> int:
    """Run this node's ranks to their end; returns 0, 75 where they were interrupted and saved, 76 where another node
    or rank is gone, or else 1."""
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import elastic_launch
    from torch.distributed.run import config_from_args, parse_args

    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SAVE_SECONDS))
    ours = ["-m", "workloads.training", "--config", str(config_path)]
    how, command, words = config_from_args(_able_to_meet(parse_args(ours)))
    try:
        elastic_launch(config=how, entrypoint=command)(*words)
    except SignalException:
        return RESUMABLE_EXIT_CODE
    except ChildFailedError as error:
        return status_of(failure.exitcode for failure in error.failures.values())
    except (RendezvousError, DistError) as error:
        click.echo(
            f"the nodes of this run can't find each other any more ({' '.join(str(error).split())}); run the same "
            "command again on each: it goes on from the last checkpoint",
            err=True,
        )
        return RANK_LOST_EXIT_CODE
    return 0


def _able_to_meet(asked: argparse.Namespace) -> argparse.Namespace:
    """Where nothing says how ranks find each other: on a node alone by a port that is free, as `torchrun` does."""
    if asked.rdzv_backend == "static" and not asked.rdzv_endpoint and asked.master_port is None:
        if asked.nnodes in ("1", "1:1"):
            asked.rdzv_backend, asked.rdzv_endpoint, asked.rdzv_id = "c10d", "localhost:0", uuid.uuid4().hex
            asked.local_addr = asked.local_addr or "localhost"
        else:
            asked.master_port = TORCHRUN_PORT
    return asked


def status_of(ranks: Iterable[int]) -> int:
    """A node's status from those of its ranks that ended badly: a rank's own fault outweighs what follows from it.

    When one rank is gone torchrun sends SIGTERM to the others, which ends one that no longer or not yet listens to it.
    """
    found = set(ranks) - {-signal.SIGTERM}
    if found - {RESUMABLE_EXIT_CODE, RANK_LOST_EXIT_CODE}:
        return 1
    return RANK_LOST_EXIT_CODE if RANK_LOST_EXIT_CODE in found else RESUMABLE_EXIT_CODE
