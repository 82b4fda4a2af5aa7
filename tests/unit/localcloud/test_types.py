"""Every type that the local AWS serves goes through its whole life, as the engine drives it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from localcloud import server
from localcloud.aws.api import Aws
from localcloud.aws.resources import RESOURCE_TYPES
from localcloud.aws.schema import schema
from localcloud.values import UNKNOWN
from tests.unit.localcloud.conftest import REGION, Made, Provider, refused
from tools.aws_schema import ROOT, table

AWS_POLICY = "arn:aws:iam::aws:policy"
TOPIC = "arn:aws:sns:us-east-1:123456789012:alarms"
TRUST = json.dumps({"Version": "2012-10-17", "Statement": []})
ASSUME = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
OTHER_TRUST = json.dumps({"Version": "2012-10-17", "Statement": [ASSUME]})
READS = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:Get*", "Resource": "*"}]})
LISTS = READS.replace("Get", "List")
VIEW = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSViewPolicy"
ADMIN = VIEW.replace("View", "Admin")


@dataclass(frozen=True)
class Life:
    """Inputs of a type: at first, after changes in place (if it has any), and after one that replaces it."""

    first: Mapping[str, Any]
    change: Mapping[str, Any] = field(default_factory=dict)
    replacement: Mapping[str, Any] = field(default_factory=dict)
    then: Mapping[str, Any] = field(default_factory=dict)


TAGS = {"tags": {"team": "ml"}}
TAGGED = {"tags": {"team": "other"}}


def network_lives(world: Mapping[str, str]) -> dict[str, Life]:
    vpc = world["vpc"]
    subnet = world["subnet"]
    bucket = world["bucket"]
    rule = {"securityGroupId": world["group"], "ipProtocol": "tcp", "fromPort": 443, "toPort": 443}
    rule_life = Life(
        rule | {"cidrIpv4": "10.0.0.0/16", "description": "TLS"} | TAGS,
        TAGGED | {"cidrIpv4": "10.1.0.0/16", "toPort": 444, "description": "more"},
        {"securityGroupId": "sg-2"},
        then={"ipProtocol": "udp", "fromPort": 53, "toPort": 53},
    )
    return {
        "aws:ec2/vpc:Vpc": Life(
            {"cidrBlock": "10.5.0.0/16", "instanceTenancy": "dedicated"} | TAGS,
            TAGGED | {"enableDnsHostnames": True, "instanceTenancy": "default"},
            {"cidrBlock": "10.6.0.0/16"},
            then={"enableDnsHostnames": False, "enableDnsSupport": False},
        ),
        "aws:ec2/subnet:Subnet": Life(
            {"vpcId": vpc, "cidrBlock": "10.0.7.0/24", "availabilityZone": "us-east-1b"} | TAGS,
            TAGGED | {"mapPublicIpOnLaunch": True},
            {"cidrBlock": "10.0.8.0/24"},
        ),
        "aws:ec2/internetGateway:InternetGateway": Life({"vpcId": vpc} | TAGS, TAGGED | {"vpcId": world["vpc_2"]}),
        "aws:ec2/eip:Eip": Life(TAGS, TAGGED),
        "aws:ec2/natGateway:NatGateway": Life(
            {"subnetId": subnet, "allocationId": world["eip"]} | TAGS, TAGGED, {"subnetId": "subnet-2"}
        ),
        "aws:ec2/routeTable:RouteTable": Life({"vpcId": vpc} | TAGS, TAGGED, {"vpcId": "vpc-2"}),
        "aws:ec2/route:Route": Life(
            {"routeTableId": world["table"], "destinationCidrBlock": "0.0.0.0/0", "gatewayId": world["gateway"]},
            {"gatewayId": None, "natGatewayId": world["nat"]},
            {"destinationCidrBlock": "10.9.0.0/16"},
        ),
        "aws:ec2/routeTableAssociation:RouteTableAssociation": Life(
            {"routeTableId": world["table"], "subnetId": subnet},
            {"routeTableId": world["table_2"]},
            {"subnetId": "subnet-2"},
        ),
        "aws:ec2/securityGroup:SecurityGroup": Life(
            {"vpcId": vpc} | TAGS, TAGGED | {"revokeRulesOnDelete": True}, {"description": "another"}
        ),
        "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup": Life({"vpcId": vpc} | TAGS, TAGGED, {"vpcId": "vpc-2"}),
        "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": rule_life,
        "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": rule_life,
        "aws:ec2/vpcEndpoint:VpcEndpoint": Life(
            {"vpcId": vpc, "serviceName": "com.amazonaws.us-east-1.sts", "vpcEndpointType": "Interface"}
            | {"subnetIds": [subnet], "securityGroupIds": [world["group"]], "privateDnsEnabled": False}
            | TAGS,
            TAGGED | {"subnetIds": [world["subnet_2"]], "privateDnsEnabled": True, "policy": READS},
            {"serviceName": "com.amazonaws.us-east-1.dynamodb"},
            then={"securityGroupIds": [world["group_2"]], "routeTableIds": [world["table"]], "policy": LISTS},
        ),
        "aws:ec2/flowLog:FlowLog": Life(
            {"vpcId": vpc, "trafficType": "ALL", "logDestinationType": "s3", "logDestination": f"arn:aws:s3:::{bucket}"}
            | TAGS,
            TAGGED,
            {"trafficType": "REJECT"},
        ),
    }


def template_of_all(world: Mapping[str, str]) -> dict[str, Any]:
    """All that a launch template may say of instances beside their type."""
    return {
        "blockDeviceMappings": [{"deviceName": "/dev/xvda", "ebs": {"volumeSize": 100, "encrypted": "true"}}],
        "capacityReservationSpecification": {"capacityReservationPreference": "open"},
        "cpuOptions": {"coreCount": 2, "threadsPerCore": 1},
        "creditSpecification": {"cpuCredits": "standard"},
        "description": "nodes",
        "disableApiStop": True,
        "disableApiTermination": True,
        "ebsOptimized": "true",
        "enclaveOptions": {"enabled": True},
        "hibernationOptions": {"configured": True},
        "iamInstanceProfile": {"name": "nodes"},
        "imageId": world["ami"],
        "instanceInitiatedShutdownBehavior": "terminate",
        "instanceMarketOptions": {"marketType": "spot", "spotOptions": {"maxPrice": "1.5"}},
        "keyName": "ops",
        "maintenanceOptions": {"autoRecovery": "disabled"},
        "metadataOptions": {"httpTokens": "required", "httpPutResponseHopLimit": 1},
        "monitoring": {"enabled": True},
        "networkInterfaces": [
            {"deviceIndex": 0, "interfaceType": "efa", "networkCardIndex": 0, "securityGroups": [world["group"]]}
        ],
        "placement": {"groupName": "near", "tenancy": "default"},
        "privateDnsNameOptions": {"hostnameType": "ip-name"},
        "tagSpecifications": [{"resourceType": "instance", "tags": {"a": "true"}}],
        "userData": "aGVsbG8=",
        "vpcSecurityGroupIds": [world["group"]],
    }


def node_lives(world: Mapping[str, str]) -> dict[str, Life]:
    subnet = world["subnet"]
    reserved = {"instanceType": "p5.48xlarge", "instancePlatform": "Linux/UNIX", "availabilityZone": "us-east-1a"}
    disk = {"volumeSize": 20, "volumeType": "gp3", "encrypted": False, "deleteOnTermination": True}
    return {
        "aws:ec2/launchTemplate:LaunchTemplate": Life(
            {"instanceType": "g5.xlarge", "metadataOptions": {"httpTokens": "required"}} | TAGS,
            TAGGED | {"instanceType": "g5.2xlarge", "updateDefaultVersion": True} | template_of_all(world),
            {"name": "another"},
            then={"updateDefaultVersion": None, "defaultVersion": 1},
        ),
        "aws:ec2/placementGroup:PlacementGroup": Life(
            {"strategy": "partition", "partitionCount": 3} | TAGS,
            TAGGED,
            {"strategy": "cluster", "partitionCount": None},
        ),
        "aws:ec2/capacityReservation:CapacityReservation": Life(
            reserved | {"instanceCount": 1} | TAGS,
            TAGGED | {"instanceCount": 2, "endDateType": "limited", "endDate": "2027-01-31T12:00:00Z"},
            {"instanceType": "p4d.24xlarge"},
            then={"endDateType": "unlimited", "endDate": None},
        ),
        "aws:ec2/instance:Instance": Life(
            {"ami": world["ami"], "instanceType": "g5.xlarge", "subnetId": subnet, "rootBlockDevice": disk}
            | {"vpcSecurityGroupIds": [world["group"]]}
            | TAGS,
            TAGGED
            | {"instanceType": "g5.2xlarge", "rootBlockDevice": disk | {"volumeSize": 30}}
            | {"vpcSecurityGroupIds": [world["group_2"]], "metadataOptions": {"httpTokens": "required"}},
            {"rootBlockDevice": disk | {"encrypted": True}},
        ),
        "aws:ebs/volume:Volume": Life(
            {"availabilityZone": "us-east-1a", "size": 10, "encrypted": True} | TAGS,
            TAGGED | {"size": 20, "type": "gp3"},
            {"availabilityZone": "us-east-1b"},
        ),
    }


def identity_lives(world: Mapping[str, str]) -> dict[str, Life]:
    role = world["role"]
    return {
        "aws:iam/role:Role": Life(
            {"assumeRolePolicy": TRUST} | TAGS,
            TAGGED
            | {"description": "new", "assumeRolePolicy": OTHER_TRUST, "maxSessionDuration": 7200}
            | {"permissionsBoundary": f"{AWS_POLICY}/ReadOnlyAccess", "forceDetachPolicies": True},
            {"path": "/x/"},
            then={"permissionsBoundary": None},
        ),
        "aws:iam/instanceProfile:InstanceProfile": Life(
            {"role": role} | TAGS, TAGGED | {"role": "ops"}, {"path": "/nodes/"}, then={"role": None}
        ),
        "aws:iam/rolePolicy:RolePolicy": Life({"role": role, "policy": READS}, {"policy": LISTS}, {"name": "another"}),
        "aws:iam/policy:Policy": Life({"policy": READS} | TAGS, TAGGED | {"policy": LISTS}, {"description": "another"}),
        "aws:iam/rolePolicyAttachment:RolePolicyAttachment": Life(
            {"role": role, "policyArn": f"{AWS_POLICY}/AmazonEKSWorkerNodePolicy"},
            replacement={"policyArn": f"{AWS_POLICY}/AmazonEKSClusterPolicy"},
        ),
        "aws:iam/openIdConnectProvider:OpenIdConnectProvider": Life(
            {"url": "https://oidc.example.com", "clientIdLists": ["sts.amazonaws.com"], "thumbprintLists": ["a" * 40]}
            | TAGS,
            TAGGED | {"clientIdLists": ["other.example.com"], "thumbprintLists": ["b" * 40]},
            {"url": "https://other.example.com"},
        ),
        "aws:kms/key:Key": Life(
            {"description": "one", "deletionWindowInDays": 7} | TAGS,
            TAGGED | {"enableKeyRotation": True, "description": "two", "policy": READS, "deletionWindowInDays": 10},
            {"keyUsage": "SIGN_VERIFY"},
            then={"isEnabled": False},
        ),
        "aws:kms/alias:Alias": Life(
            {"name": "alias/one", "targetKeyId": world["key"]}, {"targetKeyId": world["key_2"]}, {"name": "alias/two"}
        ),
    }


def cluster_lives(world: Mapping[str, str]) -> dict[str, Life]:
    subnet = world["subnet"]
    subnets = {"subnetIds": [subnet], "endpointPrivateAccess": True, "endpointPublicAccess": False}
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
        "aws:eks/cluster:Cluster": Life(
            {"roleArn": world["role_arn"], "version": "1.33", "vpcConfig": subnets, "enabledClusterLogTypes": ["api"]}
            | {"accessConfig": {"authenticationMode": "API_AND_CONFIG_MAP"}}
            | TAGS,
            TAGGED
            | {"enabledClusterLogTypes": ["api", "audit"], "version": "1.34", "encryptionConfig": encryption}
            | {"vpcConfig": subnets | {"subnetIds": [subnet, world["subnet_2"]]}}
            | {"accessConfig": {"authenticationMode": "API"}}
            | {"kubernetesNetworkConfig": {"elasticLoadBalancing": {"enabled": True}}},
            {"encryptionConfig": None},
        ),
        "aws:eks/nodeGroup:NodeGroup": Life(
            group | TAGS,
            TAGGED
            | {"scalingConfig": {"minSize": 0, "desiredSize": 1, "maxSize": 4}, "labels": {"a": "c"}}
            | {"version": "1.33", "taints": [{"key": "gpu", "value": "no", "effect": "NO_EXECUTE"}]}
            | {"updateConfig": {"maxUnavailable": 2}},
            {"instanceTypes": ["g5.2xlarge"]},
        ),
        "aws:eks/addon:Addon": Life(
            {"clusterName": "world", "addonName": "vpc-cni", "addonVersion": "v1.19.0-eksbuild.1"} | TAGS,
            TAGGED
            | {"addonVersion": "v1.20.0-eksbuild.1", "configurationValues": '{"env": {}}', "preserve": True}
            | {"resolveConflictsOnCreate": "OVERWRITE", "resolveConflictsOnUpdate": "PRESERVE"}
            | {"serviceAccountRoleArn": world["role_arn"]},
            {"addonName": "coredns"},
        ),
        "aws:eks/accessEntry:AccessEntry": Life(
            {"clusterName": "world", "principalArn": "arn:aws:iam::123456789012:role/team/ops"} | TAGS,
            TAGGED | {"kubernetesGroups": ["ops"], "userName": "ops:{{SessionName}}"},
            {"principalArn": world["role_arn"]},
        ),
        "aws:eks/accessPolicyAssociation:AccessPolicyAssociation": Life(
            {"clusterName": "world", "principalArn": world["principal"], "policyArn": VIEW}
            | {"accessScope": {"type": "cluster"}},
            replacement={"policyArn": ADMIN},
        ),
        "aws:eks/podIdentityAssociation:PodIdentityAssociation": Life(
            {"clusterName": "world", "namespace": "jobs", "serviceAccount": "train", "roleArn": world["role_arn"]}
            | TAGS,
            TAGGED | {"roleArn": world["principal"], "targetRoleArn": world["role_arn"], "disableSessionTags": True},
            {"serviceAccount": "serve"},
            then={"targetRoleArn": None},
        ),
    }


def storage_lives(world: Mapping[str, str]) -> dict[str, Life]:
    bucket = world["bucket"]
    lifecycle = {"id": "old", "status": "Enabled", "filter": {"prefix": ""}, "expiration": {"days": 30}}
    return {
        "aws:cloudwatch/logGroup:LogGroup": Life(
            {"retentionInDays": 7} | TAGS, TAGGED | {"retentionInDays": 30, "kmsKeyId": "arn:k"}, {"name": "x"}
        ),
        "aws:s3/bucket:Bucket": Life(
            {"forceDestroy": True} | TAGS, TAGGED | {"forceDestroy": False}, {"bucket": "another-bucket"}
        ),
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
            {"bucket": bucket, "blockPublicAcls": True},
            {"blockPublicAcls": False, "blockPublicPolicy": True},
            {"bucket": "another-bucket"},
            then={"ignorePublicAcls": True, "restrictPublicBuckets": True},
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
            then={"rules": LIFECYCLES},
        ),
        "aws:s3/bucketObjectv2:BucketObjectv2": Life(
            {"bucket": bucket, "key": "a/b.txt", "content": "one"} | TAGS,
            TAGGED
            | {"content": "two", "contentType": "text/plain", "cacheControl": "no-store", "metadata": {"step": "1"}}
            | {"contentDisposition": "inline", "contentEncoding": "identity", "contentLanguage": "en"}
            | {"storageClass": "STANDARD_IA"},
            {"key": "c"},
        ),
        "aws:ecr/repository:Repository": Life(
            {"imageScanningConfiguration": {"scanOnPush": True}} | TAGS,
            TAGGED
            | {"imageTagMutability": "IMMUTABLE", "imageScanningConfiguration": {"scanOnPush": False}}
            | {"forceDelete": True},
            {"name": "another"},
        ),
        "aws:ecr/lifecyclePolicy:LifecyclePolicy": Life(
            {"repository": world["repository"], "policy": json.dumps({"rules": [EXPIRE]})},
            replacement={"repository": "another"},
        ),
    }


def file_system_lives(world: Mapping[str, str]) -> dict[str, Life]:
    imported = {"autoImportPolicy": {"events": ["NEW", "CHANGED"]}}
    return {
        "aws:fsx/lustreFileSystem:LustreFileSystem": Life(
            {"deploymentType": "PERSISTENT_2", "storageCapacity": 1200, "perUnitStorageThroughput": 125}
            | {"subnetIds": world["subnet"], "kmsKeyId": world["key_arn"], "fileSystemTypeVersion": "2.12"}
            | TAGS,
            TAGGED
            | {"storageCapacity": 2400, "perUnitStorageThroughput": 250, "dataCompressionType": "LZ4"}
            | {"fileSystemTypeVersion": "2.15", "automaticBackupRetentionDays": 7, "skipFinalBackup": False},
            {"storageCapacity": 1200},
        ),
        "aws:fsx/dataRepositoryAssociation:DataRepositoryAssociation": Life(
            {"fileSystemId": world["file_system"], "fileSystemPath": "/data"}
            | {"dataRepositoryPath": f"s3://{world['bucket']}/data/", "s3": imported}
            | TAGS,
            TAGGED
            | {"importedFileChunkSize": 2048, "deleteDataInFilesystem": True}
            | {"s3": imported | {"autoExportPolicy": {"events": ["DELETED"]}}},
            {"fileSystemPath": "/more"},
        ),
    }


def recorded(bucket: str, **more: Any) -> dict[str, Any]:
    """What a trail records of the objects of a bucket."""
    fields = [
        {"field": "eventCategory", "equals": ["Data"]},
        {"field": "resources.type", "equals": ["AWS::S3::Object"]},
        {"field": "resources.ARN", "startsWiths": [f"arn:aws:s3:::{bucket}/"]},
    ]
    return {"fieldSelectors": fields} | more


def account_lives(world: Mapping[str, str]) -> dict[str, Life]:
    alarm = {"comparisonOperator": "GREATER_THAN", "notificationType": "ACTUAL", "thresholdType": "PERCENTAGE"}
    alarm |= {"threshold": 80}
    mailed = alarm | {"subscriberEmailAddresses": ["ml@example.com"]}
    return {
        "aws:budgets/budget:Budget": Life(
            {"budgetType": "COST", "timeUnit": "MONTHLY", "limitAmount": "1500", "limitUnit": "USD"}
            | {"costFilters": [{"name": "TagKeyValue", "values": ["user:team$ml"]}], "notifications": [mailed]}
            | TAGS,
            TAGGED
            | {"timeUnit": "QUARTERLY", "limitAmount": "99.5", "costFilters": [{"name": "Region", "values": ["x"]}]}
            | {"notifications": [mailed | {"threshold": 90}, alarm | {"subscriberSnsTopicArns": [TOPIC]}]}
            | {"timePeriodStart": "2026-01-01_00:00", "timePeriodEnd": "2030-01-01_00:00"}
            | {"costTypes": {"includeTax": False}},
            {"name": "another"},
            then={"budgetType": "USAGE", "limitUnit": "GB", "costTypes": None, "notifications": [mailed]},
        ),
        "aws:cloudtrail/trail:Trail": Life(
            {"s3BucketName": world["bucket"], "advancedEventSelectors": [recorded("data", name="all")]} | TAGS,
            TAGGED
            | {"s3BucketName": world["bucket_2"], "s3KeyPrefix": "logs", "enableLogging": False}
            | {"advancedEventSelectors": [recorded("data"), recorded("more")], "includeGlobalServiceEvents": False}
            | {"kmsKeyId": world["key_arn"], "enableLogFileValidation": True, "isMultiRegionTrail": True},
            {"name": "another"},
            then={"kmsKeyId": None, "s3KeyPrefix": None, "enableLogging": True},
        ),
    }


def dns_lives(world: Mapping[str, str]) -> dict[str, Life]:
    return {
        "aws:route53/zone:Zone": Life(
            {"name": "models.example.com"} | TAGS,
            TAGGED | {"comment": "on two clouds", "forceDestroy": True},
            {"name": "other.example.com"},
        ),
        "aws:route53/record:Record": Life(
            {"zoneId": world["dns_zone"], "name": "chat.world.example.com", "type": "CNAME", "ttl": 60}
            | {"records": ["chat-aws.world.example.com"], "setIdentifier": "chat-aws"}
            | {"failoverRoutingPolicies": [{"type": "PRIMARY"}], "healthCheckId": world["health_check"]},
            {"ttl": 30, "records": ["chat-gcp.world.example.com"], "failoverRoutingPolicies": [{"type": "SECONDARY"}]},
            {"name": "other.world.example.com"},
            then={"failoverRoutingPolicies": None, "weightedRoutingPolicies": [{"weight": 10}], "healthCheckId": None},
        ),
        "aws:route53/healthCheck:HealthCheck": Life(
            {
                "type": "HTTPS_STR_MATCH",
                "searchString": "ok",
                "fqdn": "chat-aws.example.com",
                "port": 443,
                "resourcePath": "/ready",
            }
            | {"requestInterval": 30, "failureThreshold": 3, "enableSni": True}
            | TAGS,
            TAGGED
            | {"fqdn": "chat-gcp.example.com", "port": 8443, "resourcePath": "/healthz", "failureThreshold": 5}
            | {
                "enableSni": False,
                "disabled": True,
                "invertHealthcheck": True,
                "searchString": "up",
                "ipAddress": "203.0.113.9",
            },
            {"requestInterval": 10},
        ),
    }


def service_lives(world: Mapping[str, str]) -> dict[str, Life]:
    return {
        "aws:sns/topic:Topic": Life(
            TAGS, TAGGED | {"displayName": "Runs", "kmsMasterKeyId": world["key"], "policy": READS}, {"name": "another"}
        ),
        "aws:ssm/parameter:Parameter": Life(
            {"type": "String", "value": "a"} | TAGS,
            TAGGED | {"value": "b", "description": "image", "type": "SecureString", "keyId": "alias/aws/ssm"},
            {"name": "another"},
        ),
        "aws:sqs/queue:Queue": Life(
            TAGS,
            TAGGED
            | {"delaySeconds": 5, "maxMessageSize": 2048, "messageRetentionSeconds": 60, "policy": READS}
            | {"receiveWaitTimeSeconds": 2, "visibilityTimeoutSeconds": 40, "kmsMasterKeyId": world["key"]}
            | {"redrivePolicy": json.dumps({"deadLetterTargetArn": world["dead_letters"], "maxReceiveCount": 3})},
            {"name": "another"},
            then={"kmsMasterKeyId": None},
        ),
        "aws:cloudwatch/eventRule:EventRule": Life(
            {"eventPattern": json.dumps({"source": ["aws.ec2"]})} | TAGS,
            TAGGED | {"eventPattern": json.dumps({"source": ["aws.health"]}), "description": "what AWS takes back"},
            {"name": "another"},
            then={"scheduleExpression": "rate(1 day)"},
        ),
        "aws:cloudwatch/eventTarget:EventTarget": Life(
            {"rule": world["rule"], "targetId": "one", "arn": world["dead_letters"]},
            {"arn": world["dead_letters"].replace("dead", "other")},
            {"targetId": "two"},
        ),
        "aws:cloudwatch/metricAlarm:MetricAlarm": Life(
            {"comparisonOperator": "GreaterThanThreshold", "evaluationPeriods": 2, "metricName": "p99", "period": 60}
            | {"namespace": "fusion", "statistic": "Maximum", "threshold": 0.5, "dimensions": {"service": "chat"}}
            | TAGS,
            TAGGED
            | {"comparisonOperator": "LessThanThreshold", "evaluationPeriods": 3, "metricName": "p50", "period": 120}
            | {"namespace": "other", "statistic": "Average", "threshold": 2, "dimensions": {"service": "embed"}}
            | {"actionsEnabled": False, "alarmActions": [TOPIC], "okActions": [TOPIC]}
            | {"insufficientDataActions": [TOPIC], "alarmDescription": "slow", "datapointsToAlarm": 1}
            | {"treatMissingData": "breaching", "unit": "Seconds"},
            {"name": "another"},
        ),
        "aws:dynamodb/table:Table": Life(
            {"attributes": [{"name": "run", "type": "S"}], "hashKey": "run", "billingMode": "PAY_PER_REQUEST"} | TAGS,
            TAGGED
            | {"billingMode": "PROVISIONED", "readCapacity": 2, "writeCapacity": 1}
            | {"deletionProtectionEnabled": True, "pointInTimeRecovery": {"enabled": True}},
            {"name": "another"},
            then={"deletionProtectionEnabled": False},
        ),
    }


def lives(world: Mapping[str, str]) -> dict[str, Life]:
    """By type, on what `world` has made."""
    made = (network_lives, node_lives, identity_lives, cluster_lives, storage_lives, account_lives, dns_lives)
    made += (file_system_lives, service_lives)
    return {kind: life for each in made for kind, life in each(world).items()}


def test_another_encryption_key_of_a_cluster_is_refused_and_not_pretended(
    provider: Provider, world: dict[str, str]
) -> None:
    token = "aws:eks/cluster:Cluster"
    key = {"provider": {"keyArn": "arn:aws:kms:us-east-1:123456789012:key/1"}, "resources": ["secrets"]}
    inputs = {"roleArn": world["role_arn"], "vpcConfig": {"subnetIds": [world["subnet"]]}, "encryptionConfig": key}
    made = provider.create(token, inputs)
    wanted = provider.checked(token, inputs | {"encryptionConfig": key | {"provider": {"keyArn": "arn:other"}}})
    assert "encryptionConfig: asked for" in refused(provider.update, made, wanted | {"name": made.inputs["name"]})
    provider.delete(made)


def test_a_node_group_takes_another_version_of_its_launch_template(provider: Provider, world: dict[str, str]) -> None:
    template = provider.create("aws:ec2/launchTemplate:LaunchTemplate", {"instanceType": "g5.xlarge"}, "nodes")
    token = "aws:eks/nodeGroup:NodeGroup"
    inputs: dict[str, Any] = {
        "clusterName": "world",
        "nodeRoleArn": world["role_arn"],
        "subnetIds": [world["subnet"]],
        "scalingConfig": {"minSize": 0, "desiredSize": 0, "maxSize": 1},
        "launchTemplate": {"id": template.id, "version": "1"},
    }
    made = provider.create(token, inputs)
    newer = provider.checked("aws:ec2/launchTemplate:LaunchTemplate", template.inputs | {"instanceType": "g6.xlarge"})
    provider.update(template, newer)
    wanted = provider.checked(token, inputs | {"launchTemplate": {"id": template.id, "version": "2"}}, old=made.inputs)
    assert not provider.diff(made, wanted).replaces
    assert provider.update(made, wanted).outputs["launchTemplate"]["version"] == "2"
    provider.delete(made)


def test_a_change_that_the_local_cloud_can_not_make_fails_and_is_not_pretended(provider: Provider) -> None:
    token = "aws:dynamodb/table:Table"
    inputs = {"attributes": [{"name": "run", "type": "S"}], "hashKey": "run", "billingMode": "PAY_PER_REQUEST"}
    made = provider.create(token, inputs, "typed")
    wanted = provider.checked(token, inputs | {"attributes": [{"name": "run", "type": "N"}]}, old=made.inputs)
    assert not provider.diff(made, wanted).replaces, "as in the official provider"
    assert "attributes: asked for" in refused(provider.update, made, wanted)
    provider.delete(made)


REFUSED_IN_PLACE = {
    "aws:route53/record:Record": {"type", "setIdentifier"},
    "aws:fsx/dataRepositoryAssociation:DataRepositoryAssociation": {"batchImportMetaDataOnCreate"},
}
"""What the official provider changes in place, and the local cloud says that it can't."""


