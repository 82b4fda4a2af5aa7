"""`diff` says update or replace as the official AWS provider does, and names the path that changed."""

from __future__ import annotations

from typing import Any

import pytest

from localcloud.aws.plugin import AwsBackend
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
        (CLUSTER, {"accessConfig": {"authenticationMode": "API_AND_CONFIG_MAP"}}, {"accessConfig": {}}),
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


def test_an_absent_block_is_the_same_as_one_without_fields() -> None:
    assert not changes({"labels": {}}, {}, frozenset({"labels"})).changed
