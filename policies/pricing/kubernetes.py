"""What objects of Kubernetes make the cloud bill: load balancers of Services, disks of claims, and the nodes that a
NodePool of Karpenter may have at its limits; nothing else.

A StatefulSet has a disk for each replica up to its autoscaler's maximum. Whichever of the two is registered later is
priced by both, so that nothing of it is counted twice.
Pods are not priced: they run on nodes that are. An Ingress or Gateway makes a load balancer where a controller is
installed, which no object says, so it is not counted. The prices are those of the cloud that the cluster is in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from planner.cost import Quantity, Tariff
from planner.workloads import PriceModel
from policies.pricing.machines import blocks, disk, monthly_usd
from policies.pricing.reading import (
    AUTOSCALERS,
    NODE_CLASSES,
    STATEFUL_SETS,
    VOLUME,
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
    plain,
    times,
    values,
)
from policies.resource import Props, Resource

INSTANCE_TYPE, CAPACITY_TYPE = "node.kubernetes.io/instance-type", "karpenter.sh/capacity-type"
LOAD_BALANCERS = {"aws": "network_load_balancer", "gcp": "load_balancer"}
"""What a Service of type LoadBalancer becomes."""
BINARY, DECIMAL = {"Ki": -2, "Mi": -1, "Gi": 0, "Ti": 1, "Pi": 2, "Ei": 3}, {"": 0, "k": 1, "M": 2, "G": 3, "T": 4}
"""Suffix of a quantity → power of 1024 GiB, or of 1000 bytes."""
OF_BUCKETS = ("gcsfuse.csi.storage.gke.io", "fsx.csi.aws.com")
"""Drivers whose volumes show files of a bucket: no disk, and a file system of Lustre is billed by itself."""
KEDA_REPLICAS_MAX = 100
"""Of a ScaledObject that says nothing else: KEDA's documentation, ScaledObject specification."""
KWOK_GROUP = "karpenter.kwok.sh"
"""Of the classes of nodes that are no machines (`fusion:kubernetes: cluster`): they say nothing of disks."""
KARPENTER_USUAL_DISK_GIB = 20
KARPENTER_DISK_GIB = {"bottlerocket": 24, "windows2019": 50, "windows2022": 50}
"""Of a class without blockDeviceMappings, by its family of images: Karpenter's documentation, NodeClasses."""


def _service(priced: Priced) -> Quantities:
    if plain(priced.props, "spec", "type") != "LoadBalancer":
        return {}
    return fixed([(_in_its_cloud(priced).service(LOAD_BALANCERS[priced.place.cloud]), 1.0)])


def _claim(priced: Priced) -> Quantities:
    return {} if _shows_a_bucket(priced) else fixed([_disk(priced, priced.props, 1)])


def _shows_a_bucket(priced: Priced) -> bool:
    """Whether a claim is of a volume that was registered before it, shows a bucket, and is as large as that.

    One that grows may grow what it is of.
    """
    name, size = priced.props.part("spec", "volumeName"), priced.props.part("spec", "resources", "requests", "storage")
    if name.is_unknown() or size.is_unknown() or not name.value:
        return False
    return any(
        each.props.part("metadata", "name").value == name.value
        and each.props.part("spec", "csi", "driver").value in OF_BUCKETS
        and each.props.part("spec", "capacity", "storage").value == size.value
        for each in priced.registered.before(priced.resource, VOLUME)
    )


def _claim_patch(priced: Priced) -> Quantities:
    """A patch makes what is not there, and says its size where it makes or grows one."""
    return _claim(priced) if priced.props.has("spec", "resources", "requests", "storage") else {}


def _stateful_set(priced: Priced) -> Quantities:
    """The claims that it makes for each replica, of which an autoscaler that was registered before it may add some."""
    if not count(priced.props, "spec", "volumeClaimTemplates"):
        return {}
    scaled_by = [
        each for each in priced.registered.before(priced.resource, *AUTOSCALERS) if _may_scale(each, priced.resource)
    ]
    replicas = number(priced.props, "spec", "replicas", default=1)
    most = max([replicas, *(_replicas_at_most(each.props) for each in scaled_by)])
    return _claims(priced, priced.props, Quantity(replicas, replicas, most))