@pytest.mark.parametrize("change", [{"type": "AAAA", "records": ["2001:db8::1"]}, {"setIdentifier": "second"}])
def test_another_type_or_identifier_of_a_dns_record_is_refused_and_not_pretended(
    change: dict[str, Any], provider: Provider, world: dict[str, str]
) -> None:
    token = "aws:route53/record:Record"
    inputs: dict[str, Any] = {"zoneId": world["dns_zone"], "name": "a.world.example.com", "type": "A", "ttl": 60}
    inputs |= {"records": ["192.0.2.1"], "setIdentifier": "first", "weightedRoutingPolicies": [{"weight": 1}]}
    made = provider.create(token, inputs, "dns")
    wanted = provider.checked(token, inputs | change, old=made.inputs)
    assert not provider.diff(made, wanted).replaces, "as in the official provider"
    assert "can't change it in place" in refused(provider.update, made, wanted)
    provider.delete(made)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"failoverRoutingPolicies": [{"type": "PRIMARY"}]}, "setIdentifier"),
        ({"failoverRoutingPolicies": [{"type": "FIRST"}], "setIdentifier": "a"}, "PRIMARY"),
        ({"failoverRoutingPolicies": [], "weightedRoutingPolicies": [], "setIdentifier": "a"}, "routing policy"),
        ({"type": "CNAME", "records": ["a.example.com", "b.example.com"]}, "exactly one value"),
        ({"setIdentifier": "a"}, "routing policy"),
    ],
)
def test_a_dns_record_that_route_53_would_not_take_is_refused(
    inputs: dict[str, Any], said: str, provider: Provider, world: dict[str, str]
) -> None:
    record = {"zoneId": world["dns_zone"], "name": "a.world.example.com", "type": "A", "ttl": 60}
    _, failures = provider.check("aws:route53/record:Record", record | {"records": ["192.0.2.1"]} | inputs)
    assert said in str(failures)


