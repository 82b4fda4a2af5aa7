"""What is seen of a stack: its pods' metrics, alerts, dashboards, its GPUs, and the curves of its training runs.

Objects of the Prometheus operator and not a whole kube-prometheus-stack: they are what the stack knows and a chart does
not, and any Prometheus of the operator takes them; the chart itself is pinned among the cluster's manifests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
import yaml

from infra.errors import require
from infra.kubernetes.node_agents import NAMESPACE as SYSTEM_NAMESPACE
from infra.kubernetes.node_agents import agent, check_image, resources
from infra.kubernetes.objects import make_object
from infra.kubernetes.pods import USER_ID

API = "monitoring.coreos.com/v1"
OBSERVABILITY = Path(__file__).resolve().parents[2] / "workloads" / "serving" / "observability"
"""The alerts and the dashboard of inference servers: those that are tried with the servers themselves."""
IDLE_PERCENT, IDLE_MINUTES = 5, 30
"""A GPU that computes less than that share of the time, for that long, does nothing."""
SCRAPE_SECONDS = 30
DCGM_PORT, TENSORBOARD_PORT = 9_400, 6_006
COUNTERS_PATH, COUNTERS_FILE = "/etc/fusion", "counters.csv"
COUNTERS = {
    "DCGM_FI_DEV_GPU_UTIL": ("gauge", "GPU utilization (in %)."),
    "DCGM_FI_DEV_FB_USED": ("gauge", "Framebuffer memory used (in MiB)."),
    "DCGM_FI_DEV_GPU_TEMP": ("gauge", "GPU temperature (in C)."),
    "DCGM_FI_DEV_POWER_USAGE": ("gauge", "Power draw (in W)."),
    "DCGM_FI_DEV_XID_ERRORS": ("gauge", "Value of the last XID error encountered."),
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": ("gauge", "Ratio of cycles the tensor (HMMA) pipe is active."),
}
"""By field its type and help, as dcgm-exporter's default-counters.csv has them."""
POD_RESOURCES = "/var/lib/kubelet/pod-resources"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCost:
    """What the nodes of a pool cost, as the plan has it.

    Attributes:
        pool: its name.
        label: of its nodes, in `fusion.dev/pool`; another pool's, where it stands in for that.
        price_model: likewise, in `fusion.dev/price-model`.
        usd_per_hour: of one node.
        nodes_expected: by the plan.
    """

    pool: str
    label: str
    price_model: str
    usd_per_hour: float
    nodes_expected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorBoardArgs:
    """The curves of training runs.

    Attributes:
        image: with TensorBoard in it, by digest.
        logs_url: the folder of all runs, such as `s3://bucket/runs`.
        service_account: which may read it.
        env: plain environment, such as the cloud's region.
    """

    image: str
    logs_url: pulumi.Input[str]
    service_account: pulumi.Input[str]
    env: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_image("monitoring: tensorboard", self.image)


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitoringArgs:
    """What is watched.

    Attributes:
        stack: its name is on every series of cost.
        namespace: of the workloads.
        labels: by which the cluster's Prometheus chooses its objects, such as `release: prometheus`.
        costs: of the plan's pools.
        dcgm_image: NVIDIA's exporter, by digest; None where the cluster has one.
        gpu_pools: the pools that it runs on.
        tensorboard: None for none.

    Raises:
        ArgumentError: an image that may change.
    """

    stack: str
    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)
    costs: tuple[PoolCost, ...] = ()
    dcgm_image: str | None = None
    gpu_pools: tuple[str, ...] = ()
    tensorboard: TensorBoardArgs | None = None

    def __post_init__(self) -> None:
        if self.dcgm_image is not None:
            check_image("monitoring: dcgm", self.dcgm_image)
        names = [each.pool for each in self.costs]
        require(len(names) == len(set(names)), f"monitoring: of the pools {', '.join(names)} two have one name.")


