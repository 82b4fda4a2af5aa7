"""Room that the file cache of Cloud Storage FUSE takes of a node's disk."""

ASIDE_GIB = 1
"""For the driver's container besides the cache: its logs, and what it holds meanwhile."""


def node_cache_gib(gib: int) -> int:
    """Of the disk of each node whose pods have a cache of so much."""
    return gib + ASIDE_GIB
