"""Buckets of S3, whose settings are resources of their own."""

from __future__ import annotations

from policies.resource import Resource

AWS_BUCKETS = ("aws:s3/bucket:Bucket", "aws:s3/bucketV2:BucketV2")


def bucket_names(resource: Resource, *fields: str) -> tuple[str, ...]:
    """The names of the buckets that a resource is, or is about, in these inputs; those that are known."""
    parts = (resource.props.part(each) for each in fields or ("bucket",))
    return tuple(each.value for each in parts if isinstance(each.value, str) and not each.is_unknown())
