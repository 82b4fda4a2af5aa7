"""A cache of a bucket's objects, which pods read as files: what every cloud builds from the same args."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi

from infra.errors import require
from infra.object_store import ObjectStore

STORE_PATH = "/store"
"""Where containers find the folders of the bucket that they read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCacheArgs:
    """Files of a store, near the pods that read them; its size is the store's `file_cache_gib`.

    Attributes:
        store: the bucket.
        zone: where those pods are, for a cloud whose cache is in one zone.
        tags: put on every resource that can carry tags.

    Raises:
        ArgumentError: the store has no size of a cache.
    """

    store: ObjectStore
    zone: str
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(
            self.store.args.file_cache_gib is not None,
            "file cache: the store has none; set object_store.file_cache_gib to the size of one.",
        )

    @property
    def gib(self) -> int:
        """How much it should hold."""
        gib = self.store.args.file_cache_gib
        assert gib is not None
        return gib


@dataclass(frozen=True, slots=True, kw_only=True)
class MountedFolder:
    """A folder of a bucket as pods mount it, read-only: what a PersistentVolume and the pods with it say.

    Attributes:
        prefix: of its objects, such as `data/digits/`.
        driver: name of the CSI driver.
        handle: what the driver mounts.
        attributes: what the driver must know besides.
        options: how it mounts.
        sub_path: what of it containers see; empty for all.
        gib: what the volume says of its size, which no driver reads.
        annotations: of the pods.
    """

    prefix: str
    driver: str
    handle: pulumi.Input[str]
    attributes: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    sub_path: str = ""
    gib: int
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Where containers find it."""
        return f"{STORE_PATH}/{self.prefix.rstrip('/')}"


class FileCache(pulumi.ComponentResource, ABC):
    """A store's cache, whichever cloud it is on.

    Attributes:
        args: what it was made from.
    """

    args: FileCacheArgs

    @abstractmethod
    def folder(self, prefix: str) -> MountedFolder:
        """A folder of the bucket, by the prefix of its objects, such as `data/digits/`."""


def cache_facts(cloud: str, args: FileCacheArgs, gib: int) -> dict[str, object]:
    """What guardrails judge a cache of any cloud by; plain values, known in every preview.

    Args:
        gib: that the cloud bills of it besides the nodes.
    """
    return {"cloud": cloud, "region": args.store.args.region, "zone": args.zone, "gib": args.gib, "billed_gib": gib}
