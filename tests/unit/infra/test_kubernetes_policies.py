"""What the cluster itself holds the workloads' namespace to."""

import pytest

from infra.kubernetes.policies import PoliciesArgs, network_rules
from tests.custom_resources import problems
from tests.unit.infra.conftest import refusal
from tests.unit.infra.whole_stack import built, job, of_kind, service


@pytest.fixture(scope="module")
def stack():
    """A spot pool with its stand-in and a service, in a cluster with queues."""
    spot = {"price_model": "spot", "spot_fallback": True, "nodes": {"desired": 2, "max": 3}}
    with built(
        workloads=[job(**spot), service(port=9000, grpc_port=9001, traces="http://otel-collector.observability:4318")],
        cluster={"queueing": "kueue"},
    ) as cloud:
        yield cloud


def selects(policy, labels):
    wanted = policy["spec"]["podSelector"].get("matchLabels", {})
    return wanted.items() <= labels.items()


def pod_labels(cloud, kind, name):
    spec = of_kind(cloud, kind)[name]["spec"]
    if kind == "JobSet":
        spec = spec["replicatedJobs"][0]["template"]["spec"]
    return spec["template"]["metadata"]["labels"]


def test_every_object_is_what_kubernetes_takes(stack) -> None:
    assert [(each["kind"], problems(each)) for each in stack.mocks.all_objects() if problems(each)] == []


def test_nothing_goes_in_or_out_that_no_rule_allows(stack) -> None:
    deny = of_kind(stack, "NetworkPolicy")["deny-all"]["spec"]
    assert deny["podSelector"] == {} and sorted(deny["policyTypes"]) == ["Egress", "Ingress"]
    assert not {"ingress", "egress"} & deny.keys()


def test_a_server_is_reached_where_it_listens_and_a_job_by_its_own_pods(stack) -> None:
    rules = of_kind(stack, "NetworkPolicy")
    training, serving = pod_labels(stack, "JobSet", "digits"), pod_labels(stack, "Deployment", "classify")
    into = {name for name, each in rules.items() if each["spec"].get("ingress")}
    assert {name for name in into if selects(rules[name], serving)} == {"requests-in"}
    assert {name for name in into if selects(rules[name], training)} == {"training-among-itself"}
    (container,) = of_kind(stack, "Deployment")["classify"]["spec"]["template"]["spec"]["containers"]
    (way_in,) = rules["requests-in"]["spec"]["ingress"]
    assert [each["port"] for each in way_in["ports"]] == [each["containerPort"] for each in container["ports"]]
    peers, metrics = rules["training-among-itself"]["spec"]["ingress"]
    (peer,) = peers["from"]
    assert peer["podSelector"]["matchLabels"].items() <= training.items()
    assert "namespaceSelector" not in peer, "pods of other namespaces are no peers, whatever their labels"
    assert [each["port"] for each in metrics["ports"]] == [9400]


def test_a_server_reaches_the_collector_of_its_traces_and_is_told_where_it_is(stack) -> None:
    rules = of_kind(stack, "NetworkPolicy")
    training, serving = pod_labels(stack, "JobSet", "digits"), pod_labels(stack, "Deployment", "classify")
    assert selects(rules["traces-out"], serving) and not selects(rules["traces-out"], training)
    assert rules["traces-out"]["spec"]["egress"] == [{"ports": [{"port": 4318, "protocol": "TCP"}]}]
    (container,) = of_kind(stack, "Deployment")["classify"]["spec"]["template"]["spec"]["containers"]
    told = {each["name"]: each.get("value") for each in container["env"]}
    assert told["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://otel-collector.observability:4318"
    assert told["OTEL_SERVICE_NAME"] == "classify"


def test_all_pods_find_names_the_bucket_and_their_identity() -> None:
    rule = network_rules(PoliciesArgs(namespace="workloads", metrics_port=9400))["names-and-tls-out"]
    assert rule["podSelector"] == {}
    ports = {(each["port"], each["protocol"]) for out in rule["egress"] for each in out["ports"]}
    assert ports == {(53, "UDP"), (53, "TCP"), (443, "TCP"), (80, "TCP")}
    (plain,) = [out["to"] for out in rule["egress"] if out["ports"][0]["port"] == 80]
    assert plain == [{"ipBlock": {"cidr": "169.254.170.23/32"}}]


def test_the_namespace_asks_for_no_more_than_its_pools_have_and_opens_no_way_in(stack) -> None:
    (quota,) = of_kind(stack, "ResourceQuota").values()
    pools = stack.all_facts("fusion:aws:AcceleratorPool")
    most = sum(pool["nodes_max"] * pool["accelerator_count"] for pool in pools)
    assert quota["spec"]["hard"] == {
        "requests.nvidia.com/gpu": str(most),
        "services.loadbalancers": "0",
        "services.nodeports": "0",
    }


def test_a_container_that_says_nothing_takes_little_and_no_accelerator(stack) -> None:
    (limits,) = of_kind(stack, "LimitRange").values()
    (container,) = limits["spec"]["limits"]
    assert container["type"] == "Container"
    assert container["default"].keys() == container["defaultRequest"].keys() == {"cpu", "memory", "ephemeral-storage"}


def test_a_job_that_names_no_queue_is_denied_where_there_are_queues(stack) -> None:
    (policy,), (binding,) = (of_kind(stack, f"ValidatingAdmissionPolicy{end}").values() for end in ("", "Binding"))
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    assert binding["spec"]["validationActions"] == ["Deny"] and policy["spec"]["failurePolicy"] == "Fail"
    selector = binding["spec"]["matchResources"]["namespaceSelector"]
    assert selector == {"matchLabels": {"kubernetes.io/metadata.name": "workloads"}}
    (rule,) = policy["spec"]["validations"]
    label = "kueue.x-k8s.io/queue-name"
    assert label in rule["expression"] and label in of_kind(stack, "JobSet")["digits"]["metadata"]["labels"]


def test_a_port_that_is_none_is_refused() -> None:
    said = refusal(PoliciesArgs, namespace="workloads", metrics_port=9400, serving_ports=(0,))
    assert said == "policies: port 0; use 1 to 65535."
