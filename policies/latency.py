"""Guardrails of latency: those on the plan, and what keeps an inference service's replicas in the cluster.

Objects are told as an inference service's by the labels of Fusion's own (`app.kubernetes.io/component: inference`), and
an autoscaler by the service of the plan that it scales, whatever its labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from planner.guardrails.latency import too_few_replicas
from planner.workloads import InferenceService
from policies.guardrail import guardrail
from policies.plan import PLAN_TYPE, registered_plan
from policies.resource import Props, Resource
from policies.update import Update

KEDA_LEAST = "spec.minReplicaCount"
COMPONENT, NAME = "app.kubernetes.io/component", "app.kubernetes.io/name"
ZONES = ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone")
GROUPS = {
    "Deployment": ("apps/v1", "apps/v1beta1", "apps/v1beta2", "extensions/v1beta1"),
    "StatefulSet": ("apps/v1", "apps/v1beta1", "apps/v1beta2"),
    "ReplicaSet": ("apps/v1", "apps/v1beta2", "extensions/v1beta1"),
    "HorizontalPodAutoscaler": ("autoscaling/v1", "autoscaling/v2", "autoscaling/v2beta1", "autoscaling/v2beta2"),
    "PodDisruptionBudget": ("policy/v1", "policy/v1beta1"),
    "ScaledObject": ("keda.sh/v1alpha1",),
}
TYPES = tuple(
    f"kubernetes:{group}:{kind}{form}" for kind, groups in GROUPS.items() for group in groups for form in ("", "Patch")
)


@dataclass
class Promises:
    """What the registered plan promises: by service, the replicas that it keeps at least."""

    replicas: dict[str, int] = field(default_factory=dict)


def _promises(_: Update) -> Promises:
    return Promises()


@guardrail(
    "minimum-replicas",
    PLAN_TYPE,
    *TYPES,
    settings=("service_replicas_min", "service_zones_min"),
    unknown="judged in up",
)
def minimum_replicas(resource: Resource, update: Update) -> Iterator[str]:
    """Each inference service keeps as many replicas, in as many zones, as are asked for.

    In the plan, and in the cluster: of a Deployment, an autoscaler and a disruption budget, whoever declares them.
    """
    promises = update.remembered(_promises)
    if resource.type == PLAN_TYPE:
        plan = registered_plan(resource)
        services = [each for each in plan.workloads if isinstance(each, InferenceService)]
        promises.replicas = {each.name: each.replicas.min for each in services}
        yield from too_few_replicas(plan, update.settings, update.catalog)
        return
    named = resource.type.rpartition(":")[2]
    kind, item = named.removesuffix("Patch"), resource.props
    service = _service(item, kind, promises)
    if service is not None:
        least = max(promises.replicas.get(service, 0), update.settings.service_replicas_min or 0)
        for broken in _broken(item, kind, named != kind, least, update.settings.service_zones_min or 0):
            yield f"{kind} {_name(item, resource)} of the inference service {service} {broken}"


def _service(item: Props, kind: str, promises: Promises) -> str | None:
    """The inference service that an object belongs to; None for objects of something else."""
    if kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        scaled = item.get("spec", "scaleTargetRef", "name")
        if str(scaled) in promises.replicas:
            return str(scaled)
    path = ("spec", "selector", "matchLabels") if kind == "PodDisruptionBudget" else ("metadata", "labels")
    labels: Any = item.get(*path, default={})
    if not isinstance(labels, Mapping):
        return None
    named = labels.get(NAME)
    if labels.get(COMPONENT) == "inference" or str(named) in promises.replicas:
        return str(named or item.get("metadata", "name") or "without a name")
    return None


def _broken(item: Props, kind: str, is_patch: bool, least: int, zones: int) -> Iterator[str]:
    if kind == "HorizontalPodAutoscaler":
        yield from _too_few(item.get("spec", "minReplicas", default=None if is_patch else 1), "spec.minReplicas", least)
    elif kind == "ScaledObject":
        yield from _too_few(item.get("spec", "minReplicaCount", default=None if is_patch else 0), KEDA_LEAST, least)
    elif kind == "PodDisruptionBudget":
        yield from _all_at_once(item, least)
    else:
        yield from _too_few(item.get("spec", "replicas"), "spec.replicas", least)
        yield from _in_too_few_zones(item.part("spec", "template", "spec"), is_patch, zones)


def _too_few(said: Any, path: str, least: int) -> Iterator[str]:
    if isinstance(said, int | float) and said < least:
        yield f"keeps {said:g} of {least} replicas; set {path} to {least} or more"


def _all_at_once(budget: Props, least: int) -> Iterator[str]:
    gone, kept = budget.get("spec", "maxUnavailable"), budget.get("spec", "minAvailable")
    # of a single replica, one at a time is what lets its node be drained
    if least > 1 and gone is not None and (_percent(gone) == 100 or _whole(gone) >= least):
        yield f"lets all {least} replicas be gone at once (maxUnavailable {gone}); set spec.maxUnavailable to 1"
    if least and kept is not None and (_percent(kept) == 0 or _whole(kept) == 0):
        yield f"lets all replicas be gone at once (minAvailable {kept}); set spec.minAvailable to 1 or more"


def _percent(value: Any) -> float | None:
    text = str(value)
    return float(text[:-1]) if text.endswith("%") and text[:-1].isdecimal() else None


def _whole(value: Any) -> float:
    """A count; below zero for what is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return -1.0


def _in_too_few_zones(pod: Props, is_patch: bool, least: int) -> Iterator[str]:
    if least < 2:
        return
    if pinned := next((zone for zone in ZONES if pod.has("nodeSelector", zone)), None):
        yield f"is kept in one zone by nodeSelector {pinned}, {least} are asked for; remove it"
    terms = ("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
    for term in pod.each(*terms):
        for rule in term.each("matchExpressions"):
            zones = {str(each.get()) for each in rule.each("values")}
            if rule.get("key") in ZONES and rule.get("operator") == "In" and len(zones) < least:
                yield f"is kept in {len(zones)} zones by its node affinity, {least} are asked for; name more"
    spread = {str(each.get("topologyKey")) for each in pod.each("topologySpreadConstraints")}
    if not is_patch and not spread & set(ZONES):
        yield (
            f"is not spread over zones, {least} are asked for; add topologySpreadConstraints with topologyKey "
            f"{ZONES[0]}"
        )


def _name(item: Props, resource: Resource) -> str:
    return str(item.get("metadata", "name", default=resource.name))


GUARDRAILS = [minimum_replicas]
