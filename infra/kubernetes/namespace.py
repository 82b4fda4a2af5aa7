"""The namespace of a stack's workloads, where the cluster itself refuses privileged pods."""

from __future__ import annotations

import pulumi
import pulumi_kubernetes as kubernetes

POD_SECURITY = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
"""Kubernetes' own check of pods: non-root, no privilege escalation, seccomp. Source: Pod Security Standards."""
UNBOUND = {**POD_SECURITY, "pod-security.kubernetes.io/enforce": "privileged"}
"""What the check finds is still in the audit log, and told to whoever makes the pod."""


def make_namespace(
    name: str, namespace: str, opts: pulumi.ResourceOptions, *, sees_nodes: bool = False
) -> kubernetes.core.v1.Namespace:
    """A namespace under the `restricted` Pod Security Standard.

    Args:
        sees_nodes: whether some of its pods use paths of their node, which that standard refuses: then it warns alone.
    """
    labels = UNBOUND if sees_nodes else POD_SECURITY
    return kubernetes.core.v1.Namespace(name, metadata={"name": namespace, "labels": labels}, opts=opts)
