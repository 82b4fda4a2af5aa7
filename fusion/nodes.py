"""Nodes as the clouds' Kubernetes shows them, made from the catalog's offers: for the cluster on this machine.

Sources of the labels: Kubernetes "Well-Known Labels, Annotations and Taints"; EKS "Managed node groups" and "Instance
topology" (topology.k8s.aws); GKE "Node labels", "GPUs" and "TPUs in GKE"; NVIDIA's GPU feature discovery.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from infra.aws.instance_shapes import instance_shapes
from planner.catalog import Catalog, Offer, TpuTopology
from planner.catalog.instances import gcp_accelerators
from planner.packing import room_of

PODS_MAX = 110
"""Of a node of Kubernetes by default, and of GKE."""
CPU_ARCHITECTURES = {"x86_64": "amd64", "arm64": "arm64"}
DEVICE_RESOURCES = {"neuron": "aws.amazon.com/neuron", "tpu": "google.com/tpu"}
"""By kind of accelerator, what its device plugin calls a chip; a GPU's is `<vendor>.com/gpu`."""
EFA_RESOURCE = "vpc.amazonaws.com/efa"
TPU_NAMES = {
    "TPUv4": "tpu-v4-podslice",
    "TPUv5e": "tpu-v5-lite-podslice",
    "TPUv5p": "tpu-v5p-slice",
    "TPUv6e": "tpu-v6e-slice",
}
"""What `cloud.google.com/gke-tpu-accelerator` says (GKE, "TPUs in GKE", machine types)."""
NODES_BY_NETWORK_LAYER = (4096, 256, 16)
"""Nodes below one network node of layers 1 to 3. AWS says that there are such layers and not how many nodes share one:
these are ours, so that there is a topology to place by."""
PRICE_MODELS = ("on_demand", "spot")
PriceModel = Literal["on_demand", "spot"]


@dataclass(frozen=True, slots=True)
class NodesOf:
    """Nodes of one offer, bought one way.

    Attributes:
        offer: what is bought; a TPU slice has several nodes.
        count: how many of the offer.
        price_model: `on_demand` or `spot`.
        pool: name of the pool, in the clouds' own label and `fusion.dev/pool`.
        disk_gib: root disk of each node.
    """

    offer: Offer
    count: int
    price_model: PriceModel
    pool: str
    disk_gib: int = 100

    def objects(self, catalog: Catalog) -> Iterator[dict[str, Any]]:
        """The Node objects, which kwok plays."""
        resource, devices = device_of(self.offer, catalog)
        hosts = _hosts_of(self.offer, catalog)
        capacity = _capacity(self.offer, resource, devices, hosts, self.disk_gib)
        room = room_of(self.offer.accelerator_count, self.offer.vcpus / hosts, self.offer.memory_gib / hosts)
        allocatable = capacity | {"cpu": f"{round(room.vcpus * 1000)}m", "memory": f"{round(room.memory_gib * 1024)}Mi"}
        taints = [{"key": resource, "value": "present", "effect": "NoSchedule"}] if resource else []
        for index in range(self.count * hosts):
            name = f"{self.pool}-{uuid.uuid4().hex[:8]}"
            zone = self.offer.zone or f"{self.offer.region}a"
            yield {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": name,
                    "labels": self._labels(name, zone, index, resource, devices, catalog),
                    "annotations": {"kwok.x-k8s.io/node": "fake"},
                },
                "spec": {"taints": taints, "providerID": f"kwok://{name}"},
                "status": {"capacity": capacity, "allocatable": allocatable},
            }

    def _labels(
        self, name: str, zone: str, index: int, resource: str | None, devices: int, catalog: Catalog
    ) -> dict[str, str]:
        offer = self.offer
        labels = {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": CPU_ARCHITECTURES[offer.architecture],
            "node.kubernetes.io/instance-type": offer.instance_type,
            "topology.kubernetes.io/region": offer.region,
            "topology.kubernetes.io/zone": zone,
            "fusion.dev/pool": self.pool,
            "fusion.dev/price-model": self.price_model.replace("_", "-"),
        }
        if offer.accelerator:
            labels["fusion.dev/accelerator"] = offer.accelerator
        if resource == "nvidia.com/gpu":
            labels |= {"nvidia.com/gpu.present": "true", "nvidia.com/gpu.count": str(devices)}
        own = {"aws": self._eks_labels, "gcp": self._gke_labels}.get(offer.cloud)
        return labels | (own(index, resource, devices, catalog) if own else {})

    def _eks_labels(self, index: int, resource: str | None, devices: int, catalog: Catalog) -> dict[str, str]:
        labels = {"eks.amazonaws.com/nodegroup": self.pool, "eks.amazonaws.com/capacityType": self.price_model.upper()}
        if resource and _efa_of(self.offer):
            for layer, share in enumerate(NODES_BY_NETWORK_LAYER, start=1):
                labels[f"topology.k8s.aws/network-node-layer-{layer}"] = f"nn-{self.pool}-{layer}-{index // share}"
        return labels

    def _gke_labels(self, index: int, resource: str | None, devices: int, catalog: Catalog) -> dict[str, str]:
        labels = {"cloud.google.com/gke-nodepool": self.pool}
        if self.price_model == "spot":
            labels["cloud.google.com/gke-spot"] = "true"
        accelerator = self.offer.accelerator
        if accelerator in TPU_NAMES:
            labels["cloud.google.com/gke-tpu-accelerator"] = TPU_NAMES[accelerator]
            if topology := _topology_of(self.offer, catalog):
                labels["cloud.google.com/gke-tpu-topology"] = topology.topology
                labels["node.kubernetes.io/instance-type"] = topology.machine_type
            return labels
        names = {each.accelerator: each.name for each in gcp_accelerators().values()}
        if accelerator in names:
            labels["cloud.google.com/gke-accelerator"] = names[accelerator]
            labels["cloud.google.com/gke-accelerator-count"] = str(devices)
        return labels


