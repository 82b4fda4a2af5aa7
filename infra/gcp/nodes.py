"""What every node of a cluster has, system node or accelerator: an encrypted disk and secure boot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi_gcp as gcp
from pulumi import Input

from infra.gcp.labels import as_labels

CLUSTER_NAME_MAX = NODE_POOL_NAME_MAX = 40
SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
"""What a node may is its service account's roles to say ("Access scopes in GKE")."""


def node_config(
    machine_type: str,
    *,
    disk_gib: int,
    disk_type: str,
    key: Input[str],
    service_account: Input[str],
    tags: Mapping[str, str],
    more: Mapping[str, Any] | None = None,
) -> gcp.container.NodePoolNodeConfigArgs:
    """A shielded node with image streaming, whose pods see the metadata server of Workload Identity alone.

    Args:
        more: further fields, such as `spot`.
    """
    return gcp.container.NodePoolNodeConfigArgs(
        machine_type=machine_type,
        image_type="COS_CONTAINERD",
        disk_size_gb=disk_gib,
        disk_type=disk_type,
        boot_disk_kms_key=key,
        service_account=service_account,
        oauth_scopes=SCOPES,
        metadata={"disable-legacy-endpoints": "true"},
        workload_metadata_config=gcp.container.NodePoolNodeConfigWorkloadMetadataConfigArgs(mode="GKE_METADATA"),
        shielded_instance_config=gcp.container.NodePoolNodeConfigShieldedInstanceConfigArgs(
            enable_secure_boot=True, enable_integrity_monitoring=True
        ),
        gcfs_config=gcp.container.NodePoolNodeConfigGcfsConfigArgs(enabled=True),
        resource_labels=as_labels(tags),
        **(more or {}),
    )
