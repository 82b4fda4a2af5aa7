"""Karpenter on AWS: it hears what AWS takes back, may do what it needs, and buys no more than the plan."""

import json

import pytest

from infra.aws.karpenter import rights
from infra.errors import ArgumentError
from infra.purchase import RUNGS, rung_of
from planner.catalog import load
from policies.pricing import Place, Registered, quantities
from policies.resource import Resource, read
from tests.custom_resources import problems
from tests.unit.infra.cloud import Cloud
from tests.unit.infra.whole_stack import built, job, of_kind, service

REGION = "us-east-1"
CLUSTER_ARN = "arn:aws:eks:us-east-1:123456789012:cluster/t-cluster"


@pytest.fixture(scope="module")
def stack():
    """A spot pool with its stand-in, and a pool that keeps two nodes for a service and may have four."""
    spot = {"price_model": "spot", "spot_fallback": True, "nodes": {"desired": 1, "max": 3}}
    with built(workloads=[job(**spot), service()], cluster={"node_autoscaler": "karpenter"}) as cloud:
        yield cloud


def requirement(pool, key):
    (found,) = [each for each in pool["spec"]["template"]["spec"]["requirements"] if each["key"] == key]
    return found["values"]


def pools_of_the_plan(cloud):
    return {f"t-pool-{each['pool']}": each for each in cloud.all_facts("fusion:aws:AcceleratorPool")}


def test_every_object_is_what_karpenter_takes(stack: Cloud) -> None:
    kinds = {each["kind"] for each in stack.mocks.all_objects()}
    assert {"NodePool", "EC2NodeClass"} <= kinds
    assert [(each["kind"], problems(each)) for each in stack.mocks.all_objects() if problems(each)] == []


def test_node_groups_keep_the_minimum_and_karpenter_may_add_the_rest_of_the_plan(stack: Cloud) -> None:
    planned, made = pools_of_the_plan(stack), of_kind(stack, "NodePool")
    groups = {
        each["tags"]["fusion:component"]: each["scalingConfig"]
        for each in stack.mocks.of_type("aws:eks/nodeGroup:NodeGroup")
    }
    assert made.keys() == planned.keys()
    for name, pool in planned.items():
        kept = groups.get(name.removeprefix("t-"), {"maxSize": 0})
        (devices,) = [int(value) for key, value in made[name]["spec"]["limits"].items() if "/" in key]
        assert kept["maxSize"] == pool["nodes_min"]
        assert kept["maxSize"] + devices / pool["accelerator_count"] == pool["nodes_max"]


def test_the_pack_counts_as_many_nodes_with_their_disks_as_the_plan_has_beyond_the_minimum(stack: Cloud) -> None:
    planned, registered = pools_of_the_plan(stack), Registered()
    for name, node_class in of_kind(stack, "EC2NodeClass").items():
        registered.take(Resource("kubernetes:karpenter.k8s.aws/v1:EC2NodeClass", name, read(node_class), name))
    for name, pool in of_kind(stack, "NodePool").items():
        resource = Resource("kubernetes:karpenter.sh/v1:NodePool", name, read(pool), "urn", "")
        (machine, nodes), (_, gib) = quantities(resource, load(), Place("aws", REGION), registered).items()
        assert (machine.item, machine.price_model) == (planned[name]["instance_type"], planned[name]["price_model"])
        assert nodes.max == planned[name]["nodes_max"] - planned[name]["nodes_min"]
        assert gib.max == nodes.max * planned[name]["disk_gib"]


def test_a_pool_buys_as_planned_and_spot_comes_before_its_stand_in(stack: Cloud) -> None:
    made, planned = of_kind(stack, "NodePool"), pools_of_the_plan(stack)
    for name, pool in planned.items():
        assert requirement(made[name], "node.kubernetes.io/instance-type") == [pool["instance_type"]]
        assert requirement(made[name], "karpenter.sh/capacity-type") == [pool["price_model"].replace("_", "-")]
        assert requirement(made[name], "topology.kubernetes.io/zone") == pool["zones"]
    spot, stand_in = (made[f"t-pool-g5-xlarge-{end}"]["spec"] for end in ("spot-with-fallback", "fallback-on-demand"))
    assert spot["weight"] > stand_in["weight"]
    labels = [each["template"]["metadata"]["labels"] for each in (spot, stand_in)]
    assert labels[0]["fusion.dev/pool"] == labels[1]["fusion.dev/pool"], "the job's own selector finds both"


