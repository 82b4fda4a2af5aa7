"""Choices of a type whose price the catalog does not hold: refused, so that they don't pass at the price of others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from policies.pricing.reading import UnpricedResource, plain
from policies.resource import NotKnown, Props, Resource

Choices = tuple[tuple[tuple[str, ...], tuple[object, ...]], ...]
_DISK: Choices = ((("provisionedThroughput",), ()),)
_NODES: Choices = (
    (("bootDisk", "provisionedIops"), ()),
    (("bootDisk", "provisionedThroughput"), ()),
    (("storagePools",), ()),
)
_BALANCER: Choices = ((("minimumLoadBalancerCapacity",), ()),)
PRICED: Mapping[str, Choices] = {
    "aws:eks/cluster:Cluster": ((("controlPlaneScalingConfig", "tier"), ("standard",)),),
    "aws:fsx/lustreFileSystem:LustreFileSystem": (
        (("storageType",), ("SSD",)),
        (("perUnitStorageThroughput",), (50, 125)),
        (("throughputCapacity",), ()),
        (("dataReadCacheConfiguration",), ()),
        (("metadataConfiguration", "mode"), ("AUTOMATIC",)),
    ),
    "aws:lb/loadBalancer:LoadBalancer": _BALANCER,
    "aws:alb/loadBalancer:LoadBalancer": _BALANCER,
    "aws:ec2/natGateway:NatGateway": ((("availabilityMode",), ("zonal",)),),
    "aws:ssm/parameter:Parameter": ((("tier",), ("Standard",)),),
    "gcp:compute/disk:Disk": _DISK,
    "gcp:compute/regionDisk:RegionDisk": _DISK,
    "gcp:compute/instance:Instance": (
        (("bootDisk", "initializeParams", "provisionedIops"), ()),
        (("bootDisk", "initializeParams", "provisionedThroughput"), ()),
    ),
    "gcp:container/cluster:Cluster": ((("enterpriseConfig", "desiredTier"), ("STANDARD",)),),
    "kubernetes:storage.k8s.io/v1:StorageClass": (
        (("parameters", "type"), ("gp3", "st1", "sc1", "standard", "pd-standard", "pd-balanced")),
        *((("parameters", name), ()) for name in ("iops", "iopsPerGB", "throughput")),
        *((("parameters", f"provisioned-{name}-on-create"), ()) for name in ("iops", "throughput")),
    ),
}
"""By type and field, what the catalog's price is of, beside leaving it out.

Of a StorageClass, what claims are priced as.
"""
NODES_IN: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "gcp:container/nodePool:NodePool": (("nodeConfig",),),
    "gcp:container/cluster:Cluster": (("nodeConfig",), ("nodePools", "nodeConfig")),
}


def check(resource: Resource) -> None:
    """Raises UnpricedResource where a choice has a price that the catalog does not hold, or is not known."""
    for within, path, passing in _choices(resource):
        chosen = plain(within, *path)
        if chosen not in (None, "", 0, *passing):
            shown = chosen if isinstance(chosen, str | int | float) else "set"
            instead = f"expected {' or '.join(map(str, passing))}" if passing else "leave it out"
            raise UnpricedResource(f"{'.'.join(path)} is {shown}, of which the catalog holds no price; {instead}")
    if resource.type.startswith("kubernetes:") and _has_key(resource.props.value, "volumeClaimTemplate"):
        raise UnpricedResource(
            "a volume of its pods is ephemeral with a volumeClaimTemplate, a disk for each pod, of which no price is "
            "counted; mount a PersistentVolumeClaim"
        )


def _has_key(value: object, key: str) -> bool:
    """Whether a block anywhere in a value has a field."""
    if isinstance(value, Mapping):
        return key in value or any(_has_key(each, key) for each in value.values())
    return isinstance(value, list) and any(_has_key(each, key) for each in value)


def _choices(resource: Resource) -> Iterator[tuple[Props, tuple[str, ...], tuple[object, ...]]]:
    for path, passing in PRICED.get(resource.type, ()):
        yield resource.props, path, passing
    for where in NODES_IN.get(resource.type, ()):
        try:
            configs = list(resource.props.every(*where))
        except NotKnown as error:
            raise UnpricedResource(f"{error} decides its price and is not known before the update") from None
        for config in configs:
            for path, passing in _NODES:
                yield config, path, passing
