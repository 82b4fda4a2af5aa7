"""What a workload's pods may do in the cloud: what every cloud builds from the same args."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi

from infra.errors import require
from infra.object_store import ObjectStore


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAccess:
    """Access to named parts of one bucket, and to its key; to nothing else.

    Attributes:
        store: the bucket.
        read: prefixes whose objects may be read and listed, such as `data/`.
        write: prefixes whose objects may be read, listed, written and deleted, such as `runs/digits/`.

    Raises:
        ArgumentError: no prefix, or one that means the whole bucket.
    """

    store: ObjectStore
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(
            bool(self.prefixes),
            "store access: neither read nor write names a prefix; name one such as data/, or drop it.",
        )
        for prefix in self.prefixes:
            require(
                prefix.endswith("/") and not prefix.startswith("/") and not set(prefix) & set("*?$"),
                f"store access: {prefix!r} is no folder of the bucket; write a prefix such as data/ or runs/digits/, "
                "without wildcards, ending in a slash.",
            )

    @property
    def prefixes(self) -> tuple[str, ...]:
        """All prefixes, those to read first, each once."""
        return tuple(dict.fromkeys((*self.read, *self.write)))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadIdentityArgs:
    """One Kubernetes service account and what its pods may do.

    Attributes:
        region: the cloud's name of the region.
        namespace: where the service account lives.
        service_account: its name.
        access: the parts of buckets that the pods may use.
        tags: put on every resource that can carry tags.

    Raises:
        ArgumentError: nothing to give access to.
    """

    region: str
    namespace: str
    service_account: str
    access: tuple[StoreAccess, ...]
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(
            bool(self.access),
            f"service account {self.service_account}: access names no bucket; name one, or leave it out.",
        )


class WorkloadIdentity(pulumi.ComponentResource):
    """A workload's identity, whichever cloud it is on.

    Attributes:
        args: what it was made from.
        service_account: name of the Kubernetes service account for the pods.
    """

    args: WorkloadIdentityArgs
    service_account: pulumi.Output[str]
