"""What resources are billed for: each sum is of rows of the catalog's files, read here without the planner."""

import csv
import functools
import json
import math
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from planner.catalog import load
from planner.cost import price_usd_per_month
from policies.cost import expected_monthly_cost, monthly_cost_limit, priced_types
from policies.pricing import Place, Registered, UnpricedResource, billing_of, quantities
from policies.pricing.kubernetes import gib
from policies.resource import Resource, read
from policies.testing import UNKNOWN, Declared, judge

DATA = Path(__file__).parents[3] / "planner/catalog/data"
MONTH = 730
REGIONS = {"aws": "us-east-1", "gcp": "us-central1", "kubernetes": ""}


@functools.cache
def rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(newline="") as file:
        return list(csv.DictReader(file))


def node(cloud: str, instance_type: str, spot: bool = False) -> Decimal:
    (row,) = [
        each
        for each in rows("offers.csv")
        if (each["cloud"], each["region"], each["instance_type"]) == (cloud, REGIONS[cloud], instance_type)
    ]
    return Decimal(row["spot_price_usd_per_hour" if spot else "price_usd_per_hour"]) * MONTH


def service(cloud: str, name: str) -> Decimal:
    (row,) = [
        each
        for each in rows("services.csv")
        if (each["cloud"], each["region"], each["service"]) == (cloud, REGIONS[cloud], name)
    ]
    return Decimal(row["price_usd"]) * (MONTH if row["unit"] == "hour" else 1)


def monthly(
    kind: str,
    inputs: Mapping[str, Any],
    bound: str = "max",
    cluster_in: Place | None = None,
    after: Mapping[str, Mapping[str, Any]] | None = None,
) -> Decimal:
    """What a resource costs, registered after others by their type."""
    registered = Registered()
    for before, its in (after or {}).items():
        registered.take(Resource(before, "before", read(its), before))
    resource = Resource(kind, "tested", read(inputs), "urn", REGIONS[kind.partition(":")[0]])
    registered.take(resource)
    amounts = quantities(resource, load(), cluster_in or Place("", ""), registered)
    usd = sum(getattr(each, bound) * price_usd_per_month(load(), tariff) for tariff, each in amounts.items())
    return Decimal(f"{usd:.6f}")


def exact(amount: Decimal) -> Decimal:
    return amount.quantize(Decimal("0.000001"))


