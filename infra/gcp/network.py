"""A VPC with one subnet of the region: nodes, pods and services in ranges of their own, and NAT as the way out."""

from __future__ import annotations

import ipaddress
import re

import pulumi
import pulumi_gcp as gcp

from infra.errors import require
from infra.network import Network, NetworkArgs

PODS, SERVICES = "pods", "services"


class GcpNetwork(Network):
    """A VPC without a way in from outside.

    A subnet of Google Cloud reaches over all zones of its region, so the zones share one; its first half is the pods',
    the quarter after it the nodes'. Cloud NAT fails over between zones by itself: `nat` makes no difference.

    Makes: Network, Subnetwork with two secondary ranges, Router and RouterNat, and a Firewall that lets the network's
    own ranges through; everything else from outside is refused by the VPC's own last rule.

    Attributes:
        subnet_id: where nodes live.

    Example:
        >>> args = NetworkArgs(region="us-central1", zones=("us-central1-a", "us-central1-b"))
        >>> network = GcpNetwork("prod-network", args)
    """

    def __init__(self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        check(args)
        super().__init__("fusion:gcp:Network", name, facts(args), opts)
        self.args = args
        child = pulumi.ResourceOptions(parent=self)
        network = gcp.compute.Network(name, auto_create_subnetworks=False, routing_mode="REGIONAL", opts=child)
        nodes, pods = ranges(args)
        subnet = gcp.compute.Subnetwork(
            name,
            network=network.id,
            region=args.region,
            ip_cidr_range=nodes,
            private_ip_google_access=True,
            secondary_ip_ranges=[
                gcp.compute.SubnetworkSecondaryIpRangeArgs(range_name=PODS, ip_cidr_range=pods),
                gcp.compute.SubnetworkSecondaryIpRangeArgs(range_name=SERVICES, ip_cidr_range=args.service_cidr),
            ],
            log_config=(
                gcp.compute.SubnetworkLogConfigArgs(flow_sampling=1, metadata="INCLUDE_ALL_METADATA")
                if args.flow_logs
                else None
            ),
            opts=child,
        )
        router = gcp.compute.Router(name, network=network.id, region=args.region, opts=child)
        gcp.compute.RouterNat(
            name,
            router=router.name,
            region=args.region,
            nat_ip_allocate_option="AUTO_ONLY",
            source_subnetwork_ip_ranges_to_nat="ALL_SUBNETWORKS_ALL_IP_RANGES",
            log_config=gcp.compute.RouterNatLogConfigArgs(enable=args.flow_logs, filter="ERRORS_ONLY"),
            opts=child,
        )
        gcp.compute.Firewall(
            f"{name}-inside",
            network=network.id,
            direction="INGRESS",
            source_ranges=[nodes, pods],
            allows=[gcp.compute.FirewallAllowArgs(protocol=each) for each in ("tcp", "udp", "icmp")],
            opts=child,
        )
        self.network_id = network.id
        self.subnet_id = subnet.id
        self.private_subnet_ids = dict.fromkeys(args.zones, subnet.id)
        self.public_subnet_ids = {}
        self.register_outputs({"network_id": self.network_id})


def check(args: NetworkArgs) -> None:
    """Refuse what Google Cloud can't build, before anything is registered.

    Raises:
        ArgumentError: names what and the way out.
    """
    for zone in args.zones:
        require(
            re.fullmatch(rf"{re.escape(args.region)}-[a-z]", zone) is not None,
            f"zones: {zone} is not a zone of region {args.region}; name some such as {args.region}-b.",
        )


def ranges(args: NetworkArgs) -> tuple[str, str]:
    """Ranges of the nodes and of the pods, within `cidr`."""
    pods, rest = ipaddress.IPv4Network(args.cidr).subnets(prefixlen_diff=1)
    return str(next(rest.subnets(prefixlen_diff=1))), str(pods)


def facts(args: NetworkArgs) -> dict[str, object]:
    """What guardrails judge a network by; plain values, known in every preview."""
    return {
        "cloud": "gcp",
        "region": args.region,
        "zones": list(args.zones),
        "cidr": args.cidr,
        "nat_gateways": 1,
        "flow_logs": args.flow_logs,
    }
