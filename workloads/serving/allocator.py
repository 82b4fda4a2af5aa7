"""glibc's allocator, told to keep what one batch frees for the next one.

By default it gives large pieces back to the system, which zeroes every page of them again, and which pieces these are
hangs on what the process freed before (malloc/malloc.c, the dynamic threshold). So a pass would take now this long and
now another time.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
"""Of malloc.h; mallopt(3)."""


def keep_freed_memory() -> None:
    """Let this process keep freed memory, in one heap; nothing where the C library has no such setting."""
    setting = getattr(ctypes.CDLL(None), "mallopt", None)
    if setting is not None:
        setting(M_MMAP_MAX, 0)
        setting(M_TRIM_THRESHOLD, -1)  # never
        setting(M_ARENA_MAX, 1)  # a thread's own heap would be given back whole


def give_back_once() -> None:
    """Return what is free now, as the many trials of a start leave it; what is freed later is kept again."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
