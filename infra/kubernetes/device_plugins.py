"""What tells Kubernetes of a node's chips and network adapters: the vendors' device plugins, on the pools with any.

GKE brings its own for GPUs and TPUs, and EKS's images none but the drivers. The plugins' own manifests: NVIDIA
k8s-device-plugin v0.17, AWS Neuron 2.26 "Kubernetes environment setup", aws-efa-k8s-device-plugin v0.5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi
import yaml

from infra.errors import require
from infra.kubernetes.device_claims import gpu_class
from infra.kubernetes.node_agents import NAMESPACE, agent, check_image, resources
from infra.kubernetes.objects import make_object
from infra.names import MigStrategy

LABELS = {"app.kubernetes.io/managed-by": "fusion", "app.kubernetes.io/component": "device-plugin"}
KUBELET = "/var/lib/kubelet/device-plugins"
GPU, NEURON, EFA = "nvidia.com/gpu", "aws.amazon.com/neuron", "vpc.amazonaws.com/efa"


@dataclass(frozen=True, slots=True, kw_only=True)
class NvidiaArgs:
    """How NVIDIA's GPUs are handed out.

    Attributes:
        image: of the device plugin, by digest.
        mig_strategy: what becomes of GPUs that are cut into instances: `single` calls each a GPU, `mixed` by its size.
        pods_per_gpu: how many pods may take turns on one; they share its memory, and none is kept from it.
    """

    image: str
    mig_strategy: MigStrategy = "none"
    pods_per_gpu: int = 1

    def __post_init__(self) -> None:
        check_image("device plugin nvidia", self.image)
        require(1 <= self.pods_per_gpu <= 100, f"device plugin nvidia: pods_per_gpu {self.pods_per_gpu}; use 1 to 100.")
        require(
            self.pods_per_gpu == 1 or self.mig_strategy == "none",
            "device plugin nvidia: mig_strategy and pods_per_gpu both share out GPUs; set one of them.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePluginsArgs:
    """The plugins of a cluster.

    Attributes:
        pools: by resource, such as `nvidia.com/gpu`, the pools that have it; a plugin runs on those nodes alone.
        nvidia: how GPUs are handed out; None where the cluster brings its plugin.
        neuron_image, efa_image: by digest; likewise.
        gpu_class: name of the DeviceClass that GPUs are claimed from; None where they are counted.

    Raises:
        ArgumentError: an image that may change; GPUs that are handed out twice.
    """

    pools: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    nvidia: NvidiaArgs | None = None
    neuron_image: str | None = None
    efa_image: str | None = None
    gpu_class: str | None = None

    def __post_init__(self) -> None:
        require(
            self.gpu_class is None or self.nvidia is None,
            "device plugins: NVIDIA's plugin and its DRA driver would both hand out the GPUs; "
            "leave nvidia or gpu_class out.",
        )
        for name, image in (("neuron", self.neuron_image), ("efa", self.efa_image)):
            if image is not None:
                check_image(f"device plugin {name}", image)


class DevicePlugins(pulumi.ComponentResource):
    """The device plugins of a cluster's pools.

    Makes: by plugin whose devices a pool has, a DaemonSet; for NVIDIA's a ConfigMap, for Neuron's a ServiceAccount,
    ClusterRole and ClusterRoleBinding. Where GPUs are claimed, a DeviceClass.

    Example:
        >>> args = DevicePluginsArgs(pools={"nvidia.com/gpu": ("train",)}, nvidia=NvidiaArgs(image=by_digest))
        >>> DevicePlugins("prod-devices", args, pulumi.ResourceOptions(provider=on_cluster))
    """

    def __init__(self, name: str, args: DevicePluginsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fusion:kubernetes:DevicePlugins", name, {"resources": sorted(args.pools)}, opts)
        self.args = args
        made: list[pulumi.Resource] = []
        for value in objects(name, args):
            opts = pulumi.ResourceOptions(parent=self, depends_on=list(made))
            kind = value["kind"]
            found = make_object(f"{kind.lower()}-{value['metadata']['name']}", value, opts)
            if kind != "DaemonSet":
                made.append(found)
        self.register_outputs({})


def objects(prefix: str, args: DevicePluginsArgs) -> Iterator[dict[str, Any]]:
    """All objects; what the DaemonSets need comes before them.

    Args:
        prefix: the names begin with it.
    """
    if args.nvidia and args.pools.get(GPU):
        yield from _nvidia(f"{prefix}-nvidia", args.nvidia, args.pools[GPU])
    if args.gpu_class and args.pools.get(GPU):
        yield gpu_class(args.gpu_class, LABELS)
    if args.neuron_image and args.pools.get(NEURON):
        yield from _neuron(f"{prefix}-neuron", args.neuron_image, args.pools[NEURON])
    if args.efa_image and args.pools.get(EFA):
        volume = {"name": "adapters", "hostPath": {"path": "/dev/infiniband"}}
        container = {**_container("efa", args.efa_image), "volumeMounts": [_KUBELET_MOUNT, _mount("adapters", volume)]}
        yield _daemon_set(f"{prefix}-efa", args.pools[EFA], container, [volume])


def plugin_config(args: NvidiaArgs) -> dict[str, Any]:
    """NVIDIA's configuration file. Source: k8s-device-plugin, "Configuring the NVIDIA device plugin binary"."""
    shared = {"failRequestsGreaterThanOne": True, "resources": [{"name": GPU, "replicas": args.pods_per_gpu}]}
    return {
        "version": "v1",
        "flags": {"migStrategy": args.mig_strategy, "failOnInitError": True},
        **({"sharing": {"timeSlicing": shared}} if args.pods_per_gpu > 1 else {}),
    }