def _autoscaler(priced: Priced) -> Quantities:
    """What it may add to the StatefulSets that were registered before it."""
    found = [
        _claims(priced, each.props, Quantity(0, 0, most - replicas))
        for each in priced.registered.before(priced.resource, *STATEFUL_SETS)
        if count(each.props, "spec", "volumeClaimTemplates") and _may_scale(priced.resource, each)
        for replicas in (number(each.props, "spec", "replicas", default=1),)
        for most in (_replicas_at_most(priced.props),)
        if most > replicas
    ]
    return added(*found)


def _may_scale(autoscaler: Resource, stateful_set: Resource) -> bool:
    """Whether its target is, or may be, the StatefulSet: what is not known yet, or not said by a patch, may be any."""
    target = autoscaler.props.part("spec", "scaleTargetRef")
    if target.value is None and autoscaler.type.endswith("Patch"):
        return autoscaler.props.has("spec", "maxReplicas")
    pairs = (
        (target.part("name"), stateful_set.props.part("metadata", "name")),
        (autoscaler.props.part("metadata", "namespace"), stateful_set.props.part("metadata", "namespace")),
    )
    return plain(target, "kind", default="Deployment") == "StatefulSet" and all(
        mine.is_unknown() or its.is_unknown() or (mine.value or "default") == (its.value or "default")
        for mine, its in pairs
    )


def _replicas_at_most(autoscaler: Props) -> float:
    key = "maxReplicaCount" if autoscaler.has("spec", "maxReplicaCount") else "maxReplicas"
    return number(autoscaler, "spec", key, default=KEDA_REPLICAS_MAX)


def _claims(priced: Priced, stateful_set: Props, replicas: Quantity) -> Quantities:
    claims = fixed(_disk(priced, claim, 1) for claim in stateful_set.each("spec", "volumeClaimTemplates"))
    return times(claims, replicas)


def _disk(priced: Priced, claim: Props, copies: float) -> tuple[Tariff, float]:
    asked = needed(claim, "spec", "resources", "requests", "storage")
    return _in_its_cloud(priced).service("block_storage_gib"), copies * gib(str(asked))


def _node_pool(priced: Priced) -> Quantities:
    """The dearest of its instance types, as often as its limits allow, each node with the disks of its class."""
    asked = _required(priced.props)
    if not asked.get(INSTANCE_TYPE):
        raise UnpricedResource(f"no requirement {INSTANCE_TYPE} In [...] says what it may buy; name the instance types")
    price_model: PriceModel = "spot" if asked.get(CAPACITY_TYPE) == ["spot"] else "on_demand"
    place = _in_its_cloud(priced)
    beside = _beside_a_node(priced, place)
    choices = [
        times(added({place.node(each, price_model): Quantity.fixed(1)}, beside), Quantity(0, 0, nodes))
        for each in asked[INSTANCE_TYPE]
        for nodes in (_machines_at_most(priced, place, each),)
    ]
    return max(choices, key=lambda each: monthly_usd(priced.catalog, each))


def _beside_a_node(priced: Priced, place: Place) -> Quantities:
    """The disks and the public address of a node, as its EC2NodeClass says: the dearest of those that it may be.

    Raises:
        UnpricedResource: the class is none that was registered before.
    """
    group = priced.props.part("spec", "template", "spec", "nodeClassRef", "group")
    if not group.is_unknown() and group.value == KWOK_GROUP:
        return fixed([(place.service("block_storage_gib"), KARPENTER_USUAL_DISK_GIB)])
    named = priced.props.part("spec", "template", "spec", "nodeClassRef", "name")
    classes = [
        each.props
        for each in priced.registered.of_type(*NODE_CLASSES)
        if named.is_unknown() or each.props.part("metadata", "name").value == named.value
    ]
    if not classes:
        raise UnpricedResource(
            f"spec.template.spec.nodeClassRef.name is {'unknown' if named.is_unknown() else repr(named.value)}, and no "
            "EC2NodeClass of that name, which decides the disks of its nodes, is declared before it in this stack; "
            "declare it"
        )
    found = [added(*_of_class(priced, place, each)) for each in classes]
    return max(found, key=lambda each: monthly_usd(priced.catalog, each))


