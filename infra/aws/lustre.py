"""Sizes in which FSx for Lustre is sold."""

LEAST_GIB = 1_200
STEP_GIB = 2_400
"""SSD of a persistent file system: 1,200 GiB, or a multiple of 2,400 ("CreateFileSystem", StorageCapacity, Amazon FSx
API reference)."""


def lustre_gib(gib: int) -> int:
    """The smallest capacity that holds so much."""
    return LEAST_GIB if gib <= LEAST_GIB else -(-gib // STEP_GIB) * STEP_GIB
