"""What resources of AWS are billed for: their type → the tariffs that their inputs ask for.

Not here: what depends on use alone (requests, transfer, logs taken in), which no input tells; the plan's
`expected_usage` counts it. Instances are priced as Linux with shared tenancy, which is how the catalog has them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from planner.catalog.kubernetes import STANDARD, control_plane
from planner.cost import Quantity, price_usd_per_month
from planner.workloads import PriceModel
from policies.pricing.reading import (
    Place,
    Priced,
    Quantities,
    Rule,
    UnpricedResource,
    added,
    count,
    dearest,
    fixed,
    needed,
    number,
    one,
    plain,
    refused,
    times,
)
from policies.resource import Props

EKS_DEFAULT_INSTANCE_TYPE = "t3.medium"
EKS_DEFAULT_DISK_GIB = 20
"""Both from the EKS API reference, CreateNodegroup."""
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


def _node_group(priced: Priced) -> Quantities:
    props, place = priced.props, priced.place
    capacity = plain(props, "capacityType", default="ON_DEMAND")
    price_model: PriceModel = "spot" if capacity == "SPOT" else "on_demand"
    listed = needed(props, "instanceTypes") if props.has("instanceTypes") else None
    if listed is None and props.has("launchTemplate"):
        raise UnpricedResource(
            "instanceTypes decides its price and is left to the launch template; name it on the node group instead"
        )
    node = dearest(
        priced.catalog, [place.node(str(name), price_model) for name in listed or [EKS_DEFAULT_INSTANCE_TYPE]]
    )
    most = number(props, "scalingConfig", "maxSize")
    least = number(props, "scalingConfig", "minSize", default=0)
    nodes = Quantity(least, number(props, "scalingConfig", "desiredSize", default=least), most)
    if props.has("launchTemplate"):
        templates = priced.templates.of(priced.resource)
        if templates and all(map(_is_in_a_reservation, templates)):
            node = dataclasses.replace(node, reservation="used")
        return times(added({node: Quantity.fixed(1)}, _dearest_disks(priced, templates)), nodes)
    disk_gib = number(props, "diskSize", default=EKS_DEFAULT_DISK_GIB)
    return times({node: Quantity.fixed(1), place.service("block_storage_gib"): Quantity.fixed(disk_gib)}, nodes)


def _dearest_disks(priced: Priced, templates: list[Props]) -> Quantities:
    """A node's, of the launch template that may be its own; what the image has where no template says."""
    found = [_template_disks(each, priced.place) for each in templates]
    usual = {priced.place.service("block_storage_gib"): Quantity.fixed(EKS_DEFAULT_DISK_GIB)}
    return max(
        (each or usual for each in found),
        key=lambda disks: sum(
            amount.max * price_usd_per_month(priced.catalog, tariff) for tariff, amount in disks.items()
        ),
        default=usual,
    )


def _template_disks(template: Props, place: Place) -> Quantities:
    mapped = (each.part("ebs") for each in _blocks(template, "blockDeviceMappings"))
    return added(
        *(
            _disk(each, place, "volumeSize", "volumeType", EKS_DEFAULT_DISK_GIB, "gp2")
            for each in mapped
            if each.value is not None
        )
    )


def _is_in_a_reservation(props: Props) -> bool:
    """Whether an instance or a launch template asks to run in reserved capacity alone."""
    asked = props.part("capacityReservationSpecification")
    return (
        asked.has("capacityReservationTarget")
        or plain(asked, "capacityReservationPreference") == "capacity-reservations-only"
    )


def _cluster(priced: Priced) -> Quantities:
    if plain(priced.props, "computeConfig", "enabled", default=False):
        raise UnpricedResource(
            "computeConfig.enabled lets EKS Auto Mode buy nodes that no plan bounds; leave it out and use node groups"
        )
    version = plain(priced.props, "version", default=None)  # by default EKS takes one in standard support
    return one(STANDARD if version is None else control_plane("aws", str(version)))(priced)


def _instance(priced: Priced) -> Quantities:
    spot = plain(priced.props, "instanceMarketOptions", "marketType") == "spot"
    return _of_instance(priced, "spot" if spot else "on_demand")


def _spot_request(priced: Priced) -> Quantities:
    return _of_instance(priced, "spot")


def _of_instance(priced: Priced, price_model: PriceModel) -> Quantities:
    props, place = priced.props, priced.place
    _check_tenancy(props)
    node = place.node(str(needed(props, "instanceType")), price_model)
    if price_model == "on_demand" and _is_in_a_reservation(props):
        node = dataclasses.replace(node, reservation="used")
    parts = [(node, 1.0)]
    if plain(props, "associatePublicIpAddress", default=False):
        parts.append((place.service("public_ipv4"), 1.0))
    root = _disk(props.part("rootBlockDevice"), place, "volumeSize", "volumeType", EC2_DEFAULT_DISK_GIB, "gp3")
    further = (
        _disk(each, place, "volumeSize", "volumeType", None, "gp3") for each in _blocks(props, "ebsBlockDevices")
    )
    return added(fixed(parts), root, *further)