class Monitoring(pulumi.ComponentResource):
    """What a stack's people see of it.

    Makes: PodMonitors, PrometheusRules (SLO burn, idle GPUs, cost) and ConfigMaps of Grafana dashboards; with images
    DCGM's exporter as a DaemonSet with its list of counters, and TensorBoard as a Deployment with its Service.

    Example:
        >>> args = MonitoringArgs(stack="prod", namespace="workloads", labels={"release": "prometheus"})
        >>> Monitoring("prod-monitoring", args, pulumi.ResourceOptions(provider=on_cluster))
    """

    def __init__(self, name: str, args: MonitoringArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fusion:kubernetes:Monitoring", name, {"namespace": args.namespace}, opts)
        self.args = args
        for value in objects(args):
            role = f"{value['kind'].lower()}-{value['metadata']['name']}"
            make_object(f"{name}-{role}", value, pulumi.ResourceOptions(parent=self))
        self.register_outputs({})


def objects(args: MonitoringArgs) -> Iterator[dict[str, Any]]:
    """All of them."""
    for component, port in (("training", "metrics"), ("inference", "http")):
        yield _pod_monitor(args, args.namespace, component, {"app.kubernetes.io/component": component}, port)
    alerts = yaml.safe_load((OBSERVABILITY / "alerts.yaml").read_text())
    yield _rules(args, "inference", alerts["groups"])
    yield _rules(args, "accelerators", [gpu_rules()])
    if args.costs:
        yield _rules(args, "cost", [cost_rules(args.stack, args.costs)])
    yield _dashboard(args, "inference", (OBSERVABILITY / "dashboard.json").read_text())
    yield _dashboard(args, "accelerators", json.dumps(gpu_dashboard(args.stack), indent=1))
    if args.dcgm_image and args.gpu_pools:
        yield from _dcgm(args, args.dcgm_image)
    if args.tensorboard:
        yield from _tensorboard(args.namespace, args.tensorboard)


def gpu_rules() -> dict[str, Any]:
    """Alerts on GPUs that somebody pays for and nobody uses, or that fail; of DCGM's own series."""
    busiest = f"max_over_time(DCGM_FI_DEV_GPU_UTIL%s[{IDLE_MINUTES}m])"
    held, free = busiest % '{pod!=""}', busiest % '{pod=""}'
    return {
        "name": "fusion-accelerators",
        "rules": [
            _alert(
                "FusionGpuIdle",
                f"max by (namespace, pod) ({held}) < {IDLE_PERCENT}",
                "ticket",
                "The GPUs of {{ $labels.namespace }}/{{ $labels.pod }} do nothing",
                f"The busiest of them computed {{{{ $value }}}} % of the time at most in {IDLE_MINUTES} minutes.",
            ),
            _alert(
                "FusionGpuFree",
                f"count by (Hostname) (max by (Hostname, gpu) ({free}) < {IDLE_PERCENT}) > 0",
                "ticket",
                "{{ $value }} GPUs of {{ $labels.Hostname }} are held by no pod",
                f"For {IDLE_MINUTES} minutes already: the pool's minimum is too high, or something keeps the node.",
            ),
            _alert(
                "FusionGpuFails",
                "max by (Hostname, gpu) (changes(DCGM_FI_DEV_XID_ERRORS[10m])) > 0",
                "page",
                "GPU {{ $labels.gpu }} of {{ $labels.Hostname }} reports an error (XID)",
                "NVIDIA's list of XID errors says whether the node must go.",
                minutes=0,
            ),
        ],
    }


def cost_rules(stack: str, costs: tuple[PoolCost, ...]) -> dict[str, Any]:
    """What the nodes cost now, by the plan's prices, and an alert when that is above what the plan expects.

    Needs kube-state-metrics with the labels of nodes: `--metric-labels-allowlist=nodes=[fusion.dev/pool,
    fusion.dev/price-model]`.
    """
    recorded = [
        {
            "record": "fusion:pool_usd_per_hour",
            "expr": f'count(kube_node_labels{{label_fusion_dev_pool="{each.label}",'
            f'label_fusion_dev_price_model="{each.price_model}"}}) * {each.usd_per_hour:g}',
            "labels": {"stack": stack, "pool": each.pool},
        }
        for each in costs
    ]
    expected = sum(each.usd_per_hour * each.nodes_expected for each in costs)
    above = _alert(
        "FusionCostAboveExpected",
        f'sum by (stack) (fusion:pool_usd_per_hour{{stack="{stack}"}}) > {expected * 1.001:.6g}',
        "ticket",
        "The nodes of {{ $labels.stack }} cost ${{ $value | humanize }} an hour",
        f"The plan expects ${expected:,.2f}. `fusion status` says which pool has grown, and for what.",
        minutes=60,
    )
    return {"name": "fusion-cost", "rules": [*recorded, above]}


def gpu_dashboard(stack: str) -> dict[str, Any]:
    """Grafana's: GPUs by pod, and what the pools cost."""
    panels = (
        ("GPU use by pod", "percent", "max by (namespace, pod) (DCGM_FI_DEV_GPU_UTIL)", "{{namespace}}/{{pod}}"),
        ("GPU memory by pod", "decmbytes", "sum by (namespace, pod) (DCGM_FI_DEV_FB_USED)", "{{namespace}}/{{pod}}"),
        ("Tensor cores by pod", "percentunit", "avg by (pod) (DCGM_FI_PROF_PIPE_TENSOR_ACTIVE)", "{{pod}}"),
        ("GPU temperature", "celsius", "max by (Hostname, gpu) (DCGM_FI_DEV_GPU_TEMP)", "{{Hostname}} {{gpu}}"),
        ("GPU power", "watt", "sum by (Hostname) (DCGM_FI_DEV_POWER_USAGE)", "{{Hostname}}"),
        ("Cost by hour", "currencyUSD", f'sum by (pool) (fusion:pool_usd_per_hour{{stack="{stack}"}})', "{{pool}}"),
    )
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "uid": f"fusion-{stack}"[:40],
        "title": f"Accelerators and cost: {stack}",
        "schemaVersion": 39,
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]},
        "panels": [
            {
                "id": number + 1,
                "title": title,
                "type": "timeseries",
                "datasource": source,
                "gridPos": {"x": 12 * (number % 2), "y": 8 * (number // 2), "w": 12, "h": 8},
                "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
                "targets": [{"refId": "A", "datasource": source, "expr": expression, "legendFormat": legend}],
            }
            for number, (title, unit, expression, legend) in enumerate(panels)
        ],
    }


def _alert(
    name: str, expression: str, severity: str, summary: str, description: str, *, minutes: int = 10
) -> dict[str, Any]:
    held = {"for": f"{minutes}m"} if minutes else {}
    return {
        "alert": name,
        "expr": expression,
        **held,
        "labels": {"severity": severity},
        "annotations": {"summary": summary, "description": description},
    }


def _metadata(args: MonitoringArgs, name: str, namespace: str) -> dict[str, Any]:
    labels = {**args.labels, "app.kubernetes.io/managed-by": "fusion"}
    return {"name": name, "namespace": namespace, "labels": labels}


def _rules(args: MonitoringArgs, name: str, groups: list[dict[str, Any]]) -> dict[str, Any]:
    metadata = _metadata(args, f"{args.stack}-{name}", args.namespace)
    return {"apiVersion": API, "kind": "PrometheusRule", "metadata": metadata, "spec": {"groups": groups}}


def _pod_monitor(
    args: MonitoringArgs, namespace: str, name: str, selects: Mapping[str, str], port: str
) -> dict[str, Any]:
    """Labels that a series brings (DCGM's pod) are kept; `pod` and `namespace` are added where it has none."""
    endpoint = {"port": port, "path": "/metrics", "interval": f"{SCRAPE_SECONDS}s", "honorLabels": name == "dcgm"}
    spec = {
        "selector": {"matchLabels": dict(selects)},
        "namespaceSelector": {"matchNames": [namespace]},
        "podMetricsEndpoints": [endpoint],
    }
    metadata = _metadata(args, f"{args.stack}-{name}", namespace)
    return {"apiVersion": API, "kind": "PodMonitor", "metadata": metadata, "spec": spec}


def _dashboard(args: MonitoringArgs, name: str, text: str) -> dict[str, Any]:
    """As Grafana's sidecar finds them, by their label."""
    metadata = _metadata(args, f"{args.stack}-{name}-dashboard", args.namespace)
    metadata["labels"] = {**metadata["labels"], "grafana_dashboard": "1"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {f"{args.stack}-{name}.json": text}}


def _dcgm(args: MonitoringArgs, image: str) -> Iterator[dict[str, Any]]:
    """As root, which reaches the driver, and with the one capability without which that keeps what tensor cores do.

    Source: dcgm-exporter's chart, its `securityContext`; NVIDIA, "Permission issue with performance counters".
    """
    name = f"{args.stack}-dcgm"
    labels = {"app.kubernetes.io/managed-by": "fusion"}
    metadata = {"name": name, "namespace": SYSTEM_NAMESPACE, "labels": labels}
    yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {COUNTERS_FILE: counters()}}
    container = {
        "name": "dcgm",
        "image": image,
        "env": [
            {"name": "DCGM_EXPORTER_COLLECTORS", "value": f"{COUNTERS_PATH}/{COUNTERS_FILE}"},
            {"name": "DCGM_EXPORTER_KUBERNETES", "value": "true"},
        ],
        "ports": [{"name": "metrics", "containerPort": DCGM_PORT}],
        "resources": resources("100m", "256Mi", "1Gi"),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "runAsUser": 0,
            "capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]},
        },
        "volumeMounts": [
            {"name": "pods", "mountPath": POD_RESOURCES, "readOnly": True},
            {"name": "counters", "mountPath": COUNTERS_PATH, "readOnly": True},
        ],
    }
    volumes = [
        {"name": "pods", "hostPath": {"path": POD_RESOURCES}},
        {"name": "counters", "configMap": {"name": name}},
    ]
    found = agent(name, args.gpu_pools, container, volumes, labels=labels)
    yield found
    yield _pod_monitor(args, SYSTEM_NAMESPACE, "dcgm", found["spec"]["selector"]["matchLabels"], "metrics")


