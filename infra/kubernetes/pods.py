"""What the pods of every workload have: no privileges, bounded resources, the devices that they need."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi
import pulumi_kubernetes as kubernetes

from infra.accelerator_pool import Taint
from infra.errors import require

USER_ID = 10_001
"""A user that no image's system files belong to; Pod Security `restricted` refuses 0."""
TMP_GIB = 1
SHARED_MEMORY_PATH = "/dev/shm"
SCRATCH_PATH = "/scratch"
CLAIM = "devices"
"""What a pod calls its claim of devices."""

core = kubernetes.core.v1


@dataclass(frozen=True, slots=True, kw_only=True)
class PodArgs:
    """One container and the node that it needs.

    Attributes:
        image: by digest or tag; guardrails may ask for a digest.
        command: what the container runs; empty leaves it to the image.
        args: its arguments.
        env: plain environment; secrets don't belong here.
        cpus: CPUs, asked for and limited to.
        memory_gib: memory, asked for and limited to; shared memory counts into it.
        device_resource: what the accelerator is called, such as `nvidia.com/gpu`; None for a workload on CPUs.
        devices: how many of them.
        device_class: the DeviceClass that they are claimed from (DRA); None where the node announces a count of them.
        more_devices: further devices by resource, such as network adapters for collectives.
        shared_memory_gib: `/dev/shm`, through which data loaders hand batches over.
        scratch_gib: `/scratch` on the node's disk, gone with the pod.
        node_selector: labels of the nodes.
        tolerations: taints of the nodes.

    Raises:
        ArgumentError: resources that no node has, or devices without a name.
    """

    image: str
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    cpus: float
    memory_gib: float
    device_resource: str | None = None
    devices: int = 0
    device_class: str | None = None
    more_devices: Mapping[str, int] = field(default_factory=dict)
    shared_memory_gib: float = 1
    scratch_gib: int = 10
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Taint, ...] = ()

    def __post_init__(self) -> None:
        require(bool(self.image.strip()), "image: none named; name one such as registry.example.com/team/training:1.0.")
        require(self.cpus > 0, f"cpus {self.cpus:g}: use more than 0.")
        require(
            0 < self.shared_memory_gib < self.memory_gib,
            f"memory_gib {self.memory_gib:g} does not hold shared_memory_gib {self.shared_memory_gib:g}, which counts "
            "into it; raise memory_gib or lower shared_memory_gib to more than 0.",
        )
        require(self.scratch_gib >= 1, f"scratch_gib {self.scratch_gib}: use 1 or more.")
        require(
            (self.device_resource is None) == (self.devices == 0) and self.devices >= 0,
            f"devices {self.devices} does not go with device_resource {self.device_resource}; name both, or neither.",
        )
        require(
            self.device_class is None or self.devices > 0,
            f"device_class {self.device_class}: no devices are claimed from it; name devices, or no class.",
        )


def check_name(what: str, name: str, limit: int = 52) -> None:
    """Refuse what can't be a DNS label; the limit leaves room for what Kubernetes appends to a pod's name.

    Raises:
        ArgumentError: says what a name looks like.
    """
    require(
        len(name) <= limit and re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) is not None,
        f"{what} {name!r} is no Kubernetes name; use up to {limit} lower-case letters, digits, dashes, a letter first.",
    )


def labels(name: str, component: str) -> dict[str, str]:
    """The labels that Kubernetes recommends, by which services and budgets select pods."""
    return {
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/managed-by": "fusion",
    }


def environment(env: Mapping[str, pulumi.Input[str]]) -> list[kubernetes.core.v1.EnvVarArgs]:
    """Environment variables, in the order of their names, so that the same env renders the same pod."""
    return [core.EnvVarArgs(name=name, value=env[name]) for name in sorted(env)]


def pod_security() -> kubernetes.core.v1.PodSecurityContextArgs:
    """Not root, with files of its own, and only the system calls of an ordinary program."""
    return core.PodSecurityContextArgs(
        run_as_non_root=True,
        run_as_user=USER_ID,
        run_as_group=USER_ID,
        fs_group=USER_ID,
        seccomp_profile=core.SeccompProfileArgs(type="RuntimeDefault"),
    )


