"""Guardrails on pods, whichever kind of object carries them.

They follow the profile `restricted` of the Pod Security Standards (kubernetes.io, "Pod Security Standards") and add
what it leaves open: a root file system that can't be written to, and limits.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from policies.guardrail import Guardrail, guardrail
from policies.resource import NotKnown, Path, Props, Resource, is_unknown
from policies.update import Update

CONTAINERS = ("initContainers", "containers", "ephemeralContainers")
ONE_CONTAINER = ("container", "script")
"""Where a custom resource has a single one, as a template of Argo Workflows does."""
CAPABILITIES_ALLOWED = frozenset({"NET_BIND_SERVICE"})
HOST_NAMESPACES = ("hostNetwork", "hostPID", "hostIPC")
SECCOMP_PROFILES = ("RuntimeDefault", "Localhost")
LIMITS = ("cpu", "memory")
NO_LIMIT = re.compile(r"^(None|0*\.?0*[A-Za-z]*)$")
SELINUX_TYPES = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
SAFE_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
    }
)
"""Those of the profile `baseline`, which count for the pod alone."""
WORKLOAD = re.compile(
    r":(Pod|PodTemplate|Deployment|StatefulSet|DaemonSet|ReplicaSet|ReplicationController|Job|CronJob)(Patch)?$"
)
VOLUMES = ("kubernetes:core/v1:PersistentVolume", "kubernetes:core/v1:PersistentVolumePatch")
RELEASE = "kubernetes:helm.sh/v3:Release"


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod's spec inside an object.

    Attributes:
        spec: its fields.
        is_whole: false in a patch, where what is not said stays as it is in the cluster.
    """

    spec: Props
    is_whole: bool

    def containers(self) -> Iterator[Props]:
        """All of its containers, those that only start it included."""
        for kind in CONTAINERS:
            yield from self.spec.each(kind)
        yield from (self.spec.inside(kind) for kind in ONE_CONTAINER if _is_container(self.spec.value.get(kind)))


@functools.lru_cache(maxsize=1)  # a guardrail after the other asks for those of the same resource
def pods_of(resource: Resource) -> tuple[Pod, ...]:
    """Every pod spec in an object: of a Pod, of a template, of each item of a list, of a custom resource.

    A spec is told by its list of containers, so kinds that nobody thought of are judged too.

    Raises:
        NotKnown: the spec of one of Kubernetes' own kinds is not known before the update.
    """
    if not resource.type.startswith("kubernetes:") or resource.type.endswith(":CustomResourceDefinition"):
        return ()
    is_whole = not resource.type.endswith("Patch")
    if WORKLOAD.search(resource.type):
        _require_spec(resource.props)
    props = resource.props
    return tuple(Pod(Props(spec, path, props.secrets), is_whole) for spec, path in _specs(props.value, props.path))


def _require_spec(props: Props) -> None:
    """Raises NotKnown where the way to the pod is made of outputs: nothing would be found to judge."""
    part = props
    while isinstance(part.value, dict):
        key = next((key for key in ("spec", "template", "jobTemplate") if key in part.value), None)
        if key is None:
            return
        part = part.inside(key)
    if part.is_unknown():
        raise NotKnown(part.path)


