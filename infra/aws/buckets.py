"""Buckets that are closed to everybody else: what each bucket of a stack has, whatever it is for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.aws.account import Account
from infra.aws.policies import Statement, document
from infra.names import short_name

BUCKET_NAME_MAX = 63

Statements = Callable[[str, str, str], Iterable[Statement]]
"""From the bucket's ARN, partition and account to the statements of its policy for the services that use it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedBucket:
    """A bucket with its policy, which must be there before a service of AWS writes to it."""

    bucket: aws.s3.Bucket
    policy: aws.s3.BucketPolicy


def make_closed_bucket(
    name: str,
    region: str,
    account: Account,
    key_arn: pulumi.Input[str],
    *,
    delete_with_contents: bool,
    parent: pulumi.Resource,
    tags: Mapping[str, str],
    statements: Statements = lambda arn, partition, account_id: (),
) -> ClosedBucket:
    """A bucket that the key encrypts: nobody from outside, no object with its own owner, nothing in clear."""
    child = pulumi.ResourceOptions(parent=parent)
    bucket = aws.s3.Bucket(
        name,
        # Bucket names are shared by everyone on AWS; account and region make this one ours.
        bucket=account.id.apply(lambda account_id: short_name(f"{name}-{account_id}-{region}", BUCKET_NAME_MAX)),
        force_destroy=delete_with_contents,
        tags=tags,
        opts=child,
    )
    block = aws.s3.BucketPublicAccessBlock(
        name,
        bucket=bucket.bucket,
        block_public_acls=True,
        block_public_policy=True,
        ignore_public_acls=True,
        restrict_public_buckets=True,
        opts=child,
    )
    aws.s3.BucketOwnershipControls(
        name,
        bucket=bucket.bucket,
        rule=aws.s3.BucketOwnershipControlsRuleArgs(object_ownership="BucketOwnerEnforced"),
        opts=child,
    )
    key = aws.s3.BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs(
        sse_algorithm="aws:kms", kms_master_key_id=key_arn
    )
    aws.s3.BucketServerSideEncryptionConfiguration(
        name,
        bucket=bucket.bucket,
        rules=[
            aws.s3.BucketServerSideEncryptionConfigurationRuleArgs(
                apply_server_side_encryption_by_default=key,
                bucket_key_enabled=True,  # one call to KMS for many objects: training reads thousands
            )
        ],
        opts=child,
    )
    policy = aws.s3.BucketPolicy(
        name,
        bucket=bucket.bucket,
        policy=pulumi.Output.all(bucket.arn, account.partition, account.id).apply(
            lambda owned: document([tls_only(owned[0]), *statements(*owned)])
        ),
        # S3 refuses concurrent changes of a bucket's policy and of its public access block.
        opts=pulumi.ResourceOptions(parent=parent, depends_on=[block]),
    )
    return ClosedBucket(bucket=bucket, policy=policy)


def tls_only(bucket_arn: str) -> Statement:
    """Refuse every request that does not come through TLS, whoever makes it."""
    return {
        "Sid": "TlsOnly",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [bucket_arn, f"{bucket_arn}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