def _of_class(priced: Priced, place: Place, node_class: Props) -> Iterator[Quantities]:
    mapped = [each.part("ebs") for each in blocks(node_class, "spec", "blockDeviceMappings")]
    if not mapped:
        family = str(_family(node_class)).partition("@")[0].lower()
        yield fixed([(place.service("block_storage_gib"), KARPENTER_DISK_GIB.get(family, KARPENTER_USUAL_DISK_GIB))])
    for ebs in mapped:
        size = Props({**(ebs.value or {}), "volumeSize": gib(str(needed(ebs, "volumeSize")))}, ebs.path)
        yield disk(size, place, "volumeSize", "volumeType", None, "gp3")
    if plain(node_class, "spec", "associatePublicIPAddress", default=priced.registered.gives_addresses()):
        yield fixed([(place.service("public_ipv4"), 1.0)])


def _family(node_class: Props) -> object:
    """What images its nodes start from: said as a family, or by the alias of one."""
    alias = plain(node_class, "spec", "amiSelectorTerms", "alias")
    return plain(node_class, "spec", "amiFamily") or alias or ""


def _required(node_pool: Props) -> dict[str, list[str]]:
    """By label, the values that a NodePool's nodes may have."""
    found: dict[str, list[str]] = {}
    for each in node_pool.each("spec", "template", "spec", "requirements"):
        if plain(each, "operator") == "In":
            found[str(plain(each, "key"))] = [str(value) for value in values(each, "values")]
    return found


def _machines_at_most(priced: Priced, place: Place, instance_type: str) -> int:
    """How many machines of a type fit into the limits.

    Raises:
        UnpricedResource: no limit bounds them.
    """
    offer = priced.catalog.offer(place.cloud, place.region, instance_type)
    limits = plain(priced.props, "spec", "limits", default={})
    if not isinstance(limits, Mapping):
        raise UnpricedResource("spec.limits is no mapping of resources to quantities, such as cpu: 100")
    each = {"cpu": (offer.vcpus, _cpus), "memory": (offer.memory_gib, gib)}
    bounds = [
        read(str(limit)) / has
        for name, limit in limits.items()
        for has, read in [each.get(name, (offer.accelerator_count if "/" in name else 0, _units))]
        if has
    ]
    if not bounds:
        raise UnpricedResource(f"spec.limits bound no {instance_type}; set a limit of cpu")
    return math.floor(min(bounds) + 1e-9)


def _cpus(quantity: str) -> float:
    return _units(quantity[:-1]) / 1000 if quantity.endswith("m") else _units(quantity)


def _units(quantity: str) -> float:
    return number(Props({"spec.limits": quantity}), "spec.limits")


def gib(quantity: str) -> float:
    """GiB of a quantity of Kubernetes, such as `10Gi`.

    Raises:
        UnpricedResource: it is none.
    """
    found = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]+)?)([A-Za-z]{0,2})", quantity)
    if found and found[2] in BINARY:
        return float(found[1]) * 1024.0 ** BINARY[found[2]]
    if found and found[2] in DECIMAL:
        return float(found[1]) * 1000.0 ** DECIMAL[found[2]] / 1024.0**3
    raise UnpricedResource(f"a size is {quantity[:40]!r}; expected one such as 10Gi")


def _in_its_cloud(priced: Priced) -> Place:
    if priced.place.cloud not in LOAD_BALANCERS:
        raise UnpricedResource(
            "which cloud its cluster is in is not known; set aws:region or gcp:region of the stack (one of them)"
        )
    return priced.place


RULES: Mapping[str, Rule] = {
    "kubernetes:core/v1:Service": _service,
    "kubernetes:core/v1:ServicePatch": _service,
    "kubernetes:core/v1:PersistentVolumeClaim": _claim,
    "kubernetes:core/v1:PersistentVolumeClaimPatch": _claim_patch,
    **dict.fromkeys(STATEFUL_SETS, _stateful_set),
    **dict.fromkeys(AUTOSCALERS, _autoscaler),
    "kubernetes:karpenter.sh/v1:NodePool": _node_pool,
}
"""By the type that `policies.objects` gives every object, of a list or not."""
