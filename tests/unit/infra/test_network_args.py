import ipaddress
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import ArgumentError
from infra.network import SMALLEST_PREFIX, NetworkArgs
from tests.unit.infra.conftest import REGION, ZONES, refusal

LETTERS = "abcdef"


def network_args(**changes):
    return NetworkArgs(**({"region": REGION, "zones": ZONES} | changes))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"zones": ZONES[:1]}, "at least 2 are needed"),
        ({"zones": ()}, "zones (none)"),
        ({"zones": (ZONES[0], ZONES[0])}, "named twice"),
        ({"zones": ("us-east-1a", "eu-west-1a")}, "eu-west-1a is not a zone of region us-east-1"),
        ({"zones": tuple(f"us-east-1{letter}" for letter in "abcdefg")}, "more than 6"),
        ({"cidr": "10.0.0.0/24"}, "leaves 32 addresses"),
        ({"cidr": "10.0.0.0/8"}, "larger than a network may be"),
        ({"cidr": "8.8.0.0/16"}, "public range"),
        ({"cidr": "10.0.0.1/16"}, "is not an IPv4 range"),
        ({"cidr": "everything"}, "is not an IPv4 range"),
        ({"cidr": "172.20.128.0/17"}, "overlaps service_cidr 172.20.0.0/16"),
        ({"service_cidr": "10.0.1.0/24"}, "overlaps service_cidr"),
        ({"service_cidr": "192.168.0.0/28"}, "can't hold the cluster's services"),
    ],
)
def test_a_network_that_can_not_work_is_refused_with_the_way_out(changes, says):
    sentence = refusal(network_args, **changes)
    assert says in sentence


@given(st.integers(2, 6), st.integers(16, SMALLEST_PREFIX), st.sampled_from(["10.0.0.0", "192.168.0.0"]))
def test_subnets_lie_inside_the_network_and_apart_from_each_other(zones, prefix, base):
    args = network_args(zones=tuple(f"us-east-1{letter}" for letter in LETTERS[:zones]), cidr=f"{base}/{prefix}")
    subnets = [ipaddress.ip_network(cidr) for cidr in (*args.private_ranges, *args.public_ranges)]
    assert len(args.private_ranges) == len(args.public_ranges) == zones
    assert all(subnet.subnet_of(ipaddress.ip_network(args.cidr)) for subnet in subnets)
    assert not any(one.overlaps(other) for one, other in combinations(subnets, 2))
    assert all(subnet.prefixlen <= 28 for subnet in subnets), "AWS makes no subnet smaller than /28"


@given(st.integers(2, 5))
def test_a_further_zone_renumbers_none_of_the_others(zones):
    fewer, more = (
        network_args(zones=tuple(f"us-east-1{letter}" for letter in LETTERS[:count])) for count in (zones, zones + 1)
    )
    assert more.private_ranges[:zones] == fewer.private_ranges
    assert more.public_ranges[:zones] == fewer.public_ranges


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_text_for_a_range_is_taken_or_refused_in_one_sentence(cidr, service_cidr):
    try:
        network_args(cidr=cidr, service_cidr=service_cidr)
    except ArgumentError as error:
        assert str(error)
