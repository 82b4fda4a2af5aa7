"""Queues, gangs and nodes as the field's engines make them: Kueue, JobSet, Karpenter and kube-scheduler as processes."""

from collections.abc import Iterator

import pytest

from fusion.status.reading import Workload
from localcloud.kubernetes.cluster import Cluster
from tests.cluster import manifests
from tests.cluster.all_controllers import (
    NAMESPACE,
    P5,
    apply,
    check_planned,
    complete,
    control_plane,
    listed,
    nodes,
    pods,
    wait,
    workload,
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """With the namespace of the workloads."""
    with control_plane(tmp_path_factory.mktemp("full-control-plane"), [P5]) as connected:
        apply(connected, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        yield connected


def told_to_wait(found: Workload) -> Workload | None:
    """It, where Kueue has said why; its state comes a moment before."""
    return found if found.state == "queued" and found.message else None


@pytest.mark.timeout(600)
def test_a_gang_waits_for_quota_gets_its_plans_nodes_outlives_a_spot_node_and_leaves_an_empty_pool(
    cluster: Cluster,
) -> None:
    apply(cluster, *manifests.queue("spot", gpus=32), *manifests.node_pool("spot", gpus=40))
    apply(cluster, manifests.training_job("first", "spot", nodes=4))
    wait("the first job runs", lambda: workload(cluster, "first").state == "running")

    apply(cluster, manifests.training_job("second", "spot", nodes=4))
    waiting = wait("the second job queues", lambda: told_to_wait(workload(cluster, "second")))
    assert (waiting.queue, waiting.position, waiting.pods_wanted) == ("spot", 1, 4)
    assert "insufficient unused quota for nvidia.com/gpu" in waiting.message
    assert pods(cluster, "second") == {}  # a gang begins whole or not at all

    bought = nodes(cluster, "spot")
    assert len(bought) == 4
    for node in bought:
        check_planned(node)

    complete(cluster, "first")
    wait("the second job runs", lambda: workload(cluster, "second").state == "running")
    assert workload(cluster, "first").state == "succeeded"

    running = pods(cluster, "second")
    lost = running[2]["spec"]["nodeName"]
    (claim,) = [
        each for each in listed(cluster, "/apis/karpenter.sh/v1/nodeclaims") if each["status"].get("nodeName") == lost
    ]
    cluster.request("DELETE", f"/apis/karpenter.sh/v1/nodeclaims/{claim['metadata']['name']}")
    wait("the lost node is gone", lambda: lost not in [each["metadata"]["name"] for each in nodes(cluster, "spot")])

    def replaced() -> bool:
        now = pods(cluster, "second")
        return (
            workload(cluster, "second").state == "running"
            and now[2]["metadata"]["uid"] != running[2]["metadata"]["uid"]
        )

    wait("the lost pod runs again", replaced)
    again = pods(cluster, "second")
    assert again.keys() == running.keys()
    assert again[2]["spec"]["nodeName"] != lost
    assert workload(cluster, "second").restarts == 0  # an eviction is not counted as a failure

    complete(cluster, "second")
    wait("the pool is empty", lambda: nodes(cluster, "spot") == [])