def test_a_subnet_has_one_route_table_and_a_second_association_of_it_is_refused(
    provider: Provider, world: dict[str, str]
) -> None:
    token = "aws:ec2/routeTableAssociation:RouteTableAssociation"
    made = provider.create(token, {"routeTableId": world["table"], "subnetId": world["subnet"]}, "first")
    second = {"routeTableId": world["table_2"], "subnetId": world["subnet"]}
    assert f"is associated with {world['table']} already" in refused(provider.create, token, second, "second")
    kept = provider.read(made)
    assert kept is not None
    assert kept.outputs["routeTableId"] == world["table"]
    provider.delete(made)


def test_a_rule_between_groups_may_name_another_group(provider: Provider, world: dict[str, str]) -> None:
    token = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
    rule = {"securityGroupId": world["group"], "ipProtocol": "-1", "referencedSecurityGroupId": world["group"]}
    made = provider.create(token, rule)
    kept = provider.read(made)
    assert kept is not None
    assert kept.inputs == made.inputs, "the ports that AWS gives a rule of all protocols are no drift"
    wanted = provider.checked(token, rule | {"referencedSecurityGroupId": world["group_2"]})
    assert not provider.diff(made, wanted).replaces
    assert provider.update(made, wanted).outputs["referencedSecurityGroupId"] == world["group_2"]
    provider.delete(made)


