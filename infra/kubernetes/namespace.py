"""The namespace of a stack's workloads, where the cluster itself refuses privileged pods."""

from __future__ import annotations

import pulumi
import pulumi_kubernetes as kubernetes

POD_SECURITY = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
"""Kubernetes' own check of pods: non-root, no privilege escalation, seccomp. Source: Pod Security Standards."""


def make_namespace(name: str, namespace: str, opts: pulumi.ResourceOptions) -> kubernetes.core.v1.Namespace:
    """A namespace under the `restricted` Pod Security Standard."""
    return kubernetes.core.v1.Namespace(name, metadata={"name": namespace, "labels": POD_SECURITY}, opts=opts)
