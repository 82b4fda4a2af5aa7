"""What strict validation of Kubernetes objects finds, and how it says it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from localcloud.kubernetes.validation import Object, UnknownVersion, check_version, schemas_of, validate_object
from localcloud.values import UNKNOWN

DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "serving", "namespace": "ml", "labels": {"app.kubernetes.io/name": "serving"}},
    "spec": {
        "replicas": 2,
        "selector": {"matchLabels": {"app": "serving"}},
        "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
        "template": {
            "metadata": {"labels": {"app": "serving"}},
            "spec": {
                "containers": [
                    {"name": "main", "image": "registry.example.com/serving:1", "ports": [{"containerPort": 8080}]}
                ]
            },
        },
    },
}

CRD: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "queues.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "queues", "singular": "queue", "kind": "Queue"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "required": ["spec"],
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["quota"],
                                "properties": {
                                    "quota": {"type": "integer", "minimum": 0},
                                    "policy": {"type": "string", "enum": ["Strict", "BestEffort"]},
                                    "surge": {"anyOf": [{"type": "integer"}], "x-kubernetes-int-or-string": True},
                                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                                    "closed": {"type": "object"},
                                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                                    "note": {"type": "string", "nullable": True},
                                    "template": {"type": "object", "x-kubernetes-embedded-resource": True},
                                },
                            }
                        },
                    }
                },
            },
            {"name": "v1alpha1", "served": False, "storage": False, "schema": {"openAPIV3Schema": {"type": "object"}}},
        ],
    },
}
CRDS = dict(schemas_of(CRD))


def changed(value: Object, path: str, to: Any) -> dict[str, Any]:
    """A copy with another value at `a.b.0.c`."""
    result: Any = copy.deepcopy(dict(value))
    *before, last = path.split(".")
    target = result
    for part in before:
        target = target[int(part)] if part.isdigit() else target[part]
    target[int(last) if last.isdigit() else last] = to
    return dict(result)


def queue(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "example.com/v1", "kind": "Queue", "metadata": {"name": "gpus"}, "spec": {"quota": 8} | spec}


def problems(value: Object, version: str = "1.34") -> dict[str, str]:
    return {each.path: each.reason for each in validate_object(value, version, CRDS)}


def test_an_object_that_is_right_has_no_problem() -> None:
    assert problems(DEPLOYMENT) == {}
    assert problems(CRD) == {}
    assert problems(queue(policy="Strict", surge="10%", free={"any": 1}, labels={"a": "b"}, note=None)) == {}


@pytest.mark.parametrize(
    ("path", "value", "where", "reason"),
    [
        ("spec.replica", 2, "spec", "unknown field replica; expected one of minReadySeconds, paused"),
        ("spec.replicas", "two", "spec.replicas", "'two': expected integer or null"),
        ("spec.template.spec.containers.0.imagePull", 1, "spec.template.spec.containers[0]", "unknown field imagePull"),
        ("spec.template.spec.containers.0.ports.0.containerPort", "http", "spec.template.spec.containers[0].ports[0].containerPort", "expected integer"),
        ("spec.selector", "app", "spec.selector", "'app': expected object"),
        ("metadata.labels", {"fusion.dev/pool": 1}, 'metadata.labels["fusion.dev/pool"]', "1: expected string"),
        ("metadata.annotation", {}, "metadata", "unknown field annotation"),
        ("metadata", "serving", "metadata", "'serving': expected object"),
        ("speck", {}, "", "unknown field speck"),
        ("metadata.labels", {"bad key!": "a"}, 'metadata.labels["bad key!"]', "expected a key of letters"),
        ("metadata.labels", {"team": "a b"}, "metadata.labels.team", "'a b': expected letters"),
        ("spec.template.spec.containers.0.resources", {"limits": {"memory": "16Gb"}}, "spec.template.spec.containers[0].resources.limits.memory", "'16Gb': expected a quantity such as 500m"),
        ("spec.template.spec.containers.0.ports.0.containerPort", 2**31, "spec.template.spec.containers[0].ports[0].containerPort", "fits into 32 bits"),
        ("spec.strategy", {"rollingUpdate": {"maxSurge": 1.5}}, "spec.strategy.rollingUpdate.maxSurge", "expected string or null or integer"),
        ("metadata.creationTimestamp", "yesterday", "metadata.creationTimestamp", "expected a time such as"),
    ],
)  # fmt: skip
def test_a_field_that_is_wrong_is_named_with_what_was_expected(path: str, value: Any, where: str, reason: str) -> None:
    found = problems(changed(DEPLOYMENT, path, value))
    assert reason in found[where]


@pytest.mark.parametrize("quantity", ["500m", "2", "0.5", ".5", "16Gi", "1e3", "1E", "100Ki", "-1", 2, 0.25])
def test_quantities_are_taken_in_every_form_that_the_server_reads(quantity: str | float) -> None:
    limited = changed(DEPLOYMENT, "spec.template.spec.containers.0.resources", {"limits": {"cpu": quantity}})
    assert problems(limited) == {}


def test_a_required_field_that_is_missing_is_named() -> None:
    bare = changed(DEPLOYMENT, "spec", {"template": {}})
    assert "required field selector is missing" in problems(bare)["spec"]


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [("apps/v1", "Deploymnet"), ("apps/v1beta1", "Deployment"), ("networking.example.com/v1", "NetworkPolicy"), ("gateway.networking.k8s.io/v1", "Gateway"), ("a/b/c", "../Pod"), ("example.com/v1alpha1", "Queue")],
)  # fmt: skip
def test_a_kind_that_neither_kubernetes_nor_the_stack_has_is_refused(api_version: str, kind: str) -> None:
    found = problems({"apiVersion": api_version, "kind": kind, "metadata": {"name": "it"}})
    assert f"has no {kind} in {api_version}, and no CustomResourceDefinition of this stack defines it" in found["kind"]


@pytest.mark.parametrize(
    ("kind", "name", "good"),
    [
        ("ConfigMap", "a.b-c", True),
        ("ConfigMap", "Upper", False),
        ("ConfigMap", "a..b", False),
        ("ConfigMap", "-a", False),
        ("ConfigMap", "a" * 254, False),
        ("Service", "a.b", False),
        ("Namespace", "a" * 64, False),
        ("Namespace", "a" * 63, True),
    ],
)
def test_names_follow_the_rule_of_their_kind(kind: str, name: str, good: bool) -> None:
    found = problems({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}})
    assert ("metadata.name" not in found) is good


@pytest.mark.parametrize(("name", "good"), [("system:Node", True), ("a/b", False), ("..", False), ("a%b", False)])
def test_names_of_roles_may_hold_what_a_path_may(name: str, good: bool) -> None:
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}}
    assert (problems(role | {"rules": []}) == {}) is good


def test_a_namespace_is_one_label() -> None:
    assert "metadata.namespace" in problems(changed(DEPLOYMENT, "metadata.namespace", "../ml"))


@pytest.mark.parametrize(
    ("spec", "where", "reason"),
    [
        ({"qouta": 1}, "spec", "unknown field qouta"),
        ({"quota": "8"}, "spec.quota", "expected integer"),
        ({"quota": -1}, "spec.quota", "minimum"),
        ({"policy": "Maybe"}, "spec.policy", "'Maybe': expected one of Strict, BestEffort"),
        ({"surge": 1.5}, "spec.surge", "expected integer or string"),
        ({"closed": {"any": 1}}, "spec.closed", "unknown field any; expected none here"),
        ({"labels": {"a": 1}}, "spec.labels.a", "expected string"),
        ({"template": {"kind": 1}}, "spec.template.kind", "expected string"),
        ({"template": {"spec": {}}}, "spec.template", "unknown field spec"),
    ],
)
def test_a_custom_resource_is_held_to_the_schema_of_its_crd(spec: dict[str, Any], where: str, reason: str) -> None:
    assert reason in problems(queue(**spec))[where]


def test_the_metadata_of_a_custom_resource_is_held_to_kubernetes_own_schema() -> None:
    assert "unknown field label" in problems(changed(queue(), "metadata.label", {}))["metadata"]


def test_a_crd_is_named_after_its_plural_and_its_group() -> None:
    assert (
        "expected queues.example.com" in problems(changed(CRD, "metadata.name", "queue.example.com"))["metadata.name"]
    )


@pytest.mark.parametrize(
    "path",
    ["apiVersion", "kind", "metadata", "metadata.name", "spec", "spec.replicas", "spec.strategy.rollingUpdate.maxSurge", "spec.template.spec.containers", "spec.template.spec.containers.0.ports.0"],
)  # fmt: skip
def test_what_is_not_known_yet_is_passed_over(path: str) -> None:
    assert problems(changed(DEPLOYMENT, path, UNKNOWN)) == {}


def test_the_data_of_a_secret_is_base64_and_never_shown() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token"}}
    assert problems(secret | {"data": {"a": "aHVudGVyMg=="}}) == {}
    assert "expected base64" in problems(secret | {"data": {"a.b": "hunter2!"}})['data["a.b"]']
    assert "hunter2" not in str(problems(secret | {"data": {"a": "hunter2!"}, "stringData": ["hunter2"]}))


def test_a_large_value_is_cut_in_the_message() -> None:
    assert len(problems(changed(DEPLOYMENT, "spec.replicas", "x" * 1000))["spec.replicas"]) < 120


def test_the_schemas_are_those_of_the_version_that_is_asked_for() -> None:
    claim = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "gpu"}, "spec": {}}
    assert problems(claim, "1.34") == {}
    assert "Kubernetes 1.33 has no ResourceClaim in resource.k8s.io/v1" in problems(claim, "1.33")["kind"]


@pytest.mark.parametrize("version", ["1.99", "1.3", "one", ""])
def test_a_version_without_schemas_is_refused_with_those_that_there_are(version: str) -> None:
    with pytest.raises(UnknownVersion, match=r"can be validated against 1\.25, .*1\.34, .*; set kubernetes_version"):
        check_version(version)
