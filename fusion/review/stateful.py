"""Which resources hold what can't be made again: the update that deletes or replaces one is told first."""

from __future__ import annotations

from collections.abc import Mapping

HOLDS: Mapping[str, str] = {
    "aws:backup/vault": "its backups",
    "aws:cloudwatch/logGroup": "its logs",
    "aws:cognito/userPool": "its users",
    "aws:docdb/cluster": "its databases",
    "aws:docdb/clusterInstance": "its databases",
    "aws:dynamodb/globalTable": "its items",
    "aws:dynamodb/table": "its items",
    "aws:ebs/snapshot": "its data",
    "aws:ebs/volume": "its data",
    "aws:ecr/repository": "its images",
    "aws:ecrpublic/repository": "its images",
    "aws:efs/fileSystem": "its files",
    "aws:eks/cluster": "everything that runs on it",
    "aws:elasticache/cluster": "what it keeps",
    "aws:elasticache/replicationGroup": "what it keeps",
    "aws:elasticsearch/domain": "its indices",
    "aws:fsx/lustreFileSystem": "its files",
    "aws:fsx/ontapFileSystem": "its files",
    "aws:fsx/ontapVolume": "its files",
    "aws:fsx/openZfsFileSystem": "its files",
    "aws:fsx/openZfsVolume": "its files",
    "aws:fsx/windowsFileSystem": "its files",
    "aws:kinesis/stream": "its records",
    "aws:kms/key": "everything that it encrypts",
    "aws:kms/replicaKey": "everything that it encrypts",
    "aws:memorydb/cluster": "what it keeps",
    "aws:msk/cluster": "its topics",
    "aws:neptune/cluster": "its databases",
    "aws:opensearch/domain": "its indices",
    "aws:rds/cluster": "its databases",
    "aws:rds/globalCluster": "its databases",
    "aws:rds/instance": "its databases",
    "aws:redshift/cluster": "its databases",
    "aws:s3/bucket": "its objects",
    "aws:s3/directoryBucket": "its objects",
    "aws:s3tables/tableBucket": "its tables",
    "aws:secretsmanager/secret": "its values",
    "aws:sqs/queue": "its messages",
    "aws:timestreamwrite/table": "its records",
    "gcp:alloydb/cluster": "its databases",
    "gcp:artifactregistry/repository": "its images",
    "gcp:bigquery/dataset": "its tables",
    "gcp:bigquery/table": "its rows",
    "gcp:bigtable/instance": "its tables",
    "gcp:bigtable/table": "its rows",
    "gcp:compute/disk": "its data",
    "gcp:compute/regionDisk": "its data",
    "gcp:compute/snapshot": "its data",
    "gcp:container/cluster": "everything that runs on it",
    "gcp:filestore/instance": "its files",
    "gcp:firestore/database": "its documents",
    "gcp:kms/cryptoKey": "everything that it encrypts",
    "gcp:kms/keyRing": "everything that its keys encrypt",
    "gcp:logging/projectBucketConfig": "its logs",
    "gcp:parallelstore/instance": "its files",
    "gcp:pubsub/subscription": "its messages",
    "gcp:redis/instance": "what it keeps",
    "gcp:secretmanager/secret": "its values",
    "gcp:spanner/database": "its tables",
    "gcp:spanner/instance": "its databases",
    "gcp:sql/database": "its tables",
    "gcp:sql/databaseInstance": "its databases",
    "gcp:storage/bucket": "its objects",
    "kubernetes:CustomResourceDefinition": "every object of its kind",
    "kubernetes:Namespace": "everything in it",
    "kubernetes:PersistentVolume": "its data",
    "kubernetes:PersistentVolumeClaim": "its data",
    "kubernetes:StatefulSet": "its pods, and their claims as its retention policy says",
}
"""By module and type: what is lost with it, said after "with". Versions such as BucketV2 count as what they are of."""


def held_by(resource_type: str) -> str | None:
    """What a resource of that type holds; None where it can be made again as it was."""
    package, _, rest = resource_type.partition(":")
    module, _, kind = rest.rpartition(":")
    if package == "kubernetes":
        return HOLDS.get(f"kubernetes:{kind}")
    return HOLDS.get(f"{package}:{module.removesuffix('V2')}")
