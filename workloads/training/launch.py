"""Starts the ranks of a node by torchrun, and says as one what became of them.

torchrun's own command ends with status 1 whatever its ranks ended with, and kills those that take more than 30 seconds
to save. A cluster must tell a run that was interrupted from one that failed.
"""

from __future__ import annotations

import os
from pathlib import Path

from workloads.training.stopping import RESUMABLE_EXIT_CODE

SAVE_SECONDS = 110
"""That ranks get between a SIGTERM and their end: less than the two minutes that spot and our pods have."""


def is_needed() -> bool:
    """True where the environment names several ranks, in torchrun's own words, and torchrun has not started us."""
    several = any(os.environ.get(name, "1") != "1" for name in ("PET_NNODES", "PET_NPROC_PER_NODE"))
    return several and "TORCHELASTIC_RUN_ID" not in os.environ


def launch(config_path: Path) -> int:
    """Run this node's ranks to their end; returns 0, 75 where they were interrupted and saved, or else 1."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch
    from torch.distributed.run import config_from_args, parse_args

    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SAVE_SECONDS))
    ours = ["-m", "workloads.training", "--config", str(config_path)]
    how, command, words = config_from_args(parse_args(ours))  # type: ignore[no-untyped-call] # torch leaves it so
    try:
        elastic_launch(config=how, entrypoint=command)(*words)
    except SignalException:
        return RESUMABLE_EXIT_CODE
    except ChildFailedError as error:
        # The others were stopped because of the first.
        _, first = error.get_first_failure()
        return RESUMABLE_EXIT_CODE if first.exitcode == RESUMABLE_EXIT_CODE else 1
    return 0
