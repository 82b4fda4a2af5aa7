"""What a pod has that joins the networks of its accelerators: paths of the node, a daemon beside it, a claim."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pulumi_kubernetes as kubernetes

from infra.accelerator_pool import Daemon, Fabric

CLAIM = "fabric"
"""What a pod calls its claim of interfaces."""
SHARED = "fabric-shared"
"""What it calls the folder that it shares with the daemon."""
DAEMON_LEAST = {"cpu": "100m", "memory": "256Mi"}
DAEMON_MOST = {"cpu": "16", "memory": "16Gi"}
"""No need of a daemon is documented; without a limit of its own it would get that of a person's container."""

core = kubernetes.core.v1


def claim_template_name(workload: str) -> str:
    """The ResourceClaimTemplate of a workload whose interfaces are claimed."""
    return f"{workload}-fabric"


def claims(workload: str, fabric: Fabric) -> list[kubernetes.core.v1.PodResourceClaimArgs]:
    """What the pod claims."""
    if fabric.device_class is None:
        return []
    return [core.PodResourceClaimArgs(name=CLAIM, resource_claim_template_name=claim_template_name(workload))]


def volumes(fabric: Fabric) -> list[kubernetes.core.v1.VolumeArgs]:
    """Of the node, whatever container sees them, and the folder that is shared."""
    shared = [core.VolumeArgs(name=SHARED, empty_dir=core.EmptyDirVolumeSourceArgs())] if fabric.shared_path else []
    return [
        *(
            core.VolumeArgs(name=_volume(path), host_path=core.HostPathVolumeSourceArgs(path=path))
            for path in sorted(_of_node(fabric))
        ),
        *shared,
    ]


def mounts(fabric: Fabric) -> list[kubernetes.core.v1.VolumeMountArgs]:
    """Of the workload's own container, which changes nothing of the node."""
    return [*_mounts(fabric.node_paths, read_only=True), *_shared(fabric)]


def daemon(fabric: Fabric) -> list[kubernetes.core.v1.ContainerArgs]:
    """It is there before the workload's container starts, and goes when that ends."""
    if fabric.daemon is None:
        return []
    return [_container(fabric.daemon, [*_mounts(fabric.daemon.node_paths, read_only=False), *_shared(fabric)])]


def _container(found: Daemon, mounts: Iterable[kubernetes.core.v1.VolumeMountArgs]) -> kubernetes.core.v1.ContainerArgs:
    return core.ContainerArgs(
        name=found.name,
        image=found.image,
        command=["/bin/sh", "-c"],
        args=[found.script],
        restart_policy="Always",
        env=[core.EnvVarArgs(name=name, value=value) for name, value in sorted(found.environment.items())],
        resources=core.ResourceRequirementsArgs(requests=DAEMON_LEAST, limits=DAEMON_MOST),
        security_context=core.SecurityContextArgs(
            run_as_user=0, run_as_non_root=False, capabilities=core.CapabilitiesArgs(add=list(found.capabilities))
        ),
        volume_mounts=list(mounts),
    )


def _of_node(fabric: Fabric) -> set[str]:
    return {*fabric.node_paths.values(), *(fabric.daemon.node_paths.values() if fabric.daemon else ())}


def _mounts(paths: Mapping[str, str], *, read_only: bool) -> list[kubernetes.core.v1.VolumeMountArgs]:
    return [
        core.VolumeMountArgs(name=_volume(on_node), mount_path=path, read_only=read_only)
        for path, on_node in sorted(paths.items())
    ]


def _shared(fabric: Fabric) -> list[kubernetes.core.v1.VolumeMountArgs]:
    return [core.VolumeMountArgs(name=SHARED, mount_path=fabric.shared_path)] if fabric.shared_path else []


def _volume(path: str) -> str:
    return path.strip("/").replace("/", "-").replace("_", "-")