def counters() -> str:
    """DCGM's fields that the dashboard and the alerts show, and no others: as its exporter reads them, a line each."""
    return "".join(f"{field}, {kind}, {what}\n" for field, (kind, what) in COUNTERS.items())


def _tensorboard(namespace: str, args: TensorBoardArgs) -> Iterator[dict[str, Any]]:
    """Reached by `kubectl port-forward`, and from nowhere else: it asks nobody who they are."""
    labels = {"app.kubernetes.io/name": "tensorboard", "app.kubernetes.io/managed-by": "fusion"}
    metadata = {"name": "tensorboard", "namespace": namespace, "labels": labels}
    amounts = {"cpu": "500m", "memory": "2Gi", "ephemeral-storage": "2Gi"}
    env = {**args.env, "LOGS_URL": args.logs_url}
    container = {
        "name": "tensorboard",
        "image": args.image,
        "command": ["tensorboard", "--bind_all", "--load_fast=false", f"--port={TENSORBOARD_PORT}"],
        "args": ["--logdir", "$(LOGS_URL)"],
        "env": [{"name": name, "value": env[name]} for name in sorted(env)],
        "ports": [{"name": "http", "containerPort": TENSORBOARD_PORT}],
        "resources": {"requests": amounts, "limits": amounts},
        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 10},
        # It reads the bucket before it answers a page: while it only listens it is busy, and not to be restarted.
        "livenessProbe": {"tcpSocket": {"port": "http"}, "failureThreshold": 6, "initialDelaySeconds": 60},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    spec = {
        "serviceAccountName": args.service_account,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}],
    }
    yield {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    yield {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"selector": labels, "ports": ports}}
