"""Folders of a bucket that pods read as files: a PersistentVolume of the cloud's driver, and its own claim."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi
import pulumi_kubernetes as kubernetes

from infra.file_cache import MountedFolder

VOLUME = "data"
"""What a pod calls it."""
STORAGE_CLASS = "fusion-bucket"
"""Of volume and claim, so that no class of the cluster makes another; there need be none of that name."""

core = kubernetes.core.v1
meta = kubernetes.meta.v1


def make_claim(
    name: str,
    folder: MountedFolder,
    workload: str,
    namespace: str,
    labels: Mapping[str, str],
    opts: pulumi.ResourceOptions,
) -> None:
    """The volume, which goes without taking anything from the bucket, and its claim in the workload's namespace."""
    claim, size = _claim_name(workload), {"storage": f"{folder.gib}Gi"}
    made = core.PersistentVolume(
        name,
        metadata=meta.ObjectMetaArgs(name=name, labels=dict(labels)),
        spec=core.PersistentVolumeSpecArgs(
            access_modes=["ReadOnlyMany"],
            capacity=size,
            storage_class_name=STORAGE_CLASS,
            persistent_volume_reclaim_policy="Retain",
            # No other claim takes it, in whichever namespace.
            claim_ref=core.ObjectReferenceArgs(namespace=namespace, name=claim),
            mount_options=list(folder.options),
            csi=core.CSIPersistentVolumeSourceArgs(
                driver=folder.driver,
                volume_handle=folder.handle,
                volume_attributes=dict(folder.attributes) or None,
                read_only=True,
            ),
        ),
        opts=opts,
    )
    core.PersistentVolumeClaim(
        name,
        metadata=meta.ObjectMetaArgs(
            name=claim, namespace=namespace, labels=dict(labels), annotations={"pulumi.com/skipAwait": "true"}
        ),
        spec=core.PersistentVolumeClaimSpecArgs(
            access_modes=["ReadOnlyMany"],
            storage_class_name=STORAGE_CLASS,
            volume_name=name,
            resources=core.VolumeResourceRequirementsArgs(requests=size),
        ),
        # By the volume guardrails know that it is no disk.
        opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[made])),
    )


def volume(workload: str) -> kubernetes.core.v1.VolumeArgs:
    """As its pods declare it."""
    claim = core.PersistentVolumeClaimVolumeSourceArgs(claim_name=_claim_name(workload), read_only=True)
    return core.VolumeArgs(name=VOLUME, persistent_volume_claim=claim)


def mount(folder: MountedFolder) -> kubernetes.core.v1.VolumeMountArgs:
    """Where their container sees it."""
    return core.VolumeMountArgs(name=VOLUME, mount_path=folder.path, sub_path=folder.sub_path or None, read_only=True)


def _claim_name(workload: str) -> str:
    return f"{workload}-data"
