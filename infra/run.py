"""What the program's process does without, so that a preview is quick."""

from __future__ import annotations

import gc
import os

import pulumi


def without_what_only_costs_time() -> None:
    """Leave out Python's collector and, unless `PULUMI_OPTION_DEBUG` is set, the SDK's debug lines.

    The collector would look through the SDKs' thousands of classes again and again in a process of seconds; each debug
    line is a call to the engine that the program waits for, four a resource.
    """
    gc.disable()
    if not os.environ.get("PULUMI_OPTION_DEBUG"):
        pulumi.log.debug = lambda *_args, **_options: None
