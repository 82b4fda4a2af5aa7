"""File systems of FSx for Lustre as the API reference describes them, added to moto's: that keeps what it is given,
checks nothing, changes nothing and knows no links to buckets.

Nothing is stored here: a file system is its description, and a link (data repository association) says which folder of
a bucket its files are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

Record = dict[str, Any]

SSD_CAPACITIES = "1200, or a multiple of 2400"
PERSISTENT = {"PERSISTENT_1": (50, 100, 200), "PERSISTENT_2": (125, 250, 500, 1000)}
"""By deployment type, MB/s by TiB of SSD ("CreateFileSystemLustreConfiguration", PerUnitStorageThroughput)."""
NEWEST = "2.15"
OLDEST = {"PERSISTENT_2": "2.12"}
"""Versions of Lustre that a deployment type takes ("CreateFileSystem", FileSystemTypeVersion); 2.10 for the others."""
LUSTRE_PORTS = (988, *range(1018, 1024))
"""What a file system's security groups must let in ("File system access control with Amazon VPC", FSx for Lustre)."""
EVENTS = frozenset({"NEW", "CHANGED", "DELETED"})


def install() -> None:
    """Add the operations to moto's response class; a second call changes nothing."""
    from moto.fsx import models
    from moto.fsx.responses import FSxResponse
    from moto.moto_api._internal import mock_random

    for operation in _OPERATIONS:
        setattr(FSxResponse, operation.__name__, operation)
    described = vars(models).setdefault("fusion_described", _described(models.FileSystem.to_dict))
    for changed, name, value in (
        (models, "uuid4", mock_random.uuid4),  # the same ids when the log is served again
        (models.FileSystem, "to_dict", described),
    ):
        setattr(changed, name, value)


def is_sold(capacity_gib: int) -> bool:
    """Whether SSD comes in that size ("CreateFileSystem", StorageCapacity)."""
    return capacity_gib == 1200 or (capacity_gib > 0 and capacity_gib % 2400 == 0)


def _described(describe: Callable[[Any], Record]) -> Callable[[Any], Record]:
    """With what AWS answers besides: that it is there, its version and the name that it is mounted by."""

    def described(system: Any) -> Record:
        found = describe(system)
        more = {"Lifecycle": "AVAILABLE", "OwnerId": system.backend.account_id, "VpcId": system.__dict__.get("vpc_id")}
        version = {"FileSystemTypeVersion": system.__dict__.get("version", NEWEST)}
        return found | more | version if system.file_system_type == "LUSTRE" else found

    return described


def create_file_system(self: Any) -> str:
    """CreateFileSystem of Lustre on SSD: refuses what the reference rules out, and fills in what AWS does."""
    asked = json.loads(self.body)
    _check(self, asked)
    settings = asked.get("LustreConfiguration") or {}
    deployment = settings.get("DeploymentType", "SCRATCH_1")
    is_lasting = deployment in PERSISTENT
    made = self.fsx_backend.create_file_system(
        client_request_token=asked.get("ClientRequestToken"),
        file_system_type="LUSTRE",
        storage_capacity=asked["StorageCapacity"],
        storage_type=asked.get("StorageType", "SSD"),
        subnet_ids=asked["SubnetIds"],
        security_group_ids=asked.get("SecurityGroupIds") or [],
        tags=asked.get("Tags"),
        kms_key_id=asked.get("KmsKeyId") or (f"arn:aws:kms:{self.region}:{self.current_account}:key/aws-fsx"),
        windows_configuration=None,
        lustre_configuration={
            "DeploymentType": deployment,
            "DataCompressionType": settings.get("DataCompressionType", "NONE"),
            "MountName": "fsx" if deployment == "SCRATCH_1" else "",
            **({"PerUnitStorageThroughput": settings["PerUnitStorageThroughput"]} if is_lasting else {}),
            **({"AutomaticBackupRetentionDays": settings.get("AutomaticBackupRetentionDays", 0)} if is_lasting else {}),
        },
        ontap_configuration=None,
        file_system_type_version=None,
        open_zfs_configuration=None,
    )
    made.lustre_configuration["MountName"] = made.lustre_configuration["MountName"] or made.file_system_id[-8:]
    made.version = asked.get("FileSystemTypeVersion") or OLDEST.get(deployment, "2.10")
    made.vpc_id = _subnet(self, asked["SubnetIds"][0]).vpc_id
    return json.dumps({"FileSystem": made.to_dict()})


