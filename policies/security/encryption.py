"""Guardrails on encryption at rest: everything that keeps data does so with a key that the team holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from policies.guardrail import guardrail, stack_guardrail
from policies.resource import Props, Resource
from policies.security.buckets import AWS_BUCKETS, bucket_names
from policies.update import Update

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Encrypted:
    """Where a type says how it encrypts.

    Attributes:
        key: path of the customer's key.
        switch: path of the field that turns encryption on, where the key alone does not.
        on: the value of the switch.
        blocks: path of the list whose elements have these fields, where it is not the resource itself.
        blocks_needed: whether a resource without such a block keeps something all the same.
    """

    key: Path
    switch: Path = ()
    on: object = True
    blocks: Path = ()
    blocks_needed: bool = True


_BY_FIELD: Mapping[str, tuple[str, ...]] = {
    "kmsKeyId": (
        "aws:cloudtrail/eventDataStore:EventDataStore",
        "aws:cloudtrail/trail:Trail",
        "aws:cloudwatch/logGroup:LogGroup",
        "aws:codecommit/repository:Repository",
        "aws:docdb/elasticCluster:ElasticCluster",
        "aws:elasticache/serverlessCache:ServerlessCache",
        "aws:finspace/kxEnvironment:KxEnvironment",
        "aws:fsx/fileCache:FileCache",
        "aws:fsx/lustreFileSystem:LustreFileSystem",
        "aws:fsx/ontapFileSystem:OntapFileSystem",
        "aws:fsx/openZfsFileSystem:OpenZfsFileSystem",
        "aws:fsx/windowsFileSystem:WindowsFileSystem",
        "aws:grafana/workspace:Workspace",
        "aws:kinesis/videoStream:VideoStream",
        "aws:location/geofenceCollection:GeofenceCollection",
        "aws:location/tracker:Tracker",
        "aws:m2/environment:Environment",
        "aws:rds/clusterSnapshotCopy:ClusterSnapshotCopy",
        "aws:rds/exportTask:ExportTask",
        "aws:rds/snapshotCopy:SnapshotCopy",
        "aws:redshiftserverless/namespace:Namespace",
        "aws:s3/filesFileSystem:FilesFileSystem",
        "aws:sagemaker/domain:Domain",
        "aws:sagemaker/notebookInstance:NotebookInstance",
        "aws:secretsmanager/secret:Secret",
        "aws:timestreamwrite/database:Database",
    ),
    "kmsMasterKeyId": (
        "aws:sns/topic:Topic",
        "aws:sqs/queue:Queue",
    ),
    "kmsKeyArn": (
        "aws:amp/workspace:Workspace",
        "aws:backup/vault:Vault",
        "aws:dms/replicationInstance:ReplicationInstance",
        "aws:dynamodb/tableReplica:TableReplica",
        "aws:mailmanager/archive:Archive",
        "aws:memorydb/cluster:Cluster",
        "aws:memorydb/snapshot:Snapshot",
        "aws:sagemaker/endpointConfiguration:EndpointConfiguration",
    ),
    "encryptionConfig.provider.keyArn": ("aws:eks/cluster:Cluster",),
    "encryption.defaultKmsKeyName": ("gcp:storage/bucket:Bucket",),
    "diskEncryptionKey.kmsKeySelfLink": ("gcp:compute/disk:Disk",),
    "diskEncryptionKey.kmsKeyName": ("gcp:compute/regionDisk:RegionDisk",),
    "nodeConfig.bootDiskKmsKey": ("gcp:container/nodePool:NodePool",),
    "kmsKeyName": (
        "gcp:artifactregistry/repository:Repository",
        "gcp:cloudfunctionsv2/function:Function",
        "gcp:dataform/repository:Repository",
        "gcp:discoveryengine/dataStore:DataStore",
        "gcp:filestore/instance:Instance",
        "gcp:pubsub/topic:Topic",
    ),
    "defaultEncryptionConfiguration.kmsKeyName": ("gcp:bigquery/dataset:Dataset",),
    "encryptionKeyName": ("gcp:sql/databaseInstance:DatabaseInstance",),
    "customerManagedKey": ("gcp:redis/instance:Instance",),
    "kmsKeyIdentifier": (
        "aws:cloudwatch/eventArchive:EventArchive",
        "aws:datazone/domain:Domain",
        "aws:neptunegraph/graph:Graph",
    ),
    "kmsKey": (
        "aws:mwaa/environment:Environment",
        "aws:qldb/ledger:Ledger",
        "gcp:lustre/instance:Instance",
        "gcp:memorystore/instance:Instance",
        "gcp:parametermanager/parameter:Parameter",
        "gcp:parametermanager/regionalParameter:RegionalParameter",
        "gcp:redis/cluster:Cluster",
        "gcp:securesourcemanager/instance:Instance",
    ),
    "encryptionKey": (
        "aws:codeartifact/domain:Domain",
        "aws:codebuild/project:Project",
    ),
    "encryptionKeyArn": (
        "aws:backup/logicallyAirGappedVault:LogicallyAirGappedVault",
        "aws:bedrock/agentcoreMemory:AgentcoreMemory",
    ),
    "customModelKmsKeyId": ("aws:bedrock/customModel:CustomModel",),
    "kmsEncryptionKey": ("aws:dsql/cluster:Cluster",),
    "encryptionInfo.encryptionAtRestKmsKeyArn": ("aws:msk/cluster:Cluster",),
    "encryptionConfiguration.kmsKeyArn": ("aws:s3tables/tableBucket:TableBucket",),
    "encryptionConfigurations.kmsKeyArn": ("aws:s3/vectorsVectorBucket:VectorsVectorBucket",),
    "encryptionOptions.kmsKeyId": ("aws:mq/broker:Broker",),
    "encryptionConfig.kmsKeyName": ("gcp:alloydb/cluster:Cluster",),
    "encryptionSpec.kmsKeyName": (
        "gcp:vertex/aiDataset:AiDataset",
        "gcp:vertex/aiFeatureOnlineStore:AiFeatureOnlineStore",
        "gcp:vertex/aiTensorboard:AiTensorboard",
    ),
    "clusterConfig.encryptionConfig.kmsKeyName": ("gcp:dataproc/cluster:Cluster",),
    "cmekConfig.kmsKeyName": ("gcp:firestore/database:Database",),
    "cmekSettings.kmsKeyName": ("gcp:logging/projectBucketConfig:ProjectBucketConfig",),
    "kmsConfig": ("gcp:netapp/storagePool:StoragePool",),
    "encryptionKey.kmsKey": ("gcp:workstations/workstationConfig:WorkstationConfig",),
    "imageEncryptionKey.kmsKeySelfLink": ("gcp:compute/image:Image",),
    "snapshotEncryptionKey.kmsKeySelfLink": ("gcp:compute/snapshot:Snapshot",),
    "machineImageEncryptionKey.kmsKeyName": ("gcp:compute/machineImage:MachineImage",),
}
"""By the path of the key: the types that need nothing else to be encrypted with it."""
ENCRYPTED: Mapping[str, tuple[Encrypted, ...]] = {
    **{kind: (Encrypted(tuple(path.split("."))),) for path, kinds in _BY_FIELD.items() for kind in kinds},
    "aws:ebs/volume:Volume": (Encrypted(("kmsKeyId",), ("encrypted",)),),
    "aws:ebs/snapshotCopy:SnapshotCopy": (Encrypted(("kmsKeyId",), ("encrypted",)),),
    "aws:ec2/instance:Instance": (
        Encrypted(("kmsKeyId",), ("encrypted",), blocks=("rootBlockDevice",)),
        Encrypted(("kmsKeyId",), ("encrypted",), blocks=("ebsBlockDevices",), blocks_needed=False),
    ),
    "aws:ec2/spotInstanceRequest:SpotInstanceRequest": (
        Encrypted(("kmsKeyId",), ("encrypted",), blocks=("rootBlockDevice",)),
        Encrypted(("kmsKeyId",), ("encrypted",), blocks=("ebsBlockDevices",), blocks_needed=False),
    ),
    "aws:ec2/spotFleetRequest:SpotFleetRequest": (
        Encrypted(
            ("rootBlockDevices", "kmsKeyId"),
            ("rootBlockDevices", "encrypted"),
            blocks=("launchSpecifications",),
            blocks_needed=False,
        ),
    ),
    "aws:ec2/launchTemplate:LaunchTemplate": (
        Encrypted(("ebs", "kmsKeyId"), ("ebs", "encrypted"), "true", blocks=("blockDeviceMappings",)),
    ),
    "aws:efs/fileSystem:FileSystem": (Encrypted(("kmsKeyId",), ("encrypted",)),),
    "aws:rds/instance:Instance": (Encrypted(("kmsKeyId",), ("storageEncrypted",)),),
    "aws:rds/cluster:Cluster": (Encrypted(("kmsKeyId",), ("storageEncrypted",)),),
    "aws:docdb/cluster:Cluster": (Encrypted(("kmsKeyId",), ("storageEncrypted",)),),
    "aws:neptune/cluster:Cluster": (Encrypted(("kmsKeyArn",), ("storageEncrypted",)),),
    "aws:redshift/cluster:Cluster": (Encrypted(("kmsKeyId",), ("encrypted",)),),
    "aws:dynamodb/table:Table": (
        Encrypted(("serverSideEncryption", "kmsKeyArn"), ("serverSideEncryption", "enabled")),
    ),
    "aws:elasticache/replicationGroup:ReplicationGroup": (Encrypted(("kmsKeyId",), ("atRestEncryptionEnabled",)),),
    "aws:opensearch/domain:Domain": (Encrypted(("encryptAtRest", "kmsKeyId"), ("encryptAtRest", "enabled")),),
    "aws:kinesis/stream:Stream": (Encrypted(("kmsKeyId",), ("encryptionType",), "KMS"),),
    "aws:ecr/repository:Repository": (
        Encrypted(("kmsKey",), ("encryptionType",), "KMS", blocks=("encryptionConfigurations",)),
    ),
    "gcp:compute/instance:Instance": (
        Encrypted(("kmsKeySelfLink",), blocks=("bootDisk",)),
        Encrypted(("kmsKeySelfLink",), blocks=("attachedDisks",), blocks_needed=False),
    ),
    "gcp:compute/instanceTemplate:InstanceTemplate": (
        Encrypted(("diskEncryptionKey", "kmsKeySelfLink"), blocks=("disks",)),
    ),
    "gcp:compute/regionInstanceTemplate:RegionInstanceTemplate": (
        Encrypted(("diskEncryptionKey", "kmsKeySelfLink"), blocks=("disks",)),
    ),
    "gcp:container/cluster:Cluster": (
        Encrypted(("databaseEncryption", "keyName"), ("databaseEncryption", "state"), "ENCRYPTED"),
        Encrypted(("bootDiskKmsKey",), blocks=("nodeConfig",), blocks_needed=False),
        Encrypted(("nodeConfig", "bootDiskKmsKey"), blocks=("nodePools",), blocks_needed=False),
    ),
    "aws:ec2/amiCopy:AmiCopy": (Encrypted(("kmsKeyId",), ("encrypted",)),),
    "aws:ebs/snapshotImport:SnapshotImport": (Encrypted(("kmsKeyId",), ("encrypted",)),),
    "aws:workspaces/workspace:Workspace": (
        Encrypted(("volumeEncryptionKey",), ("rootVolumeEncryptionEnabled",)),
        Encrypted(("volumeEncryptionKey",), ("userVolumeEncryptionEnabled",)),
    ),
    "gcp:bigtable/instance:Instance": (Encrypted(("kmsKeyName",), blocks=("clusters",)),),
    "gcp:secretmanager/secret:Secret": (
        Encrypted(("customerManagedEncryption", "kmsKeyName"), blocks=("replication", "auto"), blocks_needed=False),
        Encrypted(
            ("customerManagedEncryption", "kmsKeyName"),
            blocks=("replication", "userManaged", "replicas"),
            blocks_needed=False,
        ),
    ),
    "gcp:workbench/instance:Instance": (
        Encrypted(("kmsKey",), blocks=("gceSetup", "bootDisk")),
        Encrypted(("kmsKey",), blocks=("gceSetup", "dataDisks"), blocks_needed=False),
    ),
}
NODE_CLASSES: Mapping[str, tuple[Encrypted, ...]] = {
    f"kubernetes:karpenter.k8s.aws/{version}:EC2NodeClass": (
        Encrypted(("ebs", "kmsKeyID"), ("ebs", "encrypted"), blocks=("spec", "blockDeviceMappings")),
    )
    for version in ("v1", "v1beta1")
}
LAUNCH_CONFIGURATION = "aws:ec2/launchConfiguration:LaunchConfiguration"
NODE_GROUP = "aws:eks/nodeGroup:NodeGroup"
PARAMETER = "aws:ssm/parameter:Parameter"
DIRECTORY_BUCKET = "aws:s3/directoryBucket:DirectoryBucket"
BUCKET_ENCRYPTION = (
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
    "aws:s3/bucketServerSideEncryptionConfigurationV2:BucketServerSideEncryptionConfigurationV2",
)
OBJECTS = ("aws:s3/bucketObject:BucketObject", "aws:s3/bucketObjectv2:BucketObjectv2", "aws:s3/objectCopy:ObjectCopy")
"""What may be encrypted otherwise than its bucket says."""
CUSTOMER_ALGORITHMS = ("aws:kms", "aws:kms:dsse")


@guardrail(
    "encryption-with-customer-keys",
    *ENCRYPTED,
    *NODE_CLASSES,
    NODE_GROUP,
    LAUNCH_CONFIGURATION,
    PARAMETER,
    *BUCKET_ENCRYPTION,
    *OBJECTS,
    unknown="judged in up",
)
def encryption_with_customer_keys(resource: Resource, _: Update) -> Iterator[str]:
    """What keeps data encrypts it with a key of the team's own."""
    props = resource.props
    if resource.type == NODE_GROUP:
        if not props.has("launchTemplate"):
            yield "without a launch template its disks have no key of yours; name one whose blockDeviceMappings have it"
    elif resource.type == LAUNCH_CONFIGURATION:
        yield "a launch configuration can name no key for its disks; use a launch template"
    elif resource.type == PARAMETER:
        if props.get("type") == "SecureString":
            yield from _judged(Encrypted(("keyId",)), props)
    elif resource.type in OBJECTS:
        yield from _object(props)
    elif resource.type in BUCKET_ENCRYPTION:
        for each in props.each("rules"):
            yield from _bucket_rule(each.part("applyServerSideEncryptionByDefault"))
    for rule in (*ENCRYPTED.get(resource.type, ()), *NODE_CLASSES.get(resource.type, ())):
        yield from _blocks(rule, props)