def _specs(value: Any, path: Path) -> Iterator[tuple[dict[str, Any], Path]]:
    if isinstance(value, dict):
        if any(isinstance(value.get(kind), list) or is_unknown(value.get(kind)) for kind in CONTAINERS) or any(
            _is_container(value.get(kind)) for kind in ONE_CONTAINER
        ):
            yield value, path
        for key, inside in value.items():
            if isinstance(inside, dict | list) and key not in CONTAINERS:
                yield from _specs(inside, (*path, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _specs(each, (*path, index))


def _is_container(value: Any) -> bool:
    return isinstance(value, dict) and "image" in value


def _is_exempt(resource: Resource, update: Update) -> bool:
    """Whether the settings name the object, as `namespace/name` with wildcards, as a part of the system."""
    metadata = resource.props.part("metadata")
    named = f"{_text(metadata, 'namespace') or 'default'}/{_text(metadata, 'name') or resource.name}"
    return any(fnmatch.fnmatchcase(named, pattern) for pattern in update.settings.pods_exempt)


def _text(part: Props, key: str) -> str:
    try:
        return str(part.get(key, default=""))
    except NotKnown:
        return ""


def _guardrail(name: str, judge: Callable[[Pod], Iterator[str]]) -> Guardrail:
    """A function on one pod as a guardrail on every object that has pods, but for those that are exempt."""

    def judge_resource(resource: Resource, update: Update) -> Iterator[str]:
        for pod in pods_of(resource):
            if not _is_exempt(resource, update):
                yield from judge(pod)

    judge_resource.__doc__ = judge.__doc__
    return guardrail(name, settings=("pods_exempt",))(judge_resource)


def _name(container: Props) -> str:
    return f"container {_text(container, 'name') or container.path[-1]}"


def _own_or_pods(pod: Pod, container: Props, *path: str) -> Any:
    """A field of a container's security context, else the pod's."""
    own = container.get("securityContext", *path)
    return own if own is not None else pod.spec.get("securityContext", *path)


def _not_root(pod: Pod) -> Iterator[str]:
    """Containers run as a user that is not root."""
    for container in pod.containers():
        if _own_or_pods(pod, container, "runAsUser") == 0:
            yield f"{_name(container)} runs as user 0, which is root; set securityContext.runAsUser to another"
        said = _own_or_pods(pod, container, "runAsNonRoot")
        if said is False or (said is None and pod.is_whole):
            yield f"{_name(container)} may run as root; set securityContext.runAsNonRoot to true"


def _read_only_root(pod: Pod) -> Iterator[str]:
    """Containers can't change the files of their image."""
    for container in pod.containers():
        said = container.get("securityContext", "readOnlyRootFilesystem")
        if said is False or (said is None and pod.is_whole):
            yield (
                f"{_name(container)} can write to its root file system; set securityContext.readOnlyRootFilesystem to "
                "true and mount an emptyDir where it writes"
            )


def _no_escalation(pod: Pod) -> Iterator[str]:
    """Containers have no privileges beyond an ordinary program's, and can't gain any."""
    for container in pod.containers():
        context = container.part("securityContext")
        if context.get("privileged") is True:
            yield f"{_name(container)} is privileged, which is root on the node; remove securityContext.privileged"
        if _own_or_pods(pod, container, "windowsOptions", "hostProcess") is True:
            yield f"{_name(container)} is a process of the node; remove windowsOptions.hostProcess"
        if context.get("procMount", default="Default") != "Default":
            yield f"{_name(container)} sees all of /proc; remove securityContext.procMount"
        if _own_or_pods(pod, container, "appArmorProfile", "type") == "Unconfined":
            yield f"{_name(container)} has no AppArmor profile; remove securityContext.appArmorProfile"
        label = _own_or_pods(pod, container, "seLinuxOptions", "type")
        if label is not None and label not in SELINUX_TYPES:
            yield f"{_name(container)} has the SELinux type {label}; remove securityContext.seLinuxOptions"
        said = context.get("allowPrivilegeEscalation")
        if said is True or (said is None and pod.is_whole):
            yield f"{_name(container)} may gain privileges; set securityContext.allowPrivilegeEscalation to false"
        dropped = {str(each.get()).upper() for each in context.each("capabilities", "drop")}
        if pod.is_whole and "ALL" not in dropped:
            yield f"{_name(container)} keeps capabilities; set securityContext.capabilities.drop to [ALL]"
        added = {str(each.get()).upper().removeprefix("CAP_") for each in context.each("capabilities", "add")}
        if refused := sorted(added - CAPABILITIES_ALLOWED):
            yield f"{_name(container)} adds the capabilities {', '.join(refused)}; remove them"


def _seccomp(pod: Pod) -> Iterator[str]:
    """Containers may make only the system calls of a seccomp profile."""
    for container in pod.containers():
        said = _own_or_pods(pod, container, "seccompProfile", "type")
        if said not in SECCOMP_PROFILES and (said is not None or pod.is_whole):
            shown = "no seccomp profile" if said is None else f"the seccomp profile {said}"
            yield f"{_name(container)} has {shown}; set securityContext.seccompProfile.type to RuntimeDefault"


def _limits(pod: Pod) -> Iterator[str]:
    """Containers have limits of CPU and memory, so that none starves its neighbours."""
    if not pod.is_whole:
        return
    for container in pod.containers():
        if container.path[-2] == "ephemeralContainers":  # the API server allows no resources there
            continue
        limits = container.part("resources", "limits")
        of_pod = pod.spec.part("resources", "limits")
        if missing := [each for each in LIMITS if not _is_limited(limits, each) and not _is_limited(of_pod, each)]:
            yield f"{_name(container)} has no limit of {' and '.join(missing)}; set resources.limits"


def _is_limited(limits: Props, name: str) -> bool:
    """Whether there is a limit; one of 0 is none."""
    return limits.part(name).is_unknown() or not NO_LIMIT.match(str(limits.part(name).value))


def _no_host(pod: Pod) -> Iterator[str]:
    """Pods see nothing of their node: no path, network, process or port of it."""
    for name in HOST_NAMESPACES:
        if pod.spec.get(name) is True:
            yield f"the pod has {name}: it shares that of its node; remove it"
    for each in pod.spec.each("securityContext", "sysctls"):
        if str(each.get("name")) not in SAFE_SYSCTLS:
            yield f"the pod sets {each.get('name')}, which counts for its whole node; remove it"
    for volume in pod.spec.each("volumes"):
        if volume.has("hostPath"):
            path = _text(volume.part("hostPath"), "path") or "a path"
            yield f"volume {_text(volume, 'name')} is {path} of the node; use an emptyDir or a claim"
    for container in pod.containers():
        for port in container.each("ports"):
            if port.get("hostPort", default=0):
                yield f"{_name(container)} takes port {port.get('hostPort')} of the node; remove hostPort"


@guardrail("volumes-not-of-the-node", *VOLUMES)
def volumes_not_of_the_node(resource: Resource, _: Update) -> Iterator[str]:
    """No volume is a path of the node, which a pod would reach through a claim."""
    if resource.props.has("spec", "hostPath"):
        yield "spec.hostPath is a path of the node; use the CSI driver of a disk, a file system, or local"


@guardrail("helm-charts-are-rendered", RELEASE, settings=("pods_exempt",), unknown="judged in up")
def helm_charts_are_rendered(resource: Resource, update: Update) -> Iterator[str]:
    """Helm charts are rendered by Pulumi, so that the guardrails see their pods."""
    if not _is_exempt(Resource(resource.type, resource.name, Props({"metadata": resource.props.value})), update):
        yield (
            "a Release hides its objects from every guardrail; use kubernetes.helm.v4.Chart, or name it in "
            "pods_exempt as namespace/name"
        )


GUARDRAILS = [
    volumes_not_of_the_node,
    helm_charts_are_rendered,
    _guardrail("pods-not-root", _not_root),
    _guardrail("pods-read-only-root", _read_only_root),
    _guardrail("pods-no-privilege-escalation", _no_escalation),
    _guardrail("pods-seccomp", _seccomp),
    _guardrail("pods-limits", _limits),
    _guardrail("pods-no-host-access", _no_host),
]
