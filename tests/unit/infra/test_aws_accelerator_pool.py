import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.accelerator_pool import Taint
from infra.aws.accelerator_pool import AwsAcceleratorPool
from infra.aws.cluster import AwsCluster
from infra.aws.deployed import NodeGroupSize
from infra.aws.network import AwsNetwork
from infra.cluster import ClusterArgs
from infra.network import NetworkArgs
from tests.unit.infra.cloud import Cloud
from tests.unit.infra.conftest import REGION, ZONES, efa_pool_args, pool_args

POOLS = {
    "spot": pool_args(
        pool="spot",
        price_model="spot",
        nodes_desired=1,
        disk_gib=200,
        labels={"team": "ml"},
        taints=(Taint(key="team", value="ml"),),
        tags={"fusion:stack": "t"},
    ),
    "efa": efa_pool_args(pool="efa", nodes_max=8, nodes_min=2),
    "reserved": efa_pool_args(pool="reserved", reservation_id="cr-0123456789abcdef0"),
    "block": efa_pool_args(pool="block", price_model="capacity_block", reservation_id="cr-0fedcba9876543210"),
    "neuron": pool_args(pool="neuron", instance_type="trn1.2xlarge", accelerator="Trainium1"),
    "cpu": pool_args(pool="cpu", instance_type="m7g.large", accelerator=None, accelerator_count=0),
}


def program():
    network = AwsNetwork("t-network", NetworkArgs(region=REGION, zones=ZONES, flow_logs=False))
    cluster = AwsCluster("t-cluster", ClusterArgs(region=REGION), network)
    return {name: AwsAcceleratorPool(f"t-pool-{name}", args, cluster) for name, args in POOLS.items()}


@pytest.fixture(scope="module")
def cloud():
    with Cloud(program) as deployed:
        yield deployed


@pytest.fixture
def group(cloud):
    def find(pool):
        name = next(
            each
            for each in cloud.eks.list_nodegroups(clusterName="t-cluster")["nodegroups"]
            if each.startswith(f"t-pool-{pool}-")
        )
        return cloud.eks.describe_nodegroup(clusterName="t-cluster", nodegroupName=name)["nodegroup"]

    return find


def template(cloud, pool):
    return cloud.launch_template(f"t-pool-{pool}")


@pytest.mark.parametrize(
    ("pool", "image", "capacity"),
    [
        ("spot", "AL2023_x86_64_NVIDIA", "SPOT"),
        ("efa", "AL2023_x86_64_NVIDIA", "ON_DEMAND"),
        ("block", "AL2023_x86_64_NVIDIA", "CAPACITY_BLOCK"),
        ("neuron", "AL2023_x86_64_NEURON", "ON_DEMAND"),
        ("cpu", "AL2023_ARM_64_STANDARD", "ON_DEMAND"),
    ],
)
def test_the_offer_decides_on_image_and_capacity_type(group, pool, image, capacity):
    assert (group(pool)["amiType"], group(pool)["capacityType"]) == (image, capacity)


def test_the_autoscaler_gets_its_bounds(group):
    assert group("spot")["scalingConfig"] == {"minSize": 0, "desiredSize": 1, "maxSize": 2}
    assert group("efa")["scalingConfig"] == {"minSize": 2, "desiredSize": 2, "maxSize": 8}


def test_nodes_are_in_the_private_subnets_of_the_pools_zones(cloud, group):
    for pool, args in POOLS.items():
        subnets = cloud.ec2.describe_subnets(SubnetIds=group(pool)["subnets"])["Subnets"]
        assert {cloud.tags(subnet)["Name"] for subnet in subnets} == {
            f"t-network-private-{zone}" for zone in args.zones
        }


def test_workloads_select_nodes_by_label_and_other_pods_stay_off_accelerators(group):
    assert group("spot")["labels"] == {
        "team": "ml",
        "fusion.dev/pool": "spot",
        "fusion.dev/price-model": "spot",
        "fusion.dev/accelerator": "A10G",
    }
    taints = {each["key"]: (each["value"], each["effect"]) for each in group("spot")["taints"]}
    assert taints == {"nvidia.com/gpu": ("present", "NO_SCHEDULE"), "team": ("ml", "NO_SCHEDULE")}
    assert [each["key"] for each in group("neuron")["taints"]] == ["aws.amazon.com/neuron"]
    assert not group("cpu").get("taints")


@pytest.mark.parametrize("pool", POOLS)
def test_metadata_is_for_the_node_and_through_tokens_only(cloud, pool):
    options = template(cloud, pool)["MetadataOptions"]
    assert options["HttpTokens"] == "required" and options["HttpPutResponseHopLimit"] == 1


