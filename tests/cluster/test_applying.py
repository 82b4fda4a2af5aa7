"""Objects in a real API server on the real engine: previewed by dry run, applied, kept, changed, drifted, deleted."""

import copy
import os
import signal
import socket
import time
from typing import Any

from kubernetes import client
from kubernetes.client import ApiException

from localcloud.kubernetes import api_server, processes
from tests.cluster.conftest import InCluster
from tests.engine.test_kills import plugin_of

CHANGES = ("created", "updated", "deleted", "replaced")

OBJECTS = """
    import pulumi
    import pulumi_kubernetes as k8s
    space = k8s.core.v1.Namespace("space", metadata={"name": "NAMESPACE"})
    held = pulumi.ResourceOptions(depends_on=[space])
    k8s.core.v1.Service(
        "web",
        metadata={"name": "web", "namespace": "NAMESPACE"},
        spec={"selector": {"app": "web"}, "ports": [{"port": 80}]},
        opts=held,
    )
    k8s.apps.v1.Deployment(
        "web",
        metadata={"name": "web", "namespace": "NAMESPACE"},
        spec={
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{
                    "name": "web",
                    "image": "registry.example.com/web:1",
                    "resources": {"limits": {"nvidia.com/gpu": "1", "cpu": "1000m"}},
                }]},
            },
        },
        opts=held,
    )
"""


def unchanged(printed: str) -> bool:
    return "unchanged" in printed and not any(word in printed for word in CHANGES)


def test_a_namespace_and_its_objects_are_made_kept_changed_drift_and_are_deleted(cluster: InCluster) -> None:
    program = OBJECTS.replace("NAMESPACE", "life")
    cluster.engine.program(program)
    cluster.engine.preview()
    assert "life" not in [each.metadata.name for each in cluster.core.list_namespace().items]
    cluster.engine.up()
    made = cluster.apps.read_namespaced_deployment("web", "life")
    assert made.spec.template.spec.containers[0].resources.limits["nvidia.com/gpu"] == "1"
    assert unchanged(cluster.engine.up())

    cluster.engine.program(program.replace('"replicas": 1', '"replicas": 2'))
    assert "updated" in cluster.engine.up()
    changed = cluster.apps.read_namespaced_deployment("web", "life")
    assert (changed.spec.replicas, changed.metadata.uid) == (2, made.metadata.uid)

    cluster.engine.program(program.replace('{"app": "web"}', '{"app": "shop"}'))
    assert "replace" in cluster.engine.preview()
    assert "replaced" in cluster.engine.up()
    replaced = cluster.apps.read_namespaced_deployment("web", "life")
    assert replaced.metadata.uid != made.metadata.uid

    cluster.engine.destroy()
    assert "life" not in [each.metadata.name for each in cluster.core.list_namespace().items]


CONFIG = """
    import pulumi
    import pulumi_kubernetes as k8s
    k8s.core.v1.Service(
        "it",
        metadata={"name": "NAME", "annotations": {ANNOTATIONS}},
        spec={"selector": {"app": "one"}, "ports": [{"port": 80}]},
    )
"""


def test_what_another_changed_is_found_and_is_a_conflict_that_names_it_until_it_is_taken_over(
    cluster: InCluster,
) -> None:
    program = CONFIG.replace("NAME", "drifted")
    cluster.engine.program(program.replace("ANNOTATIONS", ""))
    cluster.engine.up()
    patch = {"spec": {"selector": {"app": "other"}}}
    cluster.core.patch_namespaced_service("drifted", "default", patch, field_manager="kubectl-patch")

    refused = cluster.engine.preview(status=None)
    assert 'Service default/drifted: spec.selector: conflict with "kubectl-patch"' in refused
    assert "updated" in cluster.engine.refresh()
    assert "ignore_changes" in cluster.engine.up(status=None)

    cluster.engine.program(program.replace("ANNOTATIONS", '"pulumi.com/patchForce": "true"'))
    cluster.engine.up()
    assert cluster.core.read_namespaced_service("drifted", "default").spec.selector == {"app": "one"}
    assert unchanged(cluster.engine.up())
    cluster.engine.destroy()


def test_a_preview_names_an_unknown_field_and_a_wrong_value_and_makes_nothing(cluster: InCluster) -> None:
    program = CONFIG.replace("NAME", "wrong").replace("ANNOTATIONS", "")
    cluster.engine.program(program.replace('"selector"', '"selectors"'))
    assert "Service default/wrong: spec.selectors: field not declared in schema" in cluster.engine.preview(status=None)
    cluster.engine.program(program.replace('"port": 80', '"port": 80000'))
    refused = cluster.engine.preview(status=None)
    assert "Service default/wrong: spec.ports[0].port: Invalid value: 80000: must be between 1 and 65535" in refused
    assert "Traceback" not in refused
    names = [each.metadata.name for each in cluster.core.list_namespaced_service("default").items]
    assert "wrong" not in names


