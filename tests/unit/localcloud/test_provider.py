"""What the provider says to the engine and to the user."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcloud.aws.plugin import AwsBackend
from localcloud.aws.resources import RESOURCE_TYPES
from localcloud.aws.schema import fields_of, inputs_of, schema
from localcloud.provider import Resource
from localcloud.values import UNKNOWN, from_struct, to_struct
from tests.unit.localcloud.conftest import Provider, refused

ROOT = Path(__file__).parents[3]

VPC = "aws:ec2/vpc:Vpc"
NETWORK = {"cidrBlock": "10.0.0.0/16"}


NODES = {
    "clusterName": "it",
    "nodeRoleArn": "arn",
    "subnetIds": ["subnet-1"],
    "scalingConfig": {"minSize": 0, "desiredSize": 0, "maxSize": 1},
}
CLUSTER = {"roleArn": "arn:aws:iam::123456789012:role/it", "vpcConfig": {"subnetIds": ["subnet-1"]}}
TABLE = {"attributes": [{"name": "run", "type": "S"}], "hashKey": "run", "billingMode": "PAY_PER_REQUEST"}
RULE = {"id": "old", "status": "Enabled", "expiration": {"days": 1}}


@pytest.mark.parametrize(
    ("token", "inputs", "wrong", "reason"),
    [
        (VPC, NETWORK | {"cidr": "10.0.0.0/8"}, "cidr", "no such input"),
        (VPC, NETWORK | {"ipv6CidrBlock": "::/56"}, "ipv6CidrBlock", "does not carry this input"),
        (VPC, {"cidrBlock": "10.0.0.0/99"}, "cidrBlock", "expected a CIDR block"),
        (VPC, NETWORK | {"instanceTenancy": "shared"}, "instanceTenancy", "expected one of default, dedicated"),
        (VPC, NETWORK | {"enableDnsSupport": "yes"}, "enableDnsSupport", "expected boolean"),
        (VPC, NETWORK | {"tags": {"a": 1}}, "tags.a", "expected string"),
        ("aws:ec2/subnet:Subnet", NETWORK, "vpcId", "required"),
        ("aws:s3/bucket:Bucket", {"bucket": "Upper_Case"}, "bucket", "lower-case letters"),
        ("aws:iam/rolePolicy:RolePolicy", {"role": "r", "policy": "{"}, "policy", "expected a JSON document"),
        (VPC, {}, "cidrBlock", "required"),
        (VPC, {"cidrBlock": "10.0.0.0/8"}, "cidrBlock", "expected a block from /16 to /28"),
        ("aws:ec2/route:Route", {"routeTableId": "rtb", "destinationCidrBlock": "0.0.0.0/0"}, "gatewayId", "exactly one of"),
        ("aws:ebs/volume:Volume", {"availabilityZone": "a", "size": 8, "type": "gp9"}, "type", "expected one of standard"),
        ("aws:eks/cluster:Cluster", CLUSTER | {"version": "1.99"}, "version", "expected a minor version of Kubernetes from 1.25 to 1."),
        ("aws:eks/nodeGroup:NodeGroup", NODES | {"amiType": "AL3"}, "amiType", "an EKS image such as"),
        ("aws:eks/nodeGroup:NodeGroup", NODES | {"scalingConfig": {"minSize": 3, "desiredSize": 1, "maxSize": 2}}, "scalingConfig", "minSize ≤ desiredSize"),
        ("aws:ec2/launchTemplate:LaunchTemplate", {"metadataOptions": {"httpTokens": "yes"}}, "metadataOptions", "expected optional or required"),
        ("aws:ec2/launchTemplate:LaunchTemplate", {"userData": "not base64!"}, "userData", "expected base64"),
        ("aws:sqs/queue:Queue", {"delaySeconds": 901}, "delaySeconds", "expected 0 to 900 seconds"),
        ("aws:dynamodb/table:Table", TABLE | {"billingMode": "PROVISIONED"}, "readCapacity", "required with the billing mode"),
        ("aws:dynamodb/table:Table", TABLE | {"rangeKey": "step"}, "attributes", "expected hashKey and rangeKey"),
        ("aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration", {"bucket": "b", "rules": [RULE | {"filter": {"objectSizeLessThan": 5}}]}, "rules[0].filter.objectSizeLessThan", "does not carry this field"),
        ("aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration", {"bucket": "b", "rules": [RULE | {"status": "On"}]}, "rules", "expected Enabled or Disabled"),
        ("aws:cloudwatch/logGroup:LogGroup", {"retentionInDays": 8}, "retentionInDays", "expected one of 0, 1, 3"),
    ],
)  # fmt: skip
def test_a_wrong_input_is_named_with_what_was_expected(
    provider: Provider, token: str, inputs: dict[str, Any], wrong: str, reason: str
) -> None:
    _, failures = provider.check(token, inputs)
    assert wrong in failures
    assert reason in failures[wrong]


anything = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)


def values_of(expected: Any) -> st.SearchStrategy[Any]:
    """Values of a type of the schema, right or nearly so."""
    if isinstance(expected, list):
        inner = values_of(expected[1])
        keys = st.text(max_size=3)
        return st.lists(inner, max_size=2) if expected[0] == "list" else st.dictionaries(keys, inner, max_size=2)
    if fields := fields_of(expected):
        return st.fixed_dictionaries({}, optional={name: values_of(each) for name, each in fields.items()})
    texts = st.text(max_size=5) | st.sampled_from(["10.0.0.0", "::/20", "{}", "[1]", "name.fifo", "2027-01-01"])
    scalar = {"string": texts, "boolean": st.booleans(), "integer": st.integers(), "number": st.floats(allow_nan=False)}
    return scalar.get(expected, anything) | st.just(UNKNOWN)


@given(st.sampled_from(sorted(RESOURCE_TYPES)), st.data())
def test_whatever_comes_in_a_check_answers_and_never_breaks(token: str, data: st.DataObject) -> None:
    names = {name: values_of(inputs_of(token)[name]) | anything for name in RESOURCE_TYPES[token].carried}
    required = {name: names[name] for name in schema()["resources"][token]["required"] if name in names}
    inputs = data.draw(
        st.fixed_dictionaries(required, optional={each: names[each] for each in names.keys() - required})
    )
    checked, failures = AwsBackend("http://unused").check(Resource("urn", token, "it"), {}, inputs, b"")
    assert checked.keys() >= {name for name, value in inputs.items() if value is not None}
    assert all(failure.property and failure.reason for failure in failures)


def test_a_type_or_function_that_is_not_served_says_so(provider: Provider) -> None:
    assert "the local cloud does not serve this type" in refused(provider.check, "aws:rds/cluster:Cluster", {})
    assert "the local cloud does not serve it" in refused(provider.invoke, "aws:ssm/getParameter:getParameter")


def test_an_unknown_stays_unknown_in_a_preview(provider: Provider) -> None:
    planned = provider.create("aws:ec2/subnet:Subnet", {"vpcId": UNKNOWN, "cidrBlock": "10.0.1.0/24"}, preview=True)
    assert planned.id == ""
    assert planned.outputs["vpcId"] is UNKNOWN
    assert planned.outputs["arn"] is UNKNOWN
    assert planned.outputs["cidrBlock"] == "10.0.1.0/24"


def test_an_automatic_name_comes_from_the_engines_seed_and_stays(provider: Provider) -> None:
    first = provider.checked("aws:iam/role:Role", {"assumeRolePolicy": "{}"}, "nodes")
    assert first["name"] == "nodes-0101010"
    later = provider.checked("aws:iam/role:Role", {"assumeRolePolicy": "{}"}, "nodes", old={"name": "nodes-fedcba9"})
    assert later["name"] == "nodes-fedcba9"


def test_default_tags_join_the_resources_own(home: Any) -> None:
    provider = Provider(defaultTags=json.dumps({"tags": {"owner": "platform", "team": "none"}}))
    made = provider.create(VPC, NETWORK | {"tags": {"team": "ml"}}, "tagged")
    assert made.outputs["tags"] == {"team": "ml"}
    assert made.outputs["tagsAll"] == {"owner": "platform", "team": "ml"}
    kept = provider.read(made)
    assert kept is not None
    assert kept.inputs == made.inputs
    provider.delete(made)


def test_the_region_of_a_resource_goes_before_that_of_the_provider(provider: Provider) -> None:
    made = provider.create(VPC, NETWORK | {"region": "eu-west-1"}, "far")
    assert made.outputs["region"] == "eu-west-1"
    assert ":eu-west-1:" in made.outputs["arn"]
    provider.delete(made)
    assert provider.read(made) is None


def test_functions_that_programs_ask(provider: Provider) -> None:
    assert provider.invoke("aws:index/getCallerIdentity:getCallerIdentity")["accountId"] == "123456789012"
    assert provider.invoke("aws:index/getRegion:getRegion")["region"] == "us-east-1"
    zones = provider.invoke("aws:index/getAvailabilityZones:getAvailabilityZones")
    assert "us-east-1a" in zones["names"]


scalars = st.booleans() | st.integers(-(2**53), 2**53) | st.text() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(st.dictionaries(st.text(), values))
def test_values_come_back_from_the_wire_as_they_were(properties: dict[str, Any]) -> None:
    assert from_struct(to_struct(properties)) == properties


@pytest.mark.parametrize(
    "plugin", ["localcloud.aws.plugin", "localcloud.gcp.plugin", "localcloud.kubernetes.plugin", "host"]
)
def test_what_a_command_starts_does_not_import_the_sdk_and_leaves_it_as_it_is(plugin: str) -> None:
    script = f"""
import sys
sys.path.append("tools/language_host")
import {plugin}
assert "pulumi" not in sys.modules
import pulumi
from pulumi.runtime.proto import plugin_pb2
from localcloud import messages
assert pulumi.Output and plugin_pb2 is messages.plugin_pb2
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
