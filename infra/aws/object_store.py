"""An S3 bucket: its own key, versions, no public access, TLS only, and an end for what nobody needs."""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

from infra.aws.access_log import make_access_log
from infra.aws.account import account_of
from infra.aws.buckets import make_closed_bucket
from infra.aws.keys import make_key
from infra.aws.policies import key_for_lustre
from infra.errors import require
from infra.object_store import ObjectStore, ObjectStoreArgs, store_facts


class AwsObjectStore(ObjectStore):
    """A bucket and everything that keeps it closed.

    Makes: Key, Bucket, its ownership, public access block, versioning, encryption, policy and lifecycle; with
    `access_log` what `infra.aws.access_log` says.

    Attributes:
        arns: of the bucket and of its key, in that order, for policies of those who read or write.

    Example:
        >>> store = AwsObjectStore("prod-store", ObjectStoreArgs(region="us-east-1"))
        >>> pulumi.export("bucket", store.bucket_url)
    """

    def __init__(self, name: str, args: ObjectStoreArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        check(args)
        super().__init__(
            "fusion:aws:ObjectStore", name, store_facts("aws", args, encryption_keys=1 + args.access_log), opts
        )
        self.args = args
        self._name = name
        self._child = pulumi.ResourceOptions(parent=self)
        account = account_of(self)
        self._key_arn = make_key(
            name,
            f"Objects of {name}",
            account,
            parent=self,
            tags=args.tags,
            statements=lambda partition, id: (
                [key_for_lustre(partition, args.region, id)] if args.file_cache_gib else []
            ),
        ).arn
        bucket = make_closed_bucket(
            name,
            args.region,
            account,
            self._key_arn,
            delete_with_contents=args.delete_with_contents,
            parent=self,
            tags=args.tags,
        ).bucket
        versioning = self._keep_versions(bucket)
        self._forget(bucket, versioning)
        if args.access_log:
            make_access_log(
                f"{name}-access",
                args.region,
                account,
                bucket.arn,
                delete_with_contents=args.delete_with_contents,
                parent=self,
                tags=args.tags,
            )
        self.arns = pulumi.Output.all(bucket.arn, self._key_arn)
        self.bucket_name = bucket.bucket
        self.bucket_url = pulumi.Output.concat("s3://", bucket.bucket)
        self.register_outputs({"bucket_name": self.bucket_name, "bucket_url": self.bucket_url})

    def _keep_versions(self, bucket: aws.s3.Bucket) -> aws.s3.BucketVersioning:
        return aws.s3.BucketVersioning(
            self._name,
            bucket=bucket.bucket,
            versioning_configuration=aws.s3.BucketVersioningVersioningConfigurationArgs(status="Enabled"),
            opts=self._child,
        )

    def _forget(self, bucket: aws.s3.Bucket, versioning: aws.s3.BucketVersioning) -> None:
        everything = aws.s3.BucketLifecycleConfigurationRuleFilterArgs(prefix="")
        unfinished = aws.s3.BucketLifecycleConfigurationRuleArgs(
            id="abort-unfinished-uploads",
            status="Enabled",
            filter=everything,
            abort_incomplete_multipart_upload=aws.s3.BucketLifecycleConfigurationRuleAbortIncompleteMultipartUploadArgs(
                days_after_initiation=self.args.unfinished_upload_days
            ),
        )
        noncurrent = aws.s3.BucketLifecycleConfigurationRuleArgs(
            id="expire-noncurrent-versions",
            status="Enabled",
            filter=everything,
            noncurrent_version_expiration=aws.s3.BucketLifecycleConfigurationRuleNoncurrentVersionExpirationArgs(
                noncurrent_days=self.args.noncurrent_days
            ),
        )
        aws.s3.BucketLifecycleConfiguration(
            self._name,
            bucket=bucket.bucket,
            rules=[unfinished, noncurrent],
            opts=pulumi.ResourceOptions(parent=self, depends_on=[versioning]),
        )


def check(args: ObjectStoreArgs) -> None:
    """Refuse what isn't built on AWS.

    Raises:
        ArgumentError: names what and the way out.
    """
    require(
        args.retention_days is None,
        f"object_store.retention_days {args.retention_days}: S3's Object Lock is not built here; leave it out, and "
        "noncurrent_days keeps what is overwritten or deleted.",
    )
