"""The server keeps the memory that a batch frees, so that the next one does not pay for its pages again."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the setting is glibc's")

COUNT = """
import ctypes, resource, threading
from workloads.serving.allocator import give_back_once, keep_freed_memory

{before}
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p

def take():
    taken = ctypes.c_void_p(libc.malloc({size}))
    ctypes.memset(taken, 1, {size})
    libc.free(taken)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def touch():
    for _ in range(3):
        take()
    {between}
    before = faults()
    take()
    counted.append(faults() - before)

counted = []
thread = threading.Thread(target=touch)  # as a model's
thread.start()
thread.join()
print(*counted)
"""
PAGES_MOST = 64
"""Of Python's own; 64 MiB are 16,384."""


def faults(before: str, between: str = "") -> int:
    """Page faults of 64 MiB, in a thread that has freed as much."""
    code = COUNT.format(before=before, between=between, size=2**26)
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)


def test_freed_memory_is_kept_and_its_pages_are_not_paid_for_again() -> None:
    assert faults("") > 10 * PAGES_MOST
    assert faults("keep_freed_memory()") < PAGES_MOST


def test_what_a_start_left_is_given_back_once() -> None:
    assert faults("keep_freed_memory()", "give_back_once()") > 10 * PAGES_MOST
