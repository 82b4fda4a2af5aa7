"""A file system of FSx for Lustre that is linked to a bucket: it fetches an object when its file is first read."""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

from infra.aws.lustre import lustre_gib
from infra.aws.network import AwsNetwork
from infra.aws.object_store import AwsObjectStore
from infra.errors import require
from infra.file_cache import FileCache, FileCacheArgs, MountedFolder, cache_facts
from infra.names import short_name

DRIVER = "fsx.csi.aws.com"
DATA = "data"
"""The bucket's folder that is linked; runs are written through S3."""
LUSTRE_PORTS = {"lustre": (988, 988), "lustre-more": (1018, 1023)}
"""By name, from the first to the last ("File system access control with Amazon VPC", FSx for Lustre)."""
THROUGHPUT_MB_PER_S_PER_TIB = 125
"""The least that a PERSISTENT_2 file system has, and what the catalog's price is of."""
LUSTRE_VERSION = "2.15"
EVENTS = ("NEW", "CHANGED", "DELETED")


class AwsFileCache(FileCache):
    """A file system in the private subnet of one zone, under the store's key, that the network alone reaches.

    It is of the deployment type PERSISTENT_2, the one whose data a customer's key encrypts. Names of new, changed and
    deleted objects below `data/` come to it by themselves; nothing goes back to the bucket, as pods only read.

    Makes: SecurityGroup and its rules for Lustre, LustreFileSystem, DataRepositoryAssociation.

    Example:
        >>> args = FileCacheArgs(store=store, zone="us-east-1a")
        >>> cache = AwsFileCache("prod-cache", args, network)
        >>> folder = cache.folder("data/digits/")
    """

    def __init__(
        self, name: str, args: FileCacheArgs, network: AwsNetwork, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        require(
            args.zone in network.private_subnet_ids,
            f"file cache: the network has no zone {args.zone}; name one of {', '.join(network.private_subnet_ids)}.",
        )
        assert isinstance(args.store, AwsObjectStore)
        gib = lustre_gib(args.gib)
        super().__init__("fusion:aws:FileCache", name, cache_facts("aws", args, gib), opts)
        self.args = args
        self._name = name
        self._child = pulumi.ResourceOptions(parent=self)
        self._gib = gib
        group, rules = self._make_group(network)
        self._system = aws.fsx.LustreFileSystem(
            name,
            deployment_type="PERSISTENT_2",
            storage_type="SSD",
            storage_capacity=gib,
            per_unit_storage_throughput=THROUGHPUT_MB_PER_S_PER_TIB,
            file_system_type_version=LUSTRE_VERSION,
            kms_key_id=args.store.arns[1],
            subnet_ids=network.private_subnet_ids[args.zone],
            security_group_ids=[group.id],
            tags={**args.tags, "Name": name},
            # FSx tries the ports of the group before it makes the file system.
            opts=pulumi.ResourceOptions(parent=self, depends_on=rules),
        )
        self._link = self._make_link(args.store)
        self.register_outputs({"file_system_id": self._system.id})

    def _make_group(self, network: AwsNetwork) -> tuple[aws.ec2.SecurityGroup, list[pulumi.Resource]]:
        group = aws.ec2.SecurityGroup(
            self._name,
            name=short_name(self._name, 255),
            description="Lustre between nodes and the file cache",
            vpc_id=network.network_id,
            tags={**self.args.tags, "Name": self._name},
            opts=self._child,
        )
        rules: list[pulumi.Resource] = []
        for port, (first, last) in LUSTRE_PORTS.items():
            rules += [
                rule(
                    f"{self._name}-{port}-{way}",
                    security_group_id=group.id,
                    description="Lustre from nodes" if way == "in" else "Lustre to nodes",
                    ip_protocol="tcp",
                    from_port=first,
                    to_port=last,
                    cidr_ipv4=network.args.cidr,
                    opts=self._child,
                )
                for way, rule in (("in", aws.vpc.SecurityGroupIngressRule), ("out", aws.vpc.SecurityGroupEgressRule))
            ]
        return group, rules

    def _make_link(self, store: AwsObjectStore) -> aws.fsx.DataRepositoryAssociation:
        return aws.fsx.DataRepositoryAssociation(
            self._name,
            file_system_id=self._system.id,
            file_system_path=f"/{DATA}",
            data_repository_path=pulumi.Output.concat(store.bucket_url, f"/{DATA}/"),
            batch_import_meta_data_on_create=True,
            s3=aws.fsx.DataRepositoryAssociationS3Args(
                auto_import_policy=aws.fsx.DataRepositoryAssociationS3AutoImportPolicyArgs(events=list(EVENTS))
            ),
            tags=self.args.tags,
            opts=self._child,
        )

    def folder(self, prefix: str) -> MountedFolder:
        """As `FileCache.folder`: of the whole file system, pods see that folder alone."""
        # What mounts it waits for the link: without that it is empty.
        handle = pulumi.Output.all(self._system.id, self._link.id).apply(lambda ids: str(ids[0]))
        return MountedFolder(
            prefix=prefix,
            driver=DRIVER,
            handle=handle,
            attributes={"dnsname": self._system.dns_name, "mountname": self._system.mount_name},
            options=("flock",),
            sub_path=prefix.rstrip("/"),
            gib=self._gib,
        )
