"""Networks and what is in them, placement policies and reservations of Compute Engine."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from localcloud.gcp.kind import (
    COMPUTE,
    Kind,
    Reference,
    RefusedError,
    World,
    between,
    cidr,
    compute_outputs,
    number_of,
    one_of,
    words,
)
from localcloud.provider import Properties

NETWORK = Reference("projects/{project}/global/networks/{name}")
SUBNETWORK = Reference("projects/{project}/regions/{region}/subnetworks/{name}")
ROUTER = "projects/{project}/regions/{region}/routers/{name}"
DOCUMENTATION_RANGE = ipaddress.IPv4Network("203.0.113.0/24")
"""TEST-NET-3 of RFC 5737: what has an address on the internet has one that leads nowhere."""


def public_address(key: str) -> str:
    """An address for something, the same each time."""
    return str(DOCUMENTATION_RANGE[1 + int(number_of(key)) % (DOCUMENTATION_RANGE.num_addresses - 2)])


def _network(world: World, inputs: Properties) -> Properties:
    number = number_of(f"network/{inputs['name']}")
    made = compute_outputs("projects/{project}/global/networks/{name}")(world, inputs)
    return {"selfLink": made["selfLink"], "networkId": number, "numericId": number, "gatewayIpv4": ""}


def _ranges(inputs: Properties) -> Iterator[tuple[str, ipaddress.IPv4Network]]:
    yield "primary", ipaddress.IPv4Network(inputs["ipCidrRange"])
    for each in inputs.get("secondaryIpRanges") or ():
        yield each["rangeName"], ipaddress.IPv4Network(each["ipCidrRange"])


def _subnetwork_rules(world: World, inputs: Properties, old: Properties | None) -> None:
    """Ranges of one network don't overlap, and those of a subnetwork only grow."""
    own = list(_ranges(inputs))
    network = NETWORK.resolved(inputs["network"], inputs)
    for other in world.of("gcp:compute/subnetwork:Subnetwork"):
        if network not in other.uses or other.id == SUBNETWORK.resolved(inputs["name"], inputs):
            continue
        for _, taken in _ranges(other.inputs):
            for _, wanted in own:
                if wanted.overlaps(taken):
                    raise RefusedError(
                        400,
                        f"Invalid IPCidrRange: {wanted} conflicts with existing subnetwork '{other.inputs['name']}' in "
                        f"region '{other.inputs['region']}'.",
                        "badRequest",
                    )
    for index, (_, one_range) in enumerate(own):
        for _, other_range in own[index + 1 :]:
            if one_range.overlaps(other_range):
                raise RefusedError(
                    400,
                    f"Invalid IPCidrRange: {other_range} conflicts with {one_range} of the same subnetwork.",
                    "badRequest",
                )
    if old:
        _keeps_ranges_in_use(world, inputs, old)


def _keeps_ranges_in_use(world: World, inputs: Properties, old: Properties) -> None:
    gone = {name for name, _ in _ranges(old)} - {name for name, _ in _ranges(inputs)}
    for cluster in world.of("gcp:container/cluster:Cluster"):
        policy = cluster.inputs.get("ipAllocationPolicy") or {}
        used = {str(policy.get(each)) for each in ("clusterSecondaryRangeName", "servicesSecondaryRangeName")}
        if SUBNETWORK.resolved(inputs["name"], inputs) in cluster.uses and used & gone:
            raise RefusedError(
                400,
                f"The secondary range {sorted(used & gone)[0]} is already being used by '{cluster.id}'",
                "resourceInUseByAnotherResource",
            )


def _subnetwork(world: World, inputs: Properties) -> Properties:
    return compute_outputs("projects/{project}/regions/{region}/subnetworks/{name}")(world, inputs) | {
        "gatewayAddress": str(ipaddress.IPv4Network(inputs["ipCidrRange"])[1]),
        "subnetworkId": int(number_of(f"subnetwork/{inputs['region']}/{inputs['name']}")[:15]),
        "fingerprint": "",
        "ipv6CidrRange": "",
        "state": "READY",
    }


def _shrinks(old: Properties, new: Properties) -> frozenset[str]:
    """A range that does not hold the old one makes a new subnetwork (`isShrinkageIpCidr` in the provider)."""
    before, after = old.get("ipCidrRange"), new.get("ipCidrRange")
    if not isinstance(before, str) or not isinstance(after, str):
        return frozenset()
    holds = ipaddress.IPv4Network(before).subnet_of(ipaddress.IPv4Network(after))
    return frozenset() if holds else frozenset({"ipCidrRange"})


