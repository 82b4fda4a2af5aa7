"""`diff` says update or replace as the official AWS provider does, and names the path that changed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from moto.ec2.models.instance_types import INSTANCE_TYPES

from localcloud.aws.api import ResourceType
from localcloud.aws.plugin import AwsBackend
from localcloud.aws.resources import RESOURCE_TYPES
from localcloud.aws.resources.ec2 import architecture
from localcloud.aws.schema import fields_of, inputs_of
from localcloud.provider import Change, Resource, changes

CLUSTER = "aws:eks/cluster:Cluster"
ENDPOINT = "aws:ec2/vpcEndpoint:VpcEndpoint"
GROUP = "aws:eks/nodeGroup:NodeGroup"
INSTANCE = "aws:ec2/instance:Instance"
RULE = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
EGRESS = RULE.replace("Ingress", "Egress")
LUSTRE = "aws:fsx/lustreFileSystem:LustreFileSystem"
VPC = "aws:ec2/vpc:Vpc"
ENCRYPTION = {"provider": {"keyArn": "one"}, "resources": ["secrets"]}


def diff(token: str, old: dict[str, Any], new: dict[str, Any]) -> Change:
    return AwsBackend("http://unused").diff(Resource("urn", token, "it"), "id", old, new)


IN_PLACE: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (RULE, {"cidrIpv4": "10.0.0.0/8", "fromPort": 1}, {"cidrIpv4": "10.0.0.0/16", "fromPort": 2}),
    (RULE, {"referencedSecurityGroupId": "sg-1"}, {"referencedSecurityGroupId": "sg-2"}),
    (EGRESS, {"cidrIpv4": "10.0.0.0/8"}, {"cidrIpv4": "10.0.0.0/16"}),
    (EGRESS, {"referencedSecurityGroupId": "sg-1"}, {"referencedSecurityGroupId": "sg-2"}),
    (VPC, {"instanceTenancy": "dedicated"}, {"instanceTenancy": "default"}),
    (LUSTRE, {"storageCapacity": 1200}, {"storageCapacity": 2400}),
    (LUSTRE, {"fileSystemTypeVersion": "2.12"}, {"fileSystemTypeVersion": "2.15"}),
    (INSTANCE, {"instanceType": "g5.xlarge"}, {"instanceType": "p5.48xlarge"}),
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
]


@pytest.mark.parametrize(("token", "old", "new"), IN_PLACE)
def test_a_change_in_place(token: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    change = diff(token, old, new)
    assert change.changed
    assert not change.replaced_by


REPLACING: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    (RULE, {"cidrIpv4": "10.0.0.0/8"}, {"referencedSecurityGroupId": "sg"}, "cidrIpv4 referencedSecurityGroupId"),
    (EGRESS, {"referencedSecurityGroupId": "sg"}, {"cidrIpv4": "10.0.0.0/8"}, "cidrIpv4 referencedSecurityGroupId"),
    (VPC, {"instanceTenancy": "default"}, {"instanceTenancy": "dedicated"}, "instanceTenancy"),
    (LUSTRE, {"storageCapacity": 2400}, {"storageCapacity": 1200}, "storageCapacity"),
    (LUSTRE, {"fileSystemTypeVersion": "2.15"}, {"fileSystemTypeVersion": "2.12"}, "fileSystemTypeVersion"),
    (INSTANCE, {"instanceType": "g5.xlarge"}, {"instanceType": "g5g.xlarge"}, "instanceType"),
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
]


@pytest.mark.parametrize(("token", "old", "new", "replaced"), REPLACING)
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


OF_THE_PROVIDER: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "replacements.json").read_text())
"""By type: the source of terraform-provider-aws, which the official plugin wraps, with its commit; the inputs that its
schema marks ForceNew or RequiresReplace (`replaces`), and those that replace under a condition, in words.
"""
BEFORE = {"string": "one", "integer": 76, "number": 7.5, "boolean": False, "any": "one"}
AFTER = {"string": "another", "integer": 77, "number": 8.5, "boolean": True, "any": "another"}


def leaves(kind: ResourceType) -> Iterator[tuple[str, Any]]:
    """Path and type of each carried input, or of its fields where it is an object or a list of objects."""
    for name in kind.carried - {"tags"}:
        yield from _leaves(kind, name, inputs_of(kind.token)[name])


def _leaves(kind: ResourceType, path: str, expected: Any) -> Iterator[tuple[str, Any]]:
    if path in kind.refused:
        return
    inner = expected[1] if isinstance(expected, list) and expected[0] == "list" else expected
    fields = fields_of(inner)
    for name, each in fields.items():
        yield from _leaves(kind, f"{path}.{name}", each)
    if not fields:
        yield path, expected


def of_type(expected: Any, scalars: Mapping[str, Any]) -> Any:
    """A value of a scalar, list or map type."""
    if isinstance(expected, list):
        inner = of_type(expected[1], scalars)
        return [inner] if expected[0] == "list" else {"key": inner}
    return scalars[expected]


def placed(token: str, path: str, value: Any) -> dict[str, Any]:
    """Inputs that have a value at a path and nothing else."""
    name, *rest = path.split(".")
    return {name: _placed(inputs_of(token)[name], rest, value)}


def _placed(expected: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    if isinstance(expected, list):
        return [_placed(expected[1], path, value)]
    name, *rest = path
    return {name: _placed(fields_of(expected)[name], rest, value)}


def is_at(path: str, places: Iterable[str]) -> bool:
    """Whether a path is one of some places or inside one."""
    return any(f"{path}.".startswith(f"{place}.") for place in places)


def test_the_table_of_the_provider_has_each_served_type_and_names_inputs_of_pulumi_aws() -> None:
    assert OF_THE_PROVIDER.keys() == RESOURCE_TYPES.keys()
    for token, row in OF_THE_PROVIDER.items():
        assert re.fullmatch(r"internal/service/\w+/\w+\.go [0-9a-f]{40}", f"{row['source']} {row['commit']}")
        for path in [*row["replaces"], *row["conditional"]]:
            name = path.partition(".")[0]
            assert name in inputs_of(token)
            assert name not in RESOURCE_TYPES[token].carried or placed(token, path, "value")


@pytest.mark.parametrize("token", sorted(RESOURCE_TYPES))
def test_each_input_updates_or_replaces_as_in_the_provider(token: str) -> None:
    row, kind = OF_THE_PROVIDER[token], RESOURCE_TYPES[token]
    for path, expected in leaves(kind):
        if is_at(path, row["conditional"]):
            continue
        given = (placed(token, path, of_type(expected, scalars)) for scalars in (BEFORE, AFTER))
        before, after = ({**kind.defaults, **each} for each in given)
        name = path.partition(".")[0]
        change = diff(token, before, after)
        assert change.changed == [name]
        assert bool(change.replaced_by) == is_at(path, row["replaces"]), path
        if expected != "boolean":  # an absent one is the same as one that has its default
            assert bool(diff(token, {**kind.defaults}, after).replaced_by) == is_at(path, row["replaces"]), (
                f"{path} was absent"
            )


CARRIED_CONDITIONS = sorted(
    (token, path)
    for token, row in OF_THE_PROVIDER.items()
    for path in row["conditional"]
    if path.partition(".")[0] in RESOURCE_TYPES[token].carried
)


@pytest.mark.parametrize(("token", "path"), CARRIED_CONDITIONS)
def test_each_condition_of_the_provider_is_tried_both_ways_above(token: str, path: str) -> None:
    both = [[case[:3] for case in cases if case[0] == token] for cases in (IN_PLACE, REPLACING)]
    for cases in both:
        assert any(old.get(path) != new.get(path) for _, old, new in cases)


def test_the_architecture_of_an_instance_type_is_told_from_its_name_as_aws_has_it() -> None:
    for name, said in INSTANCE_TYPES.items():
        assert architecture(name) in said["ProcessorInfo"]["SupportedArchitectures"], name


def test_an_absent_block_is_the_same_as_one_without_fields() -> None:
    assert not changes({"labels": {}}, {}, frozenset({"labels"})).changed
