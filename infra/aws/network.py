"""A VPC over several zones: private nodes, NAT, endpoints for the services that nodes need, flow logs."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi
import pulumi_aws as aws

from infra.aws.account import account_of
from infra.aws.keys import make_key
from infra.aws.logs import check_retention, make_log_group
from infra.aws.policies import allow, document, key_for_logs, service_trust
from infra.names import short_name
from infra.network import Network, NetworkArgs

INTERFACE_ENDPOINTS = {"ecr-api": "ecr.api", "ecr-dkr": "ecr.dkr", "sts": "sts"}
"""By short name, the services that each node calls before its first pod runs: images and credentials."""
FLOW_LOG_INTERVAL_SECONDS = 600


class AwsNetwork(Network):
    """A VPC with a private and a public subnet in each zone.

    Makes: Vpc, its default security group (closed), InternetGateway, a public and a private Subnet with their
    routes in each zone, Eip and NatGateway (one, or one a zone), endpoints for S3, ECR and STS, and flow logs.

    Example:
        >>> network = AwsNetwork("prod-network", NetworkArgs(region="us-east-1", zones=("us-east-1a", "us-east-1b")))
        >>> pulumi.export("network", network.network_id)
    """

    def __init__(self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        check(args)
        super().__init__("fusion:aws:Network", name, facts(args), opts)
        self.args = args
        self._name = name
        self._child = pulumi.ResourceOptions(parent=self)
        self._vpc = aws.ec2.Vpc(
            f"{name}-vpc",
            cidr_block=args.cidr,
            enable_dns_support=True,
            enable_dns_hostnames=True,  # private DNS names of endpoints need both
            tags=self._tags("vpc"),
            opts=self._child,
        )
        self.network_id = self._vpc.id
        # Every VPC comes with a group that lets its members talk to each other; nothing may use it by accident.
        aws.ec2.DefaultSecurityGroup(
            f"{name}-default-closed", vpc_id=self._vpc.id, tags=self._tags("default-closed"), opts=self._child
        )
        self.public_subnet_ids = self._public_subnets()
        self.private_subnet_ids, private_tables = self._private_subnets(self._nat_gateways())
        self._endpoints(private_tables)
        if args.flow_logs:
            self._flow_logs()
        self.register_outputs(
            {
                "network_id": self.network_id,
                "private_subnet_ids": self.private_subnet_ids,
                "public_subnet_ids": self.public_subnet_ids,
            }
        )

    def _tags(self, role: str) -> dict[str, str]:
        return {**self.args.tags, "Name": f"{self._name}-{role}"}

    def _public_subnets(self) -> dict[str, pulumi.Output[str]]:
        """Subnets with a route to the internet; nothing in them gets a public address unless it asks for one."""
        gateway = aws.ec2.InternetGateway(
            f"{self._name}-internet", vpc_id=self._vpc.id, tags=self._tags("internet"), opts=self._child
        )
        table = self._route_table("public")
        aws.ec2.Route(
            f"{self._name}-public-default",
            route_table_id=table.id,
            destination_cidr_block="0.0.0.0/0",
            gateway_id=gateway.id,
            opts=self._child,
        )
        role = {"kubernetes.io/role/elb": "1"}
        ranges = zip(self.args.zones, self.args.public_ranges, strict=True)
        return {zone: self._subnet(f"public-{zone}", zone, cidr, table, role) for zone, cidr in ranges}

    def _nat_gateways(self) -> dict[str, aws.ec2.NatGateway]:
        """By zone, the gateway in that zone's public subnet."""
        gateways = {}
        for zone in self.args.nat_zones:
            address = aws.ec2.Eip(
                f"{self._name}-nat-{zone}", domain="vpc", tags=self._tags(f"nat-{zone}"), opts=self._child
            )
            gateways[zone] = aws.ec2.NatGateway(
                f"{self._name}-nat-{zone}",
                allocation_id=address.allocation_id,
                subnet_id=self.public_subnet_ids[zone],
                tags=self._tags(f"nat-{zone}"),
                opts=self._child,
            )
        return gateways

    def _private_subnets(
        self, gateways: Mapping[str, aws.ec2.NatGateway]
    ) -> tuple[dict[str, pulumi.Output[str]], list[pulumi.Output[str]]]:
        """Subnets whose way out is NAT, and their route tables: one a zone, so that `nat` can change in place."""
        role = {"kubernetes.io/role/internal-elb": "1"}
        shared = gateways[self.args.nat_zones[0]]
        subnets, tables = {}, []
        for zone, cidr in zip(self.args.zones, self.args.private_ranges, strict=True):
            table = self._route_table(f"private-{zone}")
            aws.ec2.Route(
                f"{self._name}-private-{zone}-default",
                route_table_id=table.id,
                destination_cidr_block="0.0.0.0/0",
                nat_gateway_id=gateways.get(zone, shared).id,
                opts=self._child,
            )
            subnets[zone] = self._subnet(f"private-{zone}", zone, cidr, table, role)
            tables.append(table.id)
        return subnets, tables

    def _route_table(self, role: str) -> aws.ec2.RouteTable:
        return aws.ec2.RouteTable(f"{self._name}-{role}", vpc_id=self._vpc.id, tags=self._tags(role), opts=self._child)

    def _subnet(
        self, role: str, zone: str, cidr: str, table: aws.ec2.RouteTable, tags: Mapping[str, str]
    ) -> pulumi.Output[str]:
        subnet = aws.ec2.Subnet(
            f"{self._name}-{role}",
            vpc_id=self._vpc.id,
            availability_zone=zone,
            cidr_block=cidr,
            map_public_ip_on_launch=False,
            tags={**self._tags(role), **tags},
            opts=self._child,
        )
        aws.ec2.RouteTableAssociation(
            f"{self._name}-{role}", subnet_id=subnet.id, route_table_id=table.id, opts=self._child
        )
        return subnet.id

    def _endpoints(self, private_tables: list[pulumi.Output[str]]) -> None:
        """Traffic to S3, ECR and STS stays inside the network, and off the NAT's bill."""
        region = self.args.region
        aws.ec2.VpcEndpoint(
            f"{self._name}-s3",
            vpc_id=self._vpc.id,
            service_name=f"com.amazonaws.{region}.s3",
            vpc_endpoint_type="Gateway",
            route_table_ids=private_tables,
            tags=self._tags("s3"),
            opts=self._child,
        )
        group = aws.ec2.SecurityGroup(
            f"{self._name}-endpoints",
            name=short_name(f"{self._name}-endpoints", 255),
            description="HTTPS from the network to its endpoints",
            vpc_id=self._vpc.id,
            tags=self._tags("endpoints"),
            opts=self._child,
        )
        aws.vpc.SecurityGroupIngressRule(
            f"{self._name}-endpoints-https",
            security_group_id=group.id,
            description="HTTPS from nodes and pods",
            ip_protocol="tcp",
            from_port=443,
            to_port=443,
            cidr_ipv4=self.args.cidr,
            opts=self._child,
        )
        for short, service in INTERFACE_ENDPOINTS.items():
            aws.ec2.VpcEndpoint(
                f"{self._name}-{short}",
                vpc_id=self._vpc.id,
                service_name=f"com.amazonaws.{region}.{service}",
                vpc_endpoint_type="Interface",
                private_dns_enabled=True,
                subnet_ids=list(self.private_subnet_ids.values()),
                security_group_ids=[group.id],
                tags=self._tags(short),
                opts=self._child,
            )

    def _flow_logs(self) -> None:
        account, region = account_of(self), self.args.region
        group_name = f"/fusion/{self._name}/flow"
        key = make_key(
            f"{self._name}-flow",
            f"Flow logs of {self._name}",
            account,
            parent=self,
            tags=self.args.tags,
            statements=lambda partition, account_id: [key_for_logs(partition, region, account_id, group_name)],
        )
        group = make_log_group(
            f"{self._name}-flow",
            group_name,
            days=self.args.log_retention_days,
            key_arn=key.arn,
            parent=self,
            tags=self.args.tags,
        )
        role = aws.iam.Role(
            f"{self._name}-flow",
            name=short_name(f"{self._name}-flow", 64),
            assume_role_policy=service_trust("vpc-flow-logs.amazonaws.com"),
            tags=self.args.tags,
            opts=self._child,
        )
        writing = ("logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents")
        aws.iam.RolePolicy(
            f"{self._name}-flow",
            name="write-flow-logs",
            role=role.name,
            policy=group.arn.apply(lambda arn: document([allow("OneLogGroup", writing, f"{arn}:*")])),
            opts=self._child,
        )
        aws.ec2.FlowLog(
            f"{self._name}-flow",
            vpc_id=self._vpc.id,
            traffic_type="ALL",
            log_destination_type="cloud-watch-logs",
            log_destination=group.arn,
            iam_role_arn=role.arn,
            max_aggregation_interval=FLOW_LOG_INTERVAL_SECONDS,
            tags=self._tags("flow"),
            opts=self._child,
        )


def check(args: NetworkArgs) -> None:
    """Refuse what AWS can't build.

    Raises:
        ArgumentError: names what and the way out.
    """
    check_retention(args.log_retention_days)


def facts(args: NetworkArgs) -> dict[str, object]:
    """What guardrails judge a network by; plain values, known in every preview."""
    return {
        "cloud": "aws",
        "region": args.region,
        "zones": list(args.zones),
        "cidr": args.cidr,
        "nat_gateways": len(args.nat_zones),
        "interface_endpoints": len(INTERFACE_ENDPOINTS) * len(args.zones),
        "encryption_keys": int(args.flow_logs),
        "flow_logs": args.flow_logs,
    }
