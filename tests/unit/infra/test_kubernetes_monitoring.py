"""What is seen of a stack, and what tells Kubernetes of its devices."""

import json
import re
import shutil
import subprocess

import pytest
import yaml

from infra.config import ConfigError
from infra.kubernetes.device_plugins import DevicePluginsArgs, NvidiaArgs, plugin_config
from infra.kubernetes.monitoring import PoolCost, cost_rules, gpu_dashboard, gpu_rules
from tests.custom_resources import problems
from tests.unit.infra.cloud import Cloud
from tests.unit.infra.conftest import refusal
from tests.unit.infra.test_config import config_of
from tests.unit.infra.whole_stack import built, job, of_kind, service

IMAGE = f"registry.example.com/system@sha256:{64 * 'a'}"
NEURON = {"instance_type": "trn1.2xlarge", "accelerators": 1, "vcpus": 3, "memory_gib": 12}
EFA = {"instance_type": "p5.48xlarge", "accelerators": 8, "vcpus": 180, "memory_gib": 1500}
COSTS = (PoolCost(pool="train", label="train", price_model="spot", usd_per_hour=2, nodes_expected=3),)
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (apt-get install prometheus)")


@pytest.fixture(scope="module")
def stack():
    config = {
        "workloads": [
            job(price_model="spot", spot_fallback=True, nodes={"desired": 1, "max": 2}),
            job("on-neuron", needs=NEURON),
            job("large", needs=EFA, nodes={"desired": 2, "max": 2}, disk_gib=500),
            service(),
        ],
        "network": {"zones": ["us-east-1a", "us-east-1b"]},
        "cluster": {
            "device_plugins": {"nvidia_image": IMAGE, "neuron_image": IMAGE, "efa_image": IMAGE, "pods_per_gpu": 2}
        },
        "monitoring": {"labels": {"release": "prometheus"}, "dcgm_image": IMAGE, "tensorboard_image": IMAGE},
    }
    with built(**config) as cloud:
        yield cloud


def pools_of(daemon_set) -> set[str]:
    affinity = daemon_set["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    return set(term["matchExpressions"][0]["values"])


def test_every_object_is_what_kubernetes_and_the_prometheus_operator_take(stack: Cloud) -> None:
    assert [(each["kind"], problems(each)) for each in stack.mocks.all_objects() if problems(each)] == []


def test_each_plugin_runs_on_the_pools_that_have_its_devices_and_on_no_other(stack: Cloud) -> None:
    made = of_kind(stack, "DaemonSet")
    gpus = {"g5-xlarge-spot-with-fallback", "g6-xlarge-on-demand", "p5-48xlarge-on-demand"}
    assert pools_of(made["t-devices-nvidia"]) == pools_of(made["t-dcgm"]) == gpus, "a stand-in has its pool's label"
    assert pools_of(made["t-devices-neuron"]) == {"trn1-2xlarge-on-demand"}
    assert not made.keys() - {"t-devices-nvidia", "t-devices-neuron", "t-devices-efa", "t-dcgm"}
    for each in made.values():
        (container,) = each["spec"]["template"]["spec"]["containers"]
        assert container["image"] == IMAGE and not container["securityContext"]["allowPrivilegeEscalation"]
        more = {"add": ["SYS_ADMIN"]} if each["metadata"]["name"] == "t-dcgm" else {}
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], **more}


def test_dcgms_exporter_is_asked_for_every_series_that_a_dashboard_or_an_alert_shows(stack: Cloud) -> None:
    shown = [
        json.dumps(each)
        for kind in ("ConfigMap", "PrometheusRule")
        for name, each in of_kind(stack, kind).items()
        if name != "t-dcgm"
    ]
    fields = set(re.findall(r"DCGM_FI_\w+", "".join(shown)))
    listed = of_kind(stack, "ConfigMap")["t-dcgm"]["data"]["counters.csv"].splitlines()
    assert "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE" in fields
    assert {line.split(", ")[0] for line in listed} == fields
    assert {line.split(", ")[1] for line in listed} == {"gauge"}
    (container,) = of_kind(stack, "DaemonSet")["t-dcgm"]["spec"]["template"]["spec"]["containers"]
    assert {"name": "DCGM_EXPORTER_COLLECTORS", "value": "/etc/fusion/counters.csv"} in container["env"]