INSTANCE = "aws:ec2/instance:Instance"
AWS: list[tuple[str, dict[str, Any], Decimal]] = [
    (
        "aws:ec2/instance:Instance",
        {"instanceType": "g5.xlarge", "rootBlockDevice": {"volumeSize": 100}, "associatePublicIpAddress": True},
        node("aws", "g5.xlarge") + 100 * service("aws", "block_storage_gib") + service("aws", "public_ipv4"),
    ),
    (
        "aws:ec2/instance:Instance",
        {
            "instanceType": "g5.xlarge",
            "instanceMarketOptions": {"marketType": "spot"},
            "ebsBlockDevices": [{"volumeSize": 51, "volumeType": "io2", "iops": 4000}],
        },
        node("aws", "g5.xlarge", spot=True)
        + 8 * service("aws", "block_storage_gib")
        + 51 * service("aws", "block_storage_provisioned_gib")
        + 4000 * service("aws", "block_storage_provisioned_iops"),
    ),
    (
        "aws:ec2/spotInstanceRequest:SpotInstanceRequest",
        {"instanceType": "g5.xlarge"},
        node("aws", "g5.xlarge", spot=True) + 8 * service("aws", "block_storage_gib"),
    ),
    ("aws:ebs/volume:Volume", {"size": 40}, 40 * service("aws", "block_storage_gp2_gib")),
    (
        "aws:ebs/volume:Volume",
        {"size": 40, "type": "gp3", "iops": 4000, "throughput": 130},
        40 * service("aws", "block_storage_gib")
        + 1000 * service("aws", "block_storage_iops")
        + 5 * service("aws", "block_storage_mb_per_s"),
    ),
    ("aws:ec2/natGateway:NatGateway", {}, service("aws", "nat_gateway")),
    ("aws:eks/cluster:Cluster", {}, service("aws", "kubernetes_control_plane")),
    ("aws:eks/cluster:Cluster", {"version": "1.99"}, service("aws", "kubernetes_control_plane")),
    ("aws:eks/cluster:Cluster", {"version": "1.29"}, service("aws", "kubernetes_extended_support")),
    ("aws:lb/loadBalancer:LoadBalancer", {}, service("aws", "load_balancer")),
    (
        "aws:lb/loadBalancer:LoadBalancer",
        {"loadBalancerType": "network"},
        service("aws", "network_load_balancer"),
    ),
    (
        "aws:ec2/vpcEndpoint:VpcEndpoint",
        {"vpcEndpointType": "Interface", "subnetIds": [UNKNOWN, UNKNOWN, UNKNOWN]},
        3 * service("aws", "interface_endpoint"),
    ),
    ("aws:ec2/vpcEndpoint:VpcEndpoint", {"serviceName": "s3"}, Decimal(0)),
    (
        "aws:ec2/capacityReservation:CapacityReservation",
        {"instanceType": "p5.48xlarge", "instanceCount": 2},
        2 * node("aws", "p5.48xlarge"),
    ),
    (
        "aws:fsx/lustreFileSystem:LustreFileSystem",
        {"storageCapacity": 1200},
        1200 * service("aws", "file_system_gib"),
    ),
]
GCP: list[tuple[str, dict[str, Any], Decimal]] = [
    (
        "gcp:compute/instance:Instance",
        {
            "machineType": "n1-standard-8",
            "zone": "us-central1-a",
            "guestAccelerators": [{"type": "nvidia-tesla-t4", "count": 2}],
            "scheduling": {"provisioningModel": "SPOT"},
            "scratchDisks": [{"interface": "NVME"}],
        },
        node("gcp", "n1-standard-8+T4x2", spot=True)
        + 10 * service("gcp", "block_storage_standard_gib")
        + 375 * service("gcp", "local_ssd_gib"),
    ),
    (
        "gcp:compute/instance:Instance",
        {"machineType": "g2-standard-24", "bootDisk": {"initializeParams": {"size": 200, "type": "pd-ssd"}}},
        node("gcp", "g2-standard-24") + 200 * service("gcp", "block_storage_ssd_gib"),
    ),
    (
        "gcp:compute/disk:Disk",
        {"size": 1000, "type": "pd-balanced"},
        1000 * service("gcp", "block_storage_gib"),
    ),
    (
        "gcp:container/cluster:Cluster",
        {"location": "us-central1", "removeDefaultNodePool": True, "initialNodeCount": 1},
        service("gcp", "kubernetes_control_plane"),
    ),
    (
        "gcp:container/nodePool:NodePool",
        {
            "location": "us-central1",
            "autoscaling": {"minNodeCount": 0, "maxNodeCount": 2},
            "nodeConfig": {"machineType": "g2-standard-24", "diskSizeGb": 50},
        },
        3 * 2 * (node("gcp", "g2-standard-24") + 50 * service("gcp", "block_storage_gib")),
    ),
    (
        "gcp:container/nodePool:NodePool",
        {
            "location": "us-central1-a",
            "nodeCount": 2,
            "nodeConfig": {"machineType": "ct6e-standard-4t", "spot": True},
        },
        2 * (node("gcp", "tpu-v6e-4chip", spot=True) + 100 * service("gcp", "block_storage_gib")),
    ),
    (
        "gcp:container/nodePool:NodePool",  # the catalog has no prices of flex-start, which is no dearer than on demand
        {
            "location": "us-central1-a",
            "autoscaling": {"totalMinNodeCount": 0, "totalMaxNodeCount": 2},
            "initialNodeCount": 0,
            "nodeConfig": {"machineType": "a3-highgpu-8g", "flexStart": True},
        },
        2 * (node("gcp", "a3-highgpu-8g") + 100 * service("gcp", "block_storage_gib")),
    ),
    ("gcp:tpu/v2Vm:V2Vm", {"acceleratorType": "v5litepod-16"}, node("gcp", "tpu-v5e-16chip")),
    (
        "gcp:tpu/v2Vm:V2Vm",
        {"acceleratorConfig": {"type": "V6E", "topology": "4x8"}, "schedulingConfig": {"spot": True}},
        node("gcp", "tpu-v6e-32chip", spot=True),
    ),
    ("gcp:compute/routerNat:RouterNat", {}, service("gcp", "nat_gateway") + service("gcp", "public_ipv4")),
    (
        "gcp:compute/routerNat:RouterNat",
        {"natIps": ["one", "two"]},  # each an Address, which has its own price
        service("gcp", "nat_gateway"),
    ),
    (
        "gcp:container/nodePool:NodePool",
        {
            "location": REGIONS["gcp"],
            "nodeLocations": ["us-central1-a"],
            "initialNodeCount": 0,
            "autoscaling": {"totalMinNodeCount": 0, "totalMaxNodeCount": 4},
            "placementPolicy": {"type": "COMPACT", "tpuTopology": "4x4"},
            "nodeConfig": {"machineType": "ct5lp-hightpu-4t", "spot": True, "diskSizeGb": 100},
        },
        node("gcp", "tpu-v5e-16chip", spot=True) + 400 * service("gcp", "block_storage_gib"),
    ),
    ("gcp:compute/address:Address", {"addressType": "INTERNAL"}, Decimal(0)),
]


@pytest.mark.parametrize(("kind", "inputs", "expected"), AWS + GCP)
def test_a_resource_costs_the_sum_of_its_rows_exactly(kind: str, inputs: dict[str, Any], expected: Decimal) -> None:
    assert monthly(kind, inputs) == exact(expected)


