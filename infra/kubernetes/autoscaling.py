"""As many replicas of a service as its queue and its chips ask for, and none while nobody does: KEDA's ScaledObject.

KEDA and not the Prometheus adapter: its object carries the query beside the service that it scales, where the adapter
has one configuration for the whole cluster that two stacks would have to share; it scales to zero; and it makes the
HorizontalPodAutoscaler that the cluster's own controller then runs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pulumi

from infra.errors import require
from infra.kubernetes.objects import make_object
from infra.kubernetes.pods import check_name

API = "keda.sh/v1alpha1"
POLL_SECONDS = 15
"""How often Prometheus is asked; the HorizontalPodAutoscaler looks as often."""
SHRINK_AFTER_SECONDS = 300
"""A replica is taken away when the highest number of so long a time allows it: it took minutes to start."""
FAILURES = 3
"""After so many answers that did not come, replicas are left as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """One thing that Prometheus knows of a service, and how much of it each replica may have.

    Attributes:
        query: PromQL; its value is shared out among the replicas.
        per_replica: above it replicas are added.
        activates: whether a value above 0 starts the first replica, where there may be none.
    """

    query: str
    per_replica: float
    activates: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """By what a service is scaled.

    Attributes:
        prometheus: its address in the cluster, such as `http://prometheus-operated.monitoring.svc:9090`.
        triggers: the one that asks for most decides.
        idle_seconds: after how long without an activating value the last replica goes, where there may be none.
    """

    prometheus: str
    triggers: tuple[Trigger, ...]
    idle_seconds: int = 300

    def __post_init__(self) -> None:
        require(
            re.fullmatch(r"https?://[^\s/]+(/\S*)?", self.prometheus) is not None,
            f"autoscaling: prometheus {self.prometheus!r}; use an address such as "
            "http://prometheus-operated.monitoring.svc:9090.",
        )
        require(bool(self.triggers), "autoscaling: no trigger; name at least one query.")
        for each in self.triggers:
            require(
                each.per_replica > 0,
                f"autoscaling: the query {each.query} with {each.per_replica:g} for each replica; use more than 0.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscalingArgs:
    """A Deployment and its bounds.

    Attributes:
        name: of the Deployment in its namespace.
        namespace: where it is.
        replicas_min: 0 lets it have none while no trigger activates it.
        replicas_max: the plan's.
        scaling: by what.

    Raises:
        ArgumentError: bounds that are none, or none at all and nothing that would start the first replica.
    """

    name: str
    namespace: str
    replicas_min: int
    replicas_max: int
    scaling: Scaling

    def __post_init__(self) -> None:
        check_name("inference service", self.name)
        check_name("namespace", self.namespace, 63)
        require(
            0 <= self.replicas_min < self.replicas_max,
            f"autoscaling of {self.name}: replicas_min {self.replicas_min} and replicas_max {self.replicas_max} leave "
            "nothing to scale; use a higher replicas_max.",
        )
        require(
            self.replicas_min > 0 or any(each.activates for each in self.scaling.triggers),
            f"autoscaling of {self.name}: without replicas nothing of its own says that it is asked for; add a trigger "
            "that activates, such as the gateway's count of its requests, or keep a replica.",
        )


class Autoscaling(pulumi.ComponentResource):
    """What scales one service.

    Makes: ScaledObject; KEDA makes the HorizontalPodAutoscaler of it.

    Example:
        >>> trigger = Trigger(query='sum(fusion_waiting_rows{pod=~"classify-.*"})', per_replica=8)
        >>> scaling = Scaling(prometheus="http://prometheus-operated.monitoring.svc:9090", triggers=(trigger,))
        >>> args = AutoscalingArgs(
        ...     name="classify", namespace="workloads", replicas_min=2, replicas_max=8, scaling=scaling
        ... )
        >>> Autoscaling("prod-classify-scaling", args, pulumi.ResourceOptions(provider=on_cluster))
    """

    def __init__(self, name: str, args: AutoscalingArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        bounds = {"replicas_min": args.replicas_min, "replicas_max": args.replicas_max}
        super().__init__("fusion:kubernetes:Autoscaling", name, {"workload": args.name, **bounds}, opts)
        self.args = args
        metadata = {
            "name": args.name,
            "namespace": args.namespace,
            "labels": {"app.kubernetes.io/name": args.name, "app.kubernetes.io/managed-by": "fusion"},
        }
        value = {"apiVersion": API, "kind": "ScaledObject", "metadata": metadata, "spec": scaled_object(args)}
        make_object(name, value, pulumi.ResourceOptions(parent=self))
        self.register_outputs({})


def scaled_object(args: AutoscalingArgs) -> dict[str, Any]:
    """Spec of the ScaledObject."""
    shrink = {"stabilizationWindowSeconds": SHRINK_AFTER_SECONDS}
    kept = {"failureThreshold": FAILURES, "replicas": max(args.replicas_min, 1), "behavior": "currentReplicasIfHigher"}
    return {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": args.name},
        "minReplicaCount": args.replicas_min,
        "maxReplicaCount": args.replicas_max,
        "pollingInterval": POLL_SECONDS,
        "cooldownPeriod": args.scaling.idle_seconds,
        "fallback": kept,
        "advanced": {"horizontalPodAutoscalerConfig": {"name": args.name, "behavior": {"scaleDown": shrink}}},
        "triggers": [_trigger(each, args.scaling.prometheus) for each in args.scaling.triggers],
    }


def _trigger(trigger: Trigger, prometheus: str) -> dict[str, Any]:
    """No value counts as none; only an activating trigger may start the first replica."""
    never = str(2**31)
    return {
        "type": "prometheus",
        "metricType": "AverageValue",
        "metadata": {
            "serverAddress": prometheus,
            "query": trigger.query,
            "threshold": f"{trigger.per_replica:g}",
            "activationThreshold": "0" if trigger.activates else never,
            "ignoreNullValues": "true",
        },
    }
