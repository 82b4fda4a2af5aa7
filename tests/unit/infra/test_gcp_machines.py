"""Every accelerator that the catalog offers on Google Cloud, as the nodes that GKE is documented to make."""

import asyncio
import math

import pulumi
import pulumi_gcp as gcp
import pytest
from google.protobuf import json_format
from pulumi.runtime.rpc import serialize_properties

from infra.accelerator_pool import AcceleratorPoolArgs
from infra.cluster import ClusterArgs, SystemPoolArgs
from infra.gcp.accelerator_pool import TPU_ACCELERATORS, check, gpudirect, node_pool, node_selector, pools, taints
from infra.gcp.builder import BUILDER
from infra.gcp.gpudirect import NETWORKS, GpuNetwork
from infra.gcp.machines import machine_of, rules
from infra.network import NetworkArgs
from localcloud.gcp.plugin import GcpBackend
from localcloud.provider import resource_of
from planner.catalog import load
from planner.catalog.instances import gcp_accelerators
from planner.guardrails.capacity import no_such_topology
from planner.workloads import ACCELERATORS_MAX
from tests.unit.infra.cloud import run_program, whole
from tests.unit.infra.conftest import refusal
from tools.cloud_args import Echo

REGION = "us-central1"
OFFERS = sorted(
    {
        (offer.instance_type, offer.accelerator, offer.accelerator_count, offer.vcpus)
        for offer in load().find(cloud="gcp")
        if offer.accelerator
    }
)
NOT_MADE = {
    "tpu-v2-4chip": "GKE is not documented to make slices of 4 TPUv2",
    "tpu-v3-4chip": "GKE is not documented to make slices of 4 TPUv3",
    "g4-standard-6": "no node of GKE with RTXPRO6000 is documented",
    "g4-standard-12": "no node of GKE with RTXPRO6000 is documented",
    "g4-standard-24": "no node of GKE with RTXPRO6000 is documented",
}
"""Offers of Compute Engine and Cloud TPU that are no nodes: old TPUs, and parts of a GPU."""
MADE = [each for each in OFFERS if each[0] not in NOT_MADE]
N1_VCPUS_MAX = {
    ("T4", 1): 48,
    ("T4", 2): 48,
    ("T4", 4): 96,
    ("V100-16GB", 1): 12,
    ("V100-16GB", 2): 24,
    ("V100-16GB", 4): 48,
    ("V100-16GB", 8): 96,
}
"""cloud.google.com/compute/docs/gpus, "N1 general-purpose machine series"."""


def pool(instance_type, accelerator, count, **changes):
    defaults = {"pool": "p", "region": REGION, "zones": (f"{REGION}-a",), "nodes_max": 1, "price_model": "spot"}
    return AcceleratorPoolArgs(
        instance_type=instance_type, accelerator=accelerator, accelerator_count=count, **(defaults | changes)
    )


def test_every_gpu_of_the_catalog_is_attached_under_its_own_name_and_number():
    for instance_type, accelerator, count, vcpus in MADE:
        machine = machine_of(instance_type, accelerator, count)
        if machine.slice:
            continue
        assert gcp_accelerators()[machine.guest_accelerator].accelerator == accelerator
        assert machine.gpus == count
        assert machine.machine_type == instance_type.partition("+")[0]
        if machine.machine_type.startswith("n1-"):
            assert vcpus <= N1_VCPUS_MAX[accelerator, machine.gpus]


def test_every_slice_of_the_catalog_is_one_that_gke_makes_and_has_all_of_its_chips():
    for instance_type, accelerator, count, _ in MADE:
        slice_ = machine_of(instance_type, accelerator, count).slice
        if slice_ is None:
            continue
        assert math.prod(int(side) for side in slice_.topology.split("x")) == count
        assert no_such_topology(slice_.topology, slice_.machine_type, slice_.hosts, load()) is None
        assert slice_.hosts == min(each.hosts for each in load().topologies(accelerator, count))


def test_a_stack_can_ask_for_as_many_chips_as_the_largest_slice_has():
    assert max(count for _, _, count, _ in MADE) == ACCELERATORS_MAX


def test_every_offer_is_a_pool_of_one_unit_or_of_none():
    for instance_type, accelerator, count, _ in MADE:
        args = pool(instance_type, accelerator, count)
        check(args)
        machine = machine_of(instance_type, accelerator, count)
        (made,) = pools(args).values()
        assert (made["initial_node_count"], made["autoscaling"].total_max_node_count) == (0, machine.hosts)


def buyings(offer):
    """The ways to buy a node of an offer that Google sells."""
    rule = machine_of(*offer[:3]).rule
    yield "spot"
    if not rule.spot_only:
        yield "on_demand"
    if rule.flex_start:
        yield "flex_start"


