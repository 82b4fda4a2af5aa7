"""How a service of a stack is updated, reached from outside, and put before training."""

import dataclasses

import pytest

from infra.config import ConfigError
from infra.inference_service import InferenceServiceArgs, Route
from infra.kubernetes.gateway import GatewayArgs
from tests.custom_resources import problems
from tests.unit.infra.conftest import refusal
from tests.unit.infra.test_config import config_of
from tests.unit.infra.test_kubernetes_workloads import POD, SERVICE, inference
from tests.unit.infra.whole_stack import built, of_kind, service

GATEWAY = {"class_name": "envoy", "domain": "models.example.com", "certificate": "models-tls"}


@pytest.fixture(scope="module")
def stack():
    """A service on a pool that is full at its maximum, and one on CPUs, behind a gateway."""
    cpu = service("rank", needs={"vcpus": 2, "memory_gib": 4}, replicas={"min": 1, "max": 2})
    with built(workloads=[service(), cpu], cluster={"gateway": GATEWAY}) as cloud:
        yield cloud


def test_every_object_is_what_kubernetes_and_the_gateway_api_take(stack) -> None:
    assert [(each["kind"], problems(each)) for each in stack.mocks.all_objects() if problems(each)] == []


def test_where_the_pool_has_no_room_for_one_more_an_update_takes_one_away_first(stack) -> None:
    deployments = of_kind(stack, "Deployment")
    updates = {name: each["spec"]["strategy"]["rollingUpdate"] for name, each in deployments.items()}
    assert updates["classify"] == {"maxUnavailable": 1, "maxSurge": 0}
    assert updates["rank"] == {"maxUnavailable": 0, "maxSurge": 1}, "of CPUs there is room, and it is the only one"
    args = dataclasses.asdict(SERVICE) | {"pod": POD, "probes": SERVICE.probes, "surges": False, "replicas_min": 1}
    assert "an update takes its only replica away; raise replicas_min" in refusal(InferenceServiceArgs, **args)


def test_requests_come_before_what_has_no_priority(stack) -> None:
    (priority,) = of_kind(stack, "PriorityClass").values()
    assert priority["value"] > 0
    for each in of_kind(stack, "Deployment").values():
        assert each["spec"]["template"]["spec"]["priorityClassName"] == priority["metadata"]["name"]
    assert "priorityClassName" not in inference()["Deployment"]["spec"]["template"]["spec"]


def test_clients_from_outside_come_in_through_tls_alone(stack) -> None:
    (gateway,) = of_kind(stack, "Gateway").values()
    (listener,) = gateway["spec"]["listeners"]
    assert (listener["protocol"], listener["port"], listener["tls"]["mode"]) == ("HTTPS", 443, "Terminate")
    assert listener["tls"]["certificateRefs"] == [{"kind": "Secret", "name": "models-tls"}]
    assert listener["allowedRoutes"]["namespaces"]["from"] == "Same"
    routes = of_kind(stack, "HTTPRoute")
    assert {name: each["spec"]["hostnames"] for name, each in routes.items()} == {
        "classify": ["classify.models.example.com"],
        "rank": ["rank.models.example.com"],
    }
    for name, route in routes.items():
        (parent,) = route["spec"]["parentRefs"]
        assert parent == {"name": gateway["metadata"]["name"], "sectionName": listener["name"]}
        (backend,) = route["spec"]["rules"][0]["backendRefs"]
        target = of_kind(stack, "Service")[backend["name"]]
        assert backend["name"] == name and backend["port"] == target["spec"]["ports"][0]["port"]


def test_without_a_gateway_only_the_clusters_pods_reach_a_service() -> None:
    assert not {"HTTPRoute", "Gateway"} & inference().keys()
    route = Route(gateway="services", hostname="classify.models.example.com")
    assert problems(inference(route=route)["HTTPRoute"]) == []


def test_a_service_on_two_clouds_answers_for_its_name_there_as_well() -> None:
    names = ["classify.models.example.com", "classify-gcp.models.example.com"]
    route = Route(gateway="services", hostname=names[0], cloud_hostname=names[1])
    assert inference(route=route)["HTTPRoute"]["spec"]["hostnames"] == names


def test_a_gateway_that_can_not_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"fusion:cluster.gateway.domain: .* expected a domain such as models"):
        config_of(cluster={"gateway": GATEWAY | {"domain": "models"}})
    args = {"name": "services", "namespace": "workloads", **GATEWAY}
    assert "no certificate; name one" in refusal(GatewayArgs, **(args | {"certificate": " "}))
    assert "domain 'x'; use one such as" in refusal(GatewayArgs, **(args | {"domain": "x"}))