def test_pods_that_take_turns_on_a_gpu_are_counted_by_the_namespace(stack: Cloud) -> None:
    config = yaml.safe_load(of_kind(stack, "ConfigMap")["t-devices-nvidia"]["data"]["config.yaml"])
    (shared,) = config["sharing"]["timeSlicing"]["resources"]
    assert shared == {"name": "nvidia.com/gpu", "replicas": 2}
    pools = stack.all_facts("fusion:aws:AcceleratorPool")
    gpus = sum(each["nodes_max"] * each["accelerator_count"] for each in pools if "trn1" not in each["instance_type"])
    (quota,) = of_kind(stack, "ResourceQuota").values()
    assert quota["spec"]["hard"]["requests.nvidia.com/gpu"] == str(int(2 * gpus))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (
            {"cluster": {"device_plugins": {"nvidia_image": "nvidia:1"}}},
            "nvidia_image: got .nvidia:1.; expected an image",
        ),
        ({"cluster": {"device_plugins": {"pods_per_gpu": 2}}}, "read by NVIDIA's plugin; set nvidia_image"),
        (
            {"cluster": {"device_plugins": {"nvidia_image": IMAGE, "pods_per_gpu": 2, "mig_strategy": "single"}}},
            "both share out GPUs; set one of them",
        ),
        ({"monitoring": {"dcgm_image": "dcgm"}}, "fusion:monitoring.dcgm_image"),
    ],
)
def test_a_config_that_can_not_be_is_refused_in_one_sentence(config, says) -> None:
    with pytest.raises(ConfigError, match=says):
        config_of(**config)
    assert "may change" in refusal(DevicePluginsArgs, efa_image="efa:latest")


