"""The file cache of Cloud Storage FUSE: what pods of a node have read of a bucket stays on that node's disk."""

from __future__ import annotations

import pulumi

from infra.file_cache import FileCache, FileCacheArgs, MountedFolder, cache_facts
from infra.gcp.fuse import node_cache_gib

DRIVER = "gcsfuse.csi.storage.gke.io"
MIB_IN_GIB = 1_024


class GcpFileCache(FileCache):
    """A folder is mounted by the driver in a container beside the pod's own, with the rights of its service account.

    Source: "Mount Cloud Storage buckets as persistent volumes" and "Optimize Cloud Storage FUSE CSI driver for GKE
    performance" (GKE, read 2026-11-28).

    Makes: nothing of its own; the cluster has the driver, and the nodes' disks the room.

    Example:
        >>> cache = GcpFileCache("prod-cache", FileCacheArgs(store=store, zone="us-central1-a"))
        >>> folder = cache.folder("data/digits/")
    """

    def __init__(self, name: str, args: FileCacheArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fusion:gcp:FileCache", name, cache_facts("gcp", args, 0), opts)
        self.args = args
        self.register_outputs({})

    def folder(self, prefix: str) -> MountedFolder:
        """As `FileCache.folder`: the driver sees no more of the bucket than its pods may."""
        gib, on_disk = self.args.gib, f"{node_cache_gib(self.args.gib)}Gi"
        return MountedFolder(
            prefix=prefix,
            driver=DRIVER,
            handle=self.args.store.bucket_name,
            # The check lists the whole bucket, which no workload may.
            attributes={"skipCSIBucketAccessCheck": "true"},
            options=(
                "implicit-dirs",
                f"only-dir={prefix.rstrip('/')}",
                f"file-cache:max-size-mb:{gib * MIB_IN_GIB}",
                "file-cache:cache-file-for-range-read:true",
            ),
            gib=gib,
            annotations={
                "gke-gcsfuse/volumes": "true",
                "gke-gcsfuse/ephemeral-storage-request": on_disk,
                "gke-gcsfuse/ephemeral-storage-limit": on_disk,
            },
        )
