"""An S3 bucket: its own key, versions, no public access, TLS only, and an end for what nobody needs."""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

from infra.aws.account import account_of
from infra.aws.keys import make_key
from infra.aws.policies import document
from infra.names import short_name
from infra.object_store import ObjectStore, ObjectStoreArgs

BUCKET_NAME_MAX = 63


class AwsObjectStore(ObjectStore):
    """A bucket and everything that keeps it closed.

    Makes: Key, Bucket, its ownership, public access block, versioning, encryption, policy and lifecycle.

    Attributes:
        arns: of the bucket and of its key, in that order, for policies of those who read or write.

    Example:
        >>> store = AwsObjectStore("prod-store", ObjectStoreArgs(region="us-east-1"))
        >>> pulumi.export("bucket", store.bucket_url)
    """

    def __init__(self, name: str, args: ObjectStoreArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fusion:aws:ObjectStore", name, facts(args), opts)
        self.args = args
        self._name = name
        self._child = pulumi.ResourceOptions(parent=self)
        account = account_of(self)
        self._key_arn = make_key(name, f"Objects of {name}", account, parent=self, tags=args.tags).arn
        bucket = aws.s3.Bucket(
            name,
            # Bucket names are shared by everyone on AWS; account and region make this one ours.
            bucket=account.id.apply(
                lambda account_id: short_name(f"{name}-{account_id}-{args.region}", BUCKET_NAME_MAX)
            ),
            force_destroy=args.delete_with_contents,
            tags=args.tags,
            opts=self._child,
        )
        self._close(bucket)
        versioning = self._keep_versions(bucket)
        self._forget(bucket, versioning)
        self.arns = pulumi.Output.all(bucket.arn, self._key_arn)
        self.bucket_name = bucket.bucket
        self.bucket_url = pulumi.Output.concat("s3://", bucket.bucket)
        self.register_outputs({"bucket_name": self.bucket_name, "bucket_url": self.bucket_url})

    def _close(self, bucket: aws.s3.Bucket) -> None:
        """Nobody outside the account, no object with an owner of its own, nothing in clear."""
        block = aws.s3.BucketPublicAccessBlock(
            self._name,
            bucket=bucket.bucket,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=self._child,
        )
        aws.s3.BucketOwnershipControls(
            self._name,
            bucket=bucket.bucket,
            rule=aws.s3.BucketOwnershipControlsRuleArgs(object_ownership="BucketOwnerEnforced"),
            opts=self._child,
        )
        key = aws.s3.BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs(
            sse_algorithm="aws:kms", kms_master_key_id=self._key_arn
        )
        aws.s3.BucketServerSideEncryptionConfiguration(
            self._name,
            bucket=bucket.bucket,
            rules=[
                aws.s3.BucketServerSideEncryptionConfigurationRuleArgs(
                    apply_server_side_encryption_by_default=key,
                    bucket_key_enabled=True,  # one call to KMS for many objects: training reads thousands
                )
            ],
            opts=self._child,
        )
        aws.s3.BucketPolicy(
            self._name,
            bucket=bucket.bucket,
            policy=bucket.arn.apply(tls_only),
            # S3 refuses concurrent changes of a bucket's policy and of its public access block.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[block]),
        )

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


def tls_only(bucket_arn: str) -> str:
    """Refuse every request that does not come through TLS, whoever makes it."""
    return document(
        [
            {
                "Sid": "TlsOnly",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [bucket_arn, f"{bucket_arn}/*"],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ]
    )


def facts(args: ObjectStoreArgs) -> dict[str, object]:
    """What guardrails judge a bucket by; plain values, known in every preview."""
    return {
        "cloud": "aws",
        "region": args.region,
        "noncurrent_days": args.noncurrent_days,
        "delete_with_contents": args.delete_with_contents,
        "encryption_keys": 1,
    }