def test_prometheus_finds_the_pods_of_both_kinds_and_their_ports(stack: Cloud) -> None:
    monitors = of_kind(stack, "PodMonitor")
    for kind, name, workload in (("Job", "training", "digits"), ("Deployment", "inference", "classify")):
        template = of_kind(stack, kind)[workload]["spec"]["template"]
        spec = monitors[f"t-{name}"]["spec"]
        assert spec["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        ports = {port["name"] for container in template["spec"]["containers"] for port in container["ports"]}
        assert {each["port"] for each in spec["podMetricsEndpoints"]} <= ports
    assert all(each["metadata"]["labels"]["release"] == "prometheus" for each in monitors.values())


def test_tensorboard_reads_the_runs_and_nothing_else(stack: Cloud) -> None:
    (container,) = of_kind(stack, "Deployment")["tensorboard"]["spec"]["template"]["spec"]["containers"]
    (logs,) = [each["value"] for each in container["env"] if each["name"] == "LOGS_URL"]
    assert logs.startswith("s3://") and logs.endswith("/runs")
    document = stack.role_policy("t-tensorboard")
    assert {each["Sid"] for each in document["Statement"]} == {"List0", "Read0", "Key0"}
    assert of_kind(stack, "Service")["tensorboard"]["spec"].get("type", "ClusterIP") == "ClusterIP"


def test_dashboards_are_found_by_grafana(stack: Cloud) -> None:
    found = {
        name: json.loads(text)
        for each in of_kind(stack, "ConfigMap").values()
        if each["metadata"]["labels"].get("grafana_dashboard") == "1"
        for name, text in each["data"].items()
    }
    assert found.keys() == {"t-inference.json", "t-accelerators.json"}
    assert found["t-accelerators.json"] == gpu_dashboard("t")
    places = [each["gridPos"] for each in gpu_dashboard("t")["panels"]]
    assert len({(each["x"], each["y"]) for each in places}) == len(places)


@needs_promtool
def test_the_alerts_fire_when_they_should_and_not_before(stack: Cloud, tmp_path) -> None:
    """A busy GPU, one that is held for nothing and one that is free; nodes as planned, and then one more."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump({"groups": [gpu_rules(), cost_rules("t", COSTS)]}))
    gpu = 'DCGM_FI_DEV_GPU_UTIL{Hostname="a",gpu="%d",namespace="workloads",pod="%s"}'
    node = 'kube_node_labels{node="%s",label_fusion_dev_pool="train",label_fusion_dev_price_model="spot"}'
    series = [
        {"series": gpu % (0, "busy"), "values": "90x300"},
        {"series": gpu % (1, "idle"), "values": "0x300"},
        {"series": gpu % (2, ""), "values": "0x300"},
        {"series": 'DCGM_FI_DEV_XID_ERRORS{Hostname="a",gpu="1"}', "values": "0x100 79x200"},
        *({"series": node % name, "values": "1x300"} for name in "abc"),
        {"series": node % "d", "values": "_x120 1x180"},
    ]
    cases = {
        "rule_files": [str(rules)],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "alert_rule_test": list(expected())}],
    }
    file = tmp_path / "cases.yaml"
    file.write_text(yaml.safe_dump(cases))
    served = tmp_path / "served.yaml"
    groups = [group for each in of_kind(stack, "PrometheusRule").values() for group in each["spec"]["groups"]]
    served.write_text(yaml.safe_dump({"groups": groups}))
    for command in (["check", "rules", str(served)], ["test", "rules", str(file)]):
        done = subprocess.run([str(PROMTOOL), *command], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def expected():
    idle = {"severity": "ticket", "namespace": "workloads", "pod": "idle"}
    free = {"severity": "ticket", "Hostname": "a"}
    cost = {"severity": "ticket", "stack": "t"}
    for name, minute, labels in (
        ("FusionGpuIdle", 5, None),
        ("FusionGpuIdle", 60, idle),
        ("FusionGpuFree", 60, free),
        ("FusionGpuFails", 90, None),
        ("FusionGpuFails", 105, {"severity": "page", "Hostname": "a", "gpu": "1"}),
        ("FusionCostAboveExpected", 110, None),
        ("FusionCostAboveExpected", 150, None),
        ("FusionCostAboveExpected", 190, cost),
    ):
        found = {"alertname": name, "eval_time": f"{minute}m", "exp_alerts": []}
        if labels:
            found["exp_alerts"] = [{"exp_labels": labels, "exp_annotations": annotations(name)}]
        yield found


def annotations(name: str) -> dict[str, str]:
    """As the rules have them, with what the series above fill in."""
    rules = [*gpu_rules()["rules"], *cost_rules("t", COSTS)["rules"]]
    (written,) = [each["annotations"] for each in rules if each.get("alert") == name]
    values = {
        "{{ $labels.namespace }}": "workloads",
        "{{ $labels.pod }}": "idle",
        "{{ $labels.Hostname }}": "a",
        "{{ $labels.gpu }}": "1",
        "{{ $labels.stack }}": "t",
        "{{ $value | humanize }}": "8",
        "{{ $value }}": {"FusionGpuIdle": "0", "FusionGpuFree": "1"}.get(name, ""),
    }
    for field, value in values.items():
        written = {key: text.replace(field, value) for key, text in written.items()}
    return written


def test_gpus_that_are_cut_need_the_right_to_see_it() -> None:
    assert plugin_config(NvidiaArgs(image=IMAGE, mig_strategy="mixed"))["flags"]["migStrategy"] == "mixed"
    assert "sharing" not in plugin_config(NvidiaArgs(image=IMAGE))
    with built(
        workloads=[job()], cluster={"device_plugins": {"nvidia_image": IMAGE, "mig_strategy": "single"}}
    ) as cloud:
        (plugin,) = of_kind(cloud, "DaemonSet").values()
    (container,) = plugin["spec"]["template"]["spec"]["containers"]
    assert container["securityContext"]["capabilities"] == {"add": ["SYS_ADMIN"]}
