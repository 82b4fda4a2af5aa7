"""Processes that the engine starts end with it, also when it is killed and can't tell them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

LOOK_EVERY_S = 0.5


def when_parent_ends(leave: Callable[[], object]) -> None:
    """Call `leave` once the process that started this one has ended."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_EVERY_S)
        leave()

    threading.Thread(target=watch, daemon=True).start()