@pytest.mark.parametrize(
    ("subnet", "given", "addresses"),
    [
        ({"mapPublicIpOnLaunch": True}, {}, 1),
        ({"mapPublicIpOnLaunch": True}, {"associatePublicIpAddress": False}, 0),
        ({"mapPublicIpOnLaunch": True}, {"networkInterfaces": [{"networkInterfaceId": "eni-1"}]}, 0),
        ({"mapPublicIpOnLaunch": False}, {}, 0),
        ({}, {"associatePublicIpAddress": True}, 1),
    ],
)
def test_a_public_address_that_a_subnet_of_the_stack_decides_is_counted(
    subnet: dict[str, Any], given: dict[str, Any], addresses: int
) -> None:
    after, subnet_id = {"aws:ec2/subnet:Subnet": subnet}, {"subnetId": UNKNOWN}
    alone = node("aws", "m6i.large") + 8 * service("aws", "block_storage_gib")
    usd = monthly(INSTANCE, {"instanceType": "m6i.large"} | subnet_id | given, after=after)
    assert usd == exact(alone + addresses * service("aws", "public_ipv4"))


def test_nodes_of_a_group_and_of_karpenter_have_the_addresses_that_template_or_subnet_gives_them() -> None:
    address, mapping = service("aws", "public_ipv4"), {"aws:ec2/subnet:Subnet": {"mapPublicIpOnLaunch": True}}
    group = {"instanceTypes": ["m6i.large"], "scalingConfig": {"maxSize": 3}}
    of_template = group | {"launchTemplate": {"name": "own"}}
    kind = "aws:eks/nodeGroup:NodeGroup"
    assert monthly(kind, group, after=mapping) == exact(monthly(kind, group) + 3 * address)
    said = {"name": "own", "networkInterfaces": [{"associatePublicIpAddress": "true"}]}
    after = {"aws:ec2/launchTemplate:LaunchTemplate": said}
    assert monthly(kind, of_template, after=after) == exact(monthly(kind, of_template) + 3 * address)
    private = said | {"networkInterfaces": [{"associatePublicIpAddress": "false"}]}
    after = mapping | {"aws:ec2/launchTemplate:LaunchTemplate": private}
    assert monthly(kind, of_template, after=after) == monthly(kind, of_template)


def test_a_node_group_costs_its_nodes_at_each_bound_and_the_dearest_of_its_types() -> None:
    group = {
        "instanceTypes": ["g5.xlarge", "g5.2xlarge"],
        "diskSize": 30,
        "scalingConfig": {"minSize": 1, "desiredSize": 2, "maxSize": 5},
    }
    each = node("aws", "g5.2xlarge") + 30 * service("aws", "block_storage_gib")
    for bound, nodes in (("min", 1), ("expected", 2), ("max", 5)):
        assert monthly("aws:eks/nodeGroup:NodeGroup", group, bound) == exact(nodes * each)


def test_of_kubernetes_load_balancers_and_claims_cost_what_their_cloud_asks_and_nothing_else() -> None:
    aws = Place("aws", "us-east-1")
    balancer, claim = {"spec": {"type": "LoadBalancer"}}, {"spec": {"resources": {"requests": {"storage": "10Gi"}}}}
    stateful = {"spec": {"replicas": 3, "volumeClaimTemplates": [claim]}}
    disk = 10 * service("aws", "block_storage_gib")
    assert monthly("kubernetes:core/v1:Service", balancer, cluster_in=aws) == exact(
        service("aws", "network_load_balancer")
    )
    assert monthly("kubernetes:core/v1:Service", {"spec": {"type": "ClusterIP"}}) == 0
    assert monthly("kubernetes:core/v1:PersistentVolumeClaim", claim, cluster_in=aws) == exact(disk)
    assert monthly("kubernetes:apps/v1:StatefulSet", stateful, cluster_in=aws) == exact(3 * disk)
    assert monthly("kubernetes:apps/v1:Deployment", {"spec": {"replicas": 9}}) == 0
    with pytest.raises(UnpricedResource, match="set aws:region or gcp:region"):
        monthly("kubernetes:core/v1:Service", balancer)


def test_sizes_are_read_as_kubernetes_writes_them() -> None:
    assert [gib("10Gi"), gib("1Ti"), gib("512Mi")] == [10, 1024, 0.5]
    assert math.isclose(gib("1G"), 1e9 / 2**30)
    with pytest.raises(UnpricedResource, match="a size is 'ten'; expected one such as 10Gi"):
        gib("ten")


