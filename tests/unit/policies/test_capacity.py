"""Machines, GPUs and slices of TPUs that are declared beside the plan, or through none of its components."""

from typing import Any

import pytest

from policies.capacity import GUARDRAILS
from policies.testing import UNKNOWN, Declared, judge

RULES = {each.name: each for each in GUARDRAILS}
INSTANCE, TEMPLATE = "aws:ec2/instance:Instance", "aws:ec2/launchTemplate:LaunchTemplate"
NODES, FLEET = "aws:eks/nodeGroup:NodeGroup", "aws:ec2/fleet:Fleet"
BATCH = "aws:batch/computeEnvironment:ComputeEnvironment"
VM, VM_TEMPLATE = "gcp:compute/instance:Instance", "gcp:compute/instanceTemplate:InstanceTemplate"
POOL, GKE = "gcp:container/nodePool:NodePool", "gcp:container/cluster:Cluster"
TPU, QUEUED = "gcp:tpu/v2Vm:V2Vm", "gcp:tpu/v2QueuedResource:V2QueuedResource"
URL = "https://www.googleapis.com/compute/v1/projects/p/zones/us-west4-a"


def fleet(*instance_types: str) -> dict[str, Any]:
    return {"launchTemplateConfigs": [{"overrides": [{"instanceType": each} for each in instance_types]}]}


def pool(topology: str, nodes: int | None = None, machine: str = "ct5p-hightpu-4t") -> dict[str, Any]:
    sized = {} if nodes is None else {"nodeCount": nodes}
    return {"nodeConfig": {"machineType": machine}, "placementPolicy": {"tpuTopology": topology}} | sized


def queued(accelerator_type: str) -> dict[str, Any]:
    return {"tpu": {"nodeSpecs": [{"node": {"acceleratorType": accelerator_type}}]}}