def _check(response: Any, asked: Mapping[str, Any]) -> None:
    settings = asked.get("LustreConfiguration") or {}
    deployment, throughput = settings.get("DeploymentType", "SCRATCH_1"), settings.get("PerUnitStorageThroughput")
    if asked.get("FileSystemType") != "LUSTRE" or asked.get("StorageType", "SSD") != "SSD":
        _refuse("UnsupportedOperation", "The local cloud has file systems of Lustre on SSD alone")
    if not is_sold(asked.get("StorageCapacity") or 0):
        capacity = asked.get("StorageCapacity")
        _refuse("BadRequest", f"StorageCapacity {capacity}: {deployment} on SSD has {SSD_CAPACITIES} GiB")
    if throughput not in PERSISTENT.get(deployment, (None,)):
        allowed = ", ".join(map(str, PERSISTENT.get(deployment, ()))) or "none"
        _refuse("BadRequest", f"PerUnitStorageThroughput {throughput}: {deployment} on SSD takes {allowed}")
    if asked.get("KmsKeyId") and deployment not in PERSISTENT:
        _refuse("BadRequest", f"KmsKeyId: {deployment} is encrypted by a key of FSx; a persistent type takes yours")
    version = asked.get("FileSystemTypeVersion")
    if version and version < OLDEST.get(deployment, version):
        _refuse("BadRequest", f"FileSystemTypeVersion {version}: {deployment} takes {OLDEST[deployment]} or newer")
    if len(asked.get("SubnetIds") or ()) != 1:
        _refuse("BadRequest", "SubnetIds: a Lustre file system is in exactly one subnet")
    _subnet(response, asked["SubnetIds"][0])
    _lets_lustre_in(response, asked.get("SecurityGroupIds") or ())


def _subnet(response: Any, subnet: str) -> Any:
    from moto.ec2.exceptions import InvalidSubnetIdError
    from moto.ec2.models import ec2_backends

    try:
        return ec2_backends[response.current_account][response.region].get_subnet(subnet)
    except InvalidSubnetIdError:
        _refuse("InvalidNetworkSettings", f"The subnet {subnet} does not exist")


def _lets_lustre_in(response: Any, groups: tuple[str, ...] | list[str]) -> None:
    """As FSx does before it makes one: whoever may reach it on 988 must reach it on all of Lustre's ports."""
    from moto.ec2.models import ec2_backends

    backend = ec2_backends[response.current_account][response.region]
    for each in groups:
        group = backend.get_security_group_from_id(each)
        if group is None:
            _refuse("InvalidNetworkSettings", f"The security group {each} does not exist")
        open_to = [(rule.from_port, rule.to_port, str(rule.ip_protocol)) for rule in group.ingress_rules]
        closed = [port for port in LUSTRE_PORTS if not any(_covers(rule, port) for rule in open_to)]
        if closed:
            _refuse(
                "InvalidNetworkSettings",
                "The file system cannot be created because the default security group in the subnet provided or the "
                f"provided security groups do not permit Lustre LNET network traffic on port {closed[0]}",
            )


def _covers(rule: tuple[Any, Any, str], port: int) -> bool:
    first, last, protocol = rule
    return protocol == "-1" or (protocol == "tcp" and int(first) <= port <= int(last))


def update_file_system(self: Any) -> str:
    """UpdateFileSystem: a larger capacity, another throughput, compression, backups or a newer Lustre."""
    asked = json.loads(self.body)
    system = _found(self, asked["FileSystemId"])
    settings, now = asked.get("LustreConfiguration") or {}, system.lustre_configuration
    capacity = asked.get("StorageCapacity", system.storage_capacity)
    if capacity < system.storage_capacity or not is_sold(capacity):
        _refuse("BadRequest", f"StorageCapacity {capacity}: it can only grow, to {SSD_CAPACITIES} GiB")
    throughput = settings.get("PerUnitStorageThroughput", now.get("PerUnitStorageThroughput"))
    if throughput not in PERSISTENT.get(now["DeploymentType"], (throughput,)):
        _refuse("BadRequest", f"PerUnitStorageThroughput {throughput}: {now['DeploymentType']} does not take it")
    version = asked.get("FileSystemTypeVersion", system.version)
    if version < system.version:
        _refuse("BadRequest", f"FileSystemTypeVersion {version}: it is {system.version}, and can only be raised")
    system.storage_capacity, system.version = capacity, version
    system.lustre_configuration = now | settings
    return json.dumps({"FileSystem": system.to_dict()})


def _found(response: Any, file_system: str) -> Any:
    systems = response.fsx_backend.file_systems
    if file_system not in systems:
        _refuse("FileSystemNotFound", f"File system '{file_system}' does not exist.")
    return systems[file_system]


def delete_file_system(self: Any) -> str:
    """DeleteFileSystem, with its links."""
    system = _found(self, json.loads(self.body)["FileSystemId"])
    links = _links(self)
    for each in [key for key, link in links.items() if link["FileSystemId"] == system.file_system_id]:
        del links[each]
    del self.fsx_backend.file_systems[system.file_system_id]
    return json.dumps({"FileSystemId": system.file_system_id, "Lifecycle": "DELETING"})


