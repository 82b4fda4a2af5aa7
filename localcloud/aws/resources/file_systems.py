"""FSx for Lustre: file systems, and the folders of buckets that they are linked to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from localcloud.aws.api import Aws, ResourceType, between, from_tag_list, matching, one_of, tagging, to_tag_list, words
from localcloud.aws.lustre import SSD_CAPACITIES, is_sold
from localcloud.provider import Properties

SETTINGS: Mapping[str, str] = {
    "automaticBackupRetentionDays": "AutomaticBackupRetentionDays",
    "dataCompressionType": "DataCompressionType",
    "perUnitStorageThroughput": "PerUnitStorageThroughput",
}
FIELDS: Mapping[str, str] = {"storageCapacity": "StorageCapacity", "fileSystemTypeVersion": "FileSystemTypeVersion"}
POLICIES: Mapping[str, str] = {"autoImportPolicy": "AutoImportPolicy", "autoExportPolicy": "AutoExportPolicy"}
TAG = tagging("fsx", "tag_resource", "untag_resource", lambda aws, id: {"ResourceARN": _arn(aws, id)})


def _arn(aws: Aws, id: str) -> str:
    if id.startswith("fs-"):
        return aws.arn("fsx", f"file-system/{id}")
    link = aws.call("fsx", "describe_data_repository_associations", AssociationIds=[id])["Associations"][0]
    return str(link["ResourceARN"])


def _create(aws: Aws, inputs: Properties) -> str:
    settings = {api: inputs[name] for name, api in SETTINGS.items() if inputs.get(name) is not None}
    made = aws.call(
        "fsx",
        "create_file_system",
        FileSystemType="LUSTRE",
        StorageType=inputs.get("storageType"),
        SubnetIds=[inputs["subnetIds"]],
        SecurityGroupIds=inputs.get("securityGroupIds") or None,
        KmsKeyId=inputs.get("kmsKeyId"),
        LustreConfiguration=settings | {"DeploymentType": inputs["deploymentType"]},
        Tags=to_tag_list(inputs.get("tagsAll")) or None,
        **{api: inputs.get(name) for name, api in FIELDS.items()},
    )
    return str(made["FileSystem"]["FileSystemId"])


def _read(aws: Aws, id: str) -> Properties | None:
    found = aws.find("fsx", "describe_file_systems", "FileSystems", 0, FileSystemIds=[id])
    if found is None:
        return None
    settings = found["LustreConfiguration"]
    return {
        "arn": found["ResourceARN"],
        "dnsName": found["DNSName"],
        "mountName": settings["MountName"],
        "ownerId": found["OwnerId"],
        "vpcId": found["VpcId"],
        "subnetIds": found["SubnetIds"][0],
        "storageType": found["StorageType"],
        "deploymentType": settings["DeploymentType"],
        "kmsKeyId": found["KmsKeyId"],
        **{name: found.get(api) for name, api in FIELDS.items()},
        **{name: settings.get(api) for name, api in SETTINGS.items()},
        "tagsAll": from_tag_list(found.get("Tags")),
    }


def _update(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    fields = {api: new[name] for name, api in FIELDS.items() if new.get(name) not in (None, old.get(name))}
    settings = {api: new[name] for name, api in SETTINGS.items() if new.get(name) not in (None, old.get(name))}
    if fields or settings:
        aws.call("fsx", "update_file_system", FileSystemId=id, LustreConfiguration=settings or None, **fields)


def _delete(aws: Aws, id: str, inputs: Properties) -> None:
    aws.gone("fsx", "delete_file_system", FileSystemId=id)


def _replaces(old: Properties, new: Properties) -> frozenset[str]:
    """What can only grow, as the provider has it."""
    before, after = old.get("storageCapacity"), new.get("storageCapacity")
    smaller = isinstance(before, int) and isinstance(after, int) and after < before
    older = _version(new) < _version(old) if new.get("fileSystemTypeVersion") else False
    return frozenset({"storageCapacity"} if smaller else ()) | frozenset({"fileSystemTypeVersion"} if older else ())


def _version(inputs: Properties) -> str:
    version = inputs.get("fileSystemTypeVersion")
    return version if isinstance(version, str) else ""


def _agree(inputs: Properties) -> Iterable[tuple[str, str]]:
    capacity, deployment = inputs.get("storageCapacity"), inputs.get("deploymentType")
    if isinstance(capacity, int) and not is_sold(capacity):
        yield "storageCapacity", f"{capacity}: expected {SSD_CAPACITIES} GiB"
    is_lasting = deployment in ("PERSISTENT_1", "PERSISTENT_2")
    if is_lasting and inputs.get("perUnitStorageThroughput") is None:
        yield "perUnitStorageThroughput", f"required with deploymentType {deployment}, and not set"
    if isinstance(deployment, str) and not is_lasting:
        for name in ("kmsKeyId", "perUnitStorageThroughput", "automaticBackupRetentionDays"):
            if inputs.get(name) is not None:
                yield name, f"of PERSISTENT_1 and PERSISTENT_2 alone, and deploymentType is {deployment}"


def _link(aws: Aws, inputs: Properties) -> str:
    made = aws.call(
        "fsx",
        "create_data_repository_association",
        FileSystemId=inputs["fileSystemId"],
        FileSystemPath=inputs["fileSystemPath"],
        DataRepositoryPath=inputs["dataRepositoryPath"],
        BatchImportMetaDataOnCreate=inputs.get("batchImportMetaDataOnCreate"),
        ImportedFileChunkSize=inputs.get("importedFileChunkSize"),
        S3=_policies(inputs.get("s3")),
        Tags=to_tag_list(inputs.get("tagsAll")) or None,
    )
    return str(made["Association"]["AssociationId"])


def _policies(declared: Any) -> dict[str, Any] | None:
    given = declared or {}
    return {api: {"Events": given[name]["events"]} for name, api in POLICIES.items() if given.get(name)} or None


def _read_link(aws: Aws, id: str) -> Properties | None:
    found = aws.find("fsx", "describe_data_repository_associations", "Associations", 0, AssociationIds=[id])
    if found is None:
        return None
    events = {name: {"events": found["S3"][api]["Events"]} for name, api in POLICIES.items() if api in found["S3"]}
    return {
        "arn": found["ResourceARN"],
        "associationId": id,
        "fileSystemId": found["FileSystemId"],
        "fileSystemPath": found["FileSystemPath"],
        "dataRepositoryPath": found["DataRepositoryPath"],
        "batchImportMetaDataOnCreate": found["BatchImportMetaDataOnCreate"],
        "importedFileChunkSize": found["ImportedFileChunkSize"],
        "s3": events or None,
        "tagsAll": from_tag_list(found.get("Tags")),
    }


def _update_link(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    if any(old.get(name) != new.get(name) for name in ("importedFileChunkSize", "s3")):
        aws.call(
            "fsx",
            "update_data_repository_association",
            AssociationId=id,
            ImportedFileChunkSize=new.get("importedFileChunkSize"),
            S3=_policies(new.get("s3")) or {},
        )


def _unlink(aws: Aws, id: str, inputs: Properties) -> None:
    delete_data = inputs.get("deleteDataInFilesystem")
    aws.gone("fsx", "delete_data_repository_association", AssociationId=id, DeleteDataInFileSystem=delete_data)


TYPES = (
    ResourceType(
        token="aws:fsx/lustreFileSystem:LustreFileSystem",
        carried=words("deploymentType kmsKeyId securityGroupIds skipFinalBackup storageType subnetIds tags")
        | SETTINGS.keys()
        | FIELDS.keys(),
        replace_on=words("deploymentType kmsKeyId securityGroupIds storageType subnetIds"),
        replaces=_replaces,
        unread=words("securityGroupIds skipFinalBackup"),  # the groups are on its network interfaces
        kept=words("automaticBackupRetentionDays fileSystemTypeVersion kmsKeyId"),
        unordered=words("securityGroupIds"),
        needs=words("storageCapacity"),
        defaults={
            "dataCompressionType": "NONE",
            "deploymentType": "SCRATCH_1",
            "skipFinalBackup": True,
            "storageType": "SSD",
        },
        create=_create,
        read=_read,
        update=_update,
        delete=_delete,
        tag=TAG,
        checks={
            "automaticBackupRetentionDays": between(0, 90, "days"),
            "dataCompressionType": one_of("NONE", "LZ4"),
            "deploymentType": one_of("SCRATCH_1", "SCRATCH_2", "PERSISTENT_1", "PERSISTENT_2"),
            "fileSystemTypeVersion": one_of("2.10", "2.12", "2.15"),
            "storageType": lambda value: None if value == "SSD" else "the local cloud has SSD alone",
        },
        agree=_agree,
        served_by="moto; checks, changes and what AWS fills in added",
    ),
    ResourceType(
        token="aws:fsx/dataRepositoryAssociation:DataRepositoryAssociation",
        carried=words(
            "batchImportMetaDataOnCreate dataRepositoryPath deleteDataInFilesystem fileSystemId fileSystemPath "
            "importedFileChunkSize s3 tags"
        ),
        replace_on=words("dataRepositoryPath fileSystemId fileSystemPath"),
        unread=words("deleteDataInFilesystem"),
        kept=words("importedFileChunkSize s3"),
        unordered=words("s3.autoExportPolicy.events s3.autoImportPolicy.events"),
        defaults={"batchImportMetaDataOnCreate": False, "deleteDataInFilesystem": False},
        create=_link,
        read=_read_link,
        update=_update_link,
        delete=_unlink,
        tag=TAG,
        checks={
            "dataRepositoryPath": matching(r"s3://[^/]+(/.*)?", "a path such as s3://bucket/data/"),
            "fileSystemId": matching(r"fs-[0-9a-f]{8,17}", "the id of a file system such as fs-0123456789abcdef0"),
            "fileSystemPath": matching(r"/.*", "a path that begins with /"),
            "importedFileChunkSize": between(1, 512_000, "MiB"),
        },
        served_by="added to moto",
    ),
)