@pytest.mark.parametrize("pool", POOLS)
def test_the_root_disk_is_encrypted_with_the_clusters_key_and_as_large_as_asked(cloud, pool):
    (disk,) = template(cloud, pool)["BlockDeviceMappings"]
    assert disk["DeviceName"] == "/dev/xvda"
    ebs = disk["Ebs"]
    assert (ebs["VolumeType"], ebs["VolumeSize"], ebs["Encrypted"]) == ("gp3", POOLS[pool].disk_gib, True)
    assert cloud.key_policy(ebs["KmsKeyId"]) == cloud.key_policy("alias/t-cluster-disks")


def test_what_a_launch_makes_carries_the_stacks_tags(cloud):
    specifications = template(cloud, "spot")["TagSpecifications"]
    assert {each["ResourceType"] for each in specifications} >= {"instance", "volume"}
    for each in specifications:
        assert {"Key": "fusion:stack", "Value": "t"} in each["Tags"]


def test_with_efa_each_card_has_an_adapter(cloud):
    interfaces = template(cloud, "efa")["NetworkInterfaces"]
    adapters = [each for each in interfaces if each["InterfaceType"] == "efa-only"]
    assert sorted(each["NetworkCardIndex"] for each in adapters) == list(range(32))
    (primary,) = [each for each in interfaces if each not in adapters]
    assert (primary["NetworkCardIndex"], primary["DeviceIndex"], primary["InterfaceType"]) == (0, 0, "interface")


def test_adapters_talk_to_those_of_their_pool_only(cloud):
    (group,) = cloud.ec2.describe_security_groups(
        Filters=[{"Name": "group-name", "Values": ["t-pool-efa-interconnect"]}]
    )["SecurityGroups"]
    assert all(group["GroupId"] in each["Groups"] for each in template(cloud, "efa")["NetworkInterfaces"])
    for rules in (group["IpPermissions"], group["IpPermissionsEgress"]):
        (rule,) = rules
        assert rule["IpProtocol"] == "-1" and not rule["IpRanges"]
        assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [group["GroupId"]]


def test_nodes_with_efa_are_placed_together_unless_a_reservation_places_them(cloud):
    groups = cloud.ec2.describe_placement_groups()["PlacementGroups"]
    assert [(each["GroupName"], each["Strategy"]) for each in groups] == [("t-pool-efa", "cluster")]
    assert template(cloud, "efa")["Placement"]["GroupName"] == "t-pool-efa"
    assert "Placement" not in template(cloud, "reserved")


def test_a_reservation_is_launched_into_by_its_id(cloud):
    for pool in ("reserved", "block"):
        target = template(cloud, pool)["CapacityReservationSpecification"]["CapacityReservationTarget"]
        assert target["CapacityReservationId"] == POOLS[pool].reservation_id


def test_a_capacity_block_names_its_market_and_type_in_the_template(cloud, group):
    block = template(cloud, "block")
    assert block["InstanceMarketOptions"]["MarketType"] == "capacity-block"
    assert block["InstanceType"] == "p5.48xlarge"
    assert group("efa")["instanceTypes"] == ["p5.48xlarge"]


def test_plain_pools_leave_networking_to_eks(cloud):
    assert "NetworkInterfaces" not in template(cloud, "spot")
    assert "Placement" not in template(cloud, "spot")


def test_guardrails_see_each_pool_in_plain_values(cloud):
    facts = {each["pool"]: each for each in cloud.all_facts("fusion:aws:AcceleratorPool")}
    assert set(facts) == set(POOLS)
    assert (facts["spot"]["instance_type"], facts["spot"]["price_model"]) == ("g5.xlarge", "spot")
    assert (facts["efa"]["nodes_min"], facts["efa"]["nodes_max"], facts["efa"]["efa"]) == (2, 8, True)
    assert facts["efa"]["region"] == REGION and facts["efa"]["zones"] == [ZONES[0]]


def test_a_pool_says_what_its_pods_ask_for(cloud):
    pools = cloud.result
    assert (pools["efa"].device_resource, pools["neuron"].device_resource) == (
        "nvidia.com/gpu",
        "aws.amazon.com/neuron",
    )
    assert (pools["efa"].interconnect_resource, pools["efa"].interconnects_per_node) == ("vpc.amazonaws.com/efa", 32)
    assert (pools["cpu"].device_resource, pools["spot"].interconnect_resource) == (None, None)


@given(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9), st.integers(0, 9))
def test_a_size_is_moved_into_new_bounds_and_stays_where_they_allow_it(desired, low, high, more):
    least, most = min(low, high), max(low, high) + more
    size = NodeGroupSize(0, desired, 9).within(least, most)
    assert least <= size <= most
    assert size == desired or desired < least or desired > most
