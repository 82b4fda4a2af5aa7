"""Leaving when the node is taken away: SIGTERM asks the run to save and to leave with a code that says "resume me"."""

from __future__ import annotations

import signal
from types import FrameType

RESUMABLE_EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: run the same command again and it goes on where it was."""


class Interrupted(Exception):
    """The run was saved and should leave."""


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

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(number, signal.SIG_DFL)