PASS: list[tuple[str, str, dict[str, Any]]] = [
    ("instance-types", INSTANCE, {"instanceType": "g5.xlarge"}),
    ("instance-types", INSTANCE, {"launchTemplate": {"id": UNKNOWN}}),
    ("instance-types", TEMPLATE, {}),
    ("instance-types", NODES, {"instanceTypes": ["m6i.large", "m5zn.metal"]}),
    ("instance-types", FLEET, fleet("g5.xlarge", "g6.xlarge")),
    ("instance-types", BATCH, {"computeResources": {"instanceTypes": ["optimal", "p4d", "g5.xlarge"]}}),
    ("instance-types", VM, {"machineType": f"{URL}/machineTypes/n1-standard-8"}),
    (
        "instance-types",
        VM,
        {"guestAccelerators": [{"type": f"{URL}/acceleratorTypes/nvidia-tesla-t4-vws", "count": 1}]},
    ),
    ("instance-types", POOL, {"nodeConfig": {"guestAccelerators": [{"type": "nvidia-l4", "count": 1}]}}),
    ("instance-types", GKE, {"nodePools": [{"nodeConfig": {"machineType": "e2-medium"}}]}),
    ("sold-in-region", INSTANCE, {"instanceType": "p5.48xlarge"}),
    ("sold-in-region", VM, {"zone": "europe-west4-b", "machineType": "a2-highgpu-1g"}),
    ("sold-in-region", VM, {"zone": "us-west1-a", "guestAccelerators": [{"type": "nvidia-tesla-t4"}]}),
    ("sold-in-region", POOL, {"location": "us-central1", **pool("2x2", machine="ct5lp-hightpu-4t")}),
    ("sold-in-region", TPU, {"zone": "us-central2-b", "acceleratorType": "v4-8"}),
    ("tpu-topology", POOL, pool("2x2x4", 4)),
    ("tpu-topology", POOL, pool("2x2x4", 0)),
    ("tpu-topology", POOL, pool("2x2x4")),
    ("tpu-topology", POOL, pool("2x2x1", 7)),  # each node is a slice
    ("tpu-topology", POOL, {"nodeConfig": {"machineType": "g2-standard-4"}}),
    ("tpu-topology", GKE, {"nodePools": [pool("4x4x4", 16)]}),
    ("tpu-topology", GKE, {}),
    ("tpu-topology", TPU, {"acceleratorType": "v5litepod-16"}),
    ("tpu-topology", TPU, {"acceleratorConfig": {"type": "V5LITE_POD", "topology": "2x4"}}),
    ("tpu-topology", TPU, {"acceleratorConfig": {"type": "V3", "topology": "4x4"}}),
    ("tpu-topology", QUEUED, queued("v6e-256")),
]
BREAK: list[tuple[str, str, dict[str, Any], str]] = [
    ("instance-types", INSTANCE, {"instanceType": "g5.3xlarge"}, "instanceType: g5.3xlarge is no instance type of aws"),
    ("instance-types", INSTANCE, {"instanceType": "f1.2xlarge"}, "f1.2xlarge was retired on 2025-12-20; F2"),
    ("instance-types", INSTANCE, {"instanceType": UNKNOWN}, "instanceType decides this and is not known"),
    ("instance-types", TEMPLATE, {"instanceType": "p9.48xlarge"}, "p9.48xlarge is no instance type"),
    ("instance-types", NODES, {"instanceTypes": ["g5.xlarge", "g5.wide"]}, "instanceTypes[1]: g5.wide is no"),
    ("instance-types", FLEET, fleet("g5.xlarge", "f1.4xlarge"), "overrides[1].instanceType: f1.4xlarge was retired"),
    ("instance-types", BATCH, {"computeResources": {"instanceTypes": ["g5.wide"]}}, "g5.wide is no instance type"),
    ("instance-types", VM, {"machineType": "a3-highgpu-9g"}, "machineType: a3-highgpu-9g is no instance type of gcp"),
    ("instance-types", VM, {"guestAccelerators": [{"type": "nvidia-tesla-k80"}]}, "was retired on 2024-05-01"),
    (
        "instance-types",
        VM_TEMPLATE,
        {"guestAccelerators": [{"type": "nvidia-l5"}]},
        "is no accelerator of gcp; nearest",
    ),
    ("instance-types", POOL, {"nodeConfig": {"machineType": "ct5lp-hightpu-3t"}}, "ct5lp-hightpu-3t is no instance"),
    ("instance-types", GKE, {"nodePools": [{"nodeConfig": {"machineType": "e9-medium"}}]}, "nodePools[0].nodeConfig"),
    (
        "sold-in-region",
        INSTANCE,
        {"instanceType": "p5.48xlarge", "region": "eu-central-1"},
        "(H100) is not sold in eu-c",
    ),
    ("sold-in-region", VM, {"zone": "us-west2-a", "machineType": "a3-highgpu-8g"}, "(H100) is not sold in us-west2"),
    (
        "sold-in-region",
        VM,
        {"zone": f"{URL}/zones/us-west4-a", "guestAccelerators": [{"type": "nvidia-tesla-v100"}]},
        "nvidia-tesla-v100 (V100-16GB) is not sold in us-west4",
    ),
    ("sold-in-region", POOL, {"location": "us-west2", **pool("2x2x1")}, "ct5p-hightpu-4t (TPUv5p) is not sold in"),
    ("sold-in-region", TPU, {"zone": "us-west2-a", "acceleratorType": "v4-8"}, "v4-8 (TPUv4) is not sold in us-west2"),
    ("sold-in-region", VM, {"zone": UNKNOWN, "machineType": "a3-highgpu-8g"}, "zone decides this and is not known"),
    ("tpu-topology", POOL, pool("2x2x4", 5), "has 4 nodes, and 5 are asked for"),
    ("tpu-topology", POOL, pool("2x2x5"), "placementPolicy.tpuTopology: there is no slice 2x2x5 of ct5p-hightpu-4t"),
    ("tpu-topology", POOL, pool(UNKNOWN), "placementPolicy.tpuTopology decides this and is not known"),
    ("tpu-topology", GKE, {"nodePools": [pool("2x2x4", 4), pool("2x3x4", 4)]}, "nodePools[1].placementPolicy"),
    ("tpu-topology", TPU, {"acceleratorType": "v5litepod-12"}, "is 12 chips: TPUv5e has no slice of 12 chips"),
    ("tpu-topology", TPU, {"acceleratorConfig": {"type": "V5LITE_POD", "topology": "3x4"}}, "no slice 3x4 of TPUv5e"),
    ("tpu-topology", TPU, {"acceleratorConfig": {"type": "V3", "topology": "3x4"}}, "TPUv3 has no slice of 12 chips"),
    (
        "tpu-topology",
        TPU,
        {"acceleratorConfig": {"type": "V99", "topology": "2x2"}},
        "V99 is no generation of Cloud TPU",
    ),
    ("tpu-topology", QUEUED, queued("v6e-3"), "v6e-3 is 3 chips"),
]


@pytest.mark.parametrize(("rule", "kind", "inputs"), PASS)
def test_what_can_be_had_passes(rule: str, kind: str, inputs: dict[str, Any]) -> None:
    assert judge(RULES[rule], Declared(kind, inputs), config={"gcp:region": "us-central1"}) == []


@pytest.mark.parametrize(("rule", "kind", "inputs", "said"), BREAK)
def test_what_can_not_be_had_is_told(rule: str, kind: str, inputs: dict[str, Any], said: str) -> None:
    messages = judge(RULES[rule], Declared(kind, inputs), config={"gcp:region": "us-central1"})
    assert len(messages) == 1
    assert said in messages[0]


def test_where_no_zone_is_said_the_region_is_that_of_the_provider() -> None:
    vm = Declared(VM, {"machineType": "a3-highgpu-8g"}, provider={"region": "us-west2"})
    assert "not sold in us-west2" in judge(RULES["sold-in-region"], vm)[0]