def test_a_run_is_not_moved_to_renew_a_node_and_is_told_to_go_when_aws_takes_a_spot_node_back(stack: Cloud) -> None:
    never = {"nodes": "0", "reasons": ["Drifted"]}
    for name, pool in pools_of_the_plan(stack).items():
        may_go = pool["price_model"] == "spot" or "fallback" in name
        assert (never in of_kind(stack, "NodePool")[name]["spec"]["disruption"]["budgets"]) == may_go
    (template,) = [each["spec"]["template"] for each in of_kind(stack, "Job").values()]
    annotations = template["metadata"]["annotations"]
    assert "karpenter.sh/do-not-disrupt" not in annotations, "Karpenter would wait for it to end, and AWS would not"


def test_a_node_is_as_closed_as_one_of_a_node_group(stack: Cloud) -> None:
    for each in of_kind(stack, "EC2NodeClass").values():
        spec = each["spec"]
        assert spec["metadataOptions"] == {
            "httpEndpoint": "enabled", "httpTokens": "required", "httpPutResponseHopLimit": 1
        }  # fmt: skip
        (disk,) = [mapping["ebs"] for mapping in spec["blockDeviceMappings"]]
        assert disk["encrypted"] and disk["kmsKeyID"].startswith("arn:aws:kms:")
        private = {
            each["SubnetId"] for each in stack.ec2.describe_subnets()["Subnets"] if not each["MapPublicIpOnLaunch"]
        }
        assert {term["id"] for term in spec["subnetSelectorTerms"]} <= private


def test_what_aws_takes_back_reaches_the_queue_that_only_events_may_fill(stack: Cloud) -> None:
    events = stack.client("events")
    rules = events.list_rules()["Rules"]
    told = {json.loads(each["EventPattern"])["detail-type"][0] for each in rules}
    assert {
        "EC2 Spot Instance Interruption Warning",
        "EC2 Instance Rebalance Recommendation",
        "AWS Health Event",
    } <= told
    (url,) = stack.client("sqs").list_queues()["QueueUrls"]
    attributes = stack.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    for each in rules:
        (target,) = events.list_targets_by_rule(Rule=each["Name"])["Targets"]
        assert target["Arn"] == attributes["QueueArn"]
    allowed = [each for each in json.loads(attributes["Policy"])["Statement"] if each["Effect"] == "Allow"]
    assert [each["Principal"] for each in allowed] == [{"Service": "events.amazonaws.com"}]
    assert url.endswith("/t-cluster"), "the name that the controller is told"


def test_the_controller_changes_nothing_but_what_it_made_for_this_cluster(stack: Cloud) -> None:
    statements = list(rights(CLUSTER_ARN, "queue", "queue-key", "role", "key"))
    changing = [
        each for each in statements if any(":Terminate" in name or ":Delete" in name for name in each["Action"])
    ]
    for each in changing:
        own = each["Resource"] == "queue" or each["Condition"]["StringEquals"] == {
            "aws:ResourceTag/kubernetes.io/cluster/t-cluster": "owned"
        }
        assert own, each["Sid"]
    everywhere = [each for each in statements if each["Resource"] == "*"]
    assert all(name.split(":")[1].startswith(("Describe", "Get")) for each in everywhere for name in each["Action"])
    assert not any("*" in name for each in statements for name in each["Action"])
    trust = stack.trust("t-karpenter")["Statement"][0]["Condition"]["StringEquals"]
    assert trust["aws:RequestTag/kubernetes-service-account"] == "karpenter"
    assert trust["aws:RequestTag/kubernetes-namespace"] == "kube-system"


def test_without_it_the_node_groups_have_the_whole_plan() -> None:
    with built(workloads=[job(nodes={"desired": 1, "max": 3})]) as cloud:
        (group,) = [
            each for each in cloud.mocks.of_type("aws:eks/nodeGroup:NodeGroup") if "system" not in each["nodeGroupName"]
        ]
        assert group["scalingConfig"]["maxSize"] == 3
        assert not of_kind(cloud, "NodePool") and not cloud.client("sqs").list_queues().get("QueueUrls")


def test_the_ways_to_buy_are_from_the_surest_to_the_one_that_may_end() -> None:
    assert [each.name for each in RUNGS] == ["reservation", "on_demand", "flex_start", "spot"]
    assert rung_of("on_demand", "cr-1").karpenter == rung_of("capacity_block", "cr-1").karpenter == "reserved"
    with pytest.raises(ArgumentError, match="price_model auction; use one of reservation, on_demand"):
        rung_of("auction")