CUSTOM = """
    import pulumi
    import pulumi_kubernetes as k8s
    definition = k8s.apiextensions.v1.CustomResourceDefinition(
        "queues",
        metadata={"name": "queues.fusion.example.com"},
        spec={
            "group": "fusion.example.com",
            "scope": "Namespaced",
            "names": {"plural": "queues", "singular": "queue", "kind": "Queue"},
            "versions": [{
                "name": "v1", "served": True, "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"gpus": {"type": "integer", "maximum": 8}}},
                }}},
            }],
        },
    )
    k8s.apiextensions.CustomResource(
        "queue", api_version="fusion.example.com/v1", kind="Queue",
        metadata={"name": "queue"}, spec={"gpus": 4}, opts=pulumi.ResourceOptions(depends_on=[definition]),
    )
"""


def test_a_definition_and_its_custom_resource_come_in_one_update_and_are_checked_before_it(cluster: InCluster) -> None:
    cluster.engine.program(CUSTOM.replace('"gpus": 4', '"gpu": 4'))
    assert "unknown field gpu" in cluster.engine.preview(status=None)
    cluster.engine.program(CUSTOM)
    cluster.engine.preview()
    cluster.engine.up()
    assert unchanged(cluster.engine.up())
    cluster.engine.program(CUSTOM.replace('"gpus": 4', '"gpus": 9'))
    refused = cluster.engine.preview(status=None)
    assert "Queue default/queue: spec.gpus: Invalid value: 9" in refused
    cluster.engine.destroy()


def test_an_object_of_another_is_not_taken_over_but_can_be_imported(cluster: InCluster) -> None:
    body = {"metadata": {"name": "found"}, "spec": {"selector": {"app": "one"}, "ports": [{"port": 80}]}}
    uid = cluster.core.create_namespaced_service("default", body, field_manager="kubectl").metadata.uid
    program = CONFIG.replace("NAME", "found").replace("ANNOTATIONS", "")
    cluster.engine.program(program)
    assert "exists already, managed by kubectl" in cluster.engine.preview(status=None)
    imported = 'opts=pulumi.ResourceOptions(import_="default/found"),\n    )'
    cluster.engine.program(program.rstrip().removesuffix(")") + imported)
    assert "imported" in cluster.engine.up()
    cluster.engine.program(program)
    assert unchanged(cluster.engine.up())
    cluster.engine.destroy()
    try:
        assert cluster.core.read_namespaced_service("found", "default").metadata.uid != uid
    except ApiException as gone:
        assert gone.status == 404


MANY = """
    import pulumi_kubernetes as k8s
    for number in range(40):
        metadata = {"name": f"many-{number}"} if number % 2 else None  # the others are named by the provider
        k8s.core.v1.ConfigMap(f"many-{number}", metadata=metadata, data={"number": str(number)})
"""


def test_an_update_whose_plugin_is_killed_converges_with_nothing_twice(cluster: InCluster) -> None:
    def made() -> dict[str, str]:
        maps = cluster.core.list_namespaced_config_map("default").items
        return {each.metadata.name: each.metadata.uid for each in maps if each.metadata.name.startswith("many-")}

    cluster.engine.program(MANY)
    process = cluster.engine.start("up", "--yes", "--skip-preview", "--parallel", "2")
    while not made() and process.poll() is None:
        time.sleep(0.02)
    plugin = plugin_of(process, "pulumi-resource-kubernetes")
    assert plugin is not None
    os.kill(plugin, signal.SIGKILL)
    process.communicate(timeout=120)
    before = made()
    assert 0 < len(before) < 40
    cluster.engine.up()
    after = made()
    assert len(after) == 40
    assert before.items() <= after.items()
    assert unchanged(cluster.engine.up())
    cluster.engine.destroy()
    assert made() == {}


TWO_OF_ONE_NAME = """
    import pulumi
    import pulumi_kubernetes as k8s
    for plural in PLURALS:
        k8s.apiextensions.v1.CustomResourceDefinition(
            plural,
            metadata={"name": f"{plural}.twice.example.com"},
            spec={
                "group": "twice.example.com",
                "scope": "Namespaced",
                "names": {"plural": plural, "kind": "Twice"},
                "versions": [{"name": "v1", "served": True, "storage": True,
                              "schema": {"openAPIV3Schema": {"type": "object"}}}],
            },
            opts=pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(create="3s", update="3s")),
        )
"""