def _nvidia(name: str, args: NvidiaArgs, pools: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    text = yaml.safe_dump(plugin_config(args), sort_keys=False)
    yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(name), "data": {"config.yaml": text}}
    volume = {"name": "config", "configMap": {"name": name}}
    container = {
        **_container("nvidia", args.image),
        "env": [{"name": "CONFIG_FILE", "value": "/config/config.yaml"}],
        "volumeMounts": [_KUBELET_MOUNT, {"name": "config", "mountPath": "/config", "readOnly": True}],
    }
    if args.mig_strategy != "none":  # to see a GPU's instances is the administrator's right alone
        container["securityContext"] = {**container["securityContext"], "capabilities": {"add": ["SYS_ADMIN"]}}
    yield _daemon_set(name, pools, container, [volume])


def _neuron(name: str, image: str, pools: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    rules = [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch", "update"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "patch", "update", "watch"]},
    ]
    rbac = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name, "labels": LABELS}}
    account = {"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _metadata(name)}
    yield {**rbac, "kind": "ClusterRole", "rules": rules}
    yield {**rbac, "kind": "ClusterRoleBinding", "roleRef": role, "subjects": [account]}
    node = {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    volume = {"name": "state", "hostPath": {"path": "/run"}}
    container = {
        **_container("neuron", image),
        "env": [node],
        "volumeMounts": [_KUBELET_MOUNT, _mount("state", volume)],
    }
    yield _daemon_set(name, pools, container, [volume], service_account=name)


_KUBELET_MOUNT = {"name": "kubelet", "mountPath": KUBELET}


def _mount(name: str, volume: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "mountPath": volume["hostPath"]["path"]}


def _container(name: str, image: str) -> dict[str, Any]:
    return {
        "name": name,
        "image": image,
        "resources": resources("50m", "128Mi", "512Mi"),
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }


def _daemon_set(
    name: str,
    pools: tuple[str, ...],
    container: Mapping[str, Any],
    volumes: list[dict[str, Any]],
    service_account: str | None = None,
) -> dict[str, Any]:
    account = {"serviceAccountName": service_account} if service_account else {}
    kubelet = {"name": "kubelet", "hostPath": {"path": KUBELET}}
    return agent(
        name,
        pools,
        container,
        [kubelet, *volumes],
        labels=LABELS,
        priorityClassName="system-node-critical",
        **account,
    )


def _metadata(name: str) -> dict[str, Any]:
    return {"name": name, "namespace": NAMESPACE, "labels": LABELS}