def _blocks(rule: Encrypted, props: Props) -> Iterator[str]:
    blocks = [*props.each(*rule.blocks)] if rule.blocks else [props]
    if not blocks and rule.blocks_needed:
        named, key = ".".join(rule.blocks), ".".join(rule.key)
        yield f"{named} is not set, so what it keeps has no key of yours; set it with {key}"
    for block in blocks:
        yield from _judged(rule, block)


def _judged(rule: Encrypted, block: Props) -> Iterator[str]:
    where = ".".join(map(str, block.path))
    prefix = f"{where}." if where else ""
    if rule.switch and not _is_on(block.get(*rule.switch), rule.on):
        yield f"{prefix}{'.'.join(rule.switch)} is not {_shown(rule.on)}, so it is not encrypted with your key; set it"
    if not block.has(*rule.key):
        yield f"{prefix}{'.'.join(rule.key)} is not set, so it has no key of yours; name one"
    elif not block.part(*rule.key).is_unknown() and _is_of_aws(block.get(*rule.key)):
        yield f"{prefix}{'.'.join(rule.key)} is {block.get(*rule.key)}, which is the cloud's key; name one of yours"


def _object(props: Props) -> Iterator[str]:
    """An object that says nothing is encrypted as its bucket says."""
    algorithm = props.get("serverSideEncryption")
    if algorithm not in (None, *CUSTOMER_ALGORITHMS):
        yield f"serverSideEncryption {algorithm} takes a key of S3 in place of its bucket's; leave it out"
    elif algorithm is not None or props.has("kmsKeyId"):
        yield from _judged(Encrypted(("kmsKeyId",)), props)


