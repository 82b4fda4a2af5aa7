"""Fields that take only some values: a value that the API server would refuse is refused before there is a server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localcloud.kubernetes.validation import ENUMERATIONS_FILE, validate_object
from tests.unit.localcloud.test_kubernetes_validation import DEPLOYMENT, changed
from tools.setup import ROOT

META = {"metadata": {"name": "main"}}
CONTAINER = {
    "name": "main",
    "image": "registry.example.com/main:1",
    "ports": [{"containerPort": 8080, "protocol": "TCP"}],
    "readinessProbe": {"httpGet": {"port": 8080}},
    "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
    "volumeMounts": [{"name": "host", "mountPath": "/host"}],
}
POD_SPEC = {
    "restartPolicy": "Always",
    "containers": [CONTAINER],
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
    "volumes": [{"name": "host", "hostPath": {"path": "/host"}}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}]
            }
        }
    },
}
BATCH_POD = {**POD_SPEC, "restartPolicy": "Never"}
LABELS = {"matchLabels": {"app": "main"}}
TEMPLATE = {"metadata": {"labels": {"app": "main"}}, "spec": POD_SPEC}
JOB_SPEC = {
    "completions": 1,
    "completionMode": "Indexed",
    "podFailurePolicy": {
        "rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [3]}}],
    },
    "template": {"spec": BATCH_POD},
}
OBJECTS: dict[str, dict[str, Any]] = {
    "Pod": {"apiVersion": "v1", "kind": "Pod", **META, "spec": POD_SPEC},
    "Deployment": {**DEPLOYMENT, "metadata": {"name": "main"}},
    "StatefulSet": {"apiVersion": "apps/v1", "kind": "StatefulSet", **META, "spec": {"serviceName": "main", "selector": LABELS, "template": TEMPLATE, "updateStrategy": {"type": "OnDelete"}, "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"}}},
    "DaemonSet": {"apiVersion": "apps/v1", "kind": "DaemonSet", **META, "spec": {"selector": LABELS, "template": TEMPLATE, "updateStrategy": {"type": "OnDelete"}}},
    "Job": {"apiVersion": "batch/v1", "kind": "Job", **META, "spec": JOB_SPEC},
    "CronJob": {"apiVersion": "batch/v1", "kind": "CronJob", **META, "spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": JOB_SPEC}}},
    "Service": {"apiVersion": "v1", "kind": "Service", **META, "spec": {"type": "NodePort", "ports": [{"port": 80}]}},
    "Ingress": {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", **META, "spec": {"rules": [{"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "main", "port": {"number": 80}}}}]}}]}},
    "NetworkPolicy": {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", **META, "spec": {"podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}, "policyTypes": ["Ingress"], "ingress": [{"ports": [{"port": 80}]}]}},
    "PersistentVolumeClaim": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **META, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}},
    "RoleBinding": {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", **META, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "main"}, "subjects": [{"kind": "ServiceAccount", "name": "main", "namespace": "default"}]},
    "HorizontalPodAutoscaler": {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", **META, "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "main"}, "maxReplicas": 2, "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}}], "behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}}}},
    "PodDisruptionBudget": {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", **META, "spec": {"maxUnavailable": 1, "selector": LABELS}},
    "PriorityClass": {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", **META, "value": 1},
    "StorageClass": {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", **META, "provisioner": "ebs.csi.aws.com"},
}  # fmt: skip
FIELDS = [
    ("Pod", "spec.restartPolicy"),
    ("Pod", "spec.dnsPolicy"),
    ("Pod", "spec.containers.0.imagePullPolicy"),
    ("Pod", "spec.containers.0.terminationMessagePolicy"),
    ("Pod", "spec.containers.0.ports.0.protocol"),
    ("Pod", "spec.containers.0.readinessProbe.httpGet.scheme"),
    ("Pod", "spec.containers.0.securityContext.seccompProfile.type"),
    ("Pod", "spec.containers.0.volumeMounts.0.mountPropagation"),
    ("Pod", "spec.tolerations.0.operator"),
    ("Pod", "spec.tolerations.0.effect"),
    ("Pod", "spec.topologySpreadConstraints.0.whenUnsatisfiable"),
    ("Pod", "spec.volumes.0.hostPath.type"),
    ("Pod", "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.0.matchExpressions.0.operator"),
    ("Deployment", "spec.strategy.type"),
    ("StatefulSet", "spec.podManagementPolicy"),
    ("StatefulSet", "spec.updateStrategy.type"),
    ("StatefulSet", "spec.persistentVolumeClaimRetentionPolicy.whenDeleted"),
    ("DaemonSet", "spec.updateStrategy.type"),
    ("Job", "spec.completionMode"),
    ("Job", "spec.podReplacementPolicy"),
    ("Job", "spec.podFailurePolicy.rules.0.action"),
    ("Job", "spec.podFailurePolicy.rules.0.onExitCodes.operator"),
    ("CronJob", "spec.concurrencyPolicy"),
    ("CronJob", "spec.jobTemplate.spec.completionMode"),
    ("CronJob", "spec.jobTemplate.spec.template.spec.restartPolicy"),
    ("Service", "spec.type"),
    ("Service", "spec.sessionAffinity"),
    ("Service", "spec.externalTrafficPolicy"),
    ("Service", "spec.ipFamilyPolicy"),
    ("Service", "spec.ports.0.protocol"),
    ("Ingress", "spec.rules.0.http.paths.0.pathType"),
    ("NetworkPolicy", "spec.policyTypes.0"),
    ("NetworkPolicy", "spec.ingress.0.ports.0.protocol"),
    ("NetworkPolicy", "spec.podSelector.matchExpressions.0.operator"),
    ("PersistentVolumeClaim", "spec.accessModes.0"),
    ("PersistentVolumeClaim", "spec.volumeMode"),
    ("RoleBinding", "roleRef.kind"),
    ("RoleBinding", "subjects.0.kind"),
    ("HorizontalPodAutoscaler", "spec.metrics.0.type"),
    ("HorizontalPodAutoscaler", "spec.metrics.0.resource.target.type"),
    ("HorizontalPodAutoscaler", "spec.behavior.scaleUp.selectPolicy"),
    ("HorizontalPodAutoscaler", "spec.behavior.scaleUp.policies.0.type"),
    ("PodDisruptionBudget", "spec.unhealthyPodEvictionPolicy"),
    ("PriorityClass", "preemptionPolicy"),
    ("StorageClass", "reclaimPolicy"),
    ("StorageClass", "volumeBindingMode"),
]  # fmt: skip
EVERY_VALUE = {
    value
    for definition in json.loads((ROOT / ENUMERATIONS_FILE).read_text())["enumerations"].values()
    for values in definition.values()
    for value in values
}


def as_told(path: str) -> str:
    """`spec.ports.0.protocol` as a problem names it: `spec.ports[0].protocol`."""
    return "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in path.split(".")).removeprefix(".")


def reasons(kind: str, path: str, value: Any, version: str = "1.34") -> list[str]:
    """What is said of one field of the kind's object when it has this value."""
    found = validate_object(changed(OBJECTS[kind], path, value), version)
    return [problem.reason for problem in found if problem.path == as_told(path)]


