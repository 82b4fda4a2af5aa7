"""A role that one service account's pods take on through EKS Pod Identity, for named parts of named buckets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_kubernetes as kubernetes

from infra.aws.cluster import AwsCluster
from infra.aws.nodes import ROLE_NAME_MAX
from infra.aws.object_store import AwsObjectStore
from infra.aws.policies import allow, document, pod_trust
from infra.errors import require
from infra.names import short_name
from infra.workload_identity import StoreAccess, WorkloadIdentity, WorkloadIdentityArgs

READ_OBJECT = ("s3:GetObject",)
WRITE_OBJECT = ("s3:AbortMultipartUpload", "s3:DeleteObject", "s3:ListMultipartUploadParts", "s3:PutObject")
READ_KEY = ("kms:Decrypt",)
WRITE_KEY = ("kms:Decrypt", "kms:GenerateDataKey")
"""A multipart upload reads back what it wrote, so writing needs Decrypt too."""


class AwsWorkloadIdentity(WorkloadIdentity):
    """A service account, its role, and what the role may do.

    Makes: Role and RolePolicy, PodIdentityAssociation, and the Kubernetes ServiceAccount.

    Attributes:
        role_arn: what the pods are on AWS.

    Example:
        >>> access = (StoreAccess(store=store, read=("data/",), write=("runs/digits/",)),)
        >>> args = WorkloadIdentityArgs(
        ...     region="us-east-1", namespace="workloads", service_account="digits", access=access
        ... )
        >>> identity = AwsWorkloadIdentity("prod-digits", args, cluster, pulumi.ResourceOptions(providers=[on_cluster]))
    """

    def __init__(
        self, name: str, args: WorkloadIdentityArgs, cluster: AwsCluster, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        require(
            all(isinstance(access.store, AwsObjectStore) for access in args.access),
            f"service account {args.service_account}: access names a store of another cloud; use this platform's own.",
        )
        super().__init__("fusion:aws:WorkloadIdentity", name, facts(args), opts)
        self.args = args
        child = pulumi.ResourceOptions(parent=self)
        role = aws.iam.Role(
            name,
            name=short_name(name, ROLE_NAME_MAX),
            assume_role_policy=cluster.cluster_arn.apply(
                lambda arn: pod_trust(arn, args.namespace, args.service_account)
            ),
            tags=args.tags,
            opts=child,
        )
        policy = aws.iam.RolePolicy(name, name="buckets", role=role.name, policy=_policy(args), opts=child)
        service_account = kubernetes.core.v1.ServiceAccount(
            name,
            metadata={"name": args.service_account, "namespace": args.namespace},
            # The pods talk to AWS, not to the cluster's API; Pod Identity brings a token of its own.
            automount_service_account_token=False,
            opts=child,
        )
        association = aws.eks.PodIdentityAssociation(
            name,
            cluster_name=cluster.cluster_name,
            namespace=args.namespace,
            service_account=args.service_account,
            role_arn=role.arn,
            tags=args.tags,
            # Pods get the role when they start, so its rights come first.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[policy, service_account]),
        )
        self.role_arn = role.arn
        # The association's: a pod that starts before it is there has no credentials for all of its life.
        self.service_account = association.service_account
        self.register_outputs({"role_arn": self.role_arn, "service_account": self.service_account})


def statements(access: StoreAccess, number: int, bucket_arn: str, key_arn: str, region: str) -> list[dict[str, Any]]:
    """Listing, reading and writing of the named prefixes, and the key through S3 only."""
    prefixes = access.prefixes
    listing = {
        "StringLike": {"s3:prefix": [pattern for prefix in prefixes for pattern in (prefix.rstrip("/"), f"{prefix}*")]}
    }
    through_s3 = {"StringEquals": {"kms:ViaService": f"s3.{region}.amazonaws.com"}}
    found = [
        allow(f"List{number}", ["s3:ListBucket"], bucket_arn, Condition=listing),
        allow(f"Read{number}", READ_OBJECT, _objects(bucket_arn, prefixes)),
        allow(f"Key{number}", WRITE_KEY if access.write else READ_KEY, key_arn, Condition=through_s3),
    ]
    if access.write:
        found.append(allow(f"Write{number}", WRITE_OBJECT, _objects(bucket_arn, access.write)))
    return found


def facts(args: WorkloadIdentityArgs) -> dict[str, object]:
    """What guardrails judge an identity by; plain values, known in every preview."""
    return {
        "cloud": "aws",
        "region": args.region,
        "namespace": args.namespace,
        "service_account": args.service_account,
        "read": [prefix for access in args.access for prefix in access.read],
        "write": [prefix for access in args.access for prefix in access.write],
    }


def _objects(bucket_arn: str, prefixes: Iterable[str]) -> list[str]:
    return [f"{bucket_arn}/{prefix}*" for prefix in prefixes]


def _policy(args: WorkloadIdentityArgs) -> pulumi.Output[str]:
    stores = [access.store for access in args.access if isinstance(access.store, AwsObjectStore)]
    arns = pulumi.Output.all(*(store.arns for store in stores))

    def written(pairs: Sequence[Sequence[str]]) -> str:
        return document(
            statement
            for number, (access, (bucket_arn, key_arn)) in enumerate(zip(args.access, pairs, strict=True))
            for statement in statements(access, number, bucket_arn, key_arn, args.region)
        )

    return arns.apply(written)