@pytest.mark.parametrize(
    ("kind", "inputs", "said"),
    [
        ("aws:ec2/instance:Instance", {"instanceType": UNKNOWN}, "instanceType decides its price and is not known"),
        ("aws:ec2/instance:Instance", {"instanceType": "m6i.large", "tenancy": "dedicated"}, "tenancy dedicated"),
        ("aws:ec2/vpcEndpoint:VpcEndpoint", {"vpcEndpointType": UNKNOWN}, "vpcEndpointType decides its price"),
        ("aws:eks/cluster:Cluster", {"computeConfig": {"enabled": True}}, "EKS Auto Mode"),
        ("aws:eks/nodeGroup:NodeGroup", {"scalingConfig": {"maxSize": -3}}, "expected a number of 0 or more"),
        ("aws:ebs/volume:Volume", {"size": 10, "type": "gp9"}, "type is 'gp9'"),
        ("aws:autoscaling/group:Group", {"minSize": 0, "maxSize": 1}, "launchTemplate decides its price"),
        ("gcp:container/cluster:Cluster", {"enableAutopilot": True}, "Autopilot bills pods"),
        ("gcp:tpu/v2Vm:V2Vm", {"acceleratorType": "v9-8"}, "TPU v9-8 is not known"),
        (
            "gcp:compute/instance:Instance",
            {"machineType": "n1-standard-8", "guestAccelerators": [{"type": "nvidia-tesla-k80", "count": 1}]},
            "nvidia-tesla-k80",
        ),
    ],
)
def test_what_has_no_price_is_an_error_and_never_free(kind: str, inputs: dict[str, Any], said: str) -> None:
    with pytest.raises(UnpricedResource, match=said):
        monthly(kind, inputs)


def test_items_of_a_list_are_counted_one_by_one() -> None:
    balancers = {"items": [{"kind": "Service", "spec": {"type": "LoadBalancer"}}] * 3}
    two_usd = float(2 * service("aws", "network_load_balancer"))
    listed = Declared("kubernetes:core/v1:ServiceList", balancers)
    assert len(judge(monthly_cost_limit, listed, monthly_cost_limit_usd=two_usd + 1)) == 1
    assert judge(monthly_cost_limit, listed, monthly_cost_limit_usd=1.5 * two_usd + 1) == []


def test_the_expected_load_is_judged_without_what_the_autoscaler_may_add() -> None:
    scaling = {"minSize": 1, "desiredSize": 2, "maxSize": 50}
    group = Declared(
        "aws:eks/nodeGroup:NodeGroup", {"instanceTypes": ["m6i.large"], "diskSize": 20, "scalingConfig": scaling}
    )
    two = 2 * (node("aws", "m6i.large") + 20 * service("aws", "block_storage_gib"))
    limit = float(exact(two))
    assert judge(expected_monthly_cost, group, expected_monthly_cost_limit_usd=limit) == []
    (told,) = judge(expected_monthly_cost, group, expected_monthly_cost_limit_usd=round(limit - 0.01, 2))
    assert "at the expected load, $0.01 over the limit" in told


