"""What objects of Kubernetes make the cloud bill: load balancers of Services, disks of claims, and the nodes that a
NodePool of Karpenter may have at its limits; nothing else.

Pods are not priced: they run on nodes that are. An Ingress or Gateway makes a load balancer where a controller is
installed, which no object says, so it is not counted. The prices are those of the cloud that the cluster is in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from planner.cost import Quantity, Tariff, price_usd_per_month
from planner.workloads import PriceModel
from policies.pricing.reading import (
    Place,
    Priced,
    Quantities,
    Rule,
    UnpricedResource,
    count,
    fixed,
    needed,
    number,
    plain,
)
from policies.resource import Props

INSTANCE_TYPE, CAPACITY_TYPE = "node.kubernetes.io/instance-type", "karpenter.sh/capacity-type"
LOAD_BALANCERS = {"aws": "network_load_balancer", "gcp": "load_balancer"}
"""What a Service of type LoadBalancer becomes."""
BINARY, DECIMAL = {"Ki": -2, "Mi": -1, "Gi": 0, "Ti": 1, "Pi": 2, "Ei": 3}, {"": 0, "k": 1, "M": 2, "G": 3, "T": 4}
"""Suffix of a quantity → power of 1024 GiB, or of 1000 bytes."""


def _service(priced: Priced) -> Quantities:
    if plain(priced.props, "spec", "type") != "LoadBalancer":
        return {}
    return fixed([(_in_its_cloud(priced).service(LOAD_BALANCERS[priced.place.cloud]), 1.0)])


def _claim(priced: Priced) -> Quantities:
    return fixed([_disk(priced, priced.props, 1)])


def _claim_patch(priced: Priced) -> Quantities:
    """A patch makes what is not there, and says its size where it makes or grows one."""
    return _claim(priced) if priced.props.has("spec", "resources", "requests", "storage") else {}


def _stateful_set(priced: Priced) -> Quantities:
    """The claims that it makes for each replica."""
    if not count(priced.props, "spec", "volumeClaimTemplates"):
        return {}
    replicas = number(priced.props, "spec", "replicas", default=1)
    return fixed(_disk(priced, claim, replicas) for claim in priced.props.each("spec", "volumeClaimTemplates"))


def _disk(priced: Priced, claim: Props, copies: float) -> tuple[Tariff, float]:
    asked = needed(claim, "spec", "resources", "requests", "storage")
    return _in_its_cloud(priced).service("block_storage_gib"), copies * gib(str(asked))


def _node_pool(priced: Priced) -> Quantities:
    """The dearest of its instance types, as often as its limits allow; their disks are its class's, and not counted."""
    asked = _required(priced.props)
    if not asked.get(INSTANCE_TYPE):
        raise UnpricedResource(f"no requirement {INSTANCE_TYPE} In [...] says what it may buy; name the instance types")
    price_model: PriceModel = "spot" if asked.get(CAPACITY_TYPE) == ["spot"] else "on_demand"
    place = _in_its_cloud(priced)
    most = {place.node(each, price_model): _machines_at_most(priced, place, each) for each in asked[INSTANCE_TYPE]}
    dearest = max(most, key=lambda node: most[node] * price_usd_per_month(priced.catalog, node))
    return {dearest: Quantity(0, 0, most[dearest])}


def _required(node_pool: Props) -> dict[str, list[str]]:
    """By label, the values that a NodePool's nodes may have."""
    found: dict[str, list[str]] = {}
    for each in node_pool.each("spec", "template", "spec", "requirements"):
        if plain(each, "operator") == "In":
            found[str(plain(each, "key"))] = [str(value) for value in plain(each, "values", default=[])]
    return found


def _machines_at_most(priced: Priced, place: Place, instance_type: str) -> int:
    """How many machines of a type fit into the limits.

    Raises:
        UnpricedResource: no limit bounds them.
    """
    offer = priced.catalog.offer(place.cloud, place.region, instance_type)
    limits = plain(priced.props, "spec", "limits", default={})
    each = {"cpu": (offer.vcpus, _cpus), "memory": (offer.memory_gib, gib)}
    bounds = [
        read(str(limit)) / has
        for name, limit in limits.items()
        for has, read in [each.get(name, (offer.accelerator_count if "/" in name else 0, float))]
        if has
    ]
    if not bounds:
        raise UnpricedResource(f"spec.limits bound no {instance_type}; set a limit of cpu")
    return math.floor(min(bounds) + 1e-9)


def _cpus(quantity: str) -> float:
    return float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def gib(quantity: str) -> float:
    """GiB of a quantity of Kubernetes, such as `10Gi`.

    Raises:
        UnpricedResource: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]{0,2})", quantity)
    if found and found[2] in BINARY:
        return float(found[1]) * 1024.0 ** BINARY[found[2]]
    if found and found[2] in DECIMAL:
        return float(found[1]) * 1000.0 ** DECIMAL[found[2]] / 1024.0**3
    raise UnpricedResource(f"spec.resources.requests.storage is {quantity!r}; expected a size such as 10Gi")


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
    "kubernetes:apps/v1:StatefulSet": _stateful_set,
    "kubernetes:apps/v1:StatefulSetPatch": _stateful_set,
    "kubernetes:karpenter.sh/v1:NodePool": _node_pool,
}
"""By the type that `policies.objects` gives every object, of a list or not."""
