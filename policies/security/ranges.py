"""Ranges of addresses: which are no team's own."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

SHORTEST_PREFIX = {4: 8, 6: 16}
"""A range of a shorter prefix is no team's own."""
TOGETHER_MAX = 2 ** (32 - SHORTEST_PREFIX[4])
"""How many public IPv4 addresses a list of ranges may hold."""


def is_everybody(cidr: str) -> bool:
    """Whether a range is no team's own: `0.0.0.0/0`, `::/0`, and the halves and quarters that would make them up."""
    network = _network(cidr)
    return network is not None and network.prefixlen < SHORTEST_PREFIX[network.version]


def open_to(cidrs: Iterable[str]) -> list[str]:
    """Those ranges of a list that are no team's own; all of them where they are so only together."""
    listed = list(cidrs)
    if single := [each for each in listed if is_everybody(each)]:
        return single
    public = [
        network
        for network in map(_network, listed)
        if isinstance(network, ipaddress.IPv4Network) and not network.is_private
    ]
    together = sum(network.num_addresses for network in ipaddress.collapse_addresses(public))
    return listed if together > TOGETHER_MAX else []


def _network(cidr: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """None for what is no range, which no cloud takes."""
    try:
        return ipaddress.ip_network(cidr.strip(), strict=False)
    except ValueError:
        return None
