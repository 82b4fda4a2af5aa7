"""What resources of Google Cloud are billed for: their type → the tariffs that their inputs ask for.

Machines are rows of the catalog's offers, which include their GPUs; a machine type with GPUs beside it (n1) is the row
`TYPE+GPUxN`, and the chips of a TPU host or slice the row `tpu-GENERATION-Nchip`. Custom machine types have no row, so
they are refused. Not here: what depends on use alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from planner.catalog import Catalog
from planner.catalog.instances import gcp_accelerators
from planner.catalog.tpus import slice_of_config, slice_of_nodes, slice_of_type
from planner.cost import Quantity
from planner.workloads import PriceModel
from policies.pricing.reading import (
    Place,
    Priced,
    Quantities,
    Rule,
    UnpricedResource,
    added,
    count,
    fixed,
    needed,
    number,
    one,
    plain,
    refused,
    times,
)
from policies.resource import Props

DISKS = {
    "pd-standard": "block_storage_standard_gib",
    "pd-balanced": "block_storage_gib",
    "pd-ssd": "block_storage_ssd_gib",
    "pd-extreme": "block_storage_extreme_gib",
    "hyperdisk-balanced": "block_storage_hyperdisk_gib",
}
BOOT_DISK_GIB, NODE_DISK_GIB, DISK_GIB = 10, 100, 500
"""Where no size is set: of an instance (Debian images), of a GKE node, of a disk (pd-standard): Google's defaults."""
LOCAL_SSD_GIB = 375
LOCAL_SSDS = (
    ("localSsdCount",),
    ("ephemeralStorageLocalSsdConfig", "localSsdCount"),
    ("localNvmeSsdBlockConfig", "localSsdCount"),
)
"""Where a node's local disks are counted."""
HYPERDISK_IOPS = 3_000
"""What a hyperdisk-balanced has without further charge: Compute Engine disk pricing page."""
NODE_DEFAULT_MACHINE_TYPE = "e2-medium"
"""GKE's default."""
ZONES_OF_A_REGION = 3
"""In which a regional cluster puts its nodes unless it is told: GKE documentation."""


def _instance(priced: Priced) -> Quantities:
    props = priced.props
    place = _place(priced, "zone")
    spot = plain(props, "scheduling", "provisioningModel") == "SPOT" or plain(props, "scheduling", "preemptible")
    machine = str(needed(props, "machineType"))
    node = place.node(_offer(machine, props, priced.catalog), "spot" if spot else "on_demand")
    boot = props.part("bootDisk", "initializeParams")
    disk = _disk(place, plain(boot, "type", default="pd-standard"), number(boot, "size", default=BOOT_DISK_GIB))
    addresses = sum(count(each, "accessConfigs") or 0 for each in _interfaces(props))
    parts = [(node, 1.0), (place.service("public_ipv4"), float(addresses))]
    return added(fixed(parts), disk, _local_ssd(place, count(props, "scratchDisks") or 0))


def _interfaces(props: Props) -> Iterator[Props]:
    count(props, "networkInterfaces")  # refuses what is not known
    yield from props.each("networkInterfaces")


def _node_pool(priced: Priced) -> Quantities:
    props = priced.props
    return _nodes(priced, props, props.part("nodeConfig"), _zones(props))


def _cluster(priced: Priced) -> Quantities:
    """Its control plane, its default pool and the pools declared inside it."""
    props = priced.props
    for field, why in (
        (("enableAutopilot",), "Autopilot bills pods, which no plan bounds"),
        (("clusterAutoscaling", "enabled"), "node auto-provisioning buys nodes that no plan bounds"),
        (("enableTpu",), "TPUs of a cluster are bought by its pods, which no plan bounds"),
    ):
        if plain(props, *field, default=False):
            raise UnpricedResource(f"{'.'.join(field)} is set: {why}; use node pools")
    parts = [one("kubernetes_control_plane")(priced)]
    if count(props, "nodePools"):
        parts += [_nodes(priced, each, each.part("nodeConfig"), _zones(props)) for each in props.each("nodePools")]
    elif not plain(props, "removeDefaultNodePool", default=False):
        parts.append(_nodes(priced, props, props.part("nodeConfig"), _zones(props)))
    return added(*parts)


