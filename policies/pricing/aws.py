"""What resources of AWS are billed for: their type → the tariffs that their inputs ask for.

Not here: what depends on use alone (requests, transfer, logs taken in), which no input tells; the plan's
`expected_usage` counts it. Instances are priced as Linux with shared tenancy, which is how the catalog has them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from planner.catalog.kubernetes import STANDARD, control_plane
from planner.cost import Quantity
from planner.workloads import PriceModel
from policies.pricing import fleets
from policies.pricing.machines import (
    NO_TEMPLATE,
    blocks,
    dearest_machine,
    disk,
    has_a_public_address,
    is_in_a_reservation,
    mapped_disks,
    monthly_usd,
    with_prepared,
)
from policies.pricing.reading import (
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
    times,
    values,
)
from policies.resource import Props

EKS_DEFAULT_INSTANCE_TYPE = "t3.medium"
EKS_DEFAULT_DISK_GIB = 20
"""Both from the EKS API reference, CreateNodegroup."""


def _node_group(priced: Priced) -> Quantities:
    props, place = priced.props, priced.place
    capacity = plain(props, "capacityType", default="ON_DEMAND")
    price_model: PriceModel = "spot" if capacity == "SPOT" else "on_demand"
    templates = priced.registered.templates(props.part("launchTemplate")) if props.has("launchTemplate") else []
    listed = [str(each) for each in values(props, "instanceTypes")]
    if not listed:  # of a Capacity Block it is the template that says it
        listed = [str(needed(each, "instanceType")) for each in templates if each.has("instanceType")]
        if not listed and props.has("launchTemplate"):
            raise UnpricedResource(
                "instanceTypes decides its price and is left to a launch template that does not say it; name it on the "
                "node group instead"
            )
    node = dearest(priced.catalog, [place.node(name, price_model) for name in listed or [EKS_DEFAULT_INSTANCE_TYPE]])
    most = number(props, "scalingConfig", "maxSize")
    least = number(props, "scalingConfig", "minSize", default=0)
    desired = number(props, "scalingConfig", "desiredSize", default=least)
    if props.has("warmPoolConfig"):
        desired = most = with_prepared(most, props.part("warmPoolConfig"))
    nodes = Quantity(least, desired, most)
    if props.has("launchTemplate"):
        if templates and all(map(is_in_a_reservation, templates)):
            node = dataclasses.replace(node, reservation="used")
        return times(
            added({node: Quantity.fixed(1)}, _dearest_disks(priced, templates), _address(priced, templates)), nodes
        )
    disk_gib = number(props, "diskSize", default=EKS_DEFAULT_DISK_GIB)
    each = fixed([(node, 1.0), (place.service("block_storage_gib"), disk_gib)])
    return times(added(each, _address(priced, [NO_TEMPLATE])), nodes)


def _dearest_disks(priced: Priced, templates: list[Props]) -> Quantities:
    """A node's, of the launch template that may be its own; what the image has where no template says."""
    place, default_gib = priced.place, EKS_DEFAULT_DISK_GIB
    found = [added(*mapped_disks(list(blocks(each, "blockDeviceMappings")), place, default_gib)) for each in templates]
    usual = {place.service("block_storage_gib"): Quantity.fixed(default_gib)}
    return max((each or usual for each in found), key=lambda each: monthly_usd(priced.catalog, each), default=usual)


def _address(priced: Priced, templates: list[Props]) -> Quantities:
    """A node's, where one of the launch templates that may be its own, or a subnet, gives it a public one."""
    has_one = any(has_a_public_address(priced, NO_TEMPLATE, each) for each in templates or [NO_TEMPLATE])
    return fixed([(priced.place.service("public_ipv4"), float(has_one))])


def _cluster(priced: Priced) -> Quantities:
    if plain(priced.props, "computeConfig", "enabled", default=False):
        raise UnpricedResource(
            "computeConfig.enabled lets EKS Auto Mode buy nodes that no plan bounds; leave it out and use node groups"
        )
    version = plain(priced.props, "version", default=None)  # by default EKS takes one in standard support
    return one(STANDARD if version is None else control_plane("aws", str(version)))(priced)


def _instance(priced: Priced) -> Quantities:
    return _of_instance(priced, None)


def _spot_request(priced: Priced) -> Quantities:
    return _of_instance(priced, "spot")


def _of_instance(priced: Priced, price_model: PriceModel | None) -> Quantities:
    template = priced.props.part("launchTemplate") if priced.props.has("launchTemplate") else None
    return dearest_machine(priced, priced.props, template, price_model)


def _volume(priced: Priced) -> Quantities:
    return disk(priced.props, priced.place, "size", "type", None, "gp2")


def _endpoint(priced: Priced) -> Quantities:
    if plain(priced.props, "vpcEndpointType", default="Gateway") == "Gateway":
        return {}
    subnets = count(priced.props, "subnetIds")
    return fixed([(priced.place.service("interface_endpoint"), float(1 if subnets is None else subnets))])


def _load_balancer(priced: Priced) -> Quantities:
    kind = plain(priced.props, "loadBalancerType", default="application")
    return one("load_balancer" if kind == "application" else "network_load_balancer")(priced)


def _secret(priced: Priced) -> Quantities:
    """Each of its replicas is billed like itself."""
    return fixed([(priced.place.service("secret"), 1.0 + (count(priced.props, "replicas") or 0))])


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


def _health_check(priced: Priced) -> Quantities:
    """As of an endpoint outside of AWS: where a name leads is not known, and one in AWS costs less."""
    kind = str(needed(priced.props, "type"))
    features = (
        kind.startswith("HTTPS"),
        kind.endswith("STR_MATCH"),
        plain(priced.props, "measureLatency", default=False) is True,
        plain(priced.props, "requestInterval", default=30) == 10,
    )
    of_features = (priced.place.service("health_check_feature"), float(sum(features)))
    return fixed([(priced.place.service("health_check"), 1.0), of_features])


def _lustre(priced: Priced) -> Quantities:
    return fixed([(priced.place.service("file_system_gib"), number(priced.props, "storageCapacity"))])


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
    "aws:secretsmanager/secret:Secret": _secret,
    "aws:ec2/vpcEndpointSubnetAssociation:VpcEndpointSubnetAssociation": one("interface_endpoint"),
    "aws:route53/zone:Zone": one("dns_zone"),
    "aws:route53/healthCheck:HealthCheck": _health_check,
    **fleets.RULES,
}