def karpenter_pool(types: list[str], limits: dict[str, Any], capacity: tuple[str, ...] = ("spot",)) -> dict[str, Any]:
    requirements = [
        {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": types},
        {"key": "karpenter.sh/capacity-type", "operator": "In", "values": list(capacity)},
    ]
    template = {"nodeClassRef": {"name": "own"}, "requirements": requirements}
    return {"spec": {"limits": limits, "template": {"spec": template}}}


def node_class(*disks: dict[str, Any], name: str = "own", **spec: Any) -> dict[str, Any]:
    mapped = {"blockDeviceMappings": [{"deviceName": "/dev/xvda", "ebs": each} for each in disks]} if disks else {}
    return {"metadata": {"name": name}, "spec": mapped | spec}


NODE_POOL, NODE_CLASS = "kubernetes:karpenter.sh/v1:NodePool", "kubernetes:karpenter.k8s.aws/v1:EC2NodeClass"
IN_AWS = Place("aws", "us-east-1")
AWS_DISK = service("aws", "block_storage_gib")


@pytest.mark.parametrize(
    ("limits", "capacity", "nodes"),
    [
        ({"cpu": "12", "nvidia.com/gpu": "3"}, ("spot",), 3),
        ({"cpu": "11900m"}, ("spot",), 2),
        ({"nvidia.com/gpu": 2, "memory": "1Ti"}, ("on-demand", "spot"), 2),
        ({"memory": "40Gi"}, (), 2),
    ],
)
def test_a_pool_of_karpenter_costs_what_its_limits_let_it_buy(limits, capacity, nodes) -> None:
    inputs, after = karpenter_pool(["g5.xlarge"], limits, capacity), {NODE_CLASS: node_class({"volumeSize": "100Gi"})}
    each = node("aws", "g5.xlarge", capacity == ("spot",)) + 100 * AWS_DISK
    assert monthly(NODE_POOL, inputs, cluster_in=IN_AWS, after=after) == exact(nodes * each)
    assert monthly(NODE_POOL, inputs, "expected", cluster_in=IN_AWS, after=after) == 0, "it begins without nodes"


def test_a_pool_of_karpenter_costs_as_the_dearest_of_what_it_may_buy() -> None:
    inputs = karpenter_pool(["g5.xlarge", "p5.48xlarge"], {"cpu": "192"}, ("on-demand",))
    found = monthly(NODE_POOL, inputs, cluster_in=IN_AWS, after={NODE_CLASS: node_class({"volumeSize": "20Gi"})})
    disk = 20 * AWS_DISK
    assert found == exact(max(48 * (node("aws", "g5.xlarge") + disk), node("aws", "p5.48xlarge") + disk))


@pytest.mark.parametrize(
    ("given", "beside"),
    [
        (node_class(), 20 * AWS_DISK),
        (node_class(amiSelectorTerms=[{"alias": "bottlerocket@latest"}]), 24 * AWS_DISK),
        (node_class(amiFamily="Windows2022"), 50 * AWS_DISK),
        (
            node_class({"volumeSize": "20Gi"}, {"volumeSize": "1Ti", "iops": 4000, "throughput": 225}),
            1044 * AWS_DISK
            + 1000 * service("aws", "block_storage_iops")
            + 100 * service("aws", "block_storage_mb_per_s"),
        ),
        (
            node_class({"volumeSize": "10Gi", "volumeType": "gp2"}, associatePublicIPAddress=True),
            10 * service("aws", "block_storage_gp2_gib") + service("aws", "public_ipv4"),
        ),
    ],
)
def test_each_node_of_karpenter_has_the_disks_and_the_address_of_its_class(given, beside) -> None:
    inputs = karpenter_pool(["g5.xlarge"], {"cpu": "8"})
    found = monthly(NODE_POOL, inputs, cluster_in=IN_AWS, after={NODE_CLASS: given})
    assert found == exact(2 * (node("aws", "g5.xlarge", spot=True) + beside))


@pytest.mark.parametrize("after", [{}, {NODE_CLASS: node_class({"volumeSize": "20Gi"}, name="another")}])
def test_a_pool_of_karpenter_whose_class_is_not_of_the_stack_has_no_price(after) -> None:
    with pytest.raises(UnpricedResource, match=r"nodeClassRef\.name is 'own', and no EC2NodeClass of that name"):
        monthly(NODE_POOL, karpenter_pool(["g5.xlarge"], {"cpu": "8"}), cluster_in=IN_AWS, after=after)


STATEFUL_SET = "kubernetes:apps/v1:StatefulSet"
AUTOSCALER, SCALED_OBJECT = (
    "kubernetes:autoscaling/v2:HorizontalPodAutoscaler",
    "kubernetes:keda.sh/v1alpha1:ScaledObject",
)


def stateful_set(name: str = "store", replicas: int = 2) -> dict[str, Any]:
    claim = {"spec": {"resources": {"requests": {"storage": "10Gi"}}}}
    return {"metadata": {"name": name}, "spec": {"replicas": replicas, "volumeClaimTemplates": [claim]}}


def autoscaler(name: Any = "store", kind: str = "StatefulSet", most: int = 7, **metadata: str) -> dict[str, Any]:
    return {"metadata": metadata, "spec": {"scaleTargetRef": {"kind": kind, "name": name}, "maxReplicas": most}}


SCALED_WITHOUT_MAXIMUM = {"spec": {"scaleTargetRef": {"kind": "StatefulSet", "name": "store"}}}


@pytest.mark.parametrize(
    ("kind", "given", "disks"),
    [
        (AUTOSCALER, autoscaler(), 7),
        (AUTOSCALER, autoscaler(UNKNOWN), 7),
        (AUTOSCALER, autoscaler(most=1), 2),
        (AUTOSCALER, autoscaler("another"), 2),
        (AUTOSCALER, autoscaler(kind="Deployment"), 2),
        (AUTOSCALER, autoscaler(namespace="elsewhere"), 2),
        (f"{AUTOSCALER}Patch", {"spec": {"maxReplicas": 7}}, 7),
        (SCALED_OBJECT, SCALED_WITHOUT_MAXIMUM, 100),
    ],
)
def test_a_stateful_set_has_disks_up_to_its_autoscalers_maximum_whichever_is_first(kind, given, disks) -> None:
    store, disk = stateful_set(), 10 * AWS_DISK
    for first, second in (((kind, given), (STATEFUL_SET, store)), ((STATEFUL_SET, store), (kind, given))):
        alone = monthly(*first, cluster_in=IN_AWS)
        after = monthly(*second, cluster_in=IN_AWS, after=dict([first]))
        assert alone + after == exact(disks * disk)
        expected = monthly(*first, "expected", cluster_in=IN_AWS)
        expected += monthly(*second, "expected", cluster_in=IN_AWS, after=dict([first]))
        assert expected == exact(2 * disk)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"limits": {"cpu": 10}}, "name the instance types"),
        (karpenter_pool(["g5.xlarge"], {})["spec"], "spec.limits bound no g5.xlarge; set a limit of cpu"),
        (karpenter_pool(["g5.xlarge"], {"nodes": 2})["spec"], "spec.limits bound no g5.xlarge; set a limit of cpu"),
    ],
)
def test_a_pool_of_karpenter_without_bounds_has_no_price(spec, says) -> None:
    after = {NODE_CLASS: node_class({"volumeSize": "20Gi"})}
    with pytest.raises(UnpricedResource, match=says):
        monthly(NODE_POOL, {"spec": spec}, cluster_in=IN_AWS, after=after)


