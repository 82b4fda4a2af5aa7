"""Whatever a stack's config turns on, a real API server takes the objects: its own kinds' and the controllers' CRDs'."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcloud.kubernetes import api_server
from localcloud.kubernetes.cluster import Cluster, Refusal, UnknownKind
from tests.cluster.conftest import delete_namespace
from tests.custom_resources import crds
from tests.unit.infra.whole_stack import built, job, service

LARGE = {"instance_type": "p5.48xlarge", "accelerators": 8, "vcpus": 180, "memory_gib": 1500}
EVERYTHING: dict[str, Any] = {
    "workloads": [
        job(queue="research", price_model="spot", spot_fallback=True, nodes={"desired": 1, "max": 3}),
        job("kept", training={"checkpoint_volume": {"gib": 100}}),
        job("large", needs=LARGE, nodes={"desired": 2, "max": 2}, disk_gib=500),
        service(),
        service("asleep", replicas={"min": 0, "max": 2}, cold_start_seconds_max=900),
    ],
    "autoscaling": {
        "prometheus": "http://prometheus-operated.monitoring.svc:9090",
        "activation_queries": {"asleep": "sum(rate(requests_total[1m]))"},
    },
    "cluster": {
        "queueing": "kueue",
        "node_autoscaler": "karpenter",
        "topology_levels": ["topology.k8s.aws/network-node-layer-1", "kubernetes.io/hostname"],
        "gateway": {"class_name": "envoy", "domain": "models.example.com", "certificate": "models-tls"},
    },
    "monitoring": {
        "labels": {"release": "prometheus"},
        "tensorboard_image": f"registry.example.com/tb@sha256:{64 * '0'}",
    },
    "queues": [{"name": "product", "share": 0.5, "lends": False}, {"name": "research", "share": 0.5}],
}
SYSTEM_IMAGE = f"registry.example.com/system@sha256:{64 * '0'}"
OF_THE_SYSTEM: dict[str, Any] = {
    "cluster": {
        **EVERYTHING["cluster"],
        "device_plugins": {"nvidia_image": SYSTEM_IMAGE, "neuron_image": SYSTEM_IMAGE, "efa_image": SYSTEM_IMAGE},
    },
    "monitoring": {**EVERYTHING["monitoring"], "dcgm_image": SYSTEM_IMAGE},
}
"""What needs paths of the node, and so is no workload's."""
CLAIMED: dict[str, Any] = {
    "workloads": [job(), service()],
    "cluster": {"device_plugins": {"gpu_claims": True}},
}
"""GPUs that are claimed, and not counted; Kueue and Karpenter do not know that yet."""
MANAGER = "test-component-objects"


@pytest.fixture(scope="module")
def server(cluster_home: Path) -> Iterator[Cluster]:
    """The API server with all CRDs and the namespace `workloads`; both are gone afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSION_HOME", str(cluster_home))
        kubeconfig = yaml.safe_load(api_server.kubeconfig_file().read_text())
    cluster = Cluster(kubeconfig, api_server.CONTEXT)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "workloads"}}
    apply(cluster, namespace, dry_run=False)
    made = [path(cluster, each) for each in crds() if apply(cluster, each, dry_run=False)]
    try:
        yield cluster
    finally:
        delete_namespace(cluster, "workloads")
        for each in made:
            cluster.request("DELETE", each)


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    with built(**(EVERYTHING | OF_THE_SYSTEM)) as cloud:
        return cloud.mocks.all_objects()


def path(cluster: Cluster, value: dict[str, Any]) -> str:
    """Where an object is, once the server serves its kind: a CRD takes a moment to be established."""
    metadata, ends = value["metadata"], time.monotonic() + 30
    while True:
        try:
            return cluster.path(value["apiVersion"], value["kind"], metadata.get("namespace", ""), metadata["name"])
        except UnknownKind:
            if time.monotonic() > ends:
                raise
            time.sleep(0.2)


def apply(cluster: Cluster, value: dict[str, Any], *, dry_run: bool = True) -> dict[str, Any]:
    """Server-side apply, strict about fields; CEL rules of CRDs are evaluated too."""
    body = {name: part for name, part in value.items() if name != "status"}
    return cluster.apply(path(cluster, value), body, MANAGER, force=True, dry_run=dry_run)


def refusals(server: Cluster, objects: list[dict[str, Any]]) -> list[str]:
    found = []
    for each in objects:
        try:
            apply(server, each)
        except Refusal as refusal:
            found.append(f"{each['kind']} {each['metadata']['name']}: {refusal.message}")
    return found


@pytest.mark.timeout(300)
def test_the_server_takes_what_claims_gpus(server: Cluster) -> None:
    with built(**CLAIMED) as cloud:
        objects = cloud.mocks.all_objects()
    assert refusals(server, objects) == []
    assert {"DeviceClass", "ResourceClaimTemplate"} <= {each["kind"] for each in objects}


@pytest.mark.timeout(300)
def test_the_server_takes_every_object_as_it_is_rendered(server: Cluster, objects: list[dict[str, Any]]) -> None:
    assert refusals(server, objects) == []
    kinds = {each["kind"] for each in objects}
    assert kinds >= {"JobSet", "ClusterQueue", "Topology", "HTTPRoute", "NetworkPolicy", "ValidatingAdmissionPolicy"}
    assert kinds >= {
        "ScaledObject",
        "NodePool",
        "EC2NodeClass",
        "LimitRange",
        "PodMonitor",
        "PrometheusRule",
        "DaemonSet",
    }


@pytest.mark.timeout(300)
def test_the_server_denies_a_job_that_names_no_queue(server: Cluster, objects: list[dict[str, Any]]) -> None:
    rules = [each for each in objects if each["kind"].startswith("ValidatingAdmissionPolicy")]
    (queued,) = [each for each in objects if each["kind"] == "JobSet" and each["metadata"]["name"] == "digits"]
    unqueued = {**queued, "metadata": {"name": "digits", "namespace": "workloads"}}
    for each in rules:
        apply(server, each, dry_run=False)
    try:
        ends, said = time.monotonic() + 30, ""
        while not said and time.monotonic() < ends:  # the server reads its policies anew every so often
            try:
                apply(server, unqueued)
                time.sleep(0.5)
            except Refusal as refusal:
                said = refusal.message
        assert "a job here waits in a queue: set the label kueue.x-k8s.io/queue-name" in said
        assert apply(server, queued)["kind"] == "JobSet"
    finally:
        for each in reversed(rules):
            server.request("DELETE", path(server, each))
