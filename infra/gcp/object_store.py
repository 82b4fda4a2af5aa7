"""A bucket of Cloud Storage: its own key, versions, no public access, and an end for what nobody needs."""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp

from infra.gcp.access_log import logging_agent, make_access_log
from infra.gcp.keys import make_key
from infra.gcp.labels import as_labels
from infra.object_store import ObjectStore, ObjectStoreArgs, store_facts

DAY_S = 24 * 3_600


class GcpObjectStore(ObjectStore):
    """A bucket that only IAM opens; Google Cloud takes requests through TLS alone by itself.

    Makes: KeyRing, CryptoKey and its grants, Bucket; with `access_log` what `infra.gcp.access_log` says.

    Example:
        >>> store = GcpObjectStore("prod-store", ObjectStoreArgs(region="us-central1"))
        >>> pulumi.export("bucket", store.bucket_url)
    """

    def __init__(self, name: str, args: ObjectStoreArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fusion:gcp:ObjectStore", name, store_facts("gcp", args, encryption_keys=1), opts)
        self.args = args
        storage = gcp.storage.get_project_service_account_output(opts=pulumi.InvokeOptions(parent=self))
        agents = {"storage": storage.email_address} | ({"logging": logging_agent(self)} if args.access_log else {})
        key = make_key(name, args.region, agents, parent=self, tags=args.tags)
        condition = gcp.storage.BucketLifecycleRuleConditionArgs
        bucket = gcp.storage.Bucket(
            name,
            location=args.region,
            force_destroy=args.delete_with_contents,
            uniform_bucket_level_access=True,
            public_access_prevention="enforced",
            # One of the two: Cloud Storage takes no bucket with both ("Bucket Lock").
            versioning=gcp.storage.BucketVersioningArgs(enabled=args.retention_days is None),
            retention_policy=_retention(args),
            soft_delete_policy=gcp.storage.BucketSoftDeletePolicyArgs(
                retention_duration_seconds=args.soft_delete_days * DAY_S
            ),
            encryption=gcp.storage.BucketEncryptionArgs(default_kms_key_name=key),
            lifecycle_rules=[
                _rule("Delete", condition(days_since_noncurrent_time=args.noncurrent_days, with_state="ARCHIVED")),
                _rule("AbortIncompleteMultipartUpload", condition(age=args.unfinished_upload_days)),
            ],
            labels=as_labels(args.tags),
            opts=pulumi.ResourceOptions(parent=self),
        )
        if args.access_log:
            make_access_log(f"{name}-access", args.region, bucket.name, key, parent=self)
        self.bucket_name = bucket.name
        self.bucket_url = bucket.url
        self.register_outputs({"bucket_name": self.bucket_name, "bucket_url": self.bucket_url})


def _retention(args: ObjectStoreArgs) -> gcp.storage.BucketRetentionPolicyArgs | None:
    """Not locked: whoever owns the bucket may shorten it."""
    if args.retention_days is None:
        return None
    return gcp.storage.BucketRetentionPolicyArgs(retention_period=str(args.retention_days * DAY_S), is_locked=False)


def _rule(action: str, when: gcp.storage.BucketLifecycleRuleConditionArgs) -> gcp.storage.BucketLifecycleRuleArgs:
    return gcp.storage.BucketLifecycleRuleArgs(
        action=gcp.storage.BucketLifecycleRuleActionArgs(type=action), condition=when
    )
