"""What `pulumi up` makes, under the engines of the field: Kueue, JobSet, Karpenter and kube-scheduler as processes."""

import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fusion.nodes import NodesOf, PriceModel
from localcloud.kubernetes import api_server
from localcloud.kubernetes.cluster import Cluster
from planner.catalog import Offer
from tests.cluster.all_controllers import (
    CATALOG,
    G6,
    NAMESPACE,
    P5,
    change,
    check_planned,
    complete,
    control_plane,
    listed,
    nodes,
    pods,
    wait,
    workload,
)
from tests.cluster.manifests import Object
from tests.cluster.metrics_api import now, serving
from tests.cluster.test_platform import stays_as_it_is
from tests.engine.conftest import Engine
from tests.unit.infra.whole_stack import job, service

METRICS_API = "metrics.k8s.io/v1beta1"
AT_ONCE = {"spec": {"disruption": {"consolidateAfter": "1s"}}}
"""A pool's nodes stay for five minutes without pods; that is not waited for here."""


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Cluster]]:
    folder = tmp_path_factory.mktemp("full-control-plane")
    with control_plane(folder, [P5, G6]) as connected:
        yield folder, connected


@pytest.fixture
def cluster(plane: tuple[Path, Cluster], platform: Engine) -> Iterator[Cluster]:
    """That cluster, where the platform's objects go; without nodes afterwards."""
    home, connected = plane
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSION_HOME", str(home))
        kubeconfig = str(api_server.kubeconfig_file())
    platform.configure(
        kubernetes="cluster",
        guardrails={"monthly_cost_limit_usd": 1_000_000},
        cluster={"node_autoscaler": "karpenter"},
        **{"kubernetes:kubeconfig": kubeconfig},
    )
    yield connected
    connected.request("DELETE", "/api/v1/nodes")


def node_group(cluster: Cluster, pool: str, offer: Offer, count: int, price_model: PriceModel) -> None:
    """The pool's minimum, which a managed node group keeps on AWS."""
    for node in NodesOf(offer, count, price_model, pool).objects(CATALOG):
        cluster.request("POST", "/api/v1/nodes", node)


def bought(cluster: Cluster, pool: str) -> list[Object]:
    """The pool's nodes that Karpenter made."""
    return [each for each in nodes(cluster, pool) if "karpenter.sh/nodepool" in each["metadata"]["labels"]]


def saves_to(cluster: Cluster, pod: Object) -> str:
    """Where a run keeps its checkpoints: its configuration's address, with the bucket that its environment names."""
    (container,) = pod["spec"]["containers"]
    bucket = {each["name"]: each.get("value") for each in container["env"]}["FUSION_BUCKET_URL"]
    (name,) = (each["configMap"]["name"] for each in pod["spec"]["volumes"] if "configMap" in each)
    text = cluster.request("GET", f"/api/v1/namespaces/{NAMESPACE}/configmaps/{name}")["data"]["training.yaml"]
    return str(yaml.safe_load(text)["checkpoint"]["url"].replace("${FUSION_BUCKET_URL}", bucket))


NEEDS = {"instance_type": "p5.48xlarge", "accelerators": 8, "vcpus": 96, "memory_gib": 512}
GANG: dict[str, Any] = {"needs": NEEDS, "price_model": "spot", "queue": "research"}
HALF_EACH = [
    {"name": "research", "share": 0.5, "borrows": False},
    {"name": "product", "share": 0.5, "lends": False},
]


