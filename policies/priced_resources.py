"""What a provisioned resource is billed for, read from its inputs: resource type → quantities of tariffs.

Only plain values are read. One that is not known yet, and without which there is no price, is an error and never a
price of nothing: a mandatory policy that reads an unknown value would be made advisory by the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from planner.catalog import Catalog
from planner.cost import Tariff, price_usd_per_month
from planner.workloads import PriceModel
from policies.resource import NotKnown, Props, Resource

Quantities = dict[Tariff, float]

EKS_DEFAULT_INSTANCE_TYPE = "t3.medium"
EKS_DEFAULT_DISK_GIB = 20
"""Both from the EKS API reference, CreateNodegroup."""
EC2_DEFAULT_DISK_GIB = 8
"""Root volume of an instance whose image says nothing else (Amazon Linux images)."""


class UnpricedResource(ValueError):
    """The price of a resource can't be known from what is declared; says which field is missing."""


def quantities(resource: Resource, catalog: Catalog) -> Quantities:
    """What one resource is billed for at its maximum; empty for types that cost nothing by themselves.

    Raises:
        UnpricedResource: a field that decides the price is missing or not known before the update.
    """
    rule = _RULES.get(resource.type)
    return rule(resource.props, resource.region, catalog) if rule else {}


def _plain(props: Props, *path: str) -> Any:
    """The value at a path; None where it is absent or not known yet."""
    try:
        return props.get(*path)
    except NotKnown:
        return None


def _needed(props: Props, *path: str) -> Any:
    value = _plain(props, *path)
    if value is None:
        raise UnpricedResource(
            f"{'.'.join(path)} decides its price, and is not set or not known before the update; give it a plain value"
        )
    return value


def _node(region: str, instance_type: str, price_model: PriceModel) -> Tariff:
    return Tariff("aws", region, instance_type, price_model)


def _service(region: str, service: str) -> Tariff:
    return Tariff("aws", region, service)


def _node_group(props: Props, region: str, catalog: Catalog) -> Quantities:
    price_model: PriceModel = "spot" if _plain(props, "capacityType") == "SPOT" else "on_demand"
    listed = _needed(props, "instanceTypes") if props.has("instanceTypes") else None
    if listed is None and _plain(props, "launchTemplate") is not None:
        raise UnpricedResource(
            "instanceTypes decides its price and is left to the launch template; name it on the node group instead"
        )
    tariffs = [_node(region, str(name), price_model) for name in listed or [EKS_DEFAULT_INSTANCE_TYPE]]
    dearest = max(tariffs, key=lambda tariff: price_usd_per_month(catalog, tariff))
    nodes = float(_needed(props, "scalingConfig", "maxSize"))
    if _plain(props, "launchTemplate") is not None:
        return {dearest: nodes}  # its disks are the launch template's
    disk_gib = float(_plain(props, "diskSize") or EKS_DEFAULT_DISK_GIB)
    return {dearest: nodes, _service(region, "block_storage_gib"): nodes * disk_gib}


def _instance(props: Props, region: str, _: Catalog) -> Quantities:
    spot = _plain(props, "instanceMarketOptions", "marketType") == "spot"
    node = _node(region, str(_needed(props, "instanceType")), "spot" if spot else "on_demand")
    disk_gib = float(_plain(props, "rootBlockDevice", "volumeSize") or EC2_DEFAULT_DISK_GIB)
    return {node: 1.0, _service(region, "block_storage_gib"): disk_gib}


def _endpoint(props: Props, region: str, _: Catalog) -> Quantities:
    if _plain(props, "vpcEndpointType") != "Interface":
        return {}
    subnets = _plain(props, "subnetIds")
    return {_service(region, "interface_endpoint"): float(len(subnets) if subnets is not None else 1)}


def _volume(props: Props, region: str, _: Catalog) -> Quantities:
    return {_service(region, "block_storage_gib"): float(_needed(props, "size"))}


def _one(service: str) -> Callable[[Props, str, Catalog], Quantities]:
    return lambda _props, region, _catalog: {_service(region, service): 1.0}


def _autoscaling_group(props: Props, region: str, catalog: Catalog) -> Quantities:
    del props, region, catalog
    raise UnpricedResource(
        "its launch template decides the price and is not known before the update; use an AcceleratorPool or a node "
        "group"
    )


_RULES: Mapping[str, Callable[[Props, str, Catalog], Quantities]] = {
    "aws:eks/nodeGroup:NodeGroup": _node_group,
    "aws:eks/cluster:Cluster": _one("kubernetes_control_plane"),
    "aws:ec2/instance:Instance": _instance,
    "aws:ec2/spotInstanceRequest:SpotInstanceRequest": _instance,
    "aws:ec2/natGateway:NatGateway": _one("nat_gateway"),
    "aws:ec2/eip:Eip": _one("public_ipv4"),
    "aws:ec2/vpcEndpoint:VpcEndpoint": _endpoint,
    "aws:ebs/volume:Volume": _volume,
    "aws:kms/key:Key": _one("encryption_key"),
    "aws:lb/loadBalancer:LoadBalancer": _one("load_balancer"),
    "aws:autoscaling/group:Group": _autoscaling_group,
}