@pytest.mark.parametrize("kind", OBJECTS)
def test_an_object_whose_values_the_server_takes_has_no_problem(kind: str) -> None:
    assert validate_object(OBJECTS[kind]) == []


@pytest.mark.parametrize(("kind", "path"), FIELDS)
@settings(deadline=None)
@given(value=st.text(min_size=1).filter(lambda text: text not in EVERY_VALUE))
def test_any_other_value_is_refused_with_the_field_the_value_and_what_was_expected(
    kind: str, path: str, value: str
) -> None:
    (reason,) = reasons(kind, path, value)
    shown, expected = reason.split(": expected one of ")
    assert shown.startswith(repr(value)[:60])
    for allowed in expected.split(", "):
        assert not any("expected one of" in each for each in reasons(kind, path, allowed))


@pytest.mark.parametrize(
    ("kind", "path", "good"),
    [
        ("Pod", "spec.restartPolicy", True),
        ("Pod", "spec.tolerations.0.effect", True),
        ("Pod", "spec.topologySpreadConstraints.0.whenUnsatisfiable", False),
        ("Ingress", "spec.rules.0.http.paths.0.pathType", False),
    ],
)
def test_empty_text_is_a_value_that_is_not_set(kind: str, path: str, good: bool) -> None:
    assert (reasons(kind, path, "") == []) is good


@pytest.mark.parametrize(
    ("kind", "path", "policy", "good"),
    [
        ("Job", "spec.template.spec", "Never", True),
        ("Job", "spec.template.spec", "OnFailure", True),
        ("Job", "spec.template.spec", "Always", False),
        ("Job", "spec.template.spec", None, False),
        ("CronJob", "spec.jobTemplate.spec.template.spec", "Always", False),
        ("Deployment", "spec.template.spec", None, True),
        ("Deployment", "spec.template.spec", "Never", False),
        ("StatefulSet", "spec.template.spec", "OnFailure", False),
        ("DaemonSet", "spec.template.spec", "Never", False),
    ],
)
def test_a_controller_takes_pods_with_the_restart_policies_of_its_kind(
    kind: str, path: str, policy: str | None, good: bool
) -> None:
    found = reasons(kind, f"{path}.restartPolicy", policy)
    assert (found == []) is good
    assert good or "for pods of this kind" in found[0]


def test_older_versions_are_held_to_the_same_values_and_newer_ones_may_know_more() -> None:
    assert "expected one of" in reasons("Pod", "spec.tolerations.0.operator", "Lt", "1.30")[0]
    assert reasons("Pod", "spec.tolerations.0.operator", "Lt", "1.35") == []
