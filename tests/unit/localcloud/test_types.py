"""Every type that the local AWS serves goes through its whole life, as the engine drives it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from localcloud.aws.plugin import schema
from localcloud.aws.resources import RESOURCE_TYPES
from tests.unit.localcloud.conftest import Made, Provider
from tools.aws_schema import ROOT, table

TRUST = json.dumps({"Version": "2012-10-17", "Statement": []})
READS = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:Get*", "Resource": "*"}]})
LISTS = READS.replace("Get", "List")
VIEW = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSViewPolicy"
ADMIN = VIEW.replace("View", "Admin")


@dataclass(frozen=True)
class Life:
    """Inputs of a type: at first, after a change in place (if it has any), and after one that replaces it."""

    first: Mapping[str, Any]
    change: Mapping[str, Any] = field(default_factory=dict)
    replacement: Mapping[str, Any] = field(default_factory=dict)


TAGGED = {"tags": {"team": "other"}}


def lives(world: Mapping[str, str]) -> dict[str, Life]:
    """By type, on what `world` has made."""
    vpc, subnet, role, bucket = world["vpc"], world["subnet"], world["role"], world["bucket"]
    tags = {"tags": {"team": "ml"}}
    rule = {"securityGroupId": world["group"], "ipProtocol": "tcp", "fromPort": 443, "toPort": 443}
    rule_life = Life(
        rule | {"cidrIpv4": "10.0.0.0/16", "description": "TLS"} | tags,
        TAGGED | {"cidrIpv4": "10.1.0.0/16", "toPort": 444, "description": "more"},
        {"securityGroupId": "sg-2"},
    )
    subnets = {"subnetIds": [subnet], "endpointPrivateAccess": True, "endpointPublicAccess": False}
    lifecycle = {"id": "old", "status": "Enabled", "filter": {"prefix": ""}, "expiration": {"days": 30}}
    reserved = {"instanceType": "p5.48xlarge", "instancePlatform": "Linux/UNIX", "availabilityZone": "us-east-1a"}
    disk = {"volumeSize": 20, "volumeType": "gp3", "encrypted": False, "deleteOnTermination": True}
    encryption = {"provider": {"keyArn": "arn:aws:kms:us-east-1:123456789012:key/1"}, "resources": ["secrets"]}
    group = {
        "clusterName": "world",
        "nodeRoleArn": world["role_arn"],
        "subnetIds": [subnet],
        "scalingConfig": {"minSize": 0, "desiredSize": 1, "maxSize": 2},
        "instanceTypes": ["g5.xlarge"],
        "capacityType": "SPOT",
        "labels": {"a": "b"},
        "taints": [{"key": "gpu", "value": "true", "effect": "NO_SCHEDULE"}],
    }
    return {
        "aws:ec2/vpc:Vpc": Life(
            {"cidrBlock": "10.5.0.0/16"} | tags, TAGGED | {"enableDnsHostnames": True}, {"cidrBlock": "10.6.0.0/16"}
        ),
        "aws:ec2/subnet:Subnet": Life(
            {"vpcId": vpc, "cidrBlock": "10.0.7.0/24", "availabilityZone": "us-east-1b"} | tags,
            TAGGED | {"mapPublicIpOnLaunch": True},
            {"cidrBlock": "10.0.8.0/24"},
        ),
        "aws:ec2/internetGateway:InternetGateway": Life({"vpcId": vpc} | tags, TAGGED | {"vpcId": world["vpc_2"]}),
        "aws:ec2/eip:Eip": Life(tags, TAGGED),
        "aws:ec2/natGateway:NatGateway": Life(
            {"subnetId": subnet, "allocationId": world["eip"]} | tags, TAGGED, {"subnetId": "subnet-2"}
        ),
        "aws:ec2/routeTable:RouteTable": Life({"vpcId": vpc} | tags, TAGGED, {"vpcId": "vpc-2"}),
        "aws:ec2/route:Route": Life(
            {"routeTableId": world["table"], "destinationCidrBlock": "0.0.0.0/0", "gatewayId": world["gateway"]},
            replacement={"destinationCidrBlock": "10.9.0.0/16"},
        ),
        "aws:ec2/routeTableAssociation:RouteTableAssociation": Life(
            {"routeTableId": world["table"], "subnetId": subnet}, replacement={"subnetId": "subnet-2"}
        ),
        "aws:ec2/securityGroup:SecurityGroup": Life({"vpcId": vpc} | tags, TAGGED, {"description": "another"}),
        "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup": Life({"vpcId": vpc} | tags, TAGGED, {"vpcId": "vpc-2"}),
        "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": rule_life,
        "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": rule_life,
        "aws:ec2/vpcEndpoint:VpcEndpoint": Life(
            {"vpcId": vpc, "serviceName": "com.amazonaws.us-east-1.s3", "routeTableIds": [world["table"]]} | tags,
            TAGGED,
            {"serviceName": "com.amazonaws.us-east-1.dynamodb"},
        ),
        "aws:ec2/flowLog:FlowLog": Life(
            {"vpcId": vpc, "trafficType": "ALL", "logDestinationType": "s3", "logDestination": f"arn:aws:s3:::{bucket}"}
            | tags,
            TAGGED,
            {"trafficType": "REJECT"},
        ),
        "aws:ec2/launchTemplate:LaunchTemplate": Life(
            {"instanceType": "g5.xlarge", "metadataOptions": {"httpTokens": "required"}} | tags,
            TAGGED | {"instanceType": "g5.2xlarge"},
            {"name": "another"},
        ),
        "aws:ec2/placementGroup:PlacementGroup": Life(
            {"strategy": "cluster"} | tags, replacement={"strategy": "spread"}
        ),
        "aws:ec2/capacityReservation:CapacityReservation": Life(
            reserved | {"instanceCount": 1} | tags, TAGGED | {"instanceCount": 2}, {"instanceType": "p4d.24xlarge"}
        ),
        "aws:ec2/instance:Instance": Life(
            {"ami": world["ami"], "instanceType": "g5.xlarge", "subnetId": subnet, "rootBlockDevice": disk}
            | {"vpcSecurityGroupIds": [world["group"]]}
            | tags,
            TAGGED
            | {"instanceType": "g5.2xlarge", "rootBlockDevice": disk | {"volumeSize": 30}}
            | {"vpcSecurityGroupIds": [world["group_2"]], "metadataOptions": {"httpTokens": "required"}},
            {"rootBlockDevice": disk | {"encrypted": True}},
        ),
        "aws:ebs/volume:Volume": Life(
            {"availabilityZone": "us-east-1a", "size": 10, "encrypted": True} | tags,
            TAGGED | {"size": 20, "type": "gp3"},
            {"availabilityZone": "us-east-1b"},
        ),
        "aws:iam/role:Role": Life({"assumeRolePolicy": TRUST} | tags, TAGGED | {"description": "new"}, {"path": "/x/"}),
        "aws:iam/rolePolicy:RolePolicy": Life({"role": role, "policy": READS}, {"policy": LISTS}, {"name": "another"}),
        "aws:iam/policy:Policy": Life({"policy": READS} | tags, TAGGED | {"policy": LISTS}, {"description": "another"}),
        "aws:iam/rolePolicyAttachment:RolePolicyAttachment": Life(
            {"role": role, "policyArn": "arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy"},
            replacement={"policyArn": "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"},
        ),
        "aws:iam/openIdConnectProvider:OpenIdConnectProvider": Life(
            {"url": "https://oidc.example.com", "clientIdLists": ["sts.amazonaws.com"], "thumbprintLists": ["a" * 40]}
            | tags,
            TAGGED | {"clientIdLists": ["other.example.com"], "thumbprintLists": ["b" * 40]},
            {"url": "https://other.example.com"},
        ),
        "aws:kms/key:Key": Life(
            {"description": "one", "deletionWindowInDays": 7} | tags, TAGGED | {"enableKeyRotation": True}
        ),
        "aws:kms/alias:Alias": Life({"name": "alias/one", "targetKeyId": world["key"]}, {}, {"name": "alias/two"}),
        "aws:eks/cluster:Cluster": Life(
            {"roleArn": world["role_arn"], "version": "1.33", "vpcConfig": subnets, "enabledClusterLogTypes": ["api"]}
            | {"accessConfig": {"authenticationMode": "API_AND_CONFIG_MAP"}}
            | tags,
            TAGGED
            | {"enabledClusterLogTypes": ["api", "audit"], "version": "1.34", "encryptionConfig": encryption}
            | {"vpcConfig": subnets | {"subnetIds": [subnet, world["subnet_2"]]}}
            | {"accessConfig": {"authenticationMode": "API"}}
            | {"kubernetesNetworkConfig": {"elasticLoadBalancing": {"enabled": True}}},
            {"encryptionConfig": encryption | {"provider": {"keyArn": "another"}}},
        ),
        "aws:eks/nodeGroup:NodeGroup": Life(
            group | tags,
            TAGGED
            | {"scalingConfig": {"minSize": 0, "desiredSize": 1, "maxSize": 4}, "labels": {"a": "c"}}
            | {"version": "1.33"},
            {"instanceTypes": ["g5.2xlarge"]},
        ),
        "aws:eks/addon:Addon": Life(
            {"clusterName": "world", "addonName": "vpc-cni", "addonVersion": "v1.19.0-eksbuild.1"} | tags,
            TAGGED | {"addonVersion": "v1.20.0-eksbuild.1"},
            {"addonName": "coredns"},
        ),
        "aws:eks/accessEntry:AccessEntry": Life(
            {"clusterName": "world", "principalArn": "arn:aws:iam::123456789012:role/team/ops"} | tags,
            TAGGED | {"kubernetesGroups": ["ops"]},
            {"principalArn": world["role_arn"]},
        ),
        "aws:eks/accessPolicyAssociation:AccessPolicyAssociation": Life(
            {"clusterName": "world", "principalArn": world["principal"], "policyArn": VIEW}
            | {"accessScope": {"type": "cluster"}},
            replacement={"policyArn": ADMIN},
        ),
        "aws:eks/podIdentityAssociation:PodIdentityAssociation": Life(
            {"clusterName": "world", "namespace": "jobs", "serviceAccount": "train", "roleArn": world["role_arn"]}
            | tags,
            TAGGED | {"roleArn": world["principal"]},
            {"serviceAccount": "serve"},
        ),
        "aws:cloudwatch/logGroup:LogGroup": Life(
            {"retentionInDays": 7} | tags, TAGGED | {"retentionInDays": 30, "kmsKeyId": "arn:k"}, {"name": "x"}
        ),
        "aws:s3/bucket:Bucket": Life({"forceDestroy": True} | tags, TAGGED, {"bucket": "another-bucket"}),
        "aws:s3/bucketVersioning:BucketVersioning": Life(
            {"bucket": bucket, "versioningConfiguration": {"status": "Enabled"}},
            {"versioningConfiguration": {"status": "Suspended"}},
            {"bucket": "another-bucket"},
        ),
        "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": Life(
            {"bucket": bucket, "rules": [{"applyServerSideEncryptionByDefault": {"sseAlgorithm": "aws:kms"}}]},
            {"rules": [{"applyServerSideEncryptionByDefault": {"sseAlgorithm": "AES256"}}]},
            {"bucket": "another-bucket"},
        ),
        "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": Life(
            {"bucket": bucket, "blockPublicAcls": True}, {"blockPublicPolicy": True}, {"bucket": "another-bucket"}
        ),
        "aws:s3/bucketPolicy:BucketPolicy": Life(
            {"bucket": bucket, "policy": READS}, {"policy": LISTS}, {"bucket": "another-bucket"}
        ),
        "aws:s3/bucketOwnershipControls:BucketOwnershipControls": Life(
            {"bucket": bucket, "rule": {"objectOwnership": "BucketOwnerEnforced"}},
            {"rule": {"objectOwnership": "BucketOwnerPreferred"}},
            {"bucket": "another-bucket"},
        ),
        "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": Life(
            {"bucket": bucket, "rules": [lifecycle]},
            {"rules": [lifecycle | {"expiration": {"days": 60}}]},
            {"bucket": "another-bucket"},
        ),
        "aws:s3/bucketObjectv2:BucketObjectv2": Life(
            {"bucket": bucket, "key": "a/b.txt", "content": "one"}, {"content": "two"}, {"key": "c"}
        ),
        "aws:ecr/repository:Repository": Life(
            {"imageScanningConfiguration": {"scanOnPush": True}} | tags,
            TAGGED | {"imageTagMutability": "IMMUTABLE"},
            {"name": "another"},
        ),
        "aws:ecr/lifecyclePolicy:LifecyclePolicy": Life(
            {"repository": world["repository"], "policy": json.dumps({"rules": [EXPIRE]})},
            replacement={"repository": "another"},
        ),
    }


KEPT_BY_AWS = (
    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup",  # as long as the network
    "aws:s3/bucketVersioning:BucketVersioning",  # once switched on it can only be suspended
)
EXPIRE = {
    "rulePriority": 1,
    "selection": {"tagStatus": "untagged", "countType": "imageCountMoreThan", "countNumber": 5},
    "action": {"type": "expire"},
}


@pytest.fixture(scope="module")
def world(home: Any) -> Iterator[dict[str, str]]:
    """What the resources of the tests stand on."""
    provider = Provider()

    def make(token: str, urn_name: str = "world", **inputs: Any) -> Made:
        return provider.create(token, inputs, urn_name)

    vpc = make("aws:ec2/vpc:Vpc", cidrBlock="10.0.0.0/16").id
    subnet = make("aws:ec2/subnet:Subnet", vpcId=vpc, cidrBlock="10.0.1.0/24", availabilityZone="us-east-1a").id
    role = make("aws:iam/role:Role", name="world", assumeRolePolicy=TRUST)
    principal = provider.create("aws:iam/role:Role", {"name": "ops", "assumeRolePolicy": TRUST}, "ops").outputs["arn"]
    scaling: dict[str, Any] = {"roleArn": role.outputs["arn"], "vpcConfig": {"subnetIds": [subnet]}}
    make("aws:eks/cluster:Cluster", name="world", **scaling)
    make("aws:eks/accessEntry:AccessEntry", clusterName="world", principalArn=principal)
    aws = provider.backend._aws({})
    yield {
        "vpc": vpc,
        "subnet": subnet,
        "vpc_2": make("aws:ec2/vpc:Vpc", "another", cidrBlock="10.2.0.0/16").id,
        "subnet_2": make("aws:ec2/subnet:Subnet", "another", vpcId=vpc, cidrBlock="10.0.2.0/24").id,
        "group_2": make("aws:ec2/securityGroup:SecurityGroup", "another", vpcId=vpc, name="another").id,
        "role": role.id,
        "role_arn": role.outputs["arn"],
        "principal": principal,
        "bucket": make("aws:s3/bucket:Bucket", bucket="world-bucket").id,
        "table": make("aws:ec2/routeTable:RouteTable", vpcId=vpc).id,
        "gateway": make("aws:ec2/internetGateway:InternetGateway").id,
        "group": make("aws:ec2/securityGroup:SecurityGroup", vpcId=vpc, name="world").id,
        "eip": make("aws:ec2/eip:Eip").id,
        "key": make("aws:kms/key:Key").id,
        "repository": make("aws:ecr/repository:Repository", name="world").id,
        "ami": aws.call("ec2", "describe_images", Owners=["amazon"])["Images"][0]["ImageId"],
    }
    provider.kill()


@pytest.mark.parametrize("token", sorted(RESOURCE_TYPES))
def test_a_type_lives_from_creation_to_deletion(token: str, provider: Provider, world: dict[str, str]) -> None:
    life = lives(world)[token]
    planned = provider.create(token, dict(life.first), preview=True)
    made = provider.create(token, dict(life.first))
    assert made.id
    assert planned.outputs.keys() >= made.outputs.keys() - {"region"}, "a preview tells every output"

    kept = provider.read(made)
    assert kept is not None
    assert kept.inputs == made.inputs, "nothing has drifted"
    assert not provider.diff(made, made.inputs).diffs

    imported = provider.read(Made(made.urn, made.id, {}, {}), is_import=True)
    assert imported is not None
    asked = {name: value for name, value in life.first.items() if name not in RESOURCE_TYPES[token].unread}
    assert holds(imported.inputs, asked)

    if life.change:
        wanted = provider.checked(token, {**life.first, **life.change}, old=made.inputs)
        change = provider.diff(made, wanted)
        assert set(life.change) <= set(change.diffs)
        assert not change.replaces
        made = provider.update(made, wanted)
        after = provider.read(made)
        assert after is not None
        assert after.inputs == wanted, "AWS has the change"

    if life.replacement:
        wanted = provider.checked(token, {**life.first, **life.change, **life.replacement}, old=made.inputs)
        assert set(provider.diff(made, wanted).replaces) >= set(life.replacement)

    provider.delete(made)
    if token not in KEPT_BY_AWS:
        assert provider.read(made) is None
    provider.delete(made)  # a deletion that was cut off is asked for again


def holds(found: Any, asked: Any) -> bool:
    """Whether what was found has all that was asked for; AWS adds defaults of its own."""
    if isinstance(asked, Mapping):
        return all(name in found and holds(found[name], value) for name, value in asked.items())
    if isinstance(asked, list):
        return len(found) == len(asked) and all(map(holds, found, asked))
    return bool(found == asked or json.loads(found) == json.loads(asked))


def test_the_documented_table_is_that_of_the_declarations() -> None:
    written = (ROOT / "docs/local-cloud-types.md").read_text()
    assert written == table(schema()["resources"]), "run `python tools/aws_schema.py`"
