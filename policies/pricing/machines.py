"""What a machine of EC2 is billed for: itself, its disks and its public address, as it and its launch template say.

What the machine says of itself comes before its launch template. Where that may be any of several templates, the
dearest counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from planner.catalog import Catalog
from planner.cost import Quantity, price_usd_per_month
from planner.workloads import PriceModel
from policies.pricing.reading import (
    Place,
    Priced,
    Quantities,
    UnpricedResource,
    added,
    count,
    fixed,
    needed,
    number,
    plain,
)
from policies.resource import Props

EC2_DEFAULT_DISK_GIB = 8
"""Root volume of an instance whose image says nothing else (Amazon Linux images)."""
EBS_TYPES = {
    "gp2": "block_storage_gp2_gib",
    "gp3": "block_storage_gib",
    "io1": "block_storage_provisioned_gib",
    "io2": "block_storage_provisioned_gib",
    "st1": "block_storage_hdd_gib",
    "sc1": "block_storage_cold_gib",
    "standard": "block_storage_magnetic_gib",
}
GP3_FREE_IOPS, GP3_FREE_MB_PER_S = 3_000, 125
"""What a gp3 volume has without further charge: EBS pricing page."""
ROOT_DEVICES = ("/dev/xvda", "/dev/sda1")
"""As images name their root volume: EC2 documentation."""
INTERFACES = ("networkInterfaces", "primaryNetworkInterface")
"""Network interfaces that were made before: they bring their addresses."""
NO_TEMPLATE = Props(None)
UNSEEN = (
    "its launch template decides its price and is none that this stack declares before it with an instanceType; "
    "declare that template, and name it by its name"
)


def dearest_machine(
    priced: Priced,
    own: Props,
    template: Props | None,
    price_model: PriceModel | None = None,
    default_disk_gib: float = EC2_DEFAULT_DISK_GIB,
) -> Quantities:
    """One machine, at the dearest that it may be.

    Args:
        own: what it says of itself: inputs of an instance, or of an entry of a fleet.
        template: where it names its launch template; None where it has none.
        price_model: how it is bought; by default as it, or its template, asks the market.

    Raises:
        UnpricedResource: no template that may be its own says what decides its price.
    """
    may_be = [] if template is None else priced.registered.templates(template)
    if not may_be and (template is None or own.has("instanceType")):
        may_be = [NO_TEMPLATE]
    starting = [each for each in may_be if template is None or _says_its_type(own, each)]
    if not starting and template is not None:
        raise UnpricedResource(UNSEEN)
    machines = [_machine(priced, own, each, price_model, default_disk_gib) for each in starting]
    return max(machines, key=lambda each: monthly_usd(priced.catalog, each))


def _says_its_type(own: Props, template: Props) -> bool:
    """Whether it can start at all: a template of node groups leaves the type to them."""
    for each in (own, template):
        if each.has("instanceRequirements"):
            raise UnpricedResource(
                "instanceRequirements lets AWS choose among types of any price; name them as instanceType"
            )
    return own.has("instanceType") or template.has("instanceType")


def _machine(
    priced: Priced, own: Props, template: Props, price_model: PriceModel | None, default_disk_gib: float
) -> Quantities:
    place = priced.place
    said = own if own.has("instanceType") else template
    _check_tenancy(own, template)
    if price_model is None:
        market = plain(own, "instanceMarketOptions", "marketType") or plain(
            template, "instanceMarketOptions", "marketType"
        )
        price_model = "spot" if market == "spot" else "on_demand"
    node = place.node(str(needed(said, "instanceType")), price_model)
    if price_model == "on_demand" and (is_in_a_reservation(own) or is_in_a_reservation(template)):
        node = dataclasses.replace(node, reservation="used")
    parts = [(node, 1.0)]
    if has_a_public_address(priced, own, template):
        parts.append((place.service("public_ipv4"), 1.0))
    return added(fixed(parts), *_disks(own, template, place, default_disk_gib))


def has_a_public_address(priced: Priced, own: Props, template: Props) -> bool:
    """As it or its template says; else as the subnets of the stack do, in one of which it may be."""
    said = [plain(own, "associatePublicIpAddress")]
    said += [plain(each, "associatePublicIpAddress") for each in blocks(template, "networkInterfaces")]
    told = [str(each).lower() == "true" for each in said if each is not None]
    if told or any(own.has(each) for each in INTERFACES):
        return any(told)
    return priced.registered.gives_addresses()


def _check_tenancy(own: Props, template: Props) -> None:
    asked = [plain(own, "tenancy"), plain(own, "placementTenancy"), plain(template, "placement", "tenancy")]
    tenancy = next((str(each) for each in asked if each not in (None, "default")), "default")
    on_a_host = any(
        each.has("hostId") or each.has("hostResourceGroupArn") for each in (own, template.part("placement"))
    )
    if tenancy != "default" or on_a_host:
        raise UnpricedResource(
            f"tenancy {tenancy} has prices that the catalog does not hold; leave it out, for shared hosts"
        )


def is_in_a_reservation(props: Props) -> bool:
    """Whether an instance or a launch template asks to run in reserved capacity alone."""
    asked = props.part("capacityReservationSpecification")
    return (
        asked.has("capacityReservationTarget")
        or plain(asked, "capacityReservationPreference") == "capacity-reservations-only"
    )


def _disks(own: Props, template: Props, place: Place, default_gib: float) -> Iterator[Quantities]:
    """Its own, and those that its template maps; a root of its own is in place of the template's."""
    root = next((key for key in ("rootBlockDevice", "rootBlockDevices") if own.has(key)), None)
    mapped = [
        each
        for each in blocks(template, "blockDeviceMappings")
        if root is None or plain(each, "deviceName") not in ROOT_DEVICES
    ]
    if root is not None:
        yield disk(own.part(root), place, "volumeSize", "volumeType", default_gib, "gp3")
    elif not mapped:
        yield fixed([(place.service("block_storage_gib"), default_gib)])
    yield from (disk(each, place, "volumeSize", "volumeType", None, "gp3") for each in blocks(own, "ebsBlockDevices"))
    yield from mapped_disks(mapped, place, default_gib)


