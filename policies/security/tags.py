"""Guardrails on tags, by which a bill is told apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from planner.guardrails.cost import without_a_budget
from policies.guardrail import guardrail, stack_guardrail
from policies.plan import PLAN_TYPE, registered_plan
from policies.resource import Resource
from policies.update import Update

BUDGETS = ("aws:budgets/budget:Budget", "gcp:billing/budget:Budget")
TAGGED: Mapping[str, str] = {
    "aws:ec2/instance:Instance": "tags",
    "aws:ec2/launchTemplate:LaunchTemplate": "tags",
    "aws:ec2/vpc:Vpc": "tags",
    "aws:ec2/natGateway:NatGateway": "tags",
    "aws:ec2/vpcEndpoint:VpcEndpoint": "tags",
    "aws:ebs/volume:Volume": "tags",
    "aws:efs/fileSystem:FileSystem": "tags",
    "aws:fsx/lustreFileSystem:LustreFileSystem": "tags",
    "aws:eks/cluster:Cluster": "tags",
    "aws:eks/nodeGroup:NodeGroup": "tags",
    "aws:s3/bucket:Bucket": "tags",
    "aws:s3/bucketV2:BucketV2": "tags",
    "aws:rds/instance:Instance": "tags",
    "aws:rds/cluster:Cluster": "tags",
    "aws:dynamodb/table:Table": "tags",
    "aws:lb/loadBalancer:LoadBalancer": "tags",
    "aws:ecr/repository:Repository": "tags",
    "aws:kms/key:Key": "tags",
    "aws:sqs/queue:Queue": "tags",
    "aws:sns/topic:Topic": "tags",
    "gcp:compute/instance:Instance": "labels",
    "gcp:compute/disk:Disk": "labels",
    "gcp:container/cluster:Cluster": "resourceLabels",
    "gcp:container/nodePool:NodePool": "nodeConfig.resourceLabels",
    "gcp:storage/bucket:Bucket": "labels",
    "gcp:sql/databaseInstance:DatabaseInstance": "settings.userLabels",
    "gcp:artifactregistry/repository:Repository": "labels",
    "gcp:tpu/v2Vm:V2Vm": "labels",
}
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
    """Labels of Google Cloud are lower case."""
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
