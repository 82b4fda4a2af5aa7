"""What a cluster has beside its API server, each as the program that production runs: kube-scheduler, Kueue, JobSet,
Karpenter with its kwok provider, and kwok, which plays the kubelet of nodes that are no machines.

Their definitions and webhooks are those of their own modules, which `python -m tools.control_plane` keeps beside each
program. A webhook's address is a port of the loopback, and its certificate the API server's own.
"""

from __future__ import annotations

import base64
import contextlib
import json
import signal
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from localcloud.kubernetes import api_server, processes
from localcloud.kubernetes.cluster import Cluster, UnknownKind
from localcloud.kubernetes.processes import LOOPBACK, ControlPlaneError, Say, home, running

START_TIMEOUT_S = 60
MANAGER = "fusion-cluster"
INSTANCE_TYPES_FILE = "instance_types.json"
COMPLETES_AFTER = "pod-complete.stage.kwok.x-k8s.io/delay"
"""A pod of a Job with this annotation ends well after that time, such as `30s`; without it, it runs until deleted."""
REQUESTS_PER_SECOND = 500
"""That a controller may send: one machine has no other cluster to be fair to."""

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a controller answers on the loopback."""

    health: int
    metrics: int
    webhooks: int


@dataclass(frozen=True, slots=True)
class Controller:
    """A program that watches the API server.

    Attributes:
        program: its name in `.fusion/bin`.
        arguments: what it is told.
        config: the files that it reads, by name; they are written before it starts.
        health: where it says that it is ready; `https` with the API server's certificate.
        pods: the only pods that its webhooks are asked about, as a label selector; None for no pods at all.
    """

    program: str
    arguments: Callable[[Ports], tuple[str, ...]]
    config: Callable[[Ports], Mapping[str, str]] = lambda _: {}
    health: str = "http://{}:{}/readyz"
    pods: Mapping[str, Any] | None = field(default=None)

    @property
    def manifests(self) -> Path:
        """The folder with its module's manifests."""
        program = (processes.BIN / self.program).resolve()
        return program.with_name(f"{program.name}.manifests")

    def documents(self, *kinds: str) -> Iterator[Object]:
        """The manifests of these kinds."""
        for file in sorted(self.manifests.rglob("*.yaml")):
            for document in yaml.load_all(file.read_text(), Loader=yaml.CSafeLoader):
                if document and document["kind"] in kinds:
                    yield document


def _scheduler(ports: Ports) -> tuple[str, ...]:
    return (
        "--kubeconfig=kubeconfig",
        "--leader-elect=false",
        f"--bind-address={LOOPBACK}",
        f"--secure-port={ports.health}",
        "--tls-cert-file=server.crt",
        "--tls-private-key-file=server.key",
        f"--kube-api-qps={REQUESTS_PER_SECOND}",
        f"--kube-api-burst={REQUESTS_PER_SECOND}",
    )


def _kwok(ports: Ports) -> tuple[str, ...]:
    return (
        "--kubeconfig=kubeconfig",
        "--config=kwok.yaml",
        "--manage-all-nodes=false",
        "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
        "--node-lease-duration-seconds=40",
        f"--server-address={LOOPBACK}:{ports.health}",
    )


def _kwok_config(_: Ports) -> dict[str, str]:
    """The module's stages; a Job's pod does not complete by itself unless it says when."""
    stages = list(KWOK.documents("Stage"))
    for stage in stages:
        if stage["metadata"]["name"] == "pod-complete":
            asked = {"key": f'.metadata.annotations["{COMPLETES_AFTER}"]', "operator": "Exists"}
            stage["spec"]["selector"]["matchExpressions"].append(asked)
            stage["spec"]["delay"].pop("jitterDurationMilliseconds", None)
            stage["spec"]["delay"].pop("jitterDurationFrom", None)
    return {"kwok.yaml": yaml.safe_dump_all(stages)}


def _configured(program: str, kind: str, more: Mapping[str, Any]) -> Callable[[Ports], dict[str, str]]:
    """A controller's file of the shape that those of kubernetes-sigs share, and what it has besides."""

    def write(ports: Ports) -> dict[str, str]:
        config = {
            "apiVersion": kind,
            "kind": "Configuration",
            "health": {"healthProbeBindAddress": f"{LOOPBACK}:{ports.health}"},
            "metrics": {"bindAddress": "0"},
            "webhook": {"host": LOOPBACK, "port": ports.webhooks, "certDir": str(home() / "webhooks")},
            "leaderElection": {"leaderElect": False},
            "internalCertManagement": {"enable": False},
            "clientConnection": {"qps": REQUESTS_PER_SECOND, "burst": REQUESTS_PER_SECOND},
            **more,
        }
        return {f"{program}.yaml": yaml.safe_dump(config)}

    return write


def _karpenter(ports: Ports) -> tuple[str, ...]:
    return (
        "--disable-leader-election=true",
        f"--health-probe-port={ports.health}",
        f"--metrics-port={ports.metrics}",
        f"--kube-client-qps={REQUESTS_PER_SECOND}",
        f"--kube-client-burst={REQUESTS_PER_SECOND}",
        f"--instance-types-file-path={INSTANCE_TYPES_FILE}",
    )