@pytest.mark.parametrize(
    ("service", "change"),
    [
        ("iam", {"operation": "update_role", "Description": "theirs", "MaxSessionDuration": 3600}),
        ("iam", {"operation": "tag_role", "Tags": [{"Key": "team", "Value": "theirs"}]}),
        ("iam", {"operation": "update_assume_role_policy", "PolicyDocument": OTHER_TRUST}),
    ],
)
def test_drift_of_what_was_declared_or_left_out_is_found(
    service: str, change: dict[str, Any], provider: Provider, aws: Aws
) -> None:
    token = "aws:iam/role:Role"
    trust = OTHER_TRUST.replace("sts:AssumeRole", "sts:TagSession")
    made = provider.create(token, {"assumeRolePolicy": trust, "tags": {"team": "ml"}}, "drifting")
    aws.call(service, change.pop("operation"), RoleName=made.id, **change)
    found = provider.read(made)
    assert found is not None
    assert provider.diff(found, made.inputs).diffs
    mended = provider.update(found, made.inputs)
    again = provider.read(mended)
    assert again is not None
    assert again.inputs == made.inputs
    provider.delete(made)


def test_a_foreign_label_of_a_node_group_is_drift(provider: Provider, world: dict[str, str], aws: Aws) -> None:
    token = "aws:eks/nodeGroup:NodeGroup"
    scaling = {"minSize": 0, "desiredSize": 0, "maxSize": 1}
    inputs = {"clusterName": "world", "nodeRoleArn": world["role_arn"], "subnetIds": [world["subnet"]]}
    made = provider.create(token, inputs | {"scalingConfig": scaling, "labels": {"a": "b"}}, "labelled")
    name = made.outputs["nodeGroupName"]
    aws.call(
        "eks",
        "update_nodegroup_config",
        clusterName="world",
        nodegroupName=name,
        labels={"addOrUpdateLabels": {"x": "y"}},
    )
    found = provider.read(made)
    assert found is not None
    assert found.inputs["labels"] == {"a": "b", "x": "y"}
    provider.delete(made)


