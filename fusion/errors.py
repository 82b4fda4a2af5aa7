"""The error that `fusion` shows to its user."""

from __future__ import annotations


class FusionError(Exception):
    """What went wrong and what to do, in one sentence; shown without a traceback."""