SCHEDULER = Controller("kube-scheduler", _scheduler, health="https://{}:{}/readyz")
KWOK = Controller("kwok", _kwok, _kwok_config, health="http://{}:{}/healthz")
JOBSET = Controller(
    "jobset",
    lambda _: ("--config=jobset.yaml",),
    _configured("jobset", "config.jobset.x-k8s.io/v1alpha1", {}),
    pods={"matchExpressions": [{"key": "jobset.sigs.k8s.io/jobset-name", "operator": "Exists"}]},
)
KUEUE = Controller(
    "kueue",
    lambda _: ("--config=kueue.yaml",),
    _configured(
        "kueue",
        "config.kueue.x-k8s.io/v1beta1",
        {
            "integrations": {"frameworks": ["batch/job", "jobset.x-k8s.io/jobset"]},
            # The visibility server needs an aggregated API; positions are read from the Workloads instead.
            "featureGates": {"TopologyAwareScheduling": True, "VisibilityOnDemand": False},
        },
    ),
)
KARPENTER = Controller("karpenter", _karpenter)

CONTROLLERS = (SCHEDULER, KWOK, JOBSET, KUEUE, KARPENTER)
PROGRAMS = tuple(each.program for each in CONTROLLERS)
_WEBHOOKS = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
_OF_NO_FRAMEWORK = frozenset({"deployments", "statefulsets"})


def ensure(instance_types: Sequence[Mapping[str, Any]], say: Say = lambda _: None) -> Path:
    """Start the control plane and every controller that is not running, and return the kubeconfig.

    Args:
        instance_types: what Karpenter may buy, as its kwok provider reads it; taken when Karpenter is started.
        say: is told each step.

    Raises:
        ControlPlaneError: a program has not been built, or ended, or did not answer in time.
    """
    processes.require_built((*api_server.PROGRAMS, *PROGRAMS))
    kubeconfig = api_server.ensure(say)
    with processes.locked():
        absent = [each for each in CONTROLLERS if running(each.program) is None]
        if not absent:
            return kubeconfig
        cluster = connect()
        _write_certificates()
        (home() / INSTANCE_TYPES_FILE).write_text(json.dumps(list(instance_types)))
        _define(cluster, [definition for each in absent for definition in each.documents("CustomResourceDefinition")])
        waits = []
        for each in absent:
            (home() / f"{each.program}.pid").unlink(missing_ok=True)  # left by a crash
            ports = Ports(processes.free_port(), processes.free_port(), processes.free_port())
            for name, text in each.config(ports).items():
                (home() / name).write_text(text)
            say(f"starting {each.program}")
            processes.start(each.program, each.arguments(ports), {"KUBECONFIG": str(kubeconfig)})
            waits.append((each, ports))
        for each, ports in waits:
            _wait(each, each.health.format(LOOPBACK, ports.health))
            for document in each.documents(*_WEBHOOKS):
                _apply(cluster, _webhooks(each, document, ports.webhooks))
    return kubeconfig


def stop_one(program: str) -> None:
    """End one controller; `ensure` starts it again."""
    processes.end(program, number=signal.SIGTERM)


def connect() -> Cluster:
    """The cluster, as its administrator."""
    return Cluster(yaml.safe_load(api_server.kubeconfig_file().read_text()), api_server.CONTEXT)


def _write_certificates() -> None:
    """The webhooks' servers want these names."""
    folder = home() / "webhooks"
    folder.mkdir(exist_ok=True)
    for name, target in (("tls.crt", "server.crt"), ("tls.key", "server.key")):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(home() / target)


def _define(cluster: Cluster, definitions: Sequence[Object]) -> None:
    """Install definitions, and wait until all of them are served."""
    for definition in definitions:
        _apply(cluster, definition)
    deadline = time.monotonic() + START_TIMEOUT_S
    for definition in definitions:
        spec = definition["spec"]
        for version in spec["versions"]:
            while version["served"]:
                with contextlib.suppress(UnknownKind):
                    cluster.kind(f"{spec['group']}/{version['name']}", spec["names"]["kind"])
                    break
                if time.monotonic() > deadline:
                    raise ControlPlaneError(f"{definition['metadata']['name']} is not served after {START_TIMEOUT_S} s")
                time.sleep(0.05)


def _apply(cluster: Cluster, value: Object) -> None:
    path = cluster.path(value["apiVersion"], value["kind"], "", value["metadata"]["name"])
    cluster.apply(path, value, MANAGER, force=True, dry_run=False)


def _webhooks(controller: Controller, document: Object, port: int) -> Object:
    """A module's webhooks with an address, as its kustomization gives them a service."""
    authority = base64.b64encode((home() / "ca.crt").read_bytes()).decode()
    hooks = []
    for hook in document["webhooks"]:
        asked = {resource for rule in hook["rules"] for resource in rule["resources"]}
        if asked & _OF_NO_FRAMEWORK or ("pods" in asked and controller.pods is None):
            continue
        url = f"https://{LOOPBACK}:{port}{hook['clientConfig']['service']['path']}"
        only = {"objectSelector": controller.pods} if "pods" in asked else {}
        hooks.append({**hook, **only, "clientConfig": {"url": url, "caBundle": authority}})
    name = f"{controller.program}-{document['metadata']['name']}"
    return {**document, "metadata": {"name": name}, "webhooks": hooks}


def _wait(controller: Controller, url: str) -> None:
    """Wait until a controller says that it is ready.

    Raises:
        ControlPlaneError: a program ended, or the time is over.
    """
    trust = ssl.create_default_context(cafile=str(home() / "ca.crt"))
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5, context=trust):
            return
        processes.refuse_ended((*api_server.PROGRAMS, *PROGRAMS))
        time.sleep(0.05)
    log = home() / f"{controller.program}.log"
    raise ControlPlaneError(f"{controller.program} was not ready within {START_TIMEOUT_S} s; its log is {log}")