LIFECYCLES = [
    {
        "id": "cold",
        "status": "Enabled",
        "filter": {"and": {"prefix": "runs/", "tags": {"keep": "no"}}},
        "transitions": [{"days": 30, "storageClass": "GLACIER"}],
        "noncurrentVersionTransitions": [{"noncurrentDays": 7, "storageClass": "STANDARD_IA"}],
    },
    {
        "id": "parts",
        "status": "Disabled",
        "filter": {"tag": {"key": "tmp", "value": "yes"}},
        "abortIncompleteMultipartUpload": {"daysAfterInitiation": 3},
        "noncurrentVersionExpiration": {"noncurrentDays": 9},
    },
]
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
    aws = Aws(server.ensure(), REGION)
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
        "bucket_2": make("aws:s3/bucket:Bucket", "another", bucket="another-bucket").id,
        "table": make("aws:ec2/routeTable:RouteTable", vpcId=vpc).id,
        "table_2": make("aws:ec2/routeTable:RouteTable", "another", vpcId=vpc).id,
        "gateway": make("aws:ec2/internetGateway:InternetGateway").id,
        "group": make("aws:ec2/securityGroup:SecurityGroup", vpcId=vpc, name="world").id,
        "eip": make("aws:ec2/eip:Eip").id,
        "dead_letters": make("aws:sqs/queue:Queue", "dead-letters").outputs["arn"],
        "rule": make("aws:cloudwatch/eventRule:EventRule", "a-rule", scheduleExpression="rate(1 day)").id,
        "key": make("aws:kms/key:Key").id,
        "key_arn": make("aws:kms/key:Key", "of-trails").outputs["arn"],
        "key_2": make("aws:kms/key:Key", "another").id,
        "nat": make(
            "aws:ec2/natGateway:NatGateway", subnetId=subnet, allocationId=make("aws:ec2/eip:Eip", "nat").id
        ).id,
        "dns_zone": make("aws:route53/zone:Zone", name="world.example.com").id,
        "health_check": make("aws:route53/healthCheck:HealthCheck", type="TCP", fqdn="a.example.com", port=443).id,
        "repository": make("aws:ecr/repository:Repository", name="world").id,
        "file_system": make(
            "aws:fsx/lustreFileSystem:LustreFileSystem",
            deploymentType="SCRATCH_2",
            storageCapacity=1200,
            fileSystemTypeVersion="2.15",
            subnetIds=subnet,
        ).id,
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

    asked = dict(life.first)
    for step in (life.change, life.then):
        asked |= step
        if step:
            wanted = provider.checked(token, asked, old=made.inputs)
            change = provider.diff(made, wanted)
            assert set(step) - RESOURCE_TYPES[token].kept <= set(change.diffs)
            assert not change.replaces
            planned = provider.update(made, wanted, preview=True)
            made = provider.update(made, wanted)
            assert not broken_promises(planned.outputs, made.outputs), "the preview said so"
            after = provider.read(made)
            assert after is not None
            assert after.inputs == wanted, "AWS has the change"

    if life.replacement:
        wanted = provider.checked(token, {**asked, **life.replacement}, old=made.inputs)
        assert set(provider.diff(made, wanted).replaces) >= set(life.replacement) - RESOURCE_TYPES[token].kept

    provider.delete(made)
    if token not in KEPT_BY_AWS:
        assert provider.read(made) is None
    provider.delete(made)  # a deletion that was cut off is asked for again


