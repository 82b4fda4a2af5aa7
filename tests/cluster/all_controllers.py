"""A control plane with all its controllers, and what tests ask of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fusion.nodes import instance_types
from fusion.status.reading import Workload, read
from localcloud.kubernetes import api_server, controllers, processes
from localcloud.kubernetes.cluster import Cluster
from planner.catalog import Offer, load
from tests.cluster.manifests import GPU, Object

CATALOG = load()
P5, G6 = (CATALOG.offer("aws", "us-east-1", each) for each in ("p5.48xlarge", "g6.xlarge"))
NAMESPACE = "workloads"
TIMEOUT_S = 120


@contextlib.contextmanager
def control_plane(folder: Path, offers: Sequence[Offer]) -> Iterator[Cluster]:
    """One in a folder, whose Karpenter can make nodes of some offers; the test is skipped where programs are missing."""
    if missing := processes.missing((*api_server.PROGRAMS, *controllers.PROGRAMS)):
        pytest.skip(f"{', '.join(missing)} not built: run `python -m tools.control_plane --all`")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSION_HOME", str(folder))
        try:
            controllers.ensure(instance_types(offers, CATALOG))
            yield controllers.connect()
        finally:
            api_server.stop()


def wait(what: str, test: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + TIMEOUT_S
    while not (found := test()):
        assert time.monotonic() < deadline, f"{what}: not after {TIMEOUT_S} s"
        time.sleep(0.2)
    return found


def workload(cluster: Cluster, name: str) -> Workload:
    found = {each.name: each for each in read(cluster, CATALOG, "aws", "us-east-1").workloads}
    return found[name]


def listed(cluster: Cluster, path: str, **query: str) -> list[Object]:
    return list(cluster.request("GET", path, **query)["items"])


def nodes(cluster: Cluster, pool: str) -> list[Object]:
    return listed(cluster, "/api/v1/nodes", labelSelector=f"fusion.dev/pool={pool}")


def check_planned(node: Object) -> None:
    """A node of a gang's pool is one of P5's, on spot."""
    labels = node["metadata"]["labels"]
    assert labels["node.kubernetes.io/instance-type"] == P5.instance_type
    assert labels["karpenter.sh/capacity-type"] == "spot"
    assert node["status"]["allocatable"][GPU] == f"{P5.accelerator_count:g}"


def pods(cluster: Cluster, job: str) -> dict[int, Object]:
    """The pods of a gang, by rank."""
    selector = f"jobset.sigs.k8s.io/jobset-name={job}"
    found = listed(cluster, f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector=selector)
    return {int(each["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]): each for each in found}


def change(cluster: Cluster, path: str, patch: Object) -> None:
    cluster.request("PATCH", path, patch, content="application/merge-patch+json")


def complete(cluster: Cluster, job: str) -> None:
    """Let the job's pods end well."""
    for pod in pods(cluster, job).values():
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}"
        change(cluster, path, {"metadata": {"annotations": {controllers.COMPLETES_AFTER: "1ms"}}})


def apply(cluster: Cluster, *values: Object) -> None:
    """Server-side apply, as this test."""
    for value in values:
        metadata = value["metadata"]
        path = cluster.path(value["apiVersion"], value["kind"], metadata.get("namespace", ""), metadata["name"])
        cluster.apply(path, value, "test", force=True, dry_run=False)