def create_data_repository_association(self: Any) -> str:
    """CreateDataRepositoryAssociation: a folder of a bucket as one of a file system, neither of them linked yet."""
    from moto.moto_api._internal import mock_random

    asked = json.loads(self.body)
    system = _found(self, asked["FileSystemId"])
    _check_link(self, system, asked)
    id = f"dra-{mock_random.get_random_hex(17)}"
    settings = asked.get("S3") or {}
    record = {
        "AssociationId": id,
        "ResourceARN": f"arn:aws:fsx:{self.region}:{self.current_account}:association/{system.file_system_id}/{id}",
        "FileSystemId": system.file_system_id,
        "Lifecycle": "AVAILABLE",
        "FileSystemPath": asked["FileSystemPath"],
        "DataRepositoryPath": asked["DataRepositoryPath"],
        "BatchImportMetaDataOnCreate": bool(asked.get("BatchImportMetaDataOnCreate")),
        "ImportedFileChunkSize": asked.get("ImportedFileChunkSize", 1024),
        "S3": {name: settings[name] for name in ("AutoImportPolicy", "AutoExportPolicy") if settings.get(name)},
    }
    _links(self)[id] = record
    if asked.get("Tags"):
        self.fsx_backend.tagger.tag_resource(record["ResourceARN"], asked["Tags"])
    return json.dumps({"Association": _with_tags(self, record)})


def _check_link(response: Any, system: Any, asked: Mapping[str, Any]) -> None:
    from moto.s3.models import s3_backends

    if system.lustre_configuration["DeploymentType"] == "SCRATCH_1" or system.version == "2.10":
        _refuse("UnsupportedOperation", "Data repository associations need Lustre 2.12 or newer, and no SCRATCH_1")
    path, repository = asked["FileSystemPath"], asked["DataRepositoryPath"]
    bucket = repository.removeprefix("s3://").partition("/")[0]
    if bucket not in s3_backends[response.current_account]["aws"].buckets:
        _refuse("BadRequest", f"DataRepositoryPath {repository}: the bucket {bucket} does not exist")
    for each in _links(response).values():
        if each["FileSystemId"] != system.file_system_id:
            continue
        if _is_within(path, each["FileSystemPath"]) or _is_within(each["FileSystemPath"], path):
            _refuse("BadRequest", f"FileSystemPath {path}: {each['FileSystemPath']} is linked already")
        if _is_within(repository, each["DataRepositoryPath"]) or _is_within(each["DataRepositoryPath"], repository):
            _refuse("BadRequest", f"DataRepositoryPath {repository}: {each['DataRepositoryPath']} is linked already")
    for policy in (asked.get("S3") or {}).values():
        if strange := set(policy.get("Events") or ()) - EVENTS:
            _refuse("BadRequest", f"Events {', '.join(sorted(strange))}: expected some of NEW, CHANGED, DELETED")


def _is_within(path: str, folder: str) -> bool:
    return f"{path.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/")


def describe_data_repository_associations(self: Any) -> str:
    """DescribeDataRepositoryAssociations, by their ids or those of their file systems."""
    asked, links = json.loads(self.body or "{}"), _links(self)
    ids = asked.get("AssociationIds") or list(links)
    if missing := [each for each in ids if each not in links]:
        _refuse("DataRepositoryAssociationNotFound", f"The data repository association {missing[0]} does not exist.")
    systems = [each["Values"] for each in asked.get("Filters") or () if each["Name"] == "file-system-id"]
    found = [links[each] for each in ids if not systems or links[each]["FileSystemId"] in systems[0]]
    return json.dumps({"Associations": [_with_tags(self, each) for each in found]})


def update_data_repository_association(self: Any) -> str:
    """UpdateDataRepositoryAssociation: what is imported and exported by itself, and in which chunks."""
    asked = json.loads(self.body)
    link = _link(self, asked["AssociationId"])
    link["ImportedFileChunkSize"] = asked.get("ImportedFileChunkSize", link["ImportedFileChunkSize"])
    link["S3"] = asked.get("S3", link["S3"])
    return json.dumps({"Association": _with_tags(self, link)})


def delete_data_repository_association(self: Any) -> str:
    """DeleteDataRepositoryAssociation."""
    link = _link(self, json.loads(self.body)["AssociationId"])
    del _links(self)[link["AssociationId"]]
    return json.dumps({"AssociationId": link["AssociationId"], "Lifecycle": "DELETING"})


def _link(response: Any, id: str) -> Record:
    links = _links(response)
    if id not in links:
        _refuse("DataRepositoryAssociationNotFound", f"The data repository association {id} does not exist.")
    return links[id]


def _links(response: Any) -> dict[str, Record]:
    """Kept on moto's own backend, so that they live and are reset with it."""
    kept: dict[str, Record] = response.fsx_backend.__dict__.setdefault("fusion_links", {})
    return kept


def _with_tags(response: Any, link: Record) -> Record:
    return {**link, "Tags": response.fsx_backend.list_tags_for_resource(link["ResourceARN"])}


def _refuse(code: str, message: str) -> NoReturn:
    from moto.core.exceptions import JsonRESTError

    raise JsonRESTError(code, message)


_OPERATIONS = (
    create_file_system,
    update_file_system,
    delete_file_system,
    create_data_repository_association,
    describe_data_repository_associations,
    update_data_repository_association,
    delete_data_repository_association,
)
