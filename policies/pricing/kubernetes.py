"""What objects of Kubernetes make the cloud bill: load balancers of Services and disks of claims; nothing else.

Pods are not priced: they run on nodes that are. An Ingress or Gateway makes a load balancer where a controller is
installed, which no object says, so it is not counted. The prices are those of the cloud that the cluster is in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from planner.cost import Tariff
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
}
"""By the type that `policies.objects` gives every object, of a list or not."""