def made_of(args):
    """The inputs of a pool's node pools, as the engine has them."""
    check(args)
    further = tuple(
        GpuNetwork(f"gpu-{each}", f"gke-gpu-{each}", f"gke-gpu-{each}", ())
        for each in range(1, NETWORKS.get(gpudirect(args), 0) + 1)
    )
    given = [node_pool(args, fields, "key", "nodes@example.com", further) for fields in pools(args).values()]
    return [inputs(each | {"cluster": "gke", "name": "it"}) for each in given]


def inputs(given):
    """What the SDK makes of a NodePool's arguments."""
    serialized = serialize_properties(given, {}, typ=gcp.container.NodePoolArgs)
    struct = asyncio.get_event_loop().run_until_complete(serialized)
    return whole(json_format.MessageToDict(struct))


def only_node_pool(args):
    """The only node pool of a pool."""
    (found,) = made_of(args)
    return found


def test_every_offer_bought_in_every_way_is_a_node_pool_that_gkes_documented_rules_accept():
    bought = [(offer, buying) for offer in MADE for buying in buyings(offer)]
    rendered = [made_of(pool(*offer[:3], nodes_max=2, price_model=buying)) for offer, buying in bought]
    gke, resource = GcpBackend(), resource_of("urn:pulumi:prod::fusion::gcp:container/nodePool:NodePool::it")
    gke.configure({"project": "fusion-local", "region": REGION})
    wrong = {
        (offer[0], buying): failures
        for (offer, buying), made in zip(bought, rendered, strict=True)
        for each in made
        if (failures := gke.check(resource, {}, each, b"")[1])
    }
    assert {len(made) for made in rendered} == {1, 2}  # slices of several hosts are a node pool each
    assert wrong == {}


def test_a_pool_registers_just_those_node_pools():
    args = pool("tpu-v5e-16chip", "TPUv5e", 16, nodes_max=2)
    mocks, none = Echo(), pulumi.ResourceOptions()

    def program():
        network = BUILDER.network("net", NetworkArgs(region=REGION, zones=(f"{REGION}-a", f"{REGION}-b")), none)
        system = SystemPoolArgs(instance_type="e2-standard-2")
        cluster = BUILDER.cluster("gke", ClusterArgs(region=REGION, system_pool=system), network, none)
        BUILDER.accelerator_pool("prod-slices", args, cluster, none)

    run_program(program, mocks)
    made = [whole(each.inputs) for each in mocks.registered if each.name.startswith("prod-slices-")]
    assert [named_alike(each) for each in made] == [named_alike(each) for each in made_of(args)]


def named_alike(found):
    """Without what names the cluster's other resources."""
    node = {
        name: value for name, value in found["nodeConfig"].items() if name not in ("bootDiskKmsKey", "serviceAccount")
    }
    return {**found, "nodeConfig": node, "cluster": "", "name": ""}


WITH_RDMA = [("a3-ultragpu-8g", "H200", 8), ("a4-highgpu-8g", "B200", 8)]
"""Of which the catalog has no price: they are for programs of one's own."""


def test_nodes_of_flex_start_come_when_pods_wait_and_go_after_their_time():
    args = pool("a3-highgpu-8g", "H100", 8, price_model="flex_start", nodes_max=4, max_run_hours=12, queued=True)
    inputs = only_node_pool(args)
    node = inputs["nodeConfig"]
    assert (node["flexStart"], node["maxRunDuration"], node["spot"]) == (True, "43200s", False)
    assert node["reservationAffinity"] == {"consumeReservationType": "NO_RESERVATION"}
    assert inputs["queuedProvisioning"] == {"enabled": True}
    assert inputs["management"] == {"autoRepair": False, "autoUpgrade": True}
    assert (inputs["initialNodeCount"], inputs["autoscaling"]["totalMaxNodeCount"]) == (0, 4)
    assert "placementPolicy" not in inputs


def test_pods_for_flex_start_select_its_nodes_and_tolerate_the_queues_taint():
    args = pool("a3-highgpu-8g", "H100", 8, price_model="flex_start", queued=True)
    assert node_selector(args, machine_of("a3-highgpu-8g", "H100", 8))["cloud.google.com/gke-flex-start"] == "true"
    assert [each.key for each in taints(args, "nvidia.com/gpu")] == ["nvidia.com/gpu", "cloud.google.com/gke-queued"]