def _nat_agrees(inputs: Properties) -> Iterable[tuple[str, str]]:
    if inputs.get("natIpAllocateOption") == "MANUAL_ONLY" and not inputs.get("natIps"):
        yield "natIps", "required where natIpAllocateOption is MANUAL_ONLY, and not set"
    if inputs.get("natIpAllocateOption") == "AUTO_ONLY" and inputs.get("natIps"):
        yield "natIps", "expected none where natIpAllocateOption is AUTO_ONLY"
    named = inputs.get("sourceSubnetworkIpRangesToNat") == "LIST_OF_SUBNETWORKS"
    if named and not inputs.get("subnetworks"):
        yield "subnetworks", "required where sourceSubnetworkIpRangesToNat is LIST_OF_SUBNETWORKS, and not set"
    if not named and inputs.get("subnetworks"):
        yield "subnetworks", "expected none unless sourceSubnetworkIpRangesToNat is LIST_OF_SUBNETWORKS"


def _nat_rules(world: World, inputs: Properties, old: Properties | None) -> None:
    """A gateway for all subnetworks is the only one of its network in the region."""
    router_id = ROUTER.format(**{**inputs, "name": inputs["router"].rpartition("/")[2]})
    router = world.find(router_id)
    if router is None or inputs["sourceSubnetworkIpRangesToNat"] == "LIST_OF_SUBNETWORKS":
        return
    for other in world.of("gcp:compute/routerNat:RouterNat"):
        its_router = world.find(other.part_of[0])
        same = other.inputs["name"] == inputs["name"] and other.part_of[0] == router_id
        if its_router and not same and its_router.uses == router.uses and other.inputs["region"] == inputs["region"]:
            raise RefusedError(
                400,
                f"Invalid value for field 'resource.nats[0]': NAT '{other.inputs['name']}' of router "
                f"'{its_router.inputs['name']}' serves subnetworks of the same network already",
                "invalid",
            )


def _firewall_agrees(inputs: Properties) -> Iterable[tuple[str, str]]:
    if bool(inputs.get("allows")) == bool(inputs.get("denies")):
        yield "allows", "expected exactly one of allows, denies"
    outbound = inputs.get("direction") == "EGRESS"
    if outbound and any(inputs.get(each) for each in ("sourceRanges", "sourceTags", "sourceServiceAccounts")):
        yield "direction", "EGRESS: expected no sourceRanges, sourceTags and sourceServiceAccounts"
    sources = ("sourceRanges", "sourceTags", "sourceServiceAccounts")
    if not outbound and not any(inputs.get(each) for each in sources):
        yield "sourceRanges", "expected sourceRanges, sourceTags or sourceServiceAccounts where direction is INGRESS"
    tags = inputs.get("sourceTags") or inputs.get("targetTags")
    if tags and (inputs.get("sourceServiceAccounts") or inputs.get("targetServiceAccounts")):
        yield "targetTags", "expected tags or service accounts, not both"


def _each_cidr(value: list[str]) -> str | None:
    return next((f"{each}: {reason}" for each in value if isinstance(each, str) and (reason := cidr(each))), None)


def _address(world: World, inputs: Properties) -> Properties:
    assigned = compute_outputs("projects/{project}/regions/{region}/addresses/{name}")(world, inputs)
    internal = inputs.get("addressType") == "INTERNAL"
    given = inputs.get("address") or ("" if internal else public_address(f"{inputs['region']}/{inputs['name']}"))
    return assigned | {"address": given, "users": []}


def _policy_agrees(inputs: Properties) -> Iterable[tuple[str, str]]:
    names = ("groupPlacementPolicy", "workloadPolicy")
    if sum(bool(inputs.get(each)) for each in names) != 1:
        yield names[0], f"expected exactly one of {', '.join(names)}"


def _reservation(world: World, inputs: Properties) -> Properties:
    return compute_outputs("projects/{project}/zones/{zone}/reservations/{name}")(world, inputs) | {
        "status": "READY",
        "commitment": "",
        "reservationId": number_of(f"reservation/{inputs['zone']}/{inputs['name']}"),
    }


