"""Leaving when the node is taken away: SIGTERM asks the run to save and to leave with a code that says "resume me"."""

from __future__ import annotations

import ctypes
import os
import signal
from types import FrameType

RESUMABLE_EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: run the same command again and it goes on where it was."""
RANK_LOST_EXIT_CODE = 76
"""Another rank went away: the same command goes on from the last checkpoint. Not 75: nothing was saved now, and the
rank that went may have failed by a fault of its own, so who starts the run again should count these."""

_PR_SET_PDEATHSIG = 1  # of prctl(2)
_PARENT_DIED = signal.SIGUSR1
"""Not SIGTERM, of which a second one ends the process: the kernel tells once for each thread of a killed parent."""


class Interrupted(Exception):
    """The run was saved and should leave."""


class Diverged(RuntimeError):
    """The weights have become useless, and more steps would only cost; one sentence with the way out."""


class StopRequest:
    """Remembers what this rank was told: to save and leave, or to save and go on. Any thread may tell it.

    SIGTERM and SIGINT ask to leave; a second one ends the process at once.
    """

    def __init__(self) -> None:
        self.requested = False
        self.save_requested = False
        """The machine may go soon: save at the next step, and go on."""

    def listen(self) -> None:
        """Take over the signals; call it before the slow imports, so that none is lost."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._remember)
        signal.signal(_PARENT_DIED, self._remember_parent)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(number, signal.SIG_DFL)

    def _remember_parent(self, number: int, frame: FrameType | None) -> None:
        self.requested = True


def leave_with_parent() -> None:
    """When torchrun's agent dies, ask this rank to stop: nobody would end it any more, and it holds the chip.

    Call it after `StopRequest.listen`, which takes over the signal.
    """
    agent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _PARENT_DIED)
    if os.getppid() != agent:  # it died before the kernel was told
        os.kill(os.getpid(), _PARENT_DIED)
