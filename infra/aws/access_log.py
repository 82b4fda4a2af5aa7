"""Who read or wrote which object of a bucket: a trail of CloudTrail, in a bucket and under a key of its own.

Not S3's server access logs: S3 delivers those to no bucket that a customer's key encrypts by default, and as far as it
can. Sources: Amazon S3 user guide, "Enabling Amazon S3 server access logging" and "Logging options for Amazon S3".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.aws.account import Account
from infra.aws.buckets import make_closed_bucket
from infra.aws.keys import make_key
from infra.aws.policies import Statement, allow
from infra.names import short_name

KEPT_DAYS = 365
TRAIL_NAME_MAX = 128
CLOUDTRAIL = {"Service": "cloudtrail.amazonaws.com"}


def make_access_log(
    name: str,
    region: str,
    account: Account,
    bucket_arn: pulumi.Input[str],
    *,
    delete_with_contents: bool,
    parent: pulumi.Resource,
    tags: Mapping[str, str],
) -> None:
    """Record each read and write of an object of the bucket, for `KEPT_DAYS`, with digests that tell a changed record.

    Makes: Key, a closed Bucket with versions and a lifecycle, Trail.
    """
    trail_name = short_name(name, TRAIL_NAME_MAX)

    def only_the_trail(partition: str, account_id: str) -> dict[str, Any]:
        return {"aws:SourceArn": f"arn:{partition}:cloudtrail:{region}:{account_id}:trail/{trail_name}"}

    def of_key(partition: str, account_id: str) -> tuple[Statement, ...]:
        """CloudTrail user guide, "Configure AWS KMS key policies for CloudTrail"."""
        this_trail = {"StringEquals": only_the_trail(partition, account_id)}
        actions = ("kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:DescribeKey")
        return (allow("OneTrail", actions, "*", Principal=CLOUDTRAIL, Condition=this_trail),)

    def of_bucket(log_arn: str, partition: str, account_id: str) -> tuple[Statement, ...]:
        """CloudTrail user guide, "Amazon S3 bucket policy for CloudTrail"."""
        this_trail = only_the_trail(partition, account_id)
        owned = this_trail | {"s3:x-amz-acl": "bucket-owner-full-control"}
        written = f"{log_arn}/AWSLogs/{account_id}/*"
        return (
            allow("Look", ["s3:GetBucketAcl"], log_arn, Principal=CLOUDTRAIL, Condition={"StringEquals": this_trail}),
            allow("Write", ["s3:PutObject"], written, Principal=CLOUDTRAIL, Condition={"StringEquals": owned}),
        )

    key = make_key(name, f"Access log {name}", account, parent=parent, tags=tags, statements=of_key)
    log = make_closed_bucket(
        name,
        region,
        account,
        key.arn,
        delete_with_contents=delete_with_contents,
        parent=parent,
        tags=tags,
        statements=of_bucket,
    )
    _keep(name, log.bucket, parent)
    aws.cloudtrail.Trail(
        name,
        name=trail_name,
        s3_bucket_name=log.bucket.bucket,
        kms_key_id=key.arn,
        enable_log_file_validation=True,
        include_global_service_events=False,
        advanced_event_selectors=[_objects_of(bucket_arn)],
        tags=tags,
        opts=pulumi.ResourceOptions(parent=parent, depends_on=[log.policy]),
    )


def _keep(name: str, log: aws.s3.Bucket, parent: pulumi.Resource) -> None:
    """What is overwritten or deleted stays until the end of its time."""
    versioning = aws.s3.BucketVersioning(
        name,
        bucket=log.bucket,
        versioning_configuration=aws.s3.BucketVersioningVersioningConfigurationArgs(status="Enabled"),
        opts=pulumi.ResourceOptions(parent=parent),
    )
    ended = aws.s3.BucketLifecycleConfigurationRuleArgs(
        id="end-of-its-keeping",
        status="Enabled",
        filter=aws.s3.BucketLifecycleConfigurationRuleFilterArgs(prefix=""),
        expiration=aws.s3.BucketLifecycleConfigurationRuleExpirationArgs(days=KEPT_DAYS),
        noncurrent_version_expiration=aws.s3.BucketLifecycleConfigurationRuleNoncurrentVersionExpirationArgs(
            noncurrent_days=KEPT_DAYS
        ),
    )
    aws.s3.BucketLifecycleConfiguration(
        name,
        bucket=log.bucket,
        rules=[ended],
        opts=pulumi.ResourceOptions(parent=parent, depends_on=[versioning]),
    )


def _objects_of(bucket_arn: pulumi.Input[str]) -> aws.cloudtrail.TrailAdvancedEventSelectorArgs:
    """Every call on an object of the bucket, and no other."""
    field = aws.cloudtrail.TrailAdvancedEventSelectorFieldSelectorArgs
    return aws.cloudtrail.TrailAdvancedEventSelectorArgs(
        name="objects",
        field_selectors=[
            field(field="eventCategory", equals=["Data"]),
            field(field="resources.type", equals=["AWS::S3::Object"]),
            field(field="resources.ARN", starts_withs=[pulumi.Output.concat(bucket_arn, "/")]),
        ],
    )