def test_under_a_limit_a_type_of_unknown_price_is_refused_unless_it_is_exempt() -> None:
    database = Declared("aws:rds/instance:Instance", {})
    nodes = Declared("kubernetes:karpenter.sh/v1:NodeClaim", {})
    assert judge(priced_types, database, nodes) == []
    assert len(judge(priced_types, database, nodes, monthly_cost_limit_usd=10)) == 2
    allowed = ["aws:rds/*", "kubernetes:karpenter.sh/v1:NodeClaim"]
    assert judge(priced_types, database, nodes, monthly_cost_limit_usd=10, unpriced_types_exempt=allowed) == []
    known = [Declared("aws:s3/bucket:Bucket", {}), Declared("kubernetes:core/v1:Pod", {}), Declared("my:own:Part", {})]
    assert judge(priced_types, *known, monthly_cost_limit_usd=10) == []


def test_the_billing_of_every_type_of_the_local_cloud_is_known() -> None:
    schema = json.loads((Path(__file__).parents[3] / "localcloud/aws/schema.json").read_text())
    assert {each for each in schema["resources"] if billing_of(each) == "unknown"} == set()


RESERVED = Declared(
    "aws:ec2/capacityReservation:CapacityReservation", {"instanceType": "g5.xlarge", "instanceCount": 2}, name="kept"
)
TARGET = {"capacityReservationTarget": {"capacityReservationId": UNKNOWN}}


def machine(name: str, **inputs: Any) -> Declared:
    return Declared("aws:ec2/instance:Instance", {"instanceType": "g5.xlarge"} | inputs, name=name)


@pytest.mark.parametrize("asked", [TARGET, {"capacityReservationPreference": "capacity-reservations-only"}])
def test_instances_in_a_reservation_are_billed_with_it_and_those_beyond_it_as_themselves(asked: dict[str, Any]) -> None:
    disk = 8 * service("aws", "block_storage_gib")
    inside = [machine(name, capacityReservationSpecification=asked) for name in ("one", "two", "three")]
    outside = machine("outside")
    for declared, usd in (
        ([RESERVED, *inside[:2]], 2 * node("aws", "g5.xlarge") + 2 * disk),
        ([*inside[:2], RESERVED], 2 * node("aws", "g5.xlarge") + 2 * disk),
        ([RESERVED, *inside], 3 * node("aws", "g5.xlarge") + 3 * disk),
        ([RESERVED, inside[0], outside], 3 * node("aws", "g5.xlarge") + 2 * disk),
        ([inside[0]], node("aws", "g5.xlarge") + disk),
    ):
        cents = math.ceil(usd * 100) / 100
        assert judge(monthly_cost_limit, *declared, monthly_cost_limit_usd=cents) == []
        assert judge(monthly_cost_limit, *declared, monthly_cost_limit_usd=round(cents - 0.02, 2))


def test_a_reservation_does_not_pay_for_spot() -> None:
    spot = machine("spot", instanceMarketOptions={"marketType": "spot"}, capacityReservationSpecification=TARGET)
    usd = 2 * node("aws", "g5.xlarge") + node("aws", "g5.xlarge", spot=True)
    assert judge(monthly_cost_limit, RESERVED, spot, monthly_cost_limit_usd=float(usd) - 1)


SCALING = {"minSize": 0, "desiredSize": 1, "maxSize": 3}
COMPONENT = "urn:pulumi:test::test::fusion:aws:AcceleratorPool::pool"


def template(name: str, size: int, parent: str = "", **inputs: Any) -> Declared:
    mapped = [{"deviceName": "/dev/xvda", "ebs": {"volumeSize": size, "volumeType": "gp3"}}]
    given = {"name": name, "blockDeviceMappings": mapped} | inputs
    return Declared("aws:ec2/launchTemplate:LaunchTemplate", given, name=name, parent=parent)


def nodes_of(launch_template: dict[str, Any], parent: str = "") -> Declared:
    given = {"instanceTypes": ["m6i.large"], "scalingConfig": SCALING, "launchTemplate": launch_template}
    return Declared("aws:eks/nodeGroup:NodeGroup", given, name="nodes", parent=parent)


