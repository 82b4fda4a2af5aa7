"""The private network of a stack: what every cloud builds from the same args."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pulumi

from infra.errors import ArgumentError, require

ZONES_MAX = 6
"""No region of AWS or Google Cloud has more."""
SUBNET_BLOCKS = 8
"""The network is cut in eight: one block a zone for nodes and pods, the last one for the public subnets."""
PRIVATE_ADDRESSES_MIN = 256
"""Nodes and pods take their addresses from the zone's private subnet; fewer than this runs out on the second node."""
SMALLEST_PREFIX = 32 - int(math.log2(PRIVATE_ADDRESSES_MIN * SUBNET_BLOCKS))


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkArgs:
    """A network over several zones: private nodes, public subnets only for NAT and load balancers.

    Attributes:
        region: the cloud's name of the region, such as `us-east-1`.
        zones: at least two zones of the region, in the order in which they get their subnets; append, don't insert.
        cidr: private IPv4 range of nodes and pods, from /16 to what the zones need.
        service_cidr: range of Kubernetes services, outside of `cidr`.
        nat: one NAT for all zones (cheaper), or one in each (a zone's failure stays in the zone).
        flow_logs: record accepted and refused connections.
        log_retention_days: how long flow logs are kept.
        tags: put on every resource that can carry tags.

    Raises:
        ArgumentError: the ranges or zones can't work together.
    """

    region: str
    zones: tuple[str, ...]
    cidr: str = "10.0.0.0/16"
    service_cidr: str = "172.20.0.0/16"
    nat: Literal["single", "per_zone"] = "single"
    flow_logs: bool = True
    log_retention_days: int = 90
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_zones(self.region, self.zones, at_least=2)
        nodes, services = ipv4_range("cidr", self.cidr), ipv4_range("service_cidr", self.service_cidr)
        require(nodes.is_private, f"cidr {self.cidr} is a public range; use one of 10/8, 172.16/12 or 192.168/16.")
        require(
            nodes.prefixlen >= 16, f"cidr {self.cidr} is larger than a network may be; use a /16 or a smaller range."
        )
        each = nodes.num_addresses // SUBNET_BLOCKS
        require(
            each >= PRIVATE_ADDRESSES_MIN,
            f"cidr {self.cidr} leaves {each} addresses for the nodes and pods of each of the {len(self.zones)} zones, "
            f"fewer than {PRIVATE_ADDRESSES_MIN}; use a /{SMALLEST_PREFIX} or a larger range.",
        )
        require(
            not nodes.overlaps(services),
            f"cidr {self.cidr} overlaps service_cidr {self.service_cidr}, so pods could not reach some services; "
            "move one of the two, for example service_cidr to 172.20.0.0/16 or cidr to 10.0.0.0/16.",
        )
        require(
            services.is_private and 12 <= services.prefixlen <= 24,
            f"service_cidr {self.service_cidr} can't hold the cluster's services; use a private range from /12 to /24.",
        )

    @property
    def private_ranges(self) -> tuple[str, ...]:
        """One range a zone, in the order of the zones; adding a zone renumbers none of the others."""
        blocks = self._blocks()
        return tuple(str(block) for block in blocks[: len(self.zones)])

    @property
    def public_ranges(self) -> tuple[str, ...]:
        """One small range a zone, cut from the last block."""
        return tuple(str(block) for block in list(self._blocks()[-1].subnets(prefixlen_diff=3))[: len(self.zones)])

    @property
    def nat_zones(self) -> tuple[str, ...]:
        """The zones that get a NAT."""
        return self.zones if self.nat == "per_zone" else self.zones[:1]

    def _blocks(self) -> list[ipaddress.IPv4Network]:
        return list(ipaddress.IPv4Network(self.cidr).subnets(prefixlen_diff=3))


class Network(pulumi.ComponentResource):
    """A stack's network, whichever cloud it is on.

    Attributes:
        args: what it was made from.
        network_id: the network's identifier.
        private_subnet_ids: by zone, where nodes and pods live; they reach the internet through NAT only.
        public_subnet_ids: by zone, for NAT and load balancers; nothing else goes there.
    """

    args: NetworkArgs
    network_id: pulumi.Output[str]
    private_subnet_ids: Mapping[str, pulumi.Output[str]]
    public_subnet_ids: Mapping[str, pulumi.Output[str]]


def check_zones(region: str, zones: tuple[str, ...], *, at_least: int) -> None:
    """Refuse zones that are too few, repeated or of another region.

    Raises:
        ArgumentError: says which of the three.
    """
    shown = ", ".join(zones) or "none"
    require(
        len(zones) >= at_least,
        f"zones ({shown}): at least {at_least} are needed, so that the loss of one leaves another; "
        f"name more zones of {region}.",
    )
    require(len(zones) <= ZONES_MAX, f"zones ({shown}): more than {ZONES_MAX}; keep the first {ZONES_MAX}.")
    require(len(set(zones)) == len(zones), f"zones ({shown}): a zone is named twice; name each once.")
    for zone in zones:
        require(
            zone.startswith(region) and zone != region,
            f"zones: {zone} is not a zone of region {region}; name its own zones, or change the region.",
        )


def ipv4_range(name: str, value: str) -> ipaddress.IPv4Network:
    """Parse a range.

    Raises:
        ArgumentError: it is none; names the field.
    """
    try:
        return ipaddress.IPv4Network(value)
    except ValueError as error:
        raise ArgumentError(
            f"{name} {value!r} is not an IPv4 range ({error}); write one such as 10.0.0.0/16."
        ) from None
