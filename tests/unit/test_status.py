"""What `fusion status` says of a cluster's objects."""

import io
from collections.abc import Mapping
from typing import Any, cast

from rich.console import Console

from fusion.status.reading import State, read
from fusion.status.spending import Spending
from fusion.status.table import tables
from localcloud.kubernetes.cluster import Cluster
from planner.catalog import load

CATALOG = load()
MADE = "2026-11-26T10:00:0{}Z"


class Objects:
    """A server that only lists."""

    def __init__(self, lists: Mapping[str, list[dict[str, Any]]]) -> None:
        self.lists = lists

    def request(self, method: str, path: str) -> Any:
        assert method == "GET"
        return {"items": self.lists.get(path.rpartition("/")[2], [])}


def state(**lists: list[dict[str, Any]]) -> State:
    return read(cast(Cluster, Objects(lists)), CATALOG, "aws", "us-east-1")


def job(name: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "workloads", "uid": name, "creationTimestamp": MADE.format(0)}
    return {"metadata": metadata, "spec": {"parallelism": 2, "suspend": True}}


def queued(name: str, second: int, priority: int = 0) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "workloads",
            "uid": f"workload-{name}",
            "creationTimestamp": MADE.format(second),
            "ownerReferences": [{"uid": name}],
        },
        "spec": {"queueName": "team", "priority": priority},
        "status": {"conditions": [{"type": "QuotaReserved", "status": "False", "message": "no quota"}]},
    }


QUEUE = {"metadata": {"name": "team", "namespace": "workloads"}, "spec": {"clusterQueue": "all"}}


def test_jobs_wait_by_priority_and_then_in_the_order_in_which_they_came() -> None:
    found = state(
        jobs=[job("late"), job("early"), job("urgent")],
        workloads=[queued("late", 2), queued("early", 1), queued("urgent", 3, priority=10)],
        localqueues=[QUEUE],
    )
    assert {each.name: each.position for each in found.workloads} == {"urgent": 1, "early": 2, "late": 3}
    assert {(each.state, each.message) for each in found.workloads} == {("queued", "no quota")}


def node(name: str, **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {key.replace("__", "/"): value for key, value in labels.items()}},
        "status": {
            "allocatable": {"nvidia.com/gpu": "8"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def test_nodes_cost_what_the_catalog_says_of_how_they_are_bought_and_one_it_does_not_have_is_named() -> None:
    bought = {"node.kubernetes.io/instance-type": "p5.48xlarge", "karpenter.sh/nodepool": "train"}
    spot = node("spot", **bought, **{"karpenter.sh/capacity-type": "spot"})
    unknown = node("unknown", **{"node.kubernetes.io/instance-type": "q9.huge"})
    pod = {
        "metadata": {"namespace": "workloads", "labels": {}},
        "spec": {"nodeName": "spot", "containers": [{"resources": {"requests": {"nvidia.com/gpu": "6"}}}]},
        "status": {"phase": "Running"},
    }
    found = state(nodes=[spot, unknown], pods=[pod])
    by_type = {each.instance_type: each for each in found.nodes}
    offer = CATALOG.offer("aws", "us-east-1", "p5.48xlarge")
    assert by_type["p5.48xlarge"].usd_per_hour == offer.spot_price_usd_per_hour
    assert (by_type["p5.48xlarge"].devices_used, by_type["p5.48xlarge"].devices) == (6, 8)
    assert found.unpriced == ("q9.huge",)


def test_the_table_says_that_the_nodes_cost_more_than_the_plan_allows() -> None:
    bought = {"node.kubernetes.io/instance-type": "p5.48xlarge"}
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(tables(state(nodes=[node("one", **bought)]), Spending(0, 1, 2), ()))
    printed = console.export_text()
    assert "p5.48xlarge" in printed
    assert "0/8 nvidia.com/gpu" in printed
    assert "the plan expects $1.00 and allows $0.00 to $2.00 (over the plan)" in printed
