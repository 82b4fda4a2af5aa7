"""A bucket of Cloud Storage: its own key, versions, no public access, and an end for what nobody needs."""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp

from infra.errors import require
from infra.gcp.keys import make_key
from infra.gcp.labels import as_labels
from infra.object_store import ObjectStore, ObjectStoreArgs, store_facts

SOFT_DELETE_S = 7 * 24 * 3_600


class GcpObjectStore(ObjectStore):
    """A bucket that only IAM opens; Google Cloud takes requests through TLS alone by itself.

    Makes: KeyRing, CryptoKey and its grant, Bucket.

    Example:
        >>> store = GcpObjectStore("prod-store", ObjectStoreArgs(region="us-central1"))
        >>> pulumi.export("bucket", store.bucket_url)
    """

    def __init__(self, name: str, args: ObjectStoreArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        check(args)
        super().__init__("fusion:gcp:ObjectStore", name, store_facts("gcp", args, encryption_keys=1), opts)
        self.args = args
        storage = gcp.storage.get_project_service_account_output(opts=pulumi.InvokeOptions(parent=self))
        key = make_key(name, args.region, {"storage": storage.email_address}, parent=self, tags=args.tags)
        condition = gcp.storage.BucketLifecycleRuleConditionArgs
        bucket = gcp.storage.Bucket(
            name,
            location=args.region,
            force_destroy=args.delete_with_contents,
            uniform_bucket_level_access=True,
            public_access_prevention="enforced",
            versioning=gcp.storage.BucketVersioningArgs(enabled=True),
            soft_delete_policy=gcp.storage.BucketSoftDeletePolicyArgs(retention_duration_seconds=SOFT_DELETE_S),
            encryption=gcp.storage.BucketEncryptionArgs(default_kms_key_name=key),
            lifecycle_rules=[
                _rule("Delete", condition(days_since_noncurrent_time=args.noncurrent_days, with_state="ARCHIVED")),
                _rule("AbortIncompleteMultipartUpload", condition(age=args.unfinished_upload_days)),
            ],
            labels=as_labels(args.tags),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.bucket_name = bucket.name
        self.bucket_url = bucket.url
        self.register_outputs({"bucket_name": self.bucket_name, "bucket_url": self.bucket_url})


def check(args: ObjectStoreArgs) -> None:
    """Refuse what isn't built on Google Cloud.

    Raises:
        ArgumentError: names what and the way out.
    """
    require(
        not args.access_log,
        "object_store.access_log: on Google Cloud it is the project's audit config of storage.googleapis.com, which "
        "belongs to all of its buckets; set it there, and leave access_log out.",
    )


def _rule(action: str, when: gcp.storage.BucketLifecycleRuleConditionArgs) -> gcp.storage.BucketLifecycleRuleArgs:
    return gcp.storage.BucketLifecycleRuleArgs(
        action=gcp.storage.BucketLifecycleRuleActionArgs(type=action), condition=when
    )