KINDS = (
    Kind(
        "gcp:compute/network:Network",
        "projects/{project}/global/networks/{name}",
        words("autoCreateSubnetworks deleteDefaultRoutesOnCreate description mtu name project routingMode"),
        defaults={
            "autoCreateSubnetworks": True,
            "routingMode": "REGIONAL",
            "mtu": 1460,
            "networkFirewallPolicyEnforcementOrder": "AFTER_CLASSIC_FIREWALL",
            "deleteDefaultRoutesOnCreate": False,
        },
        needs=words("autoCreateSubnetworks"),
        checks={
            "autoCreateSubnetworks": lambda value: (
                "the local cloud makes no subnetworks by itself; set it to false and declare them" if value else None
            ),
            "mtu": between(1300, 8896),
            "routingMode": one_of("REGIONAL", "GLOBAL"),
        },
        assigned=_network,
    ),
    Kind(
        "gcp:compute/subnetwork:Subnetwork",
        "projects/{project}/regions/{region}/subnetworks/{name}",
        words(
            "description ipCidrRange logConfig name network privateIpGoogleAccess project purpose region "
            "secondaryIpRanges stackType"
        ),
        references={"network": NETWORK},
        defaults={
            "purpose": "PRIVATE",
            "stackType": "IPV4_ONLY",
            "privateIpGoogleAccess": False,
            "privateIpv6GoogleAccess": "DISABLE_GOOGLE_ACCESS",
        },
        needs=words("ipCidrRange"),
        region="region",
        checks={
            "ipCidrRange": cidr,
            "purpose": one_of("PRIVATE"),
            "stackType": one_of("IPV4_ONLY"),
        },
        rules=_subnetwork_rules,
        assigned=_subnetwork,
        replaces=_shrinks,
    ),
    Kind(
        "gcp:compute/router:Router",
        ROUTER,
        words("description name network project region"),
        references={"network": NETWORK},
        region="region",
        assigned=compute_outputs(ROUTER),
    ),
    Kind(
        "gcp:compute/routerNat:RouterNat",
        "{project}/{region}/{router}/{name}",
        words(
            "drainNatIps enableDynamicPortAllocation enableEndpointIndependentMapping endpointTypes "
            "icmpIdleTimeoutSec logConfig maxPortsPerVm minPortsPerVm name natIpAllocateOption natIps project region "
            "router sourceSubnetworkIpRangesToNat subnetworks tcpEstablishedIdleTimeoutSec tcpTimeWaitTimeoutSec "
            "tcpTransitoryIdleTimeoutSec type udpIdleTimeoutSec"
        ),
        references={
            "router": Reference(ROUTER, holds=False, is_whole=True),
            "natIps": Reference("projects/{project}/regions/{region}/addresses/{name}"),
            "subnetworks.name": SUBNETWORK,
        },
        defaults={
            "icmpIdleTimeoutSec": 30,
            "tcpEstablishedIdleTimeoutSec": 1200,
            "tcpTimeWaitTimeoutSec": 120,
            "tcpTransitoryIdleTimeoutSec": 30,
            "udpIdleTimeoutSec": 30,
            "type": "PUBLIC",
        },
        region="region",
        checks={"natIpAllocateOption": one_of("AUTO_ONLY", "MANUAL_ONLY"), "minPortsPerVm": between(32, 65536)},
        agree=_nat_agrees,
        rules=_nat_rules,
    ),
    Kind(
        "gcp:compute/firewall:Firewall",
        "projects/{project}/global/firewalls/{name}",
        words(
            "allows denies description destinationRanges direction disabled logConfig name network priority project "
            "sourceRanges sourceServiceAccounts sourceTags targetServiceAccounts targetTags"
        ),
        references={"network": NETWORK},
        defaults={"direction": "INGRESS", "priority": 1000, "disabled": False},
        checks={
            "priority": between(0, 65535),
            "direction": one_of("INGRESS", "EGRESS"),
            "sourceRanges": _each_cidr,
            "destinationRanges": _each_cidr,
        },
        agree=_firewall_agrees,
        assigned=compute_outputs("projects/{project}/global/firewalls/{name}"),
    ),
    Kind(
        "gcp:compute/address:Address",
        "projects/{project}/regions/{region}/addresses/{name}",
        words("address addressType description labels name networkTier project purpose region subnetwork"),
        references={"subnetwork": SUBNETWORK},
        defaults={"addressType": "EXTERNAL", "networkTier": "PREMIUM"},
        region="region",
        checks={"addressType": one_of("EXTERNAL", "INTERNAL"), "networkTier": one_of("PREMIUM", "STANDARD")},
        assigned=_address,
    ),
    Kind(
        "gcp:compute/resourcePolicy:ResourcePolicy",
        "projects/{project}/regions/{region}/resourcePolicies/{name}",
        words("description groupPlacementPolicy name project region workloadPolicy"),
        region="region",
        agree=_policy_agrees,
        assigned=lambda world, inputs: {
            "selfLink": COMPUTE + "projects/{project}/regions/{region}/resourcePolicies/{name}".format(**inputs)
        },
    ),
    Kind(
        "gcp:compute/reservation:Reservation",
        "projects/{project}/zones/{zone}/reservations/{name}",
        words("description name project specificReservation specificReservationRequired zone"),
        defaults={"specificReservationRequired": False},
        region="zone",
        assigned=_reservation,
    ),
)
