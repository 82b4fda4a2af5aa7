"""What the cluster itself holds the workloads' namespace to: who talks to whom, how much of it, and by which way in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi

from infra.errors import require
from infra.kubernetes.objects import make_object
from infra.kubernetes.pods import check_name
from infra.kubernetes.queue import QUEUE_LABEL

ADMISSION_API = "admissionregistration.k8s.io/v1"
LABELS = {"app.kubernetes.io/managed-by": "fusion"}
COMPONENT = "app.kubernetes.io/component"
POD_IDENTITY = {"ipBlock": {"cidr": "169.254.170.23/32"}}
"""Where EKS Pod Identity's agent answers on each node. Source: EKS user guide, "Learn how EKS Pod Identity works"."""
EVERYWHERE = {"ipBlock": {"cidr": "0.0.0.0/0"}}
UNTOLD_CONTAINER = {
    "type": "Container",
    "default": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "2Gi"},
    "defaultRequest": {"cpu": "100m", "memory": "256Mi", "ephemeral-storage": "1Gi"},
}
"""What a container gets that does not say, such as a person's own for a look around: no node is taken up by it."""
EVERY_NAMESPACE: dict[str, Any] = {"namespaceSelector": {}}


@dataclass(frozen=True, slots=True, kw_only=True)
class PoliciesArgs:
    """The rules of a namespace.

    Attributes:
        namespace: whose pods they bind.
        metrics_port: where its training jobs answer Prometheus.
        devices: accelerators by resource that all of its pods may ask for at once: what its pools have at their most.
        device_classes: likewise of devices that are claimed, by DeviceClass.
        serving_ports: where the servers of its inference services listen.
        collector_ports: of the OpenTelemetry collectors that those servers send their traces to.
        is_queued: whether every job must name a queue: one that does not would start past all quotas.

    Raises:
        ArgumentError: a port or name that is none.
    """

    namespace: str
    metrics_port: int
    devices: Mapping[str, int] = field(default_factory=dict)
    device_classes: Mapping[str, int] = field(default_factory=dict)
    serving_ports: tuple[int, ...] = ()
    collector_ports: tuple[int, ...] = ()
    is_queued: bool = False

    def __post_init__(self) -> None:
        check_name("namespace", self.namespace, 63)
        for port in (self.metrics_port, *self.serving_ports, *self.collector_ports):
            require(1 <= port <= 65_535, f"policies: port {port}; use 1 to 65535.")