@pytest.mark.parametrize(
    ("templates", "group", "gib"),
    [
        ([template("a", 100), template("b", 500)], nodes_of({"name": "a"}), 100),
        ([template("a", 100), template("b", 500)], nodes_of({"id": UNKNOWN}), 500),
        ([template("decoy", 100, COMPONENT), template("b", 500)], nodes_of({"id": UNKNOWN}, COMPONENT), 500),
        ([template("a", 100, blockDeviceMappings=None)], nodes_of({"id": UNKNOWN}), 20),
        ([], nodes_of({"id": "lt-of-another-stack"}), 20),
    ],
)
def test_disks_of_a_node_group_are_those_of_its_launch_template(
    templates: list[Declared], group: Declared, gib: int
) -> None:
    usd = 3 * (node("aws", "m6i.large") + gib * service("aws", "block_storage_gib"))
    cents = math.ceil(usd * 100) / 100
    assert judge(monthly_cost_limit, *templates, group, monthly_cost_limit_usd=cents) == []
    (told,) = judge(monthly_cost_limit, *templates, group, monthly_cost_limit_usd=round(cents - 0.02, 2))
    assert told.startswith("nodes (aws:eks/nodeGroup:NodeGroup) costs up to")


def test_a_template_whose_disks_are_not_known_leaves_the_node_group_without_a_price() -> None:
    unknown = template("a", 1, blockDeviceMappings=UNKNOWN)
    (told,) = judge(monthly_cost_limit, unknown, nodes_of({"name": "a"}), monthly_cost_limit_usd=10**6)
    assert "blockDeviceMappings decides its price and is not known before the update" in told


def test_nodes_of_a_template_for_a_reservation_are_billed_with_it() -> None:
    into = template("a", 20, instanceType=None, capacityReservationSpecification=TARGET)
    reserved = Declared(RESERVED.type, {"instanceType": "m6i.large", "instanceCount": 3}, name="kept")
    usd = 3 * (node("aws", "m6i.large") + 20 * service("aws", "block_storage_gib"))
    cents = math.ceil(usd * 100) / 100
    assert judge(monthly_cost_limit, reserved, into, nodes_of({"name": "a"}), monthly_cost_limit_usd=cents) == []


@pytest.mark.parametrize(
    ("kind", "refused", "passing"),
    [
        ("aws:dynamodb/table:Table", {"readCapacity": 40_000}, {"billingMode": "PAY_PER_REQUEST"}),
        ("aws:efs/fileSystem:FileSystem", {"throughputMode": "provisioned"}, {"throughputMode": "elastic"}),
        ("aws:autoscaling/schedule:Schedule", {"maxSize": 1000}, {"maxSize": -1, "desiredCapacity": 2}),
    ],
)
def test_what_is_billed_whether_it_is_used_or_not_does_not_pass_as_billed_by_use(
    kind: str, refused: dict[str, Any], passing: dict[str, Any]
) -> None:
    (told,) = judge(monthly_cost_limit, Declared(kind, refused), monthly_cost_limit_usd=1)
    assert "its cost can't be known" in told
    assert judge(monthly_cost_limit, Declared(kind, passing), monthly_cost_limit_usd=1) == []


def test_a_patch_that_makes_a_disk_costs_what_its_claim_costs() -> None:
    spec = {"spec": {"resources": {"requests": {"storage": "100Ti"}}}}
    claims = [Declared(f"kubernetes:core/v1:PersistentVolumeClaim{form}", spec) for form in ("", "Patch")]
    asked = [judge(monthly_cost_limit, each, monthly_cost_limit_usd=1) for each in claims]
    assert asked[0][0].partition(" costs ")[2] == asked[1][0].partition(" costs ")[2]
    labelled = Declared("kubernetes:core/v1:PersistentVolumeClaimPatch", {"metadata": {"labels": {"a": "b"}}})
    assert judge(monthly_cost_limit, labelled, monthly_cost_limit_usd=1) == []


@pytest.mark.parametrize(
    ("kind", "inputs", "said"),
    [
        ("aws:eks/cluster:Cluster", {"controlPlaneScalingConfig": {"tier": "tier-8xl"}}, "expected standard"),
        (
            "aws:fsx/lustreFileSystem:LustreFileSystem",
            {"storageCapacity": 1200, "perUnitStorageThroughput": 1000},
            "perUnitStorageThroughput is 1000, of which the catalog holds no price; expected 50 or 125",
        ),
        ("aws:lb/loadBalancer:LoadBalancer", {"minimumLoadBalancerCapacity": {"capacityUnits": 9000}}, "leave it out"),
        ("aws:ssm/parameter:Parameter", {"tier": UNKNOWN}, "tier decides its price and is not known"),
        (
            "gcp:container/nodePool:NodePool",
            {"location": "us-central1", "nodeConfig": {"bootDisk": {"provisionedIops": 100_000}}},
            "bootDisk.provisionedIops is 100000",
        ),
        (
            "gcp:container/nodePool:NodePool",
            {"location": "us-central1", "nodeConfig": {"machineType": "a3-highgpu-1g", "flexStart": True}},
            "no prices of flex-start, and none on demand of a3-highgpu-1g",
        ),
        ("gcp:container/cluster:Cluster", {"nodePools": UNKNOWN}, "is not known before the update"),
        ("gcp:compute/disk:Disk", {"type": "hyperdisk-balanced", "provisionedIops": 9000}, "at most 3000"),
        (
            "kubernetes:storage.k8s.io/v1:StorageClass",
            {"parameters": {"type": "io2", "iopsPerGB": "50"}},
            "type is io2",
        ),
        (
            "kubernetes:apps/v1:Deployment",
            {"spec": {"template": {"spec": {"volumes": [{"ephemeral": {"volumeClaimTemplate": {}}}]}}}},
            "a disk for each pod",
        ),
    ],
)
def test_a_choice_dearer_than_the_catalogs_row_is_refused(kind: str, inputs: dict[str, Any], said: str) -> None:
    with pytest.raises(UnpricedResource, match=said):
        monthly(kind, inputs)


