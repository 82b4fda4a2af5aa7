"""What exists in the local AWS, asked through boto3 and not through Pulumi's state; what AWS makes by itself is left
out.
"""

from __future__ import annotations

from collections.abc import Iterator

from localcloud.aws.api import ACCOUNT_ID, Aws

LISTS = (
    ("ec2", "describe_nat_gateways", "NatGateways", "NatGatewayId"),
    ("ec2", "describe_addresses", "Addresses", "AllocationId"),
    ("ec2", "describe_internet_gateways", "InternetGateways", "InternetGatewayId"),
    ("ec2", "describe_vpc_endpoints", "VpcEndpoints", "VpcEndpointId"),
    ("ec2", "describe_flow_logs", "FlowLogs", "FlowLogId"),
    ("ec2", "describe_launch_templates", "LaunchTemplates", "LaunchTemplateId"),
    ("ec2", "describe_placement_groups", "PlacementGroups", "GroupName"),
    ("ec2", "describe_capacity_reservations", "CapacityReservations", "CapacityReservationId"),
    ("ec2", "describe_volumes", "Volumes", "VolumeId"),
    ("iam", "list_roles", "Roles", "RoleName"),
    ("iam", "list_instance_profiles", "InstanceProfiles", "InstanceProfileName"),
    ("events", "list_rules", "Rules", "Name"),
    ("iam", "list_open_id_connect_providers", "OpenIDConnectProviderList", "Arn"),
    ("s3", "list_buckets", "Buckets", "Name"),
    ("ecr", "describe_repositories", "repositories", "repositoryName"),
    ("logs", "describe_log_groups", "logGroups", "logGroupName"),
    ("sns", "list_topics", "Topics", "TopicArn"),
    ("sqs", "list_queues", "QueueUrls", ""),
    ("ssm", "describe_parameters", "Parameters", "Name"),
    ("cloudwatch", "describe_alarms", "MetricAlarms", "AlarmName"),
    ("dynamodb", "list_tables", "TableNames", ""),
    ("cloudtrail", "list_trails", "Trails", "TrailARN"),
    ("fsx", "describe_file_systems", "FileSystems", "FileSystemId"),
    ("route53", "list_hosted_zones", "HostedZones", "Id"),
    ("route53", "list_health_checks", "HealthChecks", "Id"),
)


def inventory(endpoint: str, region: str = "us-east-1") -> list[str]:
    """Everything in a region of the local account, one line each; empty when there is nothing."""
    aws = Aws(endpoint, region)
    parts = (_listed, _networks, _instances, _clusters, _keys, _policies, _budgets)
    return sorted(line for part in parts for line in part(aws))


def _listed(aws: Aws) -> Iterator[str]:
    for service, operation, key, name in LISTS:
        for each in aws.call(service, operation).get(key, ()):
            if not name:  # the list is one of names
                yield f"{service} {each}"
            elif each.get("State") != "deleted":
                yield f"{service} {each[name]}"


def _networks(aws: Aws) -> Iterator[str]:
    vpcs = [vpc["VpcId"] for vpc in aws.call("ec2", "describe_vpcs")["Vpcs"] if not vpc["IsDefault"]]
    yield from (f"ec2 {vpc}" for vpc in vpcs)
    if vpcs:
        of_ours = [{"Name": "vpc-id", "Values": vpcs}]
        for operation, key, name in (
            ("describe_subnets", "Subnets", "SubnetId"),
            ("describe_security_groups", "SecurityGroups", "GroupId"),
            ("describe_route_tables", "RouteTables", "RouteTableId"),
        ):
            yield from (f"ec2 {each[name]}" for each in aws.call("ec2", operation, Filters=of_ours)[key])


def _instances(aws: Aws) -> Iterator[str]:
    for reservation in aws.call("ec2", "describe_instances")["Reservations"]:
        for each in reservation["Instances"]:
            if each["State"]["Name"] != "terminated":
                yield f"ec2 {each['InstanceId']}"


def _clusters(aws: Aws) -> Iterator[str]:
    for name in aws.call("eks", "list_clusters")["clusters"]:
        yield f"eks {name}"
        for group in aws.call("eks", "list_nodegroups", clusterName=name)["nodegroups"]:
            yield f"eks {name}/{group}"


def _keys(aws: Aws) -> Iterator[str]:
    """Keys are only ever scheduled for deletion; those that are count as gone."""
    for key in aws.call("kms", "list_keys")["Keys"]:
        found = aws.call("kms", "describe_key", KeyId=key["KeyId"])["KeyMetadata"]
        if found["KeyState"] != "PendingDeletion" and found["KeyManager"] == "CUSTOMER":
            yield f"kms {key['KeyId']}"
    for alias in aws.call("kms", "list_aliases")["Aliases"]:
        if not alias["AliasName"].startswith("alias/aws/"):
            yield f"kms {alias['AliasName']}"


def _policies(aws: Aws) -> Iterator[str]:
    for policy in aws.call("iam", "list_policies", Scope="Local")["Policies"]:
        yield f"iam {policy['Arn']}"


def _budgets(aws: Aws) -> Iterator[str]:
    for budget in aws.call("budgets", "describe_budgets", AccountId=ACCOUNT_ID).get("Budgets", ()):
        yield f"budgets {budget['BudgetName']}"
