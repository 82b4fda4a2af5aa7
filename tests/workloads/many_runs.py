"""Started by torchrun: does the runs of several training.yaml files one after the other, so that PyTorch starts once.

Each argument is `port:file`; each run's ranks meet at a port of their own, as those of runs of different days do.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from workloads.training.config import load
from workloads.training.run import run
from workloads.training.stopping import StopRequest

if __name__ == "__main__":
    for argument in sys.argv[1:]:
        port, file = argument.split(":", 1)
        os.environ.update(MASTER_PORT=port, TORCHELASTIC_USE_AGENT_STORE="False")
        print("run", file, flush=True)
        run(load(Path(file)), StopRequest())
