"""Encrypted log groups with an end to their keeping."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi
import pulumi_aws as aws

from infra.errors import require

RETENTION_DAYS = (
    1,
    3,
    5,
    7,
    14,
    30,
    60,
    90,
    120,
    150,
    180,
    365,
    400,
    545,
    731,
    1096,
    1827,
    2192,
    2557,
    2922,
    3288,
    3653,
)
"""What CloudWatch Logs accepts. Source: CloudWatch Logs API, PutRetentionPolicy, retentionInDays."""


def check_retention(days: int) -> None:
    """Refuse a retention that CloudWatch Logs does not offer.

    Raises:
        ArgumentError: names the nearest that it does.
    """
    nearest = min(RETENTION_DAYS, key=lambda offered: (abs(offered - days), offered))
    require(days in RETENTION_DAYS, f"log_retention_days {days} is not offered by CloudWatch Logs; use {nearest}.")


def make_log_group(
    name: str,
    group: str,
    *,
    days: int,
    key_arn: pulumi.Input[str],
    parent: pulumi.Resource,
    tags: Mapping[str, str],
) -> aws.cloudwatch.LogGroup:
    """A log group that the key encrypts and that forgets after `days`."""
    return aws.cloudwatch.LogGroup(
        name,
        name=group,
        retention_in_days=days,
        kms_key_id=key_arn,
        tags=tags,
        opts=pulumi.ResourceOptions(parent=parent),
    )
