"""Writes `localcloud/kubernetes/enumerations.json`: the values that an API server takes where it takes only some.

Most are in the server's own OpenAPI v3 document; the published schemas leave them out. Where it says nothing,
they are read from the server's refusal of a value that no field takes. Run it again when
`tools/kubernetes/kubernetes/go.mod` is raised: `make cluster && python -m tools.kubernetes_enumerations`.
"""

from __future__ import annotations

import copy
import json
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from localcloud.kubernetes import api_server
from localcloud.kubernetes.cluster import Cluster, Refusal
from localcloud.kubernetes.validation import ENUMERATIONS_FILE
from tools.setup import ROOT

WRONG = "Neither"
"""A value that no field takes."""

Enumerations = dict[str, dict[str, list[str]]]
"""By definition and property; `[]` after a property stands for its items, `{}` for its values."""

POD: dict[str, Any] = {"containers": [{"name": "main", "image": "registry.example.com/main:1"}]}
RESIZED = {"containers": [{**POD["containers"][0], "resizePolicy": [{}]}]}
JOB = {"template": {"spec": {**POD, "restartPolicy": "Never"}}}
ON_CONDITION = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
STATEFUL = {
    "serviceName": "main",
    "selector": {"matchLabels": {"app": "main"}},
    "template": {"metadata": {"labels": {"app": "main"}}, "spec": POD},
}
SCALER = {
    "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "main"},
    "maxReplicas": 2,
    "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}}],
    "behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}},
}
BINDING = {
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "main"},
    "subjects": [{"kind": "ServiceAccount", "name": "main", "namespace": "default"}],
}
OBJECTS: dict[str, dict[str, Any]] = {
    "HorizontalPodAutoscaler": {"apiVersion": "autoscaling/v2", "spec": SCALER},
    "RoleBinding": {"apiVersion": "rbac.authorization.k8s.io/v1", **BINDING},
    "Job": {"apiVersion": "batch/v1", "spec": {**JOB, "podFailurePolicy": {"rules": [ON_CONDITION]}}},
    "StatefulSet": {"apiVersion": "apps/v1", "spec": STATEFUL},
    "Pod": {"apiVersion": "v1", "spec": RESIZED},
    "Service": {"apiVersion": "v1", "spec": {"ports": [{"port": 80}]}},
}
ASKED = {
    "io.k8s.api.autoscaling.v2.MetricSpec": ("HorizontalPodAutoscaler", "spec.metrics.0.type"),
    "io.k8s.api.autoscaling.v2.MetricTarget": ("HorizontalPodAutoscaler", "spec.metrics.0.resource.target.type"),
    "io.k8s.api.autoscaling.v2.HPAScalingPolicy": ("HorizontalPodAutoscaler", "spec.behavior.scaleUp.policies.0.type"),
    "io.k8s.api.autoscaling.v2.HPAScalingRules": ("HorizontalPodAutoscaler", "spec.behavior.scaleUp.selectPolicy"),
    "io.k8s.api.rbac.v1.RoleRef": ("RoleBinding", "roleRef.kind"),
    "io.k8s.api.rbac.v1.Subject": ("RoleBinding", "subjects.0.kind"),
    "io.k8s.api.batch.v1.PodFailurePolicyOnPodConditionsPattern": (
        "Job",
        "spec.podFailurePolicy.rules.0.onPodConditions.0.status",
    ),
    "io.k8s.api.apps.v1.StatefulSetPersistentVolumeClaimRetentionPolicy": (
        "StatefulSet",
        "spec.persistentVolumeClaimRetentionPolicy.whenDeleted",
        "spec.persistentVolumeClaimRetentionPolicy.whenScaled",
    ),
    "io.k8s.api.core.v1.PodOS": ("Pod", "spec.os.name"),
    "io.k8s.api.core.v1.ContainerResizePolicy": (
        "Pod",
        "spec.containers.0.resizePolicy.0.restartPolicy",
        "spec.containers.0.resizePolicy.0.resourceName",
    ),
    "io.k8s.api.core.v1.ServiceSpec": ("Service", "spec.trafficDistribution"),
}
"""By definition: a kind of `OBJECTS`, and the paths in it where the server is asked."""