def test_what_was_created_and_is_not_ready_is_kept_in_the_state_and_looked_at_again(cluster: InCluster) -> None:
    cluster.engine.program(TWO_OF_ONE_NAME.replace("PLURALS", '["first"]'))
    cluster.engine.up()
    cluster.engine.program(TWO_OF_ONE_NAME.replace("PLURALS", '["first", "second"]'))
    refused = cluster.engine.up(status=None)
    assert "CustomResourceDefinition second.twice.example.com is there and not ready" in refused
    assert "second.twice.example.com" in [each.get("id") for each in cluster.engine.state()]
    cluster.engine.program(TWO_OF_ONE_NAME.replace("PLURALS", '["second"]'))
    client.ApiextensionsV1Api(cluster.api).delete_custom_resource_definition("first.twice.example.com")
    assert "updated" in cluster.engine.up()
    assert unchanged(cluster.engine.up())
    cluster.engine.destroy()


SCALED = """
    import pulumi
    import pulumi_kubernetes as k8s
    labels = {"app": "scaled"}
    k8s.apps.v1.Deployment(
        "scaled",
        metadata={"name": "scaled"},
        spec={"replicas": 1, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [{"name": "it", "image": "registry.example.com/it:1"}]}
        }},
        opts=pulumi.ResourceOptions(ignore_changes=["spec.replicas"]),
    )
    k8s.core.v1.Secret("key", metadata={"name": "scaled-key"}, string_data={"key": "not to be shown"})
"""


def test_a_field_that_is_ignored_stays_an_autoscalers_and_a_secret_stays_as_it_is(cluster: InCluster) -> None:
    cluster.engine.program(SCALED)
    cluster.engine.up()
    scale = {"spec": {"replicas": 5}}
    cluster.apps.patch_namespaced_deployment_scale("scaled", "default", scale, field_manager="autoscaler")
    assert unchanged(cluster.engine.up())
    cluster.engine.refresh()
    assert unchanged(cluster.engine.up())
    cluster.engine.program(SCALED.replace("it:1", "it:2"))
    assert "updated" in cluster.engine.up()
    assert cluster.apps.read_namespaced_deployment("scaled", "default").spec.replicas == 5
    cluster.engine.program(SCALED.replace("not to be shown", "another"))
    printed = cluster.engine.up()
    assert "replaced" in printed
    assert "another" not in printed
    assert cluster.core.read_namespaced_secret("scaled-key", "default").data == {"key": "YW5vdGhlcg=="}
    cluster.engine.destroy()


def test_an_update_while_the_api_server_is_away_says_so_and_the_next_one_converges(cluster: InCluster) -> None:
    cluster.engine.program(MANY.replace("many-", "away-"))
    process = cluster.engine.start("up", "--yes", "--skip-preview", "--parallel", "2")

    def made() -> list[str]:
        maps = cluster.core.list_namespaced_config_map("default").items
        return [each.metadata.name for each in maps if each.metadata.name.startswith("away-")]

    while not made() and process.poll() is None:
        time.sleep(0.02)
    processes.end("kube-apiserver")
    printed, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "can't be reached" in printed
    assert "Traceback" not in printed
    api_server.ensure()
    assert 0 < len(made()) < 40
    cluster.engine.up()
    assert len(made()) == 40
    cluster.engine.destroy()
    assert made() == []


SILENT: dict[str, Any] = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "ValidatingWebhookConfiguration",
    "metadata": {"name": "silent.example.com"},
    "webhooks": [
        {
            "name": "silent.example.com",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "timeoutSeconds": 1,
            "rules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
            ],
        }
    ],
}


def test_a_webhook_that_does_not_answer_is_named_and_the_next_update_converges(cluster: InCluster) -> None:
    webhooks = client.AdmissionregistrationV1Api(cluster.api)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
        body = copy.deepcopy(SILENT)
        body["webhooks"][0]["clientConfig"] = {"url": f"https://127.0.0.1:{silent.getsockname()[1]}/"}
        webhooks.create_validating_webhook_configuration(body)
        cluster.engine.program(
            'import pulumi_kubernetes as k8s\nk8s.core.v1.ConfigMap("asked", metadata={"name": "asked"}, data={})\n'
        )
        try:
            refused = cluster.engine.up(status=None)
        finally:
            webhooks.delete_validating_webhook_configuration("silent.example.com")
    assert "ConfigMap default/asked" in refused
    assert 'failed calling webhook "silent.example.com"' in refused
    assert "Traceback" not in refused
    cluster.engine.up()
    assert unchanged(cluster.engine.up())
    cluster.engine.destroy()
