"""A cluster of a thousand nodes and a queue of hundreds of jobs, on the real control plane of `make cluster`.

    python -m benchmarks.cluster_scale [--nodes 1000] [--jobs 500] [--json PATH]

A stack declares the jobs; the planner plans it, `pulumi up` applies a JobSet for each through the provider while the
queue holds, and then the queue is let go. kwok plays the nodes (p5.48xlarge, 8 GPUs each); Kueue admits, JobSet makes
the pods and kube-scheduler binds them, as everywhere. Each job is a gang of as many nodes as fill the cluster once.
Errors and latencies are the API server's own count, from its /metrics, over the whole run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.preview import project, stack_config
from fusion.nodes import NodesOf, instance_types
from fusion.stack_plan import config_of
from infra.planning import plan_stack
from localcloud.kubernetes import api_server, controllers
from localcloud.kubernetes.cluster import Cluster
from planner.catalog import Catalog, load
from tests.cluster import manifests

SAMPLE = re.compile(r"^(\w+)\{(.*)\} (\S+)$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
TIMEOUT_S = 900


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FUSION_HOME"] = folder
        try:
            found = measure(args.nodes, args.jobs, Path(folder) / "project")
        finally:
            api_server.stop()
    table = Table("", "value", box=None)
    for name, value in found.items():
        table.add_row(name, f"{value:,.3f}" if isinstance(value, float) else str(value))
    Console(width=160).print(table)
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


def measure(nodes: int, jobs: int, folder: Path) -> dict[str, Any]:
    """Seconds of each part, and what the API server counted."""
    catalog = load()
    offer = catalog.offer("aws", "us-east-1", "p5.48xlarge")
    found: dict[str, Any] = {"nodes": nodes, "GPUs": nodes * 8, "jobs": jobs, "nodes of a job": nodes // jobs}
    found["planner: plan of the stack, s"] = planned(jobs, folder, catalog)
    with timed(found, "control plane: started, s"):
        controllers.ensure(instance_types([offer], catalog))
    cluster = controllers.connect()
    with timed(found, "nodes: created and ready, s"):
        for node in NodesOf(offer, nodes, "spot", "train").objects(catalog):
            cluster.request("POST", "/api/v1/nodes", node)
        wait(lambda: count(cluster, "/api/v1/nodes", is_ready) == nodes)
    for value in objects(nodes):
        path = cluster.path(value["apiVersion"], value["kind"], "workloads", value["metadata"]["name"])
        cluster.apply(path, value, "benchmark", force=True, dry_run=False)
    with timed(found, "provider: pulumi up of the jobs, s"):
        up(folder, jobs, nodes // jobs)
    workloads = "/apis/kueue.x-k8s.io/v1beta1/workloads"
    wait(lambda: count(cluster, workloads, lambda _: True) == jobs)
    hold(cluster, "None")
    start = time.monotonic()
    wait(lambda: count(cluster, workloads, is_admitted) == jobs)
    found["Kueue: all jobs admitted, s"] = time.monotonic() - start
    wait(lambda: count(cluster, "/api/v1/pods", lambda pod: bool(pod["spec"].get("nodeName"))) == nodes)
    found["scheduler: all pods bound, s"] = time.monotonic() - start
    wait(lambda: count(cluster, "/api/v1/pods", is_ready) == nodes)
    found["all pods ready, s"] = time.monotonic() - start
    return found | api_errors(cluster)


def planned(jobs: int, folder: Path, catalog: Catalog) -> float:
    """Seconds of the plan of a stack with so many jobs."""
    config = stack_config(folder, jobs)
    for job in config["fusion:workloads"]:
        job |= {"needs": {"instance_type": "p5.48xlarge"}, "nodes": {"min": 0, "desired": 1, "max": 2}}
    settings = config_of({**config, "fusion:guardrails": {"monthly_cost_limit_usd": 1e9}}, "scale", "benchmark")
    start = time.monotonic()
    plan_stack(settings, "scale", catalog)
    return time.monotonic() - start


def objects(nodes: int) -> Iterator[dict[str, Any]]:
    """The namespace and a queue that holds, as large as the cluster."""
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "workloads"}}
    for value in manifests.queue("train", nodes * 8):
        if value["kind"] == "ResourceFlavor":
            value["spec"]["nodeLabels"] = {"fusion.dev/pool": "train"}
        if value["kind"] == "ClusterQueue":
            value["spec"]["stopPolicy"] = "Hold"
            amounts = {"cpu": nodes * 192, "memory": f"{nodes * 2}Ti", manifests.GPU: nodes * 8}
            (flavor,) = value["spec"]["resourceGroups"][0]["flavors"]
            flavor["resources"] = [{"name": name, "nominalQuota": amount} for name, amount in amounts.items()]
        yield value


def up(folder: Path, jobs: int, nodes: int) -> None:
    """`pulumi up` of a program that declares the jobs; ends the benchmark when it fails."""
    kubeconfig = {"kubernetes:kubeconfig": str(api_server.kubeconfig_file()), "kubernetes:context": api_server.CONTEXT}
    made = project(folder, ".", kubeconfig)
    job = manifests.training_job("NAME", "train", nodes=nodes)
    (folder / "__main__.py").write_text(
        f"import copy, pulumi_kubernetes as k8s\nJOB = {job!r}\n"
        f"for number in range({jobs}):\n"
        "    job = copy.deepcopy(JOB)\n"
        "    job['metadata']['name'] = name = f'job-{number}'\n"
        "    k8s.apiextensions.CustomResource(name, api_version=job['apiVersion'], kind='JobSet',"
        " metadata=job['metadata'], spec=job['spec'])\n"
    )
    command = ["pulumi", "up", "--yes", "--skip-preview", "--stack", "local", "--non-interactive"]
    done = subprocess.run(
        command, cwd=folder, env=made.environment | {"FUSION_HOME": os.environ["FUSION_HOME"]}, capture_output=True
    )
    if done.returncode:
        sys.exit((done.stdout + done.stderr).decode())


def hold(cluster: Cluster, policy: str) -> None:
    path = "/apis/kueue.x-k8s.io/v1beta1/clusterqueues/train"
    cluster.request("PATCH", path, {"spec": {"stopPolicy": policy}}, content="application/merge-patch+json")


def count(cluster: Cluster, path: str, test: Callable[[dict[str, Any]], bool]) -> int:
    return sum(test(each) for each in cluster.request("GET", path)["items"])


def is_ready(value: dict[str, Any]) -> bool:
    return _has(value, "Ready")


def is_admitted(value: dict[str, Any]) -> bool:
    return _has(value, "Admitted")


def _has(value: dict[str, Any], kind: str) -> bool:
    conditions = value.get("status", {}).get("conditions", ())
    return any(each["type"] == kind and each["status"] == "True" for each in conditions)


def wait(test: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not test():
        if time.monotonic() > deadline:
            sys.exit(f"not there after {TIMEOUT_S} s")
        time.sleep(0.5)


class timed:
    """Seconds of a block, kept under a name."""

    def __init__(self, found: dict[str, Any], name: str) -> None:
        self._found, self._name = found, name

    def __enter__(self) -> None:
        self._start = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._found[self._name] = time.monotonic() - self._start


def api_errors(cluster: Cluster) -> dict[str, Any]:
    """Requests of the API server by outcome, and webhooks that failed."""
    return counted(cluster.text("/metrics"))


def counted(metrics: str) -> dict[str, Any]:
    """Of an API server's `/metrics`: its answers by code; those of 5xx also by what was asked, which says whose they are."""
    codes: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for name, labels, value in samples(metrics):
        if name == "apiserver_request_total":
            codes[labels["code"]] += int(value)
            if labels["code"].startswith("5"):
                asked = f"{labels.get('verb')} {labels.get('resource')} {labels.get('subresource', '')}".rstrip()
                failed[f"{labels['code']} {asked}"] += int(value)
    wrong = {code: number for code, number in sorted(codes.items()) if code[0] in "45"}
    return {
        "API requests": sum(codes.values()),
        "API answers of 4xx and 5xx": json.dumps(wrong),
        "API answers of 5xx, by request": json.dumps(dict(failed.most_common())),
    }


def samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Prometheus's text format, without comments."""
    for line in text.splitlines():
        if found := SAMPLE.match(line):
            yield found[1], dict(LABEL.findall(found[2])), float(found[3])


if __name__ == "__main__":
    main()