def _bucket_rule(rule: Props) -> Iterator[str]:
    if rule.get("sseAlgorithm") not in CUSTOMER_ALGORITHMS:
        yield "sseAlgorithm is not aws:kms, so the bucket has no key of yours; set it, and kmsMasterKeyId"
    else:
        yield from _judged(Encrypted(("kmsMasterKeyId",)), rule)


def _is_on(value: object, on: object) -> bool:
    return str(value).lower() == str(on).lower()


def _shown(on: object) -> str:
    return str(on).lower() if isinstance(on, bool) else str(on)


def _is_of_aws(key: object) -> bool:
    return "alias/aws/" in str(key)


@stack_guardrail("buckets-have-customer-keys")
def buckets_have_customer_keys(resources: Sequence[Resource], _: Update) -> Iterator[str]:
    """Every bucket of AWS has an encryption configuration, which names a key of the team's own."""
    companions = [each for each in resources if each.type in BUCKET_ENCRYPTION]
    configured = {urn for each in companions for urn in each.references.get("bucket", ())}
    named = {name for each in companions for name in bucket_names(each)}
    for bucket in (each for each in resources if each.type in (*AWS_BUCKETS, DIRECTORY_BUCKET)):
        if bucket.urn in configured or not named.isdisjoint(bucket_names(bucket)):
            continue
        inline = bucket.props.part("serverSideEncryptionConfiguration", "rule", "applyServerSideEncryptionByDefault")
        if not inline.has("kmsMasterKeyId"):
            yield (
                f"bucket {bucket.name} has no BucketServerSideEncryptionConfiguration, so S3 encrypts it with its own "
                "key; add one with sseAlgorithm aws:kms and your key"
            )


GUARDRAILS = [encryption_with_customer_keys, buckets_have_customer_keys]
