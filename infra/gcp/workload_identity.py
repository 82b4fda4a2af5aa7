"""A service account of Google Cloud that one Kubernetes service account's pods act as, for named parts of buckets."""

from __future__ import annotations

import pulumi
import pulumi_gcp as gcp
import pulumi_kubernetes as kubernetes

from infra.errors import require
from infra.gcp.cluster import GcpCluster
from infra.gcp.object_store import GcpObjectStore
from infra.names import short_name
from infra.workload_identity import WorkloadIdentity, WorkloadIdentityArgs

READ, WRITE = "roles/storage.objectViewer", "roles/storage.objectUser"
ACT_AS = "roles/iam.workloadIdentityUser"
ANNOTATION = "iam.gke.io/gcp-service-account"
LIST_PREFIX = "api.getAttribute('storage.googleapis.com/objectListPrefix', '')"
"""What a listing asks for, which is judged on the bucket ("Attribute reference for IAM Conditions")."""


class GcpWorkloadIdentity(WorkloadIdentity):
    """A Kubernetes service account, what it is in Google Cloud, and what that may do.

    Makes: Account, the IAMMember with which the pods act as it, one BucketIAMMember for what is read and one for what
    is written, and the Kubernetes ServiceAccount.

    Attributes:
        account_email: what the pods are in Google Cloud.

    Example:
        >>> access = (StoreAccess(store=store, read=("data/",), write=("runs/digits/",)),)
        >>> args = WorkloadIdentityArgs(
        ...     region="us-central1", namespace="workloads", service_account="digits", access=access
        ... )
        >>> identity = GcpWorkloadIdentity("prod-digits", args, cluster, pulumi.ResourceOptions(providers=[on_cluster]))
    """

    def __init__(
        self, name: str, args: WorkloadIdentityArgs, cluster: GcpCluster, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        require(
            all(isinstance(access.store, GcpObjectStore) for access in args.access),
            f"service account {args.service_account}: access names a store of another cloud; use this platform's own.",
        )
        super().__init__("fusion:gcp:WorkloadIdentity", name, facts(args), opts)
        self.args = args
        child = pulumi.ResourceOptions(parent=self)
        account = gcp.serviceaccount.Account(name, account_id=short_name(name, 30), opts=child)
        pods = pulumi.Output.concat(
            "serviceAccount:", cluster.project, f".svc.id.goog[{args.namespace}/{args.service_account}]"
        )
        grants: list[pulumi.Resource] = [
            gcp.serviceaccount.IAMMember(
                name,
                service_account_id=account.name,
                role=ACT_AS,
                member=pods,
                # The project's pool of identities is there once a cluster uses it.
                opts=pulumi.ResourceOptions(parent=self, depends_on=[cluster]),
            )
        ]
        for index, access in enumerate(args.access):
            for role, prefixes in ((READ, access.read), (WRITE, access.write)):
                if prefixes:
                    grants.append(
                        gcp.storage.BucketIAMMember(
                            f"{name}-{index}-{'read' if role == READ else 'write'}",
                            bucket=access.store.bucket_name,
                            role=role,
                            member=account.member,
                            condition=_only(access.store.bucket_name, prefixes),
                            opts=child,
                        )
                    )
        made = kubernetes.core.v1.ServiceAccount(
            name,
            metadata={
                "name": args.service_account,
                "namespace": args.namespace,
                "annotations": {ANNOTATION: account.email},
            },
            # The pods talk to Google Cloud, not to the cluster's API.
            automount_service_account_token=False,
            # Pods start with it, so its rights come first.
            opts=pulumi.ResourceOptions(parent=self, depends_on=grants),
        )
        self.account_email = account.email
        self.service_account = made.metadata.name.apply(str)
        self.register_outputs({"account_email": self.account_email, "service_account": self.service_account})


def condition(bucket: str, prefixes: tuple[str, ...]) -> str:
    """An expression that holds for the objects below some prefixes, and for listings of those."""
    parts = [
        part
        for prefix in prefixes
        for part in (
            f"resource.name.startsWith('projects/_/buckets/{bucket}/objects/{prefix}')",
            f"{LIST_PREFIX}.startsWith('{prefix}')",
        )
    ]
    return " || ".join(parts)


def _only(bucket: pulumi.Output[str], prefixes: tuple[str, ...]) -> gcp.storage.BucketIAMMemberConditionArgs:
    return gcp.storage.BucketIAMMemberConditionArgs(
        title="prefixes", expression=bucket.apply(lambda name: condition(name, prefixes))
    )


def facts(args: WorkloadIdentityArgs) -> dict[str, object]:
    """What guardrails judge an identity by; plain values, known in every preview."""
    return {
        "cloud": "gcp",
        "region": args.region,
        "namespace": args.namespace,
        "service_account": args.service_account,
        "read": [prefix for access in args.access for prefix in access.read],
        "write": [prefix for access in args.access for prefix in access.write],
    }