@pytest.mark.timeout(1200)
def test_a_gang_waits_for_quota_gets_its_plans_nodes_an_update_leaves_it_alone_and_its_pool_goes_back_to_its_minimum(
    cluster: Cluster, platform: Engine
) -> None:
    pool = "p5-48xlarge-spot"
    node_group(cluster, pool, P5, 1, "spot")
    platform.configure(
        workloads=[
            job("first", nodes={"min": 1, "desired": 4, "max": 4}, **GANG),
            job("second", nodes={"min": 0, "desired": 4, "max": 4}, **GANG),
        ],
        cluster={"node_autoscaler": "karpenter", "queueing": "kueue"},
        queues=HALF_EACH,
    )
    platform.up()
    names = {"first", "second"}
    (runs,) = wait("a job runs", lambda: [each for each in names if workload(cluster, each).state == "running"])
    (waits,) = names - {runs}

    waiting = workload(cluster, waits)
    assert (waiting.state, waiting.queue, waiting.position, waiting.pods_wanted) == ("queued", "research", 1, 4)
    assert "insufficient unused quota for nvidia.com/gpu" in waiting.message
    assert pods(cluster, waits) == {}  # a gang begins whole or not at all

    assert len(nodes(cluster, pool)) == 4
    assert len(bought(cluster, pool)) == 3
    for node in bought(cluster, pool):
        check_planned(node)
    stays_as_it_is(platform)
    assert workload(cluster, runs).state == "running"

    complete(cluster, runs)
    wait("the other job runs", lambda: workload(cluster, waits).state == "running")
    assert workload(cluster, runs).state == "succeeded"

    (place,) = {saves_to(cluster, each) for each in pods(cluster, waits).values()}
    assert place.endswith(f"/runs/{waits}/checkpoints")

    complete(cluster, waits)
    (its_pool,) = listed(cluster, "/apis/karpenter.sh/v1/nodepools")
    change(cluster, f"/apis/karpenter.sh/v1/nodepools/{its_pool['metadata']['name']}", AT_ONCE)
    wait("the pool is at its minimum", lambda: len(nodes(cluster, pool)) == 1)
    assert bought(cluster, pool) == []
    platform.destroy()
    for path in ("/apis/karpenter.sh/v1/nodepools", "/apis/kueue.x-k8s.io/v1beta1/clusterqueues"):
        wait(f"{path} is empty", lambda path=path: not listed(cluster, path))


@pytest.mark.timeout(1200)
def test_a_service_gets_replicas_and_nodes_up_to_its_maximum_under_load_and_goes_back_to_its_minimum(
    cluster: Cluster, platform: Engine, plane: tuple[Path, Cluster]
) -> None:
    pool, used_cpus = "g6-xlarge-on-demand", 0.0

    def usage(_: str, query: str) -> Object:
        """What the replicas use, as metrics-server says it: their load is shared among those that are ready."""
        (selector,) = urllib.parse.parse_qs(query)["labelSelector"]
        found = listed(cluster, f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector=selector)
        each_uses = {"cpu": f"{used_cpus / max(len(found), 1) * 1000:.0f}m", "memory": "1Gi"}
        items = [
            {
                "metadata": {key: each["metadata"][key] for key in ("name", "namespace", "labels")},
                "timestamp": now(),
                "window": "1s",
                "containers": [{"name": "inference", "usage": each_uses}],
            }
            for each in found
        ]
        return {"kind": "PodMetricsList", "apiVersion": METRICS_API, "metadata": {}, "items": items}

    def ready() -> int:
        return workload(cluster, "classify").pods_ready

    node_group(cluster, pool, G6, 2, "on_demand")
    platform.configure(workloads=[service()])
    platform.up()
    with serving(cluster, plane[0], METRICS_API, NAMESPACE, usage):
        wait("the minimum", lambda: ready() == 2)
        assert bought(cluster, pool) == []
        used_cpus = 100.0
        wait("the maximum", lambda: ready() == 4)
        assert len(bought(cluster, pool)) == 2
        for node in bought(cluster, pool):
            assert node["metadata"]["labels"]["node.kubernetes.io/instance-type"] == G6.instance_type
        stays_as_it_is(platform)
        assert ready() == 4, "an update leaves the number to the autoscaler"

        used_cpus = 0.1
        autoscaler = f"/apis/autoscaling/v2/namespaces/{NAMESPACE}/horizontalpodautoscalers/classify"
        change(cluster, autoscaler, {"spec": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}})
        (its_pool,) = listed(cluster, "/apis/karpenter.sh/v1/nodepools")
        change(cluster, f"/apis/karpenter.sh/v1/nodepools/{its_pool['metadata']['name']}", AT_ONCE)
        wait("the minimum again", lambda: workload(cluster, "classify").pods_wanted == 2)
        wait("the pool is at its minimum", lambda: len(nodes(cluster, pool)) == 2)
    platform.destroy()
