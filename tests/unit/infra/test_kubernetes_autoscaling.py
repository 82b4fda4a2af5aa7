"""Services are scaled by what Prometheus knows of their servers, within the plan, and to none where it was asked for."""

import pytest

from infra.config import ConfigError
from infra.kubernetes.autoscaling import AutoscalingArgs, Scaling, Trigger
from planner.catalog import load
from planner.guardrails.latency import too_slow_for_the_ramp
from planner.guardrails.settings import GuardrailSettings
from policies.latency import minimum_replicas
from policies.testing import Declared, judge
from tests.custom_resources import problems
from tests.unit.infra.cloud import Cloud
from tests.unit.infra.conftest import refusal
from tests.unit.infra.test_config import config_of
from tests.unit.infra.whole_stack import NEEDS, built, of_kind, service
from tests.unit.planner.test_plan import planned
from tests.unit.planner.test_plan import service as planned_service

PROMETHEUS = "http://prometheus-operated.monitoring.svc:9090"
ASKED = 'sum(rate(envoy_cluster_upstream_rq_total{envoy_cluster_name=~".*/asleep/.*"}[1m]))'
CHAT = {"model": "llama-3.1-8b", "input_tokens": 500, "output_tokens": 100, "concurrency": 4}
ASLEEP = {"replicas": {"min": 0, "max": 2}, "cold_start_seconds_max": 900}
QUERY = Trigger(query="up", per_replica=1)


@pytest.fixture(scope="module")
def stack():
    workloads = [
        service(),
        service("asleep", **ASLEEP),
        service("fixed", replicas={"min": 2, "max": 2}),
        service("own", command=["my-server"]),
        service(
            "chat", target=CHAT, needs={"accelerators": 1, "instance_type": "g6.xlarge", "vcpus": 3, "memory_gib": 12}
        ),
    ]
    with built(
        workloads=workloads, autoscaling={"prometheus": PROMETHEUS, "activation_queries": {"asleep": ASKED}}
    ) as cloud:
        yield cloud


def triggers(cloud: Cloud, name: str) -> list[dict[str, str]]:
    found = of_kind(cloud, "ScaledObject")[name]["spec"]["triggers"]
    assert {each["type"] for each in found} == {"prometheus"}
    return [each["metadata"] for each in found]


def test_every_object_is_what_keda_takes(stack: Cloud) -> None:
    assert [(each["kind"], problems(each)) for each in stack.mocks.all_objects() if problems(each)] == []


def test_a_service_is_scaled_once_and_within_its_plan(stack: Cloud) -> None:
    scaled, by_cpu = of_kind(stack, "ScaledObject"), of_kind(stack, "HorizontalPodAutoscaler")
    assert scaled.keys() == {"classify", "asleep", "chat"}, "of a server of one's own no metrics are known"
    assert by_cpu.keys() == {"fixed", "own"}
    spec = scaled["classify"]["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 4)
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "classify"}


def test_queue_and_chip_of_its_own_pods_say_how_many_replicas(stack: Cloud) -> None:
    waiting, busy = triggers(stack, "classify")
    assert waiting["query"].startswith("sum(fusion_waiting_rows{") and waiting["threshold"] == "8"
    assert busy["query"].startswith("sum(rate(fusion_compute_seconds_total{") and busy["threshold"] == "0.7"
    for each in (waiting, busy):
        assert 'namespace="workloads",pod=~"classify-[a-z0-9]+-[a-z0-9]+"' in each["query"]
        assert each["serverAddress"] == PROMETHEUS
    assert [each["query"].partition("{")[0] for each in triggers(stack, "chat")] == [
        "sum(vllm:num_requests_waiting", "sum(vllm:kv_cache_usage_perc"
    ]  # fmt: skip


def test_only_what_the_gateway_counts_starts_the_first_replica(stack: Cloud) -> None:
    spec = of_kind(stack, "ScaledObject")["asleep"]["spec"]
    assert (spec["minReplicaCount"], spec["cooldownPeriod"]) == (0, 300)
    asked, *own = triggers(stack, "asleep")
    assert (asked["query"], asked["activationThreshold"]) == (ASKED, "0")
    assert all(float(each["activationThreshold"]) > 1e9 for each in own)


def test_replicas_stay_while_prometheus_is_away(stack: Cloud) -> None:
    for each in of_kind(stack, "ScaledObject").values():
        kept = each["spec"]["fallback"]
        assert kept["behavior"] == "currentReplicasIfHigher" and kept["replicas"] >= 1


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"workloads": [service(replicas={"min": 0, "max": 2})]}, "cold_start_seconds_max: how long its first request"),
        ({"workloads": [service(**ASLEEP)]}, "fusion:autoscaling: .* activation_queries has none for classify"),
        (
            {"workloads": [service(**ASLEEP)], "autoscaling": {"prometheus": PROMETHEUS}},
            "set its replicas.min to 1",
        ),
        (
            {"workloads": [service()], "autoscaling": {"prometheus": PROMETHEUS, "activation_queries": {"chat": "up"}}},
            "chat is no inference service of this stack",
        ),
        (
            {"workloads": [service()], "autoscaling": {"prometheus": "prometheus:9090"}},
            "expected an address such as http",
        ),
    ],
)
def test_a_config_that_scales_nothing_is_refused_in_one_sentence(config, says) -> None:
    with pytest.raises(ConfigError, match=says):
        config_of(**config)


@pytest.mark.parametrize(
    ("least", "most", "scaling", "says"),
    [
        (2, 2, (QUERY,), "leave nothing to scale"),
        (0, 2, (QUERY,), "without replicas nothing of its own says that it is asked for"),
    ],
)
def test_args_that_scale_nothing_are_refused(least, most, scaling, says) -> None:
    scaling = Scaling(prometheus=PROMETHEUS, triggers=scaling)
    bounds = {"replicas_min": least, "replicas_max": most}
    assert says in refusal(AutoscalingArgs, name="a", namespace="w", scaling=scaling, **bounds)
    assert "no trigger" in refusal(Scaling, prometheus=PROMETHEUS, triggers=())
    assert "use an address" in refusal(Scaling, prometheus="prometheus", triggers=(QUERY,))


@pytest.mark.parametrize(("limit_s", "broken"), [(750, False), (749, True)])
def test_the_first_request_of_a_sleeping_service_waits_no_longer_than_its_budget(limit_s: int, broken: bool) -> None:
    """30 s until the autoscaler sees it, 120 s for a node, 600 s for the replica: all three are the defaults."""
    asleep = planned_service(needs=NEEDS, replicas={"min": 0, "max": 2}, cold_start_seconds_max=limit_s)
    plan = planned(asleep)
    assert plan.pool_of("classify").nodes_min == 0
    told = list(too_slow_for_the_ramp(plan, GuardrailSettings(), load()))
    assert bool(told) == broken
    if broken:
        assert "its first request then waits 750 s" in told[0] and "cold_start_seconds_max: 750" in told[0]


def test_a_guardrail_of_replicas_reads_kedas_object_too() -> None:
    labels = {"app.kubernetes.io/name": "classify", "app.kubernetes.io/component": "inference"}
    spec = {"minReplicaCount": 1, "maxReplicaCount": 4, "scaleTargetRef": {"name": "classify"}}
    few = Declared("kubernetes:keda.sh/v1alpha1:ScaledObject", {"metadata": {"labels": labels}, "spec": spec})
    (told,) = judge(minimum_replicas, few, service_replicas_min=2)
    assert "keeps 1 of 2 replicas; set spec.minReplicaCount to 2 or more" in told
    assert judge(minimum_replicas, few, service_replicas_min=1) == []