def device_of(offer: Offer, catalog: Catalog) -> tuple[str | None, int]:
    """What a node's device plugin calls its chips, and how many a node has; a part of a chip is one device."""
    if offer.accelerator is None:
        return None, 0
    chip = catalog.accelerators[offer.accelerator]
    resource = DEVICE_RESOURCES.get(chip.kind, f"{chip.vendor}.com/gpu")
    return resource, max(1, round(offer.accelerator_count / _hosts_of(offer, catalog)))


def instance_types(offers: Iterable[Offer], catalog: Catalog) -> list[dict[str, Any]]:
    """What Karpenter may buy, as its kwok provider reads it (karpenter/kwok/cloudprovider, InstanceTypeOptions).

    Every instance type is to be had in three zones, on demand and, where it has such a price, on spot.
    """
    found = []
    by_type = sorted(offers, key=lambda offer: offer.instance_type)
    for name, same in itertools.groupby(by_type, key=lambda offer: offer.instance_type):
        sold = list(same)
        resource, devices = device_of(sold[0], catalog)
        found.append(
            {
                "name": name,
                "architecture": CPU_ARCHITECTURES[sold[0].architecture],
                "operatingSystems": ["linux"],
                "resources": _capacity(sold[0], resource, devices, 1, disk_gib=100),
                "offerings": [each for offer in sold for each in _offerings(offer)],
            }
        )
    return found


def _offerings(offer: Offer) -> Iterator[dict[str, Any]]:
    prices = {"on-demand": offer.price_usd_per_hour, "spot": offer.spot_price_usd_per_hour}
    zones = [offer.zone] if offer.zone else [f"{offer.region}{letter}" for letter in "abc"]
    for (capacity_type, price), zone in itertools.product(prices.items(), zones):
        if price is not None:
            labels = {
                "karpenter.sh/capacity-type": capacity_type,
                "topology.kubernetes.io/zone": zone,
                "topology.kubernetes.io/region": offer.region,
            }
            yield {
                "Price": price,
                "Available": True,
                "Requirements": [{"key": key, "operator": "In", "values": [value]} for key, value in labels.items()],
            }


def _capacity(offer: Offer, resource: str | None, devices: int, hosts: int, disk_gib: int) -> dict[str, str]:
    """Of one node."""
    capacity: Mapping[str, str] = {
        "cpu": f"{round(offer.vcpus / hosts * 1000)}m",
        "memory": f"{round(offer.memory_gib / hosts * 1024)}Mi",
        "ephemeral-storage": f"{disk_gib}Gi",
        "pods": str(PODS_MAX),
    }
    own = {resource: str(devices)} if resource else {}
    adapters = {EFA_RESOURCE: str(_efa_of(offer))} if _efa_of(offer) else {}
    return {**capacity, **own, **adapters}


def _efa_of(offer: Offer) -> int:
    shape = instance_shapes().get(offer.instance_type) if offer.cloud == "aws" else None
    return shape.efa_interfaces_max if shape else 0


def _hosts_of(offer: Offer, catalog: Catalog) -> int:
    """Nodes of one offer: several of a TPU slice."""
    topology = _topology_of(offer, catalog)
    return topology.hosts if topology else 1


def _topology_of(offer: Offer, catalog: Catalog) -> TpuTopology | None:
    """The smallest slice of a TPU offer; None for what is no TPU."""
    return (
        next(iter(catalog.topologies(offer.accelerator, offer.accelerator_count)), None) if offer.accelerator else None
    )
