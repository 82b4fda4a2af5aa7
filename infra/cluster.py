"""The Kubernetes cluster of a stack: what every cloud builds from the same args."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi

from infra.errors import require
from infra.network import ipv4_range

SYSTEM_DISK_GIB_MIN = 20
"""The node's operating system and the images of the system pods."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemPoolArgs:
    """The small pool for the cluster's own pods (DNS, storage driver, controllers); workloads have pools of their own.

    Attributes:
        instance_type: a CPU instance type of the cloud.
        nodes: how many, spread over the zones; two survive the loss of one.
        disk_gib: root disk of each node.
    """

    instance_type: str = "m6i.large"
    nodes: int = 2
    disk_gib: int = 30

    def __post_init__(self) -> None:
        require(
            self.nodes >= 1,
            f"system_pool.nodes {self.nodes}: the cluster's DNS needs a node; use 1, or 2 to survive the loss of one.",
        )
        require(
            self.disk_gib >= SYSTEM_DISK_GIB_MIN,
            f"system_pool.disk_gib {self.disk_gib} is too small; the system needs {SYSTEM_DISK_GIB_MIN} or more.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterArgs:
    """A private cluster with encrypted secrets and all of its control plane's logs.

    Attributes:
        region: the cloud's name of the region.
        kubernetes_version: minor version, such as `1.35`.
        public_access_cidrs: ranges that may reach the API server from outside; empty keeps it private.
        administrators: identities (an IAM ARN on AWS) that administer the cluster, besides its creator.
        system_pool: nodes for the cluster's own pods.
        addon_versions: pins by add-on name; what is not named gets the cloud's default for the Kubernetes version.
        log_retention_days: how long the control plane's logs are kept.
        mounts_buckets: install the cloud's driver through which pods read a bucket's file cache.
        tags: put on every resource that can carry tags.

    Raises:
        ArgumentError: a version that is none, or an endpoint open to everyone.
    """

    region: str
    kubernetes_version: str = "1.35"
    public_access_cidrs: tuple[str, ...] = ()
    administrators: tuple[str, ...] = ()
    system_pool: SystemPoolArgs = field(default_factory=SystemPoolArgs)
    addon_versions: Mapping[str, str] = field(default_factory=dict)
    log_retention_days: int = 90
    mounts_buckets: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(
            re.fullmatch(r"1\.\d{2}", self.kubernetes_version) is not None,
            f"kubernetes_version {self.kubernetes_version!r} is not a minor version; write one such as 1.35.",
        )
        for cidr in self.public_access_cidrs:
            require(
                ipv4_range("public_access_cidrs", cidr).prefixlen > 0,
                f"public_access_cidrs: {cidr} opens the cluster's endpoint to everyone; "
                "name your own ranges, or leave it empty to keep the endpoint private.",
            )


class Cluster(pulumi.ComponentResource):
    """A stack's cluster, whichever cloud it is on.

    Attributes:
        args: what it was made from.
        cluster_name: its name in the cloud.
        endpoint: URL of the API server.
        pod_environment: what the cloud's own libraries look for in a pod's environment.
        kubeconfig: JSON for kubectl and the Kubernetes provider; it fetches a short-lived token, and holds none.
        objects: what tells Kubernetes of further networks of its pools, which were made before.
    """

    args: ClusterArgs
    cluster_name: pulumi.Output[str]
    endpoint: pulumi.Output[str]
    pod_environment: Mapping[str, str]
    kubeconfig: pulumi.Output[str]
    objects: Sequence[Mapping[str, Any]] = ()


def cluster_facts(cloud: str, args: ClusterArgs) -> dict[str, object]:
    """What guardrails judge a cluster of any cloud by; plain values, known in every preview."""
    return {
        "cloud": cloud,
        "region": args.region,
        "kubernetes_version": args.kubernetes_version,
        "public_access_cidrs": list(args.public_access_cidrs),
        "system_instance_type": args.system_pool.instance_type,
        "system_nodes": args.system_pool.nodes,
        "system_disk_gib": args.system_pool.disk_gib,
        "encryption_keys": 2,
    }


def kubeconfig_of(
    name: str,
    endpoint: str,
    certificate_authority: str,
    command: Mapping[str, object],
    kubernetes_version: str,
) -> str:
    """A kubeconfig whose user is whoever a cloud's own command is logged in as when it is used.

    Its cluster carries its version in an extension, for those who check objects without reaching it.
    """
    cluster = {
        "server": endpoint,
        "certificate-authority-data": certificate_authority,
        "extensions": [{"name": "fusion.dev/cluster", "extension": {"kubernetesVersion": kubernetes_version}}],
    }
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": name, "user": {"exec": command}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        }
    )
