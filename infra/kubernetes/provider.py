"""Through which a stack's objects reach an API server."""

from __future__ import annotations

import os
from pathlib import Path

import pulumi
import pulumi_kubernetes as kubernetes

from infra.cluster import Cluster
from infra.names import KubernetesTarget

CONTEXT = "fusion-local"
"""Of the kubeconfig that `make cluster` writes."""
PROJECT = Path(__file__).resolve().parents[2]


def make_provider(
    name: str, target: KubernetesTarget, cluster: Cluster, folder: str | None, opts: pulumi.ResourceOptions
) -> kubernetes.Provider:
    """To the stack's own cluster, or to the control plane on this machine.

    Args:
        folder: that its objects are rendered to, where it is not the stack's own.
    """
    if target == "cluster":
        return kubernetes.Provider(name, kubeconfig=str(local_kubeconfig()), context=CONTEXT, opts=opts)
    return kubernetes.Provider(name, kubeconfig=cluster.kubeconfig, render_yaml_to_directory=folder, opts=opts)


def local_kubeconfig() -> Path:
    """That of `make cluster`, unless the stack's `kubernetes:kubeconfig` names another with the same context."""
    if named := pulumi.Config("kubernetes").get("kubeconfig"):
        return PROJECT / Path(named).expanduser()
    return Path(os.environ.get("FUSION_HOME") or PROJECT / ".fusion") / "cluster" / "kubeconfig"
