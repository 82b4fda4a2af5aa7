"""Guardrails on tags, by which a bill is told apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from planner.guardrails.cost import without_a_budget
from policies.guardrail import guardrail, stack_guardrail
from policies.plan import PLAN_TYPE, registered_plan
from policies.resource import Resource
from policies.update import Update

BUDGETS = ("aws:budgets/budget:Budget", "gcp:billing/budget:Budget")
_BY_FIELD: Mapping[str, tuple[str, ...]] = {
    "tags": (
        "aws:alb/loadBalancer:LoadBalancer",
        "aws:autoscaling/group:Group",
        "aws:batch/computeEnvironment:ComputeEnvironment",
        "aws:bedrock/customModel:CustomModel",
        "aws:bedrock/provisionedModelThroughput:ProvisionedModelThroughput",
        "aws:cloudwatch/logGroup:LogGroup",
        "aws:cloudwatch/metricAlarm:MetricAlarm",
        "aws:dax/cluster:Cluster",
        "aws:dms/replicationInstance:ReplicationInstance",
        "aws:docdb/cluster:Cluster",
        "aws:docdb/clusterInstance:ClusterInstance",
        "aws:docdb/elasticCluster:ElasticCluster",
        "aws:dynamodb/table:Table",
        "aws:ebs/snapshot:Snapshot",
        "aws:ebs/volume:Volume",
        "aws:ec2/ami:Ami",
        "aws:ec2/capacityBlockReservation:CapacityBlockReservation",
        "aws:ec2/capacityReservation:CapacityReservation",
        "aws:ec2/dedicatedHost:DedicatedHost",
        "aws:ec2/eip:Eip",
        "aws:ec2/fleet:Fleet",
        "aws:ec2/instance:Instance",
        "aws:ec2/launchTemplate:LaunchTemplate",
        "aws:ec2/natGateway:NatGateway",
        "aws:ec2/spotFleetRequest:SpotFleetRequest",
        "aws:ec2/spotInstanceRequest:SpotInstanceRequest",
        "aws:ec2/vpc:Vpc",
        "aws:ec2/vpcEndpoint:VpcEndpoint",
        "aws:ec2/vpnConnection:VpnConnection",
        "aws:ec2transitgateway/transitGateway:TransitGateway",
        "aws:ec2transitgateway/vpcAttachment:VpcAttachment",
        "aws:ecr/repository:Repository",
        "aws:ecs/cluster:Cluster",
        "aws:ecs/service:Service",
        "aws:ecs/taskDefinition:TaskDefinition",
        "aws:efs/fileSystem:FileSystem",
        "aws:eks/cluster:Cluster",
        "aws:eks/fargateProfile:FargateProfile",
        "aws:eks/nodeGroup:NodeGroup",
        "aws:elasticache/cluster:Cluster",
        "aws:elasticache/replicationGroup:ReplicationGroup",
        "aws:elasticache/serverlessCache:ServerlessCache",
        "aws:elasticsearch/domain:Domain",
        "aws:elb/loadBalancer:LoadBalancer",
        "aws:emr/cluster:Cluster",
        "aws:emrserverless/application:Application",
        "aws:fsx/fileCache:FileCache",
        "aws:fsx/lustreFileSystem:LustreFileSystem",
        "aws:fsx/ontapFileSystem:OntapFileSystem",
        "aws:fsx/openZfsFileSystem:OpenZfsFileSystem",
        "aws:fsx/windowsFileSystem:WindowsFileSystem",
        "aws:glue/job:Job",
        "aws:kinesis/stream:Stream",
        "aws:kms/externalKey:ExternalKey",
        "aws:kms/key:Key",
        "aws:kms/replicaKey:ReplicaKey",
        "aws:lambda/function:Function",
        "aws:lb/loadBalancer:LoadBalancer",
        "aws:memorydb/cluster:Cluster",
        "aws:mq/broker:Broker",
        "aws:msk/cluster:Cluster",
        "aws:msk/serverlessCluster:ServerlessCluster",
        "aws:neptune/cluster:Cluster",
        "aws:neptune/clusterInstance:ClusterInstance",
        "aws:neptunegraph/graph:Graph",
        "aws:networkfirewall/firewall:Firewall",
        "aws:opensearch/domain:Domain",
        "aws:opensearch/serverlessCollection:ServerlessCollection",
        "aws:rds/cluster:Cluster",
        "aws:rds/clusterInstance:ClusterInstance",
        "aws:rds/instance:Instance",
        "aws:redshift/cluster:Cluster",
        "aws:redshiftserverless/workgroup:Workgroup",
        "aws:route53/healthCheck:HealthCheck",
        "aws:route53/zone:Zone",
        "aws:s3/bucket:Bucket",
        "aws:s3/bucketV2:BucketV2",
        "aws:sagemaker/app:App",
        "aws:sagemaker/domain:Domain",
        "aws:sagemaker/endpoint:Endpoint",
        "aws:sagemaker/endpointConfiguration:EndpointConfiguration",
        "aws:sagemaker/featureGroup:FeatureGroup",
        "aws:sagemaker/mlflowTrackingServer:MlflowTrackingServer",
        "aws:sagemaker/model:Model",
        "aws:sagemaker/notebookInstance:NotebookInstance",
        "aws:sagemaker/trainingJob:TrainingJob",
        "aws:secretsmanager/secret:Secret",
        "aws:sns/topic:Topic",
        "aws:sqs/queue:Queue",
        "aws:timestreaminfluxdb/dbInstance:DbInstance",
    ),
    "labels": (
        "gcp:alloydb/cluster:Cluster",
        "gcp:alloydb/instance:Instance",
        "gcp:artifactregistry/repository:Repository",
        "gcp:bigquery/dataset:Dataset",
        "gcp:bigquery/reservation:Reservation",
        "gcp:bigtable/instance:Instance",
        "gcp:cloudfunctionsv2/function:Function",
        "gcp:cloudrunv2/job:Job",
        "gcp:cloudrunv2/service:Service",
        "gcp:composer/environment:Environment",
        "gcp:compute/address:Address",
        "gcp:compute/disk:Disk",
        "gcp:compute/forwardingRule:ForwardingRule",
        "gcp:compute/globalAddress:GlobalAddress",
        "gcp:compute/globalForwardingRule:GlobalForwardingRule",
        "gcp:compute/image:Image",
        "gcp:compute/instance:Instance",
        "gcp:compute/instanceFromMachineImage:InstanceFromMachineImage",
        "gcp:compute/instanceFromTemplate:InstanceFromTemplate",
        "gcp:compute/instanceTemplate:InstanceTemplate",
        "gcp:compute/regionDisk:RegionDisk",
        "gcp:compute/regionInstanceTemplate:RegionInstanceTemplate",
        "gcp:compute/snapshot:Snapshot",
        "gcp:compute/storagePool:StoragePool",
        "gcp:dataflow/job:Job",
        "gcp:dataproc/cluster:Cluster",
        "gcp:filestore/instance:Instance",
        "gcp:kms/cryptoKey:CryptoKey",
        "gcp:lustre/instance:Instance",
        "gcp:managedkafka/cluster:Cluster",
        "gcp:memcache/instance:Instance",
        "gcp:memorystore/instance:Instance",
        "gcp:pubsub/topic:Topic",
        "gcp:redis/instance:Instance",
        "gcp:secretmanager/secret:Secret",
        "gcp:storage/bucket:Bucket",
        "gcp:tpu/v2Vm:V2Vm",
        "gcp:vertex/aiEndpoint:AiEndpoint",
        "gcp:workbench/instance:Instance",
    ),
    "resourceLabels": ("gcp:container/cluster:Cluster",),
    "nodeConfig.resourceLabels": ("gcp:container/nodePool:NodePool",),
    "settings.userLabels": ("gcp:sql/databaseInstance:DatabaseInstance",),
}
TAGGED: Mapping[str, str] = {each: field for field, kinds in _BY_FIELD.items() for each in kinds}
"""What is billed and can be tagged, and where."""


@guardrail("required-tags", *TAGGED, settings=("tags_required",))
def required_tags(resource: Resource, update: Update) -> Iterator[str]:
    """What is billed carries the tags that the team asks for."""
    path = TAGGED[resource.type]
    tags = resource.props.part(*path.split("."))
    if missing := [
        name for name in update.settings.tags_required if not tags.is_unknown() and not _has(tags.value, name)
    ]:
        yield f"{path} lacks {', '.join(missing)}; set it there, or in fusion:tags for Fusion's components"


def _has(tags: object, name: str) -> bool:
    """Labels of Google Cloud are lower case; an Auto Scaling group lists its tags."""
    if isinstance(tags, list):
        tags = {each.get("key"): each.get("value") for each in tags if isinstance(each, Mapping)}
    return isinstance(tags, Mapping) and any(str(key).lower() == name.lower() and tags[key] for key in tags)


def _declared(plan: Resource, update: Update) -> Iterator[str]:
    yield from without_a_budget(registered_plan(plan), update.settings, update.catalog)


@stack_guardrail("budget-with-alarms", PLAN_TYPE, judge=_declared, settings=("budget_required",))
def budget_with_alarms(resources: Sequence[Resource], update: Update) -> Iterator[str]:
    """The stack has a budget that tells somebody before it is spent."""
    if not update.settings.budget_required:
        return
    budgets = [each for each in resources if each.type in BUDGETS]
    if not budgets:
        yield "the stack has no budget; add one with alarms, such as fusion:budget_alarms with emails"
    elif not any(each.props.has("notifications") or each.props.has("thresholdRules") for each in budgets):
        yield f"the budget {budgets[0].name} has no alarm; add a threshold and whom to tell"


GUARDRAILS = [required_tags, budget_with_alarms]
