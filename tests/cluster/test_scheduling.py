"""Queues, gangs and nodes as the field's engines make them: Kueue, JobSet, Karpenter and kube-scheduler as processes."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fusion.nodes import instance_types
from fusion.status.reading import Workload, read
from localcloud.kubernetes import api_server, controllers, processes
from localcloud.kubernetes.cluster import Cluster
from planner.catalog import load
from tests.cluster import manifests
from tests.cluster.manifests import GPU, Object

CATALOG = load()
P5 = CATALOG.offer("aws", "us-east-1", "p5.48xlarge")
TIMEOUT_S = 120


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane with all its controllers, and the namespace of the workloads."""
    if missing := processes.missing((*api_server.PROGRAMS, *controllers.PROGRAMS)):
        pytest.skip(f"{', '.join(missing)} not built: run `python -m tools.control_plane --all`")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSION_HOME", str(tmp_path_factory.mktemp("full-control-plane")))
        try:
            controllers.ensure(instance_types([P5], CATALOG))
            connected = controllers.connect()
            apply(connected, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "workloads"}})
            yield connected
        finally:
            api_server.stop()


def apply(cluster: Cluster, *values: Object) -> None:
    for value in values:
        metadata = value["metadata"]
        path = cluster.path(value["apiVersion"], value["kind"], metadata.get("namespace", ""), metadata["name"])
        cluster.apply(path, value, "test", force=True, dry_run=False)


def wait(what: str, test: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + TIMEOUT_S
    while not (found := test()):
        assert time.monotonic() < deadline, f"{what}: not after {TIMEOUT_S} s"
        time.sleep(0.2)
    return found


def workload(cluster: Cluster, name: str) -> Workload:
    found = {each.name: each for each in read(cluster, CATALOG, "aws", "us-east-1").workloads}
    return found[name]


def pods(cluster: Cluster, job: str) -> list[Object]:
    found = cluster.request("GET", "/api/v1/namespaces/workloads/pods")["items"]
    return [each for each in found if each["metadata"]["labels"].get("jobset.sigs.k8s.io/jobset-name") == job]


def nodes(cluster: Cluster, pool: str) -> list[Object]:
    return list(cluster.request("GET", "/api/v1/nodes", labelSelector=f"fusion.dev/pool={pool}")["items"])


def complete(cluster: Cluster, job: str) -> None:
    """Let the job's pods end well."""
    patch = {"metadata": {"annotations": {controllers.COMPLETES_AFTER: "1ms"}}}
    for pod in pods(cluster, job):
        path = f"/api/v1/namespaces/workloads/pods/{pod['metadata']['name']}"
        cluster.request("PATCH", path, patch, content="application/merge-patch+json")


def index(pod: Object) -> str:
    return str(pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"])


@pytest.mark.timeout(600)
def test_a_gang_waits_for_quota_gets_its_plans_nodes_outlives_a_spot_node_and_leaves_an_empty_pool(
    cluster: Cluster,
) -> None:
    apply(cluster, *manifests.queue("spot", gpus=32), *manifests.node_pool("spot", gpus=40))
    apply(cluster, manifests.training_job("first", "spot", nodes=4))
    wait("the first job runs", lambda: workload(cluster, "first").state == "running")

    apply(cluster, manifests.training_job("second", "spot", nodes=4))
    waiting = wait("the second job queues", lambda: _if(workload(cluster, "second"), "queued"))
    assert (waiting.queue, waiting.position, waiting.pods_wanted) == ("spot", 1, 4)
    assert "insufficient unused quota for nvidia.com/gpu" in waiting.message
    assert pods(cluster, "second") == []  # a gang begins whole or not at all

    bought = nodes(cluster, "spot")
    assert len(bought) == 4
    for node in bought:
        labels = node["metadata"]["labels"]
        assert labels["node.kubernetes.io/instance-type"] == P5.instance_type
        assert labels["karpenter.sh/capacity-type"] == "spot"
        assert node["status"]["allocatable"][GPU] == f"{P5.accelerator_count:g}"

    complete(cluster, "first")
    wait("the second job runs", lambda: workload(cluster, "second").state == "running")
    assert workload(cluster, "first").state == "succeeded"

    running = {index(pod): pod for pod in pods(cluster, "second")}
    lost = running["2"]["spec"]["nodeName"]
    (claim,) = [
        each
        for each in cluster.request("GET", "/apis/karpenter.sh/v1/nodeclaims")["items"]
        if each["status"].get("nodeName") == lost
    ]
    cluster.request("DELETE", f"/apis/karpenter.sh/v1/nodeclaims/{claim['metadata']['name']}")
    wait("the lost node is gone", lambda: lost not in [each["metadata"]["name"] for each in nodes(cluster, "spot")])

    def replaced() -> bool:
        now = {index(pod): pod for pod in pods(cluster, "second")}
        return (
            workload(cluster, "second").state == "running"
            and now["2"]["metadata"]["uid"] != running["2"]["metadata"]["uid"]
        )

    wait("the lost pod runs again", replaced)
    again = {index(pod): pod for pod in pods(cluster, "second")}
    assert again.keys() == running.keys()
    assert again["2"]["spec"]["nodeName"] != lost
    assert workload(cluster, "second").restarts == 0  # an eviction is not counted as a failure

    complete(cluster, "second")
    wait("the pool is empty", lambda: nodes(cluster, "spot") == [])


def _if(found: Workload, state: str) -> Workload | None:
    return found if found.state == state else None