def mapped_disks(mapped: Sequence[Props], place: Place, default_gib: float) -> Iterator[Quantities]:
    """Those of `blockDeviceMappings`; AWS makes gp2 where a mapping names no type."""
    for each in mapped:
        if each.part("ebs").value is not None:
            yield disk(each.part("ebs"), place, "volumeSize", "volumeType", default_gib, "gp2")


def blocks(props: Props, *path: str) -> Iterator[Props]:
    """The elements of a list.

    Raises:
        UnpricedResource: the list is not known before the update.
    """
    count(props, *path)
    yield from props.each(*path)


def disk(props: Props, place: Place, size: str, kind: str, default_gib: float | None, default_type: str) -> Quantities:
    """A volume with what it is given beyond its type's own speed. AWS makes gp2 where a volume names no type."""
    name = str(plain(props, kind, default=default_type))
    if name not in EBS_TYPES:
        raise UnpricedResource(f"{kind} is {name!r}, which has no price; expected one of {', '.join(EBS_TYPES)}")
    parts = [(place.service(EBS_TYPES[name]), number(props, size, default=default_gib))]
    if name in ("io1", "io2"):
        parts.append((place.service("block_storage_provisioned_iops"), number(props, "iops")))
    elif name == "gp3":
        iops = number(props, "iops", default=GP3_FREE_IOPS)
        mb_per_s = number(props, "throughput", default=GP3_FREE_MB_PER_S)
        parts.append((place.service("block_storage_iops"), max(0.0, iops - GP3_FREE_IOPS)))
        parts.append((place.service("block_storage_mb_per_s"), max(0.0, mb_per_s - GP3_FREE_MB_PER_S)))
    return fixed(parts)


def with_prepared(most: float, warm_pool: Props) -> float:
    """The most machines of a group and of those that it keeps prepared; -1 and nothing bound both by the group's."""
    prepared = plain(warm_pool, "maxGroupPreparedCapacity")
    return most if prepared in (None, -1) else max(most, number(warm_pool, "maxGroupPreparedCapacity"))


def monthly_usd(catalog: Catalog, amounts: Quantities) -> float:
    """What amounts cost a month, at their most."""
    return sum(amount.max * price_usd_per_month(catalog, tariff) for tariff, amount in amounts.items())


def as_many(amounts: Quantities, machines: float) -> Quantities:
    """What as many machines are billed for."""
    return {tariff: Quantity.fixed(amount.max * machines) for tariff, amount in amounts.items()}
