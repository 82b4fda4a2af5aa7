"""IAM and resource policy documents, written out: no wildcard action, no wildcard resource."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

Statement: TypeAlias = Mapping[str, Any]

KEY_ADMINISTRATION = (
    "kms:CancelKeyDeletion",
    "kms:CreateAlias",
    "kms:DeleteAlias",
    "kms:DisableKey",
    "kms:DisableKeyRotation",
    "kms:EnableKey",
    "kms:EnableKeyRotation",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:ListGrants",
    "kms:ListKeyPolicies",
    "kms:ListResourceTags",
    "kms:PutKeyPolicy",
    "kms:RevokeGrant",
    "kms:ScheduleKeyDeletion",
    "kms:TagResource",
    "kms:UntagResource",
    "kms:UpdateAlias",
    "kms:UpdateKeyDescription",
)
KEY_USE = (
    "kms:Decrypt",
    "kms:DescribeKey",
    "kms:Encrypt",
    "kms:GenerateDataKey",
    "kms:GenerateDataKeyWithoutPlaintext",
    "kms:ReEncryptFrom",
    "kms:ReEncryptTo",
)


def document(statements: Iterable[Statement]) -> str:
    """A policy document as JSON, the same text for the same statements."""
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)}, sort_keys=True)


def allow(sid: str, actions: Sequence[str], resources: str | Sequence[str], **more: object) -> dict[str, Any]:
    """One statement that allows; `more` holds Principal and Condition."""
    return {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": resources, **more}


def service_trust(service: str) -> str:
    """Trust in one AWS service, for a role that the service takes on itself."""
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    return document([statement])


def pod_trust(cluster_arn: str, namespace: str, service_account: str) -> str:
    """Trust in EKS Pod Identity for one service account of one cluster of one account, and in nobody else.

    The request tags are the session tags that Pod Identity sets; without them any association of the account could
    use the role. Source: EKS user guide, "Create IAM role with trust policy required by EKS Pod Identity".
    """
    return document(
        [
            {
                "Sid": "OneServiceAccount",
                "Effect": "Allow",
                "Principal": {"Service": "pods.eks.amazonaws.com"},
                "Action": ["sts:AssumeRole", "sts:TagSession"],
                "Condition": {
                    "StringEquals": {
                        "aws:SourceAccount": cluster_arn.split(":")[4],
                        "aws:RequestTag/eks-cluster-arn": cluster_arn,
                        "aws:RequestTag/kubernetes-namespace": namespace,
                        "aws:RequestTag/kubernetes-service-account": service_account,
                    }
                },
            }
        ]
    )


def key_policy(partition: str, account_id: str, statements: Iterable[Statement] = ()) -> str:
    """A key that the account's own IAM policies govern, and that the services in `statements` may use.

    In a key's policy the resource `*` means this key only.
    """
    owner = {"AWS": f"arn:{partition}:iam::{account_id}:root"}
    granted = (*KEY_ADMINISTRATION, *KEY_USE, "kms:CreateGrant")
    return document([allow("AccountThroughIam", granted, "*", Principal=owner), *statements])


def key_for_logs(partition: str, region: str, account_id: str, log_group: str) -> Statement:
    """CloudWatch Logs may use the key for one log group."""
    log_group_arn = f"arn:{partition}:logs:{region}:{account_id}:log-group:{log_group}"
    return allow(
        "OneLogGroup",
        KEY_USE,
        "*",
        Principal={"Service": f"logs.{region}.amazonaws.com"},
        Condition={"ArnEquals": {"kms:EncryptionContext:aws:logs:arn": log_group_arn}},
    )


def key_for_disks(partition: str, region: str, account_id: str) -> tuple[Statement, ...]:
    """Auto Scaling may use the key for the disks of the nodes that it launches.

    The service-linked role is named in a condition: as a principal it would have to exist before the key does, which
    it does not in an account that never had an Auto Scaling group.
    Source: Auto Scaling user guide, "Required AWS KMS key policy for use with encrypted volumes".
    """
    path = "aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling"
    launcher = {
        "StringEquals": {"kms:CallerAccount": account_id, "kms:ViaService": f"ec2.{region}.amazonaws.com"},
        "ArnEquals": {"aws:PrincipalArn": f"arn:{partition}:iam::{account_id}:role/{path}"},
    }
    grants = {**launcher, "Bool": {"kms:GrantIsForAWSResource": "true"}}
    return (
        allow("DisksOfNodes", KEY_USE, "*", Principal={"AWS": "*"}, Condition=launcher),
        allow("GrantsForDisksOfNodes", ["kms:CreateGrant"], "*", Principal={"AWS": "*"}, Condition=grants),
    )


def key_for_lustre(partition: str, region: str, account_id: str) -> Statement:
    """FSx for Lustre may read the objects of a bucket under the key, through the role that it makes for each link.

    The role is named in a condition: as a principal it would have to exist before the key does.
    Source: FSx for Lustre user guide, "Working with server-side encrypted Amazon S3 buckets".
    """
    path = "aws-service-role/s3.data-source.lustre.fsx.amazonaws.com/AWSServiceRoleForFSxS3Access_fs-*"
    reader = {
        "StringEquals": {"kms:CallerAccount": account_id, "kms:ViaService": f"s3.{region}.amazonaws.com"},
        "ArnLike": {"aws:PrincipalArn": f"arn:{partition}:iam::{account_id}:role/{path}"},
    }
    return allow("ObjectsForLustre", ["kms:Decrypt"], "*", Principal={"AWS": "*"}, Condition=reader)
