"""Kubernetes objects of kinds that the SDK has no class for: custom resources, and what others' manifests hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi


def make_object(name: str, value: Mapping[str, Any], opts: pulumi.ResourceOptions) -> pulumi.CustomResource:
    """Register an object as it stands; all of its fields, where the SDK's own class takes `spec` and no other."""
    api_version, kind = value["apiVersion"], value["kind"]
    return pulumi.CustomResource(f"kubernetes:{api_version}:{kind}", name, dict(value), opts)