def container_security() -> kubernetes.core.v1.SecurityContextArgs:
    """No way up, no capability, and no change of the image's files."""
    return core.SecurityContextArgs(
        allow_privilege_escalation=False,
        read_only_root_filesystem=True,
        run_as_non_root=True,
        capabilities=core.CapabilitiesArgs(drop=["ALL"]),
        seccomp_profile=core.SeccompProfileArgs(type="RuntimeDefault"),
    )


def thousandths(value: float) -> str:
    """A quantity, such as CPUs, in the form that Kubernetes' own programs write: one that changes anything in an object
    writes all of it so, and any other form would then look changed, and replace a run, in each update.
    """
    count = math.floor(value * 1000 + 1e-6)
    return f"{count}m" if count % 1000 else str(count // 1000)


def binary(gib: float) -> str:
    """Whole MiB, in the largest unit that holds them exactly, which is that form."""
    count, units = math.floor(gib * 1024 + 1e-6), ["Mi", "Gi", "Ti", "Pi"]
    while count and count % 1024 == 0 and len(units) > 1:
        count, units = count // 1024, units[1:]
    return f"{count}{units[0]}" if count else "0"


def disk_gib(pod: PodArgs) -> int:
    """Of the node's disk: scratch, temporary files, and one for the container's log."""
    return pod.scratch_gib + TMP_GIB + 1


def resources(pod: PodArgs) -> kubernetes.core.v1.ResourceRequirementsArgs:
    """Asked for and limited to the same: a workload neither starves its neighbours nor is evicted first."""
    devices = {pod.device_resource: str(pod.devices)} if pod.device_resource and not pod.device_class else {}
    more = {name: str(count) for name, count in pod.more_devices.items()}
    amounts = {
        "cpu": thousandths(pod.cpus),
        "memory": binary(pod.memory_gib),
        "ephemeral-storage": binary(disk_gib(pod)),
        **devices,
        **more,
    }
    claims = [core.ResourceClaimArgs(name=CLAIM)] if pod.device_class else None
    return core.ResourceRequirementsArgs(requests=amounts, limits=amounts, claims=claims)


def claim_template_name(workload: str) -> str:
    """The ResourceClaimTemplate of a workload whose devices are claimed."""
    return f"{workload}-devices"


def claims(workload: str, pod: PodArgs) -> list[kubernetes.core.v1.PodResourceClaimArgs] | None:
    """What the pod claims; None where the node announces a count of its devices."""
    if pod.device_class is None:
        return None
    return [core.PodResourceClaimArgs(name=CLAIM, resource_claim_template_name=claim_template_name(workload))]


def volumes(pod: PodArgs) -> list[kubernetes.core.v1.VolumeArgs]:
    """The only places that can be written to, each with an upper size."""
    sizes = {"tmp": binary(TMP_GIB), "scratch": binary(pod.scratch_gib)}
    on_disk = [
        core.VolumeArgs(name=name, empty_dir=core.EmptyDirVolumeSourceArgs(size_limit=size))
        for name, size in sizes.items()
    ]
    in_memory = core.EmptyDirVolumeSourceArgs(medium="Memory", size_limit=binary(pod.shared_memory_gib))
    return [*on_disk, core.VolumeArgs(name="shared-memory", empty_dir=in_memory)]


def volume_mounts() -> list[kubernetes.core.v1.VolumeMountArgs]:
    """Where the container sees them."""
    paths = {"tmp": "/tmp", "scratch": SCRATCH_PATH, "shared-memory": SHARED_MEMORY_PATH}
    return [core.VolumeMountArgs(name=name, mount_path=path) for name, path in paths.items()]


def tolerations(pod: PodArgs) -> list[kubernetes.core.v1.TolerationArgs]:
    """One for each taint of the pool."""
    return [
        core.TolerationArgs(key=taint.key, operator="Equal", value=taint.value, effect=taint.effect)
        for taint in pod.tolerations
    ]