@pytest.mark.parametrize(
    ("changes", "is_fast"),
    [
        ({"nodes_max": 2}, True),
        ({"nodes_max": 1}, False),
        ({"nodes_max": 2, "fast_interconnect": False}, False),
        ({"nodes_max": 2, "zones": (f"{REGION}-a", f"{REGION}-b")}, False),
        ({"nodes_max": 1, "fast_interconnect": True}, True),
    ],
)
def test_nodes_with_gpudirect_that_are_several_in_one_zone_get_its_networks(changes, is_fast):
    for machine_type, interfaces in (("a3-highgpu-8g", 4), ("a3-megagpu-8g", 8)):
        inputs = only_node_pool(pool(machine_type, "H100", 8, **changes))
        further = inputs.get("networkConfig", {}).get("additionalNodeNetworkConfigs", [])
        assert len({each["subnetwork"] for each in further}) == (interfaces if is_fast else 0)


@pytest.mark.parametrize(("instance_type", "reason"), NOT_MADE.items())
def test_what_gke_does_not_make_is_refused_by_name(instance_type, reason):
    offer = next(each for each in OFFERS if each[0] == instance_type)
    assert reason in refusal(machine_of, *offer[:3])


def test_each_rule_is_of_something_that_is_sold():
    sold = {machine_of(*each[:3]).rule for each in MADE}
    without_a_price = {machine_of(*each).rule for each in WITH_RDMA}
    assert set(rules()) == sold | without_a_price


@pytest.mark.parametrize(("instance_type", "accelerator", "count"), WITH_RDMA)
def test_nodes_with_rdma_get_its_networks_and_hyperdisk(instance_type, accelerator, count):
    inputs = only_node_pool(pool(instance_type, accelerator, count, nodes_max=2))
    assert inputs["networkConfig"] == {"acceleratorNetworkProfile": "auto"}
    assert inputs["nodeConfig"]["labels"]["cloud.google.com/gke-networking-dra-driver"] == "true"
    assert inputs["nodeConfig"]["diskType"] == "hyperdisk-balanced"


def test_slices_of_several_hosts_are_a_node_pool_each_spread_over_the_zones():
    args = pool(
        "tpu-v5e-16chip", "TPUv5e", 16, nodes_max=3, nodes_min=1, nodes_desired=2, zones=(f"{REGION}-a", f"{REGION}-b")
    )
    made = list(pools(args).values())
    assert [each["initial_node_count"] for each in made] == [4, 4, 0]
    assert [each["autoscaling"].total_min_node_count for each in made] == [4, 0, 0]
    assert [each["node_locations"] for each in made] == [[f"{REGION}-a"], [f"{REGION}-b"], [f"{REGION}-a"]]
    assert {each["placement_policy"].tpu_topology for each in made} == {"4x4"}


def test_a_pod_selects_generation_and_topology_of_its_slice():
    args = pool("tpu-v6e-8chip", "TPUv6e", 8)
    selector = node_selector(args, machine_of("tpu-v6e-8chip", "TPUv6e", 8))
    assert selector["cloud.google.com/gke-tpu-accelerator"] == TPU_ACCELERATORS["TPUv6e"]
    assert selector["cloud.google.com/gke-tpu-topology"] == "2x4"


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (pool("a3-highgpu-2g", "H100", 2, price_model="on_demand"), "is not sold on demand"),
        (pool("g2-standard-8", "L4", 1, price_model="capacity_block", reservation_id="b"), "no Capacity Blocks"),
        (pool("g2-standard-8", "L4", 1, fast_interconnect=True), "has no GPUDirect; choose a3-highgpu-8g"),
        (pool("a3-highgpu-8g", "H100", 8, nodes_max=2, fabric_images={"TCPXO": "x"}), "set fabric_images (tcpx_image"),
        (pool("n1-standard-8+T4x1", "T4", 1, price_model="flex_start"), "is not sold as flex_start"),
        (pool("g4-standard-48", "RTXPRO6000", 1, price_model="flex_start"), "is not sold as flex_start"),
        (pool("tpu-v4-4chip", "TPUv4", 4, price_model="flex_start"), "is not sold as flex_start"),
        (
            pool("g2-standard-8", "L4", 1, price_model="flex_start", max_run_hours=169),
            "longer than flex_start nodes run",
        ),
        (pool("a3-highgpu-8g", "H100", 8, price_model="flex_start", compact_placement=True), "not placed compactly"),
        (pool("n1-standard-8+T4x1", "T4", 1, compact_placement=True), "can't be placed compactly"),
        (pool("n1-standard-96+T4x1", "T4", 1), "at most 48 vCPUs, and it has 96"),
        (pool("n1-standard-8+T4x3", "T4", 3), "possible numbers: 1, 2, 4"),
        (pool("g2-standard-8", "T4", 1), "has L4, but accelerator is T4"),
        (pool("a2-highgpu-2g", "A100-40GB", 1), "has 2 A100-40GB, but accelerator_count is 1"),
    ],
)
def test_what_google_cloud_does_not_build_is_refused_with_a_way_out(args, reason):
    assert reason in refusal(check, args)
