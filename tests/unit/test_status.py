"""What `fusion status` says of a cluster's objects."""

import io
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from fusion.commands import status as command
from fusion.errors import FusionError
from fusion.status.reading import State, read
from fusion.status.slo import slos
from fusion.status.spending import Spending
from fusion.status.table import tables
from localcloud.kubernetes.cluster import Cluster
from planner.catalog import load
from tests.prometheus import Prometheus, prometheus
from tests.unit.planner.test_plan import planned, service

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


@pytest.fixture
def scraped(tmp_path: Path) -> Iterator[Prometheus]:
    with prometheus(tmp_path, {"namespace": "workloads", "pod": "classify-7c9d8f6b5-x2x4z"}) as found:
        yield found


def served(requests: int, late: int) -> str:
    """Of a server that has answered so many requests in 10 ms, and so many of them too late."""
    return (
        f'fusion_request_seconds_bucket{{stage="total",model="m",le="0.01"}} {requests}\n'
        f'fusion_request_seconds_bucket{{stage="total",model="m",le="+Inf"}} {requests}\n'
        f'fusion_request_seconds_count{{stage="total",model="m"}} {requests}\n'
        f'fusion_slow_requests_total{{model="m"}} {late}\n'
        'fusion_failed_requests_total{model="m"} 0\nfusion_refused_requests_total{model="m",reason="overload"} 0\n'
    )


@pytest.mark.parametrize(("late", "state"), [(5, "kept"), (100, "burning")])
def test_the_slo_is_what_a_real_prometheus_counted_of_the_services_pods(
    scraped: Prometheus, late: int, state: str
) -> None:
    target = {"profile": "resnet-50", "requests_per_s": 100, "p99_ms_max": 100}
    plan = planned(service(needs={"accelerators": 1, "instance_type": "g5.xlarge"}, target=target))
    (before,) = slos(plan, scraped.url)
    assert (before.state, before.p99_ms_max) == ("not measured", 100)
    for number in (0, 1):
        scraped.pod.text = served(1000 * number, late * number)
        deadline = time.monotonic() + 60
        while scraped.value('sum(fusion_request_seconds_count{stage="total"})') != 1000 * number:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    (found,) = slos(plan, scraped.url)
    assert found.bad_ratio == pytest.approx(late / 1000, rel=0.01) and found.state == state
    assert found.p99_ms is not None and found.p99_ms <= 10


def test_a_prometheus_that_does_not_answer_is_named() -> None:
    plan = planned(
        service(
            needs={"accelerators": 1, "instance_type": "g5.xlarge"},
            target={"profile": "resnet-50", "requests_per_s": 100},
        )
    )
    with pytest.raises(FusionError, match=r"--prometheus http://127\.0\.0\.1:9: can't be asked"):
        list(slos(plan, "http://127.0.0.1:9"))


def test_a_watch_shows_what_it_saw_last_while_prometheus_does_not_answer_and_asks_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = {"profile": "resnet-50", "requests_per_s": 100}
    plan = planned(service(needs={"accelerators": 1, "instance_type": "g5.xlarge"}, target=target))
    addresses = iter([None, "http://127.0.0.1:9", "http://127.0.0.1:9"])
    ticks = iter([None, None])

    class Look:
        def status(self) -> command.Status:
            found = tuple(slos(plan, next(addresses)))
            return command.Status(state(), None, found)

    def tick(_: float) -> None:
        if next(ticks, "end") == "end":
            raise KeyboardInterrupt

    monkeypatch.setattr(command.time, "sleep", tick)
    command._show(cast("command._Looking", Look()), watch=True)
    shown = capsys.readouterr().out
    assert "as it was before: " in shown and "127.0.0.1:9" in shown
    assert next(addresses, "none left") == "none left", "it asked again after that"
