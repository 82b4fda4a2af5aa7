"""The bucket of a stack: what every cloud builds from the same args."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi

from infra.errors import require


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectStoreArgs:
    """An encrypted, versioned, private bucket that is reached through TLS only.

    Attributes:
        region: the cloud's name of the region.
        noncurrent_days: how long an overwritten or deleted object can still be brought back.
        soft_delete_days: how long what was deleted can still be brought back after that, 0 or 7 to 90; versions alone
            do it on AWS.
        retention_days: for how long nobody can overwrite or delete an object; earlier versions are not kept then, and
            training jobs, which overwrite theirs, need another bucket.
        unfinished_upload_days: after how long the parts of an upload that never finished are removed.
        delete_with_contents: let `destroy` delete the bucket with the objects in it; else it fails while there are any.
        access_log: record each read and write of an object, and keep the records for a year; data that is confidential
            needs it.
        file_cache_gib: how much of it a cache should hold, which training jobs read as files (`infra.file_cache`); None
            for no cache.
        tags: put on every resource that can carry tags.

    Raises:
        ArgumentError: days below one.
    """

    region: str
    noncurrent_days: int = 30
    soft_delete_days: int = 7
    retention_days: int | None = None
    unfinished_upload_days: int = 7
    delete_with_contents: bool = False
    access_log: bool = False
    file_cache_gib: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(self.noncurrent_days >= 1, f"noncurrent_days {self.noncurrent_days}: use 1 day or more.")
        require(
            self.soft_delete_days == 0 or 7 <= self.soft_delete_days <= 90,
            f"soft_delete_days {self.soft_delete_days}: use 0, or 7 to 90.",
        )
        require(
            self.retention_days is None or 1 <= self.retention_days <= 36_500,
            f"retention_days {self.retention_days}: use 1 to 36500, or leave it out.",
        )
        require(
            self.unfinished_upload_days >= 1, f"unfinished_upload_days {self.unfinished_upload_days}: use 1 or more."
        )
        require(
            self.file_cache_gib is None or self.file_cache_gib >= 1,
            f"file_cache_gib {self.file_cache_gib}: use 1 or more, or leave it out.",
        )


class ObjectStore(pulumi.ComponentResource):
    """A stack's bucket, whichever cloud it is on.

    Attributes:
        args: what it was made from.
        bucket_name: its name.
        bucket_url: `s3://…` or `gs://…`, as fsspec and the clouds' tools take it.
    """

    args: ObjectStoreArgs
    bucket_name: pulumi.Output[str]
    bucket_url: pulumi.Output[str]


def store_facts(cloud: str, args: ObjectStoreArgs, *, encryption_keys: int) -> dict[str, object]:
    """What guardrails judge a bucket of any cloud by; plain values, known in every preview."""
    return {
        "cloud": cloud,
        "region": args.region,
        "noncurrent_days": args.noncurrent_days,
        "delete_with_contents": args.delete_with_contents,
        "encryption_keys": encryption_keys,
        "soft_delete_days": args.soft_delete_days,
        "retention_days": args.retention_days,
        "access_log": args.access_log,
        "file_cache_gib": args.file_cache_gib,
    }