def _check_tenancy(props: Props) -> None:
    tenancy = plain(props, "tenancy", default="default")
    if tenancy != "default" or props.has("hostId"):
        raise UnpricedResource(
            f"tenancy {tenancy} has prices that the catalog does not hold; leave it out, for shared hosts"
        )


def _blocks(props: Props, *path: str) -> Iterator[Props]:
    count(props, *path)  # refuses what is not known
    yield from props.each(*path)


def _volume(priced: Priced) -> Quantities:
    return _disk(priced.props, priced.place, "size", "type", None, "gp2")


def _disk(props: Props, place: Place, size: str, kind: str, default_gib: float | None, default_type: str) -> Quantities:
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


def _endpoint(priced: Priced) -> Quantities:
    if plain(priced.props, "vpcEndpointType", default="Gateway") == "Gateway":
        return {}
    subnets = count(priced.props, "subnetIds")
    return fixed([(priced.place.service("interface_endpoint"), float(1 if subnets is None else subnets))])


def _load_balancer(priced: Priced) -> Quantities:
    kind = plain(priced.props, "loadBalancerType", default="application")
    return one("load_balancer" if kind == "application" else "network_load_balancer")(priced)


def _reservation(priced: Priced) -> Quantities:
    """Billed whether it is used or not, with the instances in it.

    Those that name it, or ask for reserved capacity alone. One that only happens to match an open reservation is
    counted beside it, so that the sum errs upwards.
    """
    props = priced.props
    node = priced.place.node(str(needed(props, "instanceType")), "on_demand")
    return fixed([(dataclasses.replace(node, reservation="reserved"), number(props, "instanceCount"))])


def _table(priced: Priced) -> Quantities:
    """Requests are billed by use; capacity that is provisioned is billed whether it is used or not."""
    if plain(priced.props, "billingMode", default="PROVISIONED") != "PAY_PER_REQUEST":
        raise UnpricedResource(
            "capacity that is provisioned has prices that the catalog does not hold; set billingMode PAY_PER_REQUEST"
        )
    return {}


def _file_system(priced: Priced) -> Quantities:
    """What is stored is billed by use; throughput that is provisioned is billed whether it is used or not."""
    if plain(priced.props, "throughputMode", default="bursting") == "provisioned":
        raise UnpricedResource(
            "throughput that is provisioned has prices that the catalog does not hold; set throughputMode elastic"
        )
    return {}


def _schedule(priced: Priced) -> Quantities:
    """Times at which a group is bounded anew; -1 and 0 leave its maximum as it is."""
    if plain(priced.props, "maxSize", default=-1) not in (-1, 0):
        raise UnpricedResource("maxSize moves the maximum by which its group is priced; set it to -1")
    return {}


def _lustre(priced: Priced) -> Quantities:
    return fixed([(priced.place.service("file_system_gib"), number(priced.props, "storageCapacity"))])


_FLEET = refused(
    "its launch template decides the price and is not known before the update; use an AcceleratorPool or a node group"
)

RULES: Mapping[str, Rule] = {
    "aws:eks/nodeGroup:NodeGroup": _node_group,
    "aws:eks/cluster:Cluster": _cluster,
    "aws:ec2/instance:Instance": _instance,
    "aws:ec2/spotInstanceRequest:SpotInstanceRequest": _spot_request,
    "aws:ec2/capacityReservation:CapacityReservation": _reservation,
    "aws:ec2/natGateway:NatGateway": one("nat_gateway"),
    "aws:ec2/eip:Eip": one("public_ipv4"),
    "aws:ec2/vpcEndpoint:VpcEndpoint": _endpoint,
    "aws:ebs/volume:Volume": _volume,
    "aws:efs/fileSystem:FileSystem": _file_system,
    "aws:dynamodb/table:Table": _table,
    "aws:autoscaling/schedule:Schedule": _schedule,
    "aws:fsx/lustreFileSystem:LustreFileSystem": _lustre,
    "aws:kms/key:Key": one("encryption_key"),
    "aws:kms/replicaKey:ReplicaKey": one("encryption_key"),
    "aws:kms/externalKey:ExternalKey": one("encryption_key"),
    "aws:lb/loadBalancer:LoadBalancer": _load_balancer,
    "aws:alb/loadBalancer:LoadBalancer": _load_balancer,
    "aws:elb/loadBalancer:LoadBalancer": one("classic_load_balancer"),
    "aws:cloudwatch/metricAlarm:MetricAlarm": one("metric_alarm"),
    "aws:cloudwatch/dashboard:Dashboard": one("dashboard"),
    "aws:secretsmanager/secret:Secret": one("secret"),
    "aws:route53/zone:Zone": one("dns_zone"),
    "aws:autoscaling/group:Group": _FLEET,
    "aws:ec2/fleet:Fleet": _FLEET,
    "aws:ec2/spotFleetRequest:SpotFleetRequest": _FLEET,
}