def broken_promises(planned: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
    """Known outputs of a preview that came otherwise."""
    known = {name: value for name, value in planned.items() if value is not UNKNOWN and value is not None}
    return {name: (value, made.get(name)) for name, value in known.items() if not holds(made.get(name), value)}


@pytest.mark.parametrize("token", sorted(RESOURCE_TYPES))
def test_every_input_that_can_change_in_place_is_changed_in_some_life(token: str) -> None:
    kind, life = RESOURCE_TYPES[token], lives(defaultdict(str))[token]
    changed = life.change.keys() | life.then.keys()
    tried_elsewhere = {"referencedSecurityGroupId", "source", "launchTemplate", "attributes"}
    tried_elsewhere |= REFUSED_IN_PLACE.get(token, set())
    assert not kind.carried - kind.replace_on - changed - tried_elsewhere


def holds(found: Any, asked: Any) -> bool:
    """Whether what was found has all that was asked for; AWS adds defaults of its own."""
    if isinstance(asked, Mapping):
        return all(name in found and holds(found[name], value) for name, value in asked.items())
    if isinstance(asked, list):
        return len(found) == len(asked) and all(map(holds, found, asked))
    return bool(found == asked or (str(asked).startswith("{") and json.loads(found) == json.loads(asked)))


def test_the_documented_table_is_that_of_the_declarations() -> None:
    written = (ROOT / "docs/local-cloud-types.md").read_text()
    assert written == table(schema()["resources"]), "run `python tools/aws_schema.py`"