class Policies(pulumi.ComponentResource):
    """What binds the pods of a namespace, besides its Pod Security standard.

    Makes: NetworkPolicies (nothing goes in or out but what follows: names, TLS and the pod's identity out; pods of
    training jobs among themselves; requests to servers, and their traces to a collector; Prometheus to training jobs),
    a ResourceQuota and a LimitRange. With queueing a ValidatingAdmissionPolicy with its binding.

    Example:
        >>> args = PoliciesArgs(namespace="workloads", metrics_port=9400, devices={"nvidia.com/gpu": 8})
        >>> Policies("prod-policies", args, pulumi.ResourceOptions(provider=on_cluster))
    """

    def __init__(self, name: str, args: PoliciesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        props = {"namespace": args.namespace, "devices": dict(args.devices), "is_queued": args.is_queued}
        super().__init__("fusion:kubernetes:Policies", name, props, opts)
        self.args = args
        self._name = name
        self._child = pulumi.ResourceOptions(parent=self)
        for role, spec in network_rules(args).items():
            self._make("networking.k8s.io/v1", "NetworkPolicy", role, spec)
        self._make("v1", "ResourceQuota", "workloads", {"hard": hard_limits(args)})
        self._make("v1", "LimitRange", "workloads", {"limits": [UNTOLD_CONTAINER]})
        if args.is_queued:
            self._require_queues()
        self.register_outputs({})

    def _make(self, api: str, kind: str, name: str, spec: Mapping[str, Any]) -> None:
        metadata = {"name": name, "namespace": self.args.namespace, "labels": LABELS}
        value = {"apiVersion": api, "kind": kind, "metadata": metadata, "spec": dict(spec)}
        make_object(f"{self._name}-{kind.lower()}-{name}", value, self._child)

    def _require_queues(self) -> None:
        name = f"{self._name}-jobs-name-a-queue"
        rule = {"apiVersion": ADMISSION_API, "metadata": {"name": name, "labels": LABELS}}
        policy = {**rule, "kind": "ValidatingAdmissionPolicy", "spec": jobs_name_a_queue()}
        namespaces = {"matchLabels": {"kubernetes.io/metadata.name": self.args.namespace}}
        spec = {
            "policyName": name,
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": namespaces},
        }
        binding = {**rule, "kind": "ValidatingAdmissionPolicyBinding", "spec": spec}
        made = make_object(name, policy, self._child)
        make_object(f"{name}-binding", binding, pulumi.ResourceOptions(parent=self, depends_on=[made]))


def network_rules(args: PoliciesArgs) -> dict[str, dict[str, Any]]:
    """Specs of NetworkPolicies by name."""
    training = {"matchLabels": {COMPONENT: "training"}}
    among_training = [{"podSelector": training}]
    rules: dict[str, dict[str, Any]] = {
        "deny-all": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
        "names-and-tls-out": {
            "podSelector": {},
            "policyTypes": ["Egress"],
            "egress": [
                {"to": [EVERY_NAMESPACE], "ports": [_port(53, "UDP"), _port(53, "TCP")]},
                {"to": [EVERYWHERE], "ports": [_port(443)]},
                {"to": [POD_IDENTITY], "ports": [_port(80)]},
            ],
        },
        # Collectives choose their ports as they go.
        "training-among-itself": {
            "podSelector": training,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": among_training}, {"from": [EVERY_NAMESPACE], "ports": [_port(args.metrics_port)]}],
            "egress": [{"to": among_training}],
        },
    }
    if args.serving_ports:
        rules["requests-in"] = {
            "podSelector": {"matchLabels": {COMPONENT: "inference"}},
            "policyTypes": ["Ingress"],
            "ingress": [{"ports": [_port(port) for port in sorted(set(args.serving_ports))]}],
        }
    if args.collector_ports:
        rules["traces-out"] = {
            "podSelector": {"matchLabels": {COMPONENT: "inference"}},
            "policyTypes": ["Egress"],
            "egress": [{"ports": [_port(port) for port in sorted(set(args.collector_ports))]}],
        }
    return rules


def hard_limits(args: PoliciesArgs) -> dict[str, str]:
    """What all pods of the namespace together may ask for; nothing that opens a node or buys a load balancer."""
    devices = {f"requests.{name}": str(count) for name, count in sorted(args.devices.items())}
    claimed = {
        f"{name}.deviceclass.resource.k8s.io/devices": str(count) for name, count in sorted(args.device_classes.items())
    }
    return {**devices, **claimed, "services.loadbalancers": "0", "services.nodeports": "0"}


def jobs_name_a_queue() -> dict[str, Any]:
    """A rule in CEL: a Job or JobSet has Kueue's label, or is a part of an object that its controller made."""
    created = {"apiVersions": ["*"], "operations": ["CREATE"]}
    has_queue = f"has(object.metadata.labels) && '{QUEUE_LABEL}' in object.metadata.labels"
    return {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": [
                {"apiGroups": ["batch"], "resources": ["jobs"], **created},
                {"apiGroups": ["jobset.x-k8s.io"], "resources": ["jobsets"], **created},
            ]
        },
        "validations": [
            {
                "expression": f"({has_queue}) || has(object.metadata.ownerReferences)",
                "message": f"a job here waits in a queue: set the label {QUEUE_LABEL}",
                "reason": "Forbidden",
            }
        ],
    }


def _port(number: int, protocol: str = "TCP") -> dict[str, Any]:
    return {"port": number, "protocol": protocol}
