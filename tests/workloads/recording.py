"""A model that writes down which images it is trained on, and can be made to die or to be asked to stop at a step.

What it does is said in the environment, not in the config: the config of a resumed run must be the same.
"""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from pathlib import Path

from torch import Tensor

from workloads.models.fusionnet import FusionNet


class RecordingNet(FusionNet):
    def __init__(self, *, shape: tuple[int, ...], classes: int, dropout: float = 0.25) -> None:
        super().__init__(shape=shape, classes=classes, hidden=32, dropout=dropout)
        name = f"{time.time_ns()}-rank{os.environ.get('RANK', '0')}.txt"
        self.record = Path(os.environ["RECORD_FOLDER"]) / name
        self.steps = 0

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self._write_down(images)
            self.steps += 1
            time.sleep(float(os.environ.get("STEP_SECONDS", "0")))
            for name, number in (("KILL_AT_STEP", signal.SIGKILL), ("TERM_AT_STEP", signal.SIGTERM)):
                if os.environ.get(name) == str(self.steps):
                    os.kill(os.getpid(), number)
            if os.environ.get("FAIL_AT_STEP") == str(self.steps):
                raise MachineGone
            if os.environ.get("NODE_DIES_AT_STEP") == str(self.steps):
                kill_node()
            if os.environ.get("NODE_DIES_WAITING_AT_STEP") == str(self.steps):
                threading.Timer(0.5, kill_node).start()
            if os.environ.get("LATE_AT_STEP") == str(self.steps):
                time.sleep(2)
        return super().forward(images)

    def _write_down(self, images: Tensor) -> None:
        with self.record.open("a") as file:
            file.writelines(hashlib.sha256(image.numpy().tobytes()).hexdigest() + "\n" for image in images.detach())


class MachineGone(BaseException):
    """Stands for a crash that no handler sees."""


def kill_node() -> None:
    """torchrun's agent and the rank, as when a machine is gone."""
    os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def recorded(folder: Path) -> list[list[str]]:
    """The images of each process that trained, in the order in which the processes started."""
    return [file.read_text().split() for file in sorted(folder.glob("*.txt"))]