def _nodes(priced: Priced, props: Props, config: Props, zones: int) -> Quantities:
    """A pool's nodes at their minimum, as it starts, and at their maximum, with what each of them has."""
    place = _place(priced, "location")
    spot = plain(config, "spot", default=False) or plain(config, "preemptible", default=False)
    price_model: PriceModel = "spot" if spot else "on_demand"
    machine = str(plain(config, "machineType", default=NODE_DEFAULT_MACHINE_TYPE))
    offer, nodes_each = _offer_of_pool(machine, config, props, priced.catalog)
    if plain(config, "flexStart", default=False):
        _bounded_by_on_demand(offer, place, priced.catalog)
    node = place.node(offer, price_model)
    boot = config.part("bootDisk")
    kind = plain(boot, "diskType") or plain(config, "diskType", default="pd-balanced")
    size_gib = number(boot, "sizeGb", default=number(config, "diskSizeGb", default=NODE_DISK_GIB))
    disk = _disk(place, kind, size_gib)
    ssds = sum(number(config, *path, default=0) for path in LOCAL_SSDS)
    each = added(fixed([(node, 1 / nodes_each)]), disk, _local_ssd(place, ssds))
    return times(each, _bounds(props, zones))


def _bounded_by_on_demand(offer: str, place: Place, catalog: Catalog) -> None:
    """The catalog has no prices of flex-start: it counts as on demand, of which flex-start is a discount on A2 and A3.

    Source: "About Flex-start VMs", Compute Engine, read 2026-11-27. Of G2 and TPUs it is taken to be no dearer.
    """
    if catalog.offer(place.cloud, place.region, offer).price_usd_per_hour is None:
        raise UnpricedResource(
            "nodeConfig.flexStart is set: the catalog has no prices of flex-start, and none on demand of "
            f"{offer} that would bound it; use spot, or a machine type that is sold on demand"
        )


def _bounds(props: Props, zones: int) -> Quantity:
    at_first = number(props, "initialNodeCount", default=number(props, "nodeCount", default=1)) * zones
    scaling = props.part("autoscaling")
    if not props.has("autoscaling"):
        return Quantity.fixed(number(props, "nodeCount", default=at_first / zones) * zones)
    if scaling.has("totalMaxNodeCount"):
        least, most = number(scaling, "totalMinNodeCount", default=0), number(scaling, "totalMaxNodeCount")
    else:
        least, most = number(scaling, "minNodeCount", default=0) * zones, number(scaling, "maxNodeCount") * zones
    return Quantity(least, min(max(least, at_first), most), max(most, at_first))


def _zones(props: Props) -> int:
    named = count(props, "nodeLocations")
    if named:
        return named
    location = plain(props, "location")
    return 1 if location is not None and _is_zone(str(location)) else ZONES_OF_A_REGION


def _offer_of_pool(machine: str, config: Props, props: Props, catalog: Catalog) -> tuple[str, int]:
    """The offer that nodes of a pool are billed as, and how many of them make it: the hosts of a slice of TPUs."""
    topology = plain(props, "placementPolicy", "tpuTopology")
    found = slice_of_nodes(
        machine.rpartition("/")[2], None if topology is None else str(topology), catalog.tpu_topologies
    )
    if found is None:
        return _offer(machine, config, catalog), 1
    if not found[0].chips:
        raise UnpricedResource(f"placementPolicy.tpuTopology is {topology}; expected a topology such as 4x4")
    return found[0].instance_type, found[1]


def _offer(machine: str, props: Props, catalog: Catalog) -> str:
    """A machine type with what is attached to it, as the catalog names it."""
    machine = machine.rpartition("/")[2]
    if found := slice_of_nodes(machine, None, catalog.tpu_topologies):
        return found[0].instance_type
    if not machine.startswith("n1-") or not count(props, "guestAccelerators"):
        return machine  # other GPUs are part of their machine type
    guest = next(iter(props.each("guestAccelerators")))
    kind = str(needed(guest, "type")).rpartition("/")[2]
    known = gcp_accelerators()
    if kind not in known:
        raise UnpricedResource(f"guestAccelerators.type is {kind}, which is not known; use one of {', '.join(known)}")
    return f"{machine}+{known[kind].accelerator}x{number(guest, 'count'):g}"


