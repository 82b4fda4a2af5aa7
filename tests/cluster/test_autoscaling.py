"""A service grows to its maximum under load and goes back to its minimum: its own queries, asked of a real Prometheus,
and the real HorizontalPodAutoscaler of kube-controller-manager, which reads them as external metrics.

KEDA's part is played here, for its module takes too long to build: a HorizontalPodAutoscaler as it makes of the
ScaledObject, and the API of external metrics.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcloud.kubernetes import api_server
from localcloud.kubernetes.cluster import Cluster
from tests.cluster.all_controllers import apply
from tests.cluster.conftest import delete_namespace
from tests.cluster.metrics_api import now, serving
from tests.prometheus import Prometheus, prometheus
from tests.unit.infra.whole_stack import built, service

Object = dict[str, Any]
API = "external.metrics.k8s.io/v1beta1"
NAMESPACE = "workloads"
NEEDED = ("PriorityClass", "ServiceAccount", "Deployment", "ScaledObject")
TIMEOUT_S = 120


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    labels = {"namespace": NAMESPACE, "pod": "classify-7c9d8f6b5-x2x4z"}
    with prometheus(tmp_path_factory.mktemp("prometheus"), labels) as found:
        yield found


@pytest.fixture
def cluster(cluster_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("FUSION_HOME", str(cluster_home))
    connected = Cluster(yaml.safe_load(api_server.kubeconfig_file().read_text()), api_server.CONTEXT)
    apply(connected, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    yield connected
    delete_namespace(connected, NAMESPACE)


@pytest.fixture(scope="module")
def objects() -> dict[str, Object]:
    """The service as a stack makes it, from 2 to 4 replicas."""
    scaling = {"prometheus": "http://prometheus.monitoring.svc:9090", "waiting_per_replica": 8}
    with built(workloads=[service()], autoscaling=scaling) as cloud:
        return {each["kind"]: each for each in cloud.mocks.all_objects() if each["kind"] in NEEDED}


@pytest.fixture
def metrics(cluster: Cluster, cluster_home: Path, objects: dict[str, Object], scraped: Prometheus) -> Iterator[None]:
    """The API of external metrics, which answers a trigger by asking its query."""
    queries = [each["metadata"]["query"] for each in objects["ScaledObject"]["spec"]["triggers"]]

    def answer(path: str, _: str) -> Object:
        metric = path.rpartition("/")[2]
        value = scraped.value(queries[int(metric.removeprefix("s").partition("-")[0])]) or 0
        found = {"metricName": metric, "metricLabels": {}, "timestamp": now(), "value": f"{value * 1000:.0f}m"}
        return {"kind": "ExternalMetricValueList", "apiVersion": API, "metadata": {}, "items": [found]}

    with serving(cluster, cluster_home, API, NAMESPACE, answer):
        yield


def as_keda_makes_it(scaled: Object) -> Object:
    """Source: KEDA v2.18, pkg/scaling and controllers/keda/hpa.go; without the five minutes before it shrinks."""
    spec, name = scaled["spec"], scaled["metadata"]["name"]
    selector = {"matchLabels": {"scaledobject.keda.sh/name": name}}
    metrics = [
        {
            "type": "External",
            "external": {
                "metric": {"name": f"s{index}-prometheus", "selector": selector},
                "target": {"type": each["metricType"], "averageValue": each["metadata"]["threshold"]},
            },
        }
        for index, each in enumerate(spec["triggers"])
    ]
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "scaleTargetRef": spec["scaleTargetRef"],
            "minReplicas": spec["minReplicaCount"],
            "maxReplicas": spec["maxReplicaCount"],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
            "metrics": metrics,
        },
    }


def wait(cluster: Cluster, what: str, test: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not test():
        autoscaler = cluster.get(f"/apis/autoscaling/v2/namespaces/{NAMESPACE}/horizontalpodautoscalers/classify")
        assert time.monotonic() < deadline, f"{what}: not after {TIMEOUT_S} s: {(autoscaler or {}).get('status')}"
        time.sleep(0.5)


@pytest.mark.timeout(400)
def test_a_service_grows_to_its_maximum_while_requests_wait_and_then_goes_back(
    cluster: Cluster, objects: dict[str, Object], metrics: None, scraped: Prometheus
) -> None:
    def replicas() -> int:
        found = cluster.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/classify") or {}
        return int(found["spec"]["replicas"])

    def waiting(rows: int) -> None:
        scraped.pod.text = f'fusion_waiting_rows{{model="m"}} {rows}\nfusion_compute_seconds_total{{model="m"}} 1\n'
        wait(cluster, "the scrape", lambda: scraped.value(query) == rows)

    query = objects["ScaledObject"]["spec"]["triggers"][0]["metadata"]["query"]
    for kind in ("PriorityClass", "ServiceAccount", "Deployment"):
        apply(cluster, objects[kind])
    waiting(0)
    apply(cluster, as_keda_makes_it(objects["ScaledObject"]))
    wait(cluster, "the minimum", lambda: replicas() == 2)
    waiting(21)
    wait(cluster, "three replicas for 21 rows of 8 each", lambda: replicas() == 3)
    waiting(1000)
    wait(cluster, "the maximum, and no more", lambda: replicas() == 4)
    waiting(3)
    wait(cluster, "the minimum again", lambda: replicas() == 2)
