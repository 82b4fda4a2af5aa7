"""Nodes of the local cluster have what the clouds' Kubernetes gives nodes of the same offers."""

from typing import Any

import pytest

from fusion.nodes import NodesOf, PriceModel, instance_types
from planner.catalog import Catalog, load


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load()


def nodes(catalog: Catalog, named: str, count: int, price_model: PriceModel = "on_demand") -> list[dict[str, Any]]:
    cloud, instance_type, region = named.split(":")
    return list(NodesOf(catalog.offer(cloud, region, instance_type), count, price_model, "train").objects(catalog))


def test_a_node_of_eks_has_its_gpus_its_adapters_its_taint_and_where_it_is_in_the_network(catalog: Catalog) -> None:
    made = nodes(catalog, "aws:p5.48xlarge:us-east-1", 17, "spot")
    first, last = made[0], made[-1]
    assert first["status"]["allocatable"]["nvidia.com/gpu"] == "8"
    assert first["status"]["allocatable"]["vpc.amazonaws.com/efa"] == "32"
    assert first["spec"]["taints"] == [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
    labels = first["metadata"]["labels"]
    assert labels["node.kubernetes.io/instance-type"] == "p5.48xlarge"
    assert labels["topology.kubernetes.io/zone"] == "us-east-1a"
    assert labels["eks.amazonaws.com/capacityType"] == "SPOT"
    leaf = "topology.k8s.aws/network-node-layer-3"
    assert labels[leaf] == made[15]["metadata"]["labels"][leaf] != last["metadata"]["labels"][leaf]
    assert len({node["metadata"]["name"] for node in made}) == 17


def test_what_a_node_keeps_for_itself_is_not_allocatable(catalog: Catalog) -> None:
    (node,) = nodes(catalog, "aws:g5.xlarge:us-east-1", 1)
    assert (node["status"]["capacity"]["cpu"], node["status"]["allocatable"]["cpu"]) == ("4000m", "3500m")
    assert node["status"]["allocatable"]["memory"] == f"{round(16 * 1024 * 0.85)}Mi"


def test_trainium_is_counted_in_chips(catalog: Catalog) -> None:
    (node,) = nodes(catalog, "aws:trn1.32xlarge:us-east-1", 1)
    assert node["status"]["allocatable"]["aws.amazon.com/neuron"] == "16"


def test_a_tpu_slice_is_as_many_nodes_as_gke_makes_of_it(catalog: Catalog) -> None:
    (offer, *_) = catalog.find(cloud="gcp", instance_type="tpu-v5e-16chip")
    made = list(NodesOf(offer, 2, "spot", "tpus").objects(catalog))
    assert len(made) == 2 * 4
    labels = made[0]["metadata"]["labels"]
    assert labels["cloud.google.com/gke-tpu-accelerator"] == "tpu-v5-lite-podslice"
    assert labels["cloud.google.com/gke-tpu-topology"] == "4x4"
    assert labels["node.kubernetes.io/instance-type"] == "ct5lp-hightpu-4t"
    assert labels["cloud.google.com/gke-spot"] == "true"
    assert made[0]["status"]["allocatable"]["google.com/tpu"] == "4"


def test_a_gpu_node_of_gke_names_its_accelerator_as_gke_does(catalog: Catalog) -> None:
    offer = catalog.find(cloud="gcp", accelerator="L4")[0]
    (node,) = NodesOf(offer, 1, "on_demand", "serve").objects(catalog)
    assert node["metadata"]["labels"]["cloud.google.com/gke-accelerator"] == "nvidia-l4"
    assert node["metadata"]["labels"]["cloud.google.com/gke-nodepool"] == "serve"


def test_every_instance_type_of_the_catalog_can_be_a_node(catalog: Catalog) -> None:
    for offer in {(offer.cloud, offer.instance_type): offer for offer in catalog.offers}.values():
        for node in NodesOf(offer, 1, "on_demand", "any").objects(catalog):
            assert all(len(value) <= 63 for value in node["metadata"]["labels"].values())


def test_karpenter_is_offered_what_the_catalog_has_at_its_price(catalog: Catalog) -> None:
    offer = catalog.offer("aws", "us-east-1", "p5.48xlarge")
    (made,) = instance_types([offer], catalog)
    assert made["resources"]["nvidia.com/gpu"] == "8"
    prices = {
        (labels["karpenter.sh/capacity-type"], labels["topology.kubernetes.io/zone"]): offering["Price"]
        for offering in made["offerings"]
        for labels in [{each["key"]: each["values"][0] for each in offering["Requirements"]}]
    }
    assert prices["on-demand", "us-east-1c"] == offer.price_usd_per_hour
    assert prices["spot", "us-east-1a"] == offer.spot_price_usd_per_hour