def _tpu(priced: Priced) -> Quantities:
    """A TPU VM or slice, its hosts included."""
    props = priced.props
    spot = any(plain(props, "schedulingConfig", field, default=False) for field in ("spot", "preemptible"))
    if props.has("acceleratorConfig"):
        kind = str(needed(props, "acceleratorConfig", "type"))
        asked = slice_of_config(kind, str(needed(props, "acceleratorConfig", "topology")))
    else:
        kind = str(needed(props, "acceleratorType"))
        asked = slice_of_type(kind)
    if asked is None or not asked.chips:
        raise UnpricedResource(f"its TPU {kind} is not known; expected such as v5litepod-16")
    place = _place(priced, "zone")
    return fixed([(place.node(asked.instance_type, "spot" if spot else "on_demand"), 1.0)])


def _disk(place: Place, kind: object, size_gib: float) -> Quantities:
    name = str(kind).rpartition("/")[2]
    if name not in DISKS:
        raise UnpricedResource(f"its disk's type is {name!r}, which has no price; expected one of {', '.join(DISKS)}")
    return fixed([(place.service(DISKS[name]), size_gib)])


def _local_ssd(place: Place, disks: float) -> Quantities:
    return fixed([(place.service("local_ssd_gib"), disks * LOCAL_SSD_GIB)])


def _own_disk(copies: int) -> Rule:
    def rule(priced: Priced) -> Quantities:
        props, place = priced.props, _place(priced, "zone")
        size_gib = number(props, "size", default=DISK_GIB) * copies
        kind = str(plain(props, "type", default="pd-standard")).rpartition("/")[2]
        iops = number(props, "provisionedIops", default=0)
        if kind != "pd-extreme" and iops > HYPERDISK_IOPS:
            raise UnpricedResource(
                f"provisionedIops is {iops:g}, of which the catalog holds no price for {kind}; at most {HYPERDISK_IOPS}"
            )
        iops = iops if kind == "pd-extreme" else 0
        return added(_disk(place, kind, size_gib), fixed([(place.service("block_storage_extreme_iops"), iops)]))

    return rule


def _nat(priced: Priced) -> Quantities:
    """The gateway, and one address at least where Google allocates them; those that it names have their own price."""
    address = {} if count(priced.props, "natIps") else one("public_ipv4")(priced)
    return added(one("nat_gateway")(priced), address)


def _address(priced: Priced) -> Quantities:
    return {} if plain(priced.props, "addressType") == "INTERNAL" else one("public_ipv4")(priced)


def _place(priced: Priced, field: str) -> Place:
    """The region of a zone or location that the resource names, else where its provider works."""
    named = plain(priced.props, field)
    if named is None:
        return priced.place
    location = str(named).rpartition("/")[2]
    return Place("gcp", location.rpartition("-")[0] if _is_zone(location) else location)


def _is_zone(location: str) -> bool:
    return re.fullmatch(r"[a-z]+-[a-z]+\d+-[a-z]", location.rpartition("/")[2]) is not None


_GROUP = refused("its instance template decides the price and is not known before the update; use a node pool")

_AUTOSCALER = refused(
    "it sets the maximum of a group of which no machine is priced; use the autoscaling of a node pool"
)

RULES: Mapping[str, Rule] = {
    "gcp:compute/autoscaler:Autoscaler": _AUTOSCALER,
    "gcp:compute/regionAutoscaler:RegionAutoscaler": _AUTOSCALER,
    "gcp:compute/instance:Instance": _instance,
    "gcp:compute/disk:Disk": _own_disk(1),
    "gcp:compute/regionDisk:RegionDisk": _own_disk(2),
    "gcp:compute/address:Address": _address,
    "gcp:compute/globalAddress:GlobalAddress": _address,
    "gcp:compute/routerNat:RouterNat": _nat,
    "gcp:compute/forwardingRule:ForwardingRule": one("load_balancer"),
    "gcp:compute/globalForwardingRule:GlobalForwardingRule": one("load_balancer"),
    "gcp:container/cluster:Cluster": _cluster,
    "gcp:container/nodePool:NodePool": _node_pool,
    "gcp:tpu/v2Vm:V2Vm": _tpu,
    "gcp:kms/cryptoKey:CryptoKey": one("encryption_key"),
    "gcp:compute/instanceGroupManager:InstanceGroupManager": _GROUP,
    "gcp:compute/regionInstanceGroupManager:RegionInstanceGroupManager": _GROUP,
    "gcp:compute/instanceFromTemplate:InstanceFromTemplate": _GROUP,
}
