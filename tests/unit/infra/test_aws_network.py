import ipaddress
import json

import pytest

from infra.aws.network import AwsNetwork
from infra.network import NetworkArgs
from tests.unit.infra.cloud import Cloud
from tests.unit.infra.conftest import REGION, ZONES

THREE_ZONES = (*ZONES, "us-east-1c")


@pytest.fixture(scope="module", params=["single", "per_zone"])
def cloud(request):
    args = NetworkArgs(region=REGION, zones=THREE_ZONES, nat=request.param, tags={"team": "ml"})
    with Cloud(lambda: AwsNetwork("t-network", args)) as deployed:
        deployed.args = args
        yield deployed


@pytest.fixture
def subnets(cloud):
    found = cloud.ec2.describe_subnets(Filters=[{"Name": "tag:Name", "Values": ["t-network-*"]}])["Subnets"]
    return {cloud.tags(subnet)["Name"].removeprefix("t-network-"): subnet for subnet in found}


def route_table(cloud, subnet):
    (table,) = cloud.ec2.describe_route_tables(
        Filters=[{"Name": "association.subnet-id", "Values": [subnet["SubnetId"]]}]
    )["RouteTables"]
    return table


def default_route(cloud, subnet):
    return next(r for r in route_table(cloud, subnet)["Routes"] if r.get("DestinationCidrBlock") == "0.0.0.0/0")


def test_each_zone_has_a_private_and_a_public_subnet_and_none_gives_out_public_addresses(cloud, subnets):
    assert set(subnets) == {f"{kind}-{zone}" for kind in ("private", "public") for zone in THREE_ZONES}
    for name, subnet in subnets.items():
        assert subnet["AvailabilityZone"] == name.partition("-")[2]
        assert not subnet["MapPublicIpOnLaunch"]
        assert cloud.tags(subnet)["team"] == "ml"


def test_load_balancers_find_their_subnets_by_tag(cloud, subnets):
    for name, subnet in subnets.items():
        role = "elb" if name.startswith("public") else "internal-elb"
        assert cloud.tags(subnet)[f"kubernetes.io/role/{role}"] == "1"


def test_private_subnets_reach_the_internet_through_nat_only(cloud, subnets):
    gateways = {
        gateway["NatGatewayId"]: gateway["SubnetId"] for gateway in cloud.ec2.describe_nat_gateways()["NatGateways"]
    }
    assert len(gateways) == (1 if cloud.args.nat == "single" else 3)
    assert len(cloud.ec2.describe_addresses()["Addresses"]) == len(gateways)
    for zone in THREE_ZONES:
        route = default_route(cloud, subnets[f"private-{zone}"])
        assert not route.get("GatewayId")
        nat_zone = zone if cloud.args.nat == "per_zone" else THREE_ZONES[0]
        assert gateways[route["NatGatewayId"]] == subnets[f"public-{nat_zone}"]["SubnetId"]


def test_public_subnets_reach_the_internet_through_its_gateway(cloud, subnets):
    for zone in THREE_ZONES:
        assert default_route(cloud, subnets[f"public-{zone}"])["GatewayId"].startswith("igw-")


def test_the_default_security_group_lets_nothing_through(cloud):
    groups = cloud.ec2.describe_security_groups(
        Filters=[{"Name": "group-name", "Values": ["default"]}, {"Name": "vpc-id", "Values": [cloud.vpc_id]}]
    )["SecurityGroups"]
    assert [(group["IpPermissions"], group["IpPermissionsEgress"]) for group in groups] == [([], [])]


def test_s3_ecr_and_sts_are_reached_inside_the_network(cloud, subnets):
    endpoints = {
        endpoint["ServiceName"].removeprefix(f"com.amazonaws.{REGION}."): endpoint
        for endpoint in cloud.ec2.describe_vpc_endpoints()["VpcEndpoints"]
    }
    assert set(endpoints) == {"s3", "ecr.api", "ecr.dkr", "sts"}
    private = {subnet["SubnetId"] for name, subnet in subnets.items() if name.startswith("private")}
    tables = {route_table(cloud, {"SubnetId": subnet})["RouteTableId"] for subnet in private}
    gateway = endpoints.pop("s3")
    assert gateway["VpcEndpointType"] == "Gateway" and set(gateway["RouteTableIds"]) == tables
    for endpoint in endpoints.values():
        assert endpoint["VpcEndpointType"] == "Interface" and endpoint["PrivateDnsEnabled"]
        assert set(endpoint["SubnetIds"]) == private


def test_endpoints_take_https_from_the_network_and_nothing_else(cloud):
    (group,) = cloud.ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["t-network-endpoints"]}])[
        "SecurityGroups"
    ]
    (rule,) = group["IpPermissions"]
    assert (rule["FromPort"], rule["ToPort"], rule["IpProtocol"]) == (443, 443, "tcp")
    assert [allowed["CidrIp"] for allowed in rule["IpRanges"]] == [cloud.args.cidr]


def test_all_connections_are_logged_encrypted_and_forgotten_in_time(cloud):
    (flow_log,) = cloud.ec2.describe_flow_logs()["FlowLogs"]
    assert flow_log["TrafficType"] == "ALL" and flow_log["ResourceId"] == cloud.vpc_id
    (group,) = cloud.client("logs").describe_log_groups(logGroupNamePrefix="/fusion/t-network")["logGroups"]
    assert group["retentionInDays"] == 90
    assert cloud.key_rotates(group["kmsKeyId"])


def test_the_flow_logs_role_writes_to_their_group_and_nowhere_else(cloud):
    (statement,) = cloud.role_policy("t-network-flow")["Statement"]
    assert statement["Resource"].endswith(":log-group:/fusion/t-network/flow:*")
    trust = cloud.trust("t-network-flow")["Statement"]
    assert [each["Principal"] for each in trust] == [{"Service": "vpc-flow-logs.amazonaws.com"}]


def test_the_key_of_the_flow_logs_serves_their_group_only(cloud):
    statement = cloud.key_policy("alias/t-network-flow")["Statement"][1]
    assert statement["Principal"] == {"Service": f"logs.{REGION}.amazonaws.com"}
    assert json.dumps(statement["Condition"]).endswith(':log-group:/fusion/t-network/flow"}}')


def test_guardrails_see_what_is_billed(cloud):
    facts = cloud.facts("fusion:aws:Network")
    assert facts["nat_gateways"] == len(cloud.ec2.describe_nat_gateways()["NatGateways"])
    interface = [e for e in cloud.ec2.describe_vpc_endpoints()["VpcEndpoints"] if e["VpcEndpointType"] == "Interface"]
    assert facts["interface_endpoints"] == sum(len(endpoint["SubnetIds"]) for endpoint in interface)
    assert facts["encryption_keys"] == cloud.keys_made()


def test_the_network_is_where_it_was_asked_for(cloud, subnets):
    network = ipaddress.ip_network(cloud.args.cidr)
    assert all(ipaddress.ip_network(subnet["CidrBlock"]).subnet_of(network) for subnet in subnets.values())