LABEL_OPERATORS = ["DoesNotExist", "Exists", "In", "NotIn"]
"""Of a label selector: its description in the API's reference lists them, and the server's refusal does not."""


def main() -> int:
    """Ask the running control plane; 1 when there is none."""
    if not api_server.kubeconfig_file().exists():
        sys.stderr.write("no API server on this machine: run `make cluster` first\n")
        return 1
    cluster = Cluster(yaml.safe_load(api_server.kubeconfig_file().read_text()), api_server.CONTEXT)
    found = documented(cluster)
    for definition, name, values in asked(cluster):
        found.setdefault(definition, {})[name] = values
    found["io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelectorRequirement"] = {"operator": LABEL_OPERATORS}
    version = cluster.request("GET", "/version")["gitVersion"]
    document = {"kubernetes": version.removeprefix("v"), "enumerations": found}
    (ROOT / ENUMERATIONS_FILE).write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    sys.stdout.write(f"{sum(map(len, found.values()))} fields of {len(found)} definitions, Kubernetes {version}\n")
    return 0


def documented(cluster: Cluster) -> Enumerations:
    """The enumerations of the server's OpenAPI v3 document, but for what only the server writes."""
    found: Enumerations = {}
    for path in cluster.request("GET", "/openapi/v3")["paths"]:
        document = cluster.request("GET", f"/openapi/v3/{path}")
        for definition, schema in ((document.get("components") or {}).get("schemas") or {}).items():
            if definition.endswith("Status"):
                continue
            for name, values in _in_properties(schema):
                found.setdefault(definition, {})[name] = sorted(set(values) - {""})
    return found


def _in_properties(schema: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    for name, each in (schema.get("properties") or {}).items():
        for suffix, part in (("", each), ("[]", each.get("items")), ("{}", each.get("additionalProperties"))):
            if isinstance(part, Mapping) and "enum" in part:
                yield name + suffix, part["enum"]


def asked(cluster: Cluster) -> Iterator[tuple[str, str, list[str]]]:
    """What the server lists when it refuses a value in a dry run: definition, property, values."""
    for definition, (kind, *paths) in ASKED.items():
        for path in paths:
            value = copy.deepcopy({"kind": kind, "metadata": {"name": "main"}, **OBJECTS[kind]})
            _put(value, path, WRONG)
            where = cluster.path(value["apiVersion"], kind, "default", "main")
            try:
                cluster.apply(where, value, "question", force=False, dry_run=True)
            except Refusal as refusal:
                values = _listed(refusal.message)
            else:
                values = []
            if not values:
                raise SystemExit(f"{kind} {path}: the server takes {WRONG!r}, or does not say what it would take")
            yield definition, path.rpartition(".")[2], values


def _listed(message: str) -> list[str]:
    """`…: supported values: "In", "NotIn"` and `…: must be either In, or NotIn`, whichever the server says."""
    quoted = re.search(rf'"{WRONG}": supported values: ((?:"[^"]*"(?:, )?)+)', message)
    if quoted:
        return sorted(re.findall(r'"([^"]*)"', quoted.group(1)))
    plain = re.search(rf'"{WRONG}": must be (?:either )?((?:[A-Z]\w+(?:, or |, | or )?)+)', message)
    return sorted(re.findall(r"[A-Z]\w+", plain.group(1))) if plain else []


def _put(value: Any, path: str, to: str) -> None:
    *before, last = (int(part) if part.isdigit() else part for part in path.split("."))
    for part in before:
        value = value.setdefault(part, {}) if isinstance(value, dict) else value[part]
    value[last] = to


if __name__ == "__main__":
    sys.exit(main())
