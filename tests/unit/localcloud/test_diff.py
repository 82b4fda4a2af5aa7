"""`diff` says update or replace as the official AWS provider does, and names the path that changed."""

from __future__ import annotations

from typing import Any

import pytest

from localcloud.aws.plugin import AwsBackend
from localcloud.aws.resources import RESOURCE_TYPES
from localcloud.aws.schema import fields_of, inputs_of
from localcloud.provider import Change, Resource, changes

CLUSTER = "aws:eks/cluster:Cluster"
ENDPOINT = "aws:ec2/vpcEndpoint:VpcEndpoint"
GROUP = "aws:eks/nodeGroup:NodeGroup"
INSTANCE = "aws:ec2/instance:Instance"
RULE = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
VPC = "aws:ec2/vpc:Vpc"
ENCRYPTION = {"provider": {"keyArn": "one"}, "resources": ["secrets"]}


def diff(token: str, old: dict[str, Any], new: dict[str, Any]) -> Change:
    return AwsBackend("http://unused").diff(Resource("urn", token, "it"), "id", old, new)


@pytest.mark.parametrize(
    ("token", "old", "new"),
    [
        (RULE, {"cidrIpv4": "10.0.0.0/8", "fromPort": 1}, {"cidrIpv4": "10.0.0.0/16", "fromPort": 2}),
        (RULE, {"referencedSecurityGroupId": "sg-1"}, {"referencedSecurityGroupId": "sg-2"}),
        (VPC, {"instanceTenancy": "dedicated"}, {"instanceTenancy": "default"}),
        (INSTANCE, {"rootBlockDevice": {"volumeSize": 8}}, {"rootBlockDevice": {"volumeSize": 9}}),
        (GROUP, {"launchTemplate": {"id": "lt", "version": "1"}}, {"launchTemplate": {"id": "lt", "version": "2"}}),
        (CLUSTER, {}, {"encryptionConfig": ENCRYPTION}),
        (CLUSTER, {}, {"accessConfig": {"bootstrapClusterCreatorAdminPermissions": True}}),
        (CLUSTER, {"encryptionConfig": ENCRYPTION}, {"encryptionConfig": ENCRYPTION | {"provider": {"keyArn": "two"}}}),
        (CLUSTER, {}, {"kubernetesNetworkConfig": {"elasticLoadBalancing": {"enabled": True}}}),
        (
            ENDPOINT,
            {"vpcEndpointType": "Interface", "privateDnsEnabled": False},
            {"vpcEndpointType": "Interface", "privateDnsEnabled": True},
        ),
    ],
)
def test_a_change_in_place(token: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    change = diff(token, old, new)
    assert change.changed
    assert not change.replaced_by


@pytest.mark.parametrize(
    ("token", "old", "new", "replaced"),
    [
        (RULE, {"cidrIpv4": "10.0.0.0/8"}, {"referencedSecurityGroupId": "sg"}, "cidrIpv4 referencedSecurityGroupId"),
        (VPC, {"instanceTenancy": "default"}, {"instanceTenancy": "dedicated"}, "instanceTenancy"),
        (INSTANCE, {}, {"rootBlockDevice": {"encrypted": True}}, "rootBlockDevice"),
        (GROUP, {"launchTemplate": {"id": "lt-1"}}, {"launchTemplate": {"id": "lt-2"}}, "launchTemplate"),
        (CLUSTER, {"encryptionConfig": ENCRYPTION}, {}, "encryptionConfig"),
        (CLUSTER, {}, {"accessConfig": {"bootstrapClusterCreatorAdminPermissions": False}}, "accessConfig"),
        (CLUSTER, {}, {"kubernetesNetworkConfig": {"ipFamily": "ipv6"}}, "kubernetesNetworkConfig"),
        (
            ENDPOINT,
            {"vpcEndpointType": "Gateway", "privateDnsEnabled": False},
            {"vpcEndpointType": "Gateway", "privateDnsEnabled": True},
            "privateDnsEnabled",
        ),
    ],
)
def test_a_change_that_replaces(token: str, old: dict[str, Any], new: dict[str, Any], replaced: str) -> None:
    assert diff(token, old, new).replaced_by == replaced.split()


def test_details_name_the_nested_path_and_what_happened_to_it() -> None:
    old = {"scaling": {"max": 1, "min": 0}, "types": ["a"], "tags": {"a.b": "1"}}
    new = {"scaling": {"max": 2}, "types": ["a", "b"], "tags": {"a.b": "2"}}
    change = changes(old, new, frozenset({"scaling.min"}))
    assert change.details == {
        "scaling.max": "UPDATE",
        "scaling.min": "DELETE",
        'tags["a.b"]': "UPDATE",
        "types[1]": "ADD",
    }
    assert change.changed == ["scaling", "tags", "types"]
    assert change.replaced_by == ["scaling"]
    assert change.replacing_details == {"scaling.min"}


@pytest.mark.parametrize(
    ("token", "old", "new"),
    [
        ("aws:ec2/subnet:Subnet", {"availabilityZone": "us-east-1a"}, {}),
        (VPC, {"enableDnsHostnames": True}, {}),
        (CLUSTER, {"version": "1.34", "accessConfig": {"authenticationMode": "API"}}, {"accessConfig": {}}),
        (GROUP, {"amiType": "AL2023_x86_64_NVIDIA", "instanceTypes": ["g5.xlarge"]}, {}),
        (INSTANCE, {"rootBlockDevice": {"volumeSize": 8, "encrypted": True}}, {"rootBlockDevice": {"volumeSize": 8}}),
        ("aws:ecr/repository:Repository", {"encryptionConfigurations": [{"encryptionType": "KMS"}]}, {}),
    ],
)
def test_what_aws_fills_in_may_be_left_out_later(token: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    assert not diff(token, old, new).changed


def test_the_order_of_a_set_means_nothing_and_that_of_a_list_does() -> None:
    nodes = {"subnetIds": ["a", "b"], "taints": [{"key": "a"}, {"key": "b"}], "instanceTypes": ["x", "y"]}
    assert not diff(GROUP, nodes, nodes | {"subnetIds": ["b", "a"], "taints": [{"key": "b"}, {"key": "a"}]}).changed
    assert diff(GROUP, nodes, nodes | {"instanceTypes": ["y", "x"]}).replaced_by == ["instanceTypes"]


def test_documents_are_compared_by_what_they_say() -> None:
    policy = "aws:iam/policy:Policy"
    assert not diff(policy, {"policy": '{"a": 1, "b": [2]}'}, {"policy": '{"b":[2],"a":1}'}).changed
    assert diff(policy, {"policy": '{"a": 1}'}, {"policy": '{"a": 2}'}).changed


OTHER = {"string": "another", "integer": 77, "number": 7.5, "boolean": True, "any": "another"}


def other_value(expected: Any) -> Any:
    """Some value of a type of the schema."""
    if isinstance(expected, list):
        return [other_value(expected[1])] if expected[0] == "list" else {"another": other_value(expected[1])}
    return {name: other_value(each) for name, each in fields_of(expected).items()} or OTHER[expected]


CONDITIONAL = {  # how the values matter is in the tests above
    (VPC, "instanceTenancy"),
    (ENDPOINT, "privateDnsEnabled"),
    (CLUSTER, "encryptionConfig"),
    (CLUSTER, "accessConfig"),
    (CLUSTER, "kubernetesNetworkConfig"),
}


@pytest.mark.parametrize("token", sorted(RESOURCE_TYPES))
def test_each_input_updates_or_replaces_as_it_is_declared(token: str) -> None:
    kind = RESOURCE_TYPES[token]
    whole = {"vpcEndpointType": "Interface"} if token == ENDPOINT else {}
    for name in sorted(kind.carried - {"tags"} - {each for type_, each in CONDITIONAL if type_ == token}):
        change = diff(token, whole, whole | {name: other_value(inputs_of(token)[name])})
        assert change.changed == [name]
        replacing = {path.partition(".")[0] for path in kind.replace_on} | SOURCES_OF_RULES
        assert bool(change.replaced_by) == (name in replacing)


OF_THE_PROVIDER = {
    "aws:budgets/budget:Budget": "name",
    "aws:cloudwatch/metricAlarm:MetricAlarm": "name",
    "aws:dynamodb/table:Table": "hashKey name rangeKey",
    "aws:ec2/flowLog:FlowLog": (
        "iamRoleArn logDestination logDestinationType logFormat maxAggregationInterval subnetId trafficType vpcId"
    ),
    "aws:ec2/launchTemplate:LaunchTemplate": "name",
    "aws:ec2/route:Route": "destinationCidrBlock routeTableId",
    "aws:ec2/subnet:Subnet": "availabilityZone cidrBlock vpcId",
    "aws:ecr/lifecyclePolicy:LifecyclePolicy": "policy repository",
    "aws:ecr/repository:Repository": "encryptionConfigurations name",
    "aws:eks/accessEntry:AccessEntry": "clusterName principalArn type",
    "aws:eks/addon:Addon": "addonName clusterName",
    "aws:eks/podIdentityAssociation:PodIdentityAssociation": "clusterName namespace serviceAccount",
    "aws:kms/key:Key": "customerMasterKeySpec keyUsage multiRegion",
    "aws:s3/bucketPolicy:BucketPolicy": "bucket",
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": "bucket",
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": "bucket",
    "aws:s3/bucketVersioning:BucketVersioning": "bucket",
    "aws:sns/topic:Topic": "name",
    "aws:sqs/queue:Queue": "fifoQueue name",
    "aws:ssm/parameter:Parameter": "name",
}
"""The inputs that terraform-provider-aws, which the official plugin wraps, marks ForceNew or RequiresReplace; read in
its schemas (`internal/service/<service>/<resource>.go`) on 2026-11-26, of what the local cloud carries out.
"""


@pytest.mark.parametrize("token", sorted(OF_THE_PROVIDER))
def test_what_replaces_is_what_the_providers_own_schema_says(token: str) -> None:
    replacing = [
        name
        for name in sorted(RESOURCE_TYPES[token].carried - {"tags"})
        if diff(token, {}, {name: other_value(inputs_of(token)[name])}).replaced_by
    ]
    assert replacing == OF_THE_PROVIDER[token].split()


SOURCES_OF_RULES = {"cidrIpv4", "referencedSecurityGroupId"}


def test_an_absent_block_is_the_same_as_one_without_fields() -> None:
    assert not changes({"labels": {}}, {}, frozenset({"labels"})).changed