def test_what_is_billed_for_each_replica_subnet_address_and_disk_counts_each() -> None:
    assert monthly("aws:secretsmanager/secret:Secret", {"replicas": [{}, {}]}) == exact(3 * service("aws", "secret"))
    endpoint = "aws:ec2/vpcEndpointSubnetAssociation:VpcEndpointSubnetAssociation"
    assert monthly(endpoint, {}) == exact(service("aws", "interface_endpoint"))
    open_to_all = {"machineType": "n2-standard-4", "networkInterfaces": [{"accessConfigs": [{}]}, {}]}
    disk = 10 * service("gcp", "block_storage_standard_gib")
    assert monthly("gcp:compute/instance:Instance", open_to_all) == exact(
        node("gcp", "n2-standard-4") + service("gcp", "public_ipv4") + disk
    )
    config = {
        "machineType": "n2-standard-4",
        "diskSizeGb": 10,
        "bootDisk": {"sizeGb": 500, "diskType": "pd-ssd"},
        "localNvmeSsdBlockConfig": {"localSsdCount": 2},
    }
    each = node("gcp", "n2-standard-4") + 500 * service("gcp", "block_storage_ssd_gib")
    each += 750 * service("gcp", "local_ssd_gib")
    pool = {"location": "us-central1-a", "nodeCount": 1, "nodeConfig": config}
    assert monthly("gcp:container/nodePool:NodePool", pool) == exact(each)
    warm = {"instanceTypes": ["m6i.large"], "scalingConfig": {"minSize": 0, "maxSize": 1}}
    warm["warmPoolConfig"] = {"maxGroupPreparedCapacity": 5}
    nodes = 5 * (node("aws", "m6i.large") + 20 * service("aws", "block_storage_gib"))
    assert monthly("aws:eks/nodeGroup:NodeGroup", warm) == exact(nodes)


@pytest.mark.parametrize(
    "kind",
    [
        "aws:appautoscaling/target:Target",
        "aws:vpc/routeServerEndpoint:RouteServerEndpoint",
        "aws:cloudwatch/compositeAlarm:CompositeAlarm",
        "aws:sagemaker/endpoint:Endpoint",
        "aws:sagemaker/notebookInstance:NotebookInstance",
        "aws:batch/computeEnvironment:ComputeEnvironment",
        "aws:emr/cluster:Cluster",
        "aws:rds/instance:Instance",
        "aws:eks/fargateProfile:FargateProfile",
        "aws:ecs/service:Service",
        "aws:bedrock/provisionedModelThroughput:ProvisionedModelThroughput",
        "aws:ec2/dedicatedHost:DedicatedHost",
        "aws:ec2/capacityBlockReservation:CapacityBlockReservation",
        "aws:lambda/provisionedConcurrencyConfig:ProvisionedConcurrencyConfig",
        "aws:ebs/fastSnapshotRestore:FastSnapshotRestore",
        "gcp:tpu/v2QueuedResource:V2QueuedResource",
        "gcp:compute/reservation:Reservation",
        "gcp:compute/resizeRequest:ResizeRequest",
        "gcp:container/awsNodePool:AwsNodePool",
        "gcp:vertex/aiEndpoint:AiEndpoint",
        "gcp:workbench/instance:Instance",
        "gcp:lustre/instance:Instance",
        "kubernetes:karpenter.sh/v1:NodeClaim",
        "kubernetes:autoscaling.x-k8s.io/v1:ProvisioningRequest",
        "digitalocean:index/droplet:Droplet",
    ],
)
def test_what_buys_machines_and_has_no_rule_is_refused_under_a_limit(kind: str) -> None:
    provider = {"version": "1.0.0"} if kind.startswith("digitalocean") else {}
    (told,) = judge(priced_types, Declared(kind, {}, provider=provider), monthly_cost_limit_usd=10)
    assert f"what a {kind} costs is not known" in told
