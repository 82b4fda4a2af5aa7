"""Objects of the tests about queues, gangs and nodes, as the components make them, without Pulumi."""

from typing import Any

Object = dict[str, Any]

GPU = "nvidia.com/gpu"
IMAGE = "registry.example.com/fusion/training:0.1.0"


def queue(name: str, gpus: int) -> list[Object]:
    """A ClusterQueue of p5.48xlarge on spot with its flavor, and a LocalQueue in the namespace `workloads`."""
    labels = {"node.kubernetes.io/instance-type": "p5.48xlarge", "karpenter.sh/capacity-type": "spot"}
    quotas = {"cpu": 4 * 192, "memory": "8Ti", GPU: gpus}
    return [
        {
            "apiVersion": "kueue.x-k8s.io/v1beta1",
            "kind": "ResourceFlavor",
            "metadata": {"name": name},
            "spec": {
                "nodeLabels": labels,
                "tolerations": [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}],
            },
        },
        {
            "apiVersion": "kueue.x-k8s.io/v1beta1",
            "kind": "ClusterQueue",
            "metadata": {"name": name},
            "spec": {
                "namespaceSelector": {},
                "resourceGroups": [
                    {
                        "coveredResources": list(quotas),
                        "flavors": [
                            {
                                "name": name,
                                "resources": [{"name": key, "nominalQuota": value} for key, value in quotas.items()],
                            }
                        ],
                    }
                ],
            },
        },
        {
            "apiVersion": "kueue.x-k8s.io/v1beta1",
            "kind": "LocalQueue",
            "metadata": {"name": name, "namespace": "workloads"},
            "spec": {"clusterQueue": name},
        },
    ]


def node_pool(name: str, *, gpus: int) -> list[Object]:
    """Karpenter's pool of p5.48xlarge on spot, empty when nothing runs, and the class that kwok's provider has."""
    return [
        {
            "apiVersion": "karpenter.kwok.sh/v1alpha1",
            "kind": "KWOKNodeClass",
            "metadata": {"name": name},
            "spec": {},
        },
        {
            "apiVersion": "karpenter.sh/v1",
            "kind": "NodePool",
            "metadata": {"name": name},
            "spec": {
                "limits": {GPU: gpus},
                "disruption": {"consolidationPolicy": "WhenEmpty", "consolidateAfter": "1s"},
                "template": {
                    "metadata": {"labels": {"fusion.dev/pool": name}},
                    "spec": {
                        "nodeClassRef": {"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": name},
                        "expireAfter": "Never",
                        "taints": [{"key": GPU, "value": "present", "effect": "NoSchedule"}],
                        "requirements": [
                            {
                                "key": "node.kubernetes.io/instance-type",
                                "operator": "In",
                                "values": ["p5.48xlarge"],
                            },
                            {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot"]},
                        ],
                    },
                },
            },
        },
    ]


def training_job(name: str, queue_name: str, *, nodes: int, pod: Object | None = None) -> Object:
    """A JobSet of one gang, 8 GPUs a node, that waits in a queue; an eviction restarts one pod and not the job."""
    taken_back = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    left_in_time = {
        "action": "Ignore",
        "onExitCodes": {"containerName": "training", "operator": "In", "values": [75]},
    }
    container: Object = {
        "name": "training",
        "image": IMAGE,
        "resources": {
            "requests": {"cpu": "96", "memory": "512Gi", GPU: "8"},
            "limits": {"cpu": "96", "memory": "512Gi", GPU: "8"},
        },
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": name,
            "namespace": "workloads",
            "labels": {"kueue.x-k8s.io/queue-name": queue_name},
        },
        "spec": {
            "suspend": True,
            "failurePolicy": {"maxRestarts": 3},
            "replicatedJobs": [
                {
                    "name": "nodes",
                    "template": {
                        "spec": {
                            "completionMode": "Indexed",
                            "completions": nodes,
                            "parallelism": nodes,
                            "backoffLimit": 0,
                            "podFailurePolicy": {"rules": [taken_back, left_in_time]},
                            "template": {
                                "metadata": {},
                                "spec": {
                                    "restartPolicy": "Never",
                                    "automountServiceAccountToken": False,
                                    "containers": [container | (pod or {})],
                                },
                            },
                        }
                    },
                }
            ],
        },
    }
