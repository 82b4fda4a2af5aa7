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


ENCRYPTED: Mapping[str, tuple[Encrypted, ...]] = {
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
    "aws:fsx/lustreFileSystem:LustreFileSystem": (Encrypted(("kmsKeyId",)),),
    "aws:fsx/openZfsFileSystem:OpenZfsFileSystem": (Encrypted(("kmsKeyId",)),),
    "aws:fsx/ontapFileSystem:OntapFileSystem": (Encrypted(("kmsKeyId",)),),
    "aws:fsx/windowsFileSystem:WindowsFileSystem": (Encrypted(("kmsKeyId",)),),
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
    "aws:sqs/queue:Queue": (Encrypted(("kmsMasterKeyId",)),),
    "aws:sns/topic:Topic": (Encrypted(("kmsMasterKeyId",)),),
    "aws:ecr/repository:Repository": (
        Encrypted(("kmsKey",), ("encryptionType",), "KMS", blocks=("encryptionConfigurations",)),
    ),
    "aws:cloudwatch/logGroup:LogGroup": (Encrypted(("kmsKeyId",)),),
    "aws:cloudtrail/trail:Trail": (Encrypted(("kmsKeyId",)),),
    "aws:secretsmanager/secret:Secret": (Encrypted(("kmsKeyId",)),),
    "aws:backup/vault:Vault": (Encrypted(("kmsKeyArn",)),),
    "aws:eks/cluster:Cluster": (Encrypted(("encryptionConfig", "provider", "keyArn")),),
    "aws:sagemaker/notebookInstance:NotebookInstance": (Encrypted(("kmsKeyId",)),),
    "gcp:storage/bucket:Bucket": (Encrypted(("encryption", "defaultKmsKeyName")),),
    "gcp:compute/disk:Disk": (Encrypted(("diskEncryptionKey", "kmsKeySelfLink")),),
    "gcp:compute/regionDisk:RegionDisk": (Encrypted(("diskEncryptionKey", "kmsKeyName")),),
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
    "gcp:container/nodePool:NodePool": (Encrypted(("nodeConfig", "bootDiskKmsKey")),),
    "gcp:artifactregistry/repository:Repository": (Encrypted(("kmsKeyName",)),),
    "gcp:bigquery/dataset:Dataset": (Encrypted(("defaultEncryptionConfiguration", "kmsKeyName")),),
    "gcp:sql/databaseInstance:DatabaseInstance": (Encrypted(("encryptionKeyName",)),),
    "gcp:filestore/instance:Instance": (Encrypted(("kmsKeyName",)),),
    "gcp:redis/instance:Instance": (Encrypted(("customerManagedKey",)),),
    "gcp:pubsub/topic:Topic": (Encrypted(("kmsKeyName",)),),
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
BUCKET_ENCRYPTION = (
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
    "aws:s3/bucketServerSideEncryptionConfigurationV2:BucketServerSideEncryptionConfigurationV2",
)
CUSTOMER_ALGORITHMS = ("aws:kms", "aws:kms:dsse")


@guardrail(
    "encryption-with-customer-keys",
    *ENCRYPTED,
    *NODE_CLASSES,
    NODE_GROUP,
    LAUNCH_CONFIGURATION,
    PARAMETER,
    *BUCKET_ENCRYPTION,
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
    for bucket in resources:
        is_configured = bucket.urn in configured or not named.isdisjoint(bucket_names(bucket))
        if bucket.type not in AWS_BUCKETS or is_configured:
            continue
        inline = bucket.props.part("serverSideEncryptionConfiguration", "rule", "applyServerSideEncryptionByDefault")
        if not inline.has("kmsMasterKeyId"):
            yield (
                f"bucket {bucket.name} has no BucketServerSideEncryptionConfiguration, so S3 encrypts it with its own "
                "key; add one with sseAlgorithm aws:kms and your key"
            )


GUARDRAILS = [encryption_with_customer_keys, buckets_have_customer_keys]
