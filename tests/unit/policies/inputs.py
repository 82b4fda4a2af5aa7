"""Resources whose inputs have the fields that guardrails of cost, capacity and latency read, for tests that make them wrong."""

from __future__ import annotations

from typing import Any

from policies.plan import PLAN_TYPE
from tests.unit.planner.test_plan import job, planned, service
from tests.unit.policies.security import test_rules
from tests.unit.policies.test_pricing import AWS, GCP

G5 = {"accelerators": 1, "instance_type": "g5.xlarge"}
SCALING = {"minSize": 0, "desiredSize": 1, "maxSize": 3}
OVERRIDES = [
    {"instanceType": "m6i.large", "weightedCapacity": "2"},
    {"instanceType": "g5.xlarge", "weightedCapacity": "3"},
]
NAMED = {"launchTemplateName": "own", "version": "$Latest"}
INFERENCE = {"app.kubernetes.io/component": "inference", "app.kubernetes.io/name": "chat"}
IN_ZONES = {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a"]}]}
REQUIRED = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [IN_ZONES]}}
CONTAINER = {
    "name": "main",
    "image": "app",
    "env": [{"name": "DB_TOKEN", "value": "x"}],
    "args": ["--token", "x"],
    "ports": [{"containerPort": 1, "hostPort": 8}],
    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
    "securityContext": {"runAsUser": 1, "capabilities": {"add": ["X"], "drop": ["ALL"]}},
}
POD = {
    "containers": [CONTAINER],
    "topologySpreadConstraints": [{"topologyKey": "topology.kubernetes.io/zone"}],
    "affinity": {"nodeAffinity": REQUIRED},
    "securityContext": {"sysctls": [{"name": "a", "value": "b"}]},
}
BOUGHT = [
    {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["m6i.large"]},
    {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot"]},
]
NODES = {
    "metadata": {"labels": {"fusion.dev/pool": "x"}},
    "spec": {"nodeClassRef": {"name": "c"}, "requirements": BOUGHT},
}
CLAIM = {"spec": {"resources": {"requests": {"storage": "10Gi"}}}}
REPLICAS = {"scaleTargetRef": {"kind": "StatefulSet", "name": "chat"}}
OF_TPUS = {"machineType": "ct5p-hightpu-4t", "spot": True, "bootDisk": {"diskType": "pd-ssd", "sizeGb": 10}}

INPUTS: list[tuple[str, dict[str, Any]]] = [
    *((kind, inputs) for kind, inputs, _ in (*AWS, *GCP)),
    *((kind, inputs) for _, kind, inputs in test_rules.PASS),
    *((kind, inputs) for _, kind, inputs, _ in test_rules.REFUSE),
    (PLAN_TYPE, planned(job(needs=G5), service("chat", needs=G5)).as_props()),
    (
        "aws:autoscaling/group:Group",
        {
            "minSize": 1,
            "maxSize": 5,
            "desiredCapacity": 2,
            "warmPool": {"maxGroupPreparedCapacity": 3},
            "mixedInstancesPolicy": {
                "instancesDistribution": {"onDemandBaseCapacity": 1, "onDemandPercentageAboveBaseCapacity": 50},
                "launchTemplate": {"launchTemplateSpecification": NAMED, "overrides": OVERRIDES},
            },
        },
    ),
    ("aws:autoscaling/group:Group", {"minSize": 1, "maxSize": 5, "launchConfiguration": "own"}),
    (
        "aws:ec2/launchTemplate:LaunchTemplate",
        {
            "name": "own",
            "instanceType": "m6i.large",
            "blockDeviceMappings": [{"ebs": {"volumeSize": 9, "volumeType": "gp3", "iops": 4000, "throughput": 200}}],
            "metadataOptions": {"httpTokens": "required", "httpPutResponseHopLimit": 2},
            "networkInterfaces": [{"associatePublicIpAddress": "false"}],
            "placement": {"tenancy": "default"},
            "instanceMarketOptions": {"marketType": "spot"},
            "capacityReservationSpecification": {"capacityReservationPreference": "open"},
        },
    ),
    ("aws:ec2/launchConfiguration:LaunchConfiguration", {"name": "own", "instanceType": "m6i.large", "spotPrice": "1"}),
    (
        "aws:ec2/fleet:Fleet",
        {
            "targetCapacitySpecification": {"totalTargetCapacity": 4, "defaultTargetCapacityType": "spot"},
            "launchTemplateConfigs": [{"launchTemplateSpecification": NAMED, "overrides": OVERRIDES}],
        },
    ),
    (
        "aws:ec2/spotFleetRequest:SpotFleetRequest",
        {"targetCapacity": 4, "launchSpecifications": [{"instanceType": "m6i.large", "rootBlockDevices": [{}]}]},
    ),
    (
        "aws:eks/nodeGroup:NodeGroup",
        {
            "instanceTypes": ["m6i.large"],
            "capacityType": "SPOT",
            "scalingConfig": SCALING,
            "labels": {"fusion.dev/pool": "x"},
            "launchTemplate": NAMED,
            "warmPoolConfig": {"maxGroupPreparedCapacity": 1},
            "remoteAccess": {"ec2SshKey": "k"},
        },
    ),
    ("aws:ec2/subnet:Subnet", {"mapPublicIpOnLaunch": False}),
    (
        "gcp:container/nodePool:NodePool",
        {
            "location": "us-central1",
            "nodeCount": 2,
            "autoscaling": {"minNodeCount": 0, "maxNodeCount": 4},
            "placementPolicy": {"tpuTopology": "2x2x1"},
            "nodeConfig": OF_TPUS,
        },
    ),
    ("gcp:tpu/v2Vm:V2Vm", {"zone": "us-west4-a", "acceleratorConfig": {"type": "V5P", "topology": "2x2x1"}}),
    ("kubernetes:karpenter.sh/v1:NodePool", {"spec": {"limits": {"cpu": "100", "memory": "9Gi"}, "template": NODES}}),
    (
        "kubernetes:karpenter.k8s.aws/v1:EC2NodeClass",
        {
            "metadata": {"name": "c"},
            "spec": {
                "amiSelectorTerms": [{"alias": "al2023@latest"}],
                "blockDeviceMappings": [{"ebs": {"volumeSize": "100Gi", "volumeType": "gp3", "iops": 3000}}],
            },
        },
    ),
    (
        "kubernetes:apps/v1:StatefulSet",
        {
            "metadata": {"name": "chat", "labels": INFERENCE},
            "spec": {"replicas": 2, "volumeClaimTemplates": [CLAIM], "template": {"spec": POD}},
        },
    ),
    ("kubernetes:autoscaling/v2:HorizontalPodAutoscaler", {"spec": {"minReplicas": 1, "maxReplicas": 9, **REPLICAS}}),
    ("kubernetes:keda.sh/v1alpha1:ScaledObject", {"spec": {"minReplicaCount": 1, "maxReplicaCount": 9, **REPLICAS}}),
    (
        "kubernetes:policy/v1:PodDisruptionBudget",
        {"spec": {"maxUnavailable": "50%", "minAvailable": 1, "selector": {"matchLabels": INFERENCE}}},
    ),
    ("kubernetes:core/v1:List", {"items": [{"apiVersion": "v1", "kind": "Pod", "spec": POD}, CLAIM]}),
]
