"""An inference service: what it takes, whichever cluster it runs on."""

from __future__ import annotations

from dataclasses import dataclass, field

import pulumi

from infra.errors import require
from infra.kubernetes.autoscaling import Scaling
from infra.kubernetes.pods import PodArgs, check_name


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbePaths:
    """HTTP paths that the server answers with 200.

    Attributes:
        ready: when it can take requests.
        live: while it should not be restarted.
    """

    ready: str = "/ready"
    live: str = "/live"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where clients outside of the cluster reach a service, through a Gateway that ends their TLS.

    Attributes:
        gateway: its name, in the service's namespace.
        hostname: what its certificate covers.
        cloud_hostname: of this cloud alone, where the service is on two.
    """

    gateway: str
    hostname: str
    cloud_hostname: str | None = None

    @property
    def hostnames(self) -> list[str]:
        """All that it answers for."""
        return [self.hostname, *([self.cloud_hostname] if self.cloud_hostname else [])]


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceServiceArgs:
    """Replicas of a server behind one address, between two bounds.

    Attributes:
        name: the service's name in its namespace, and `FUSION_WORKLOAD` in its environment.
        namespace: where it runs.
        service_account: whose rights in the cloud it has; None for none at all.
        pod: container, resources and nodes of one replica.
        port: where the server listens.
        grpc_port: where it answers gRPC, on a port of the service by the same number; None where it does not.
        traces: URL of the OpenTelemetry collector that its traces go to; None where it makes none.
        probes: the paths by which Kubernetes sees how it is.
        startup_seconds: how long a replica may take until it is ready: image, weights, warm-up.
        replicas_min: the autoscaler's lower bound; 0 only where `scaling` can start the first replica.
        replicas_max: its upper bound.
        target_cpu_percent: of what is asked for; above it replicas are added, where `scaling` does not say by what.
        scaling: by what it is scaled between its bounds; None for the CPUs that it uses.
        drain_seconds: how long a replica that leaves may finish the requests it has; the server's own `drain_s`.
        surges: whether an update adds the new replica before the old one goes. False where the pool has no room for one
            more: the update then goes on with one replica fewer, where surging would wait for a node for ever.
        priority_class: name of its pods' PriorityClass; None for the cluster's default.
        route: how it is reached from outside; None for the cluster's pods alone.

    Raises:
        ArgumentError: bounds that make no service.
    """

    name: str
    namespace: str
    pod: PodArgs
    service_account: pulumi.Input[str] | None = None
    port: int = 8080
    grpc_port: int | None = None
    traces: str | None = None
    probes: ProbePaths = field(default_factory=ProbePaths)
    startup_seconds: int = 600
    replicas_min: int = 2
    replicas_max: int = 4
    target_cpu_percent: int = 70
    scaling: Scaling | None = None
    drain_seconds: int = 60
    surges: bool = True
    priority_class: str | None = None
    route: Route | None = None

    def __post_init__(self) -> None:
        service = f"inference service {self.name}"
        check_name("inference service", self.name)
        check_name("namespace", self.namespace, 63)
        least = 0 if self.scaling else 1
        require(
            least <= self.replicas_min <= self.replicas_max,
            f"{service}: replicas_min {self.replicas_min} and replicas_max {self.replicas_max} are not bounds; "
            f"use {least} or more for replicas_min, and at least that for replicas_max.",
        )
        require(
            1024 <= self.port <= 65_535,
            f"{service}: port {self.port} is not open to a process that is not root; use 1024 to 65535, such as 8080.",
        )
        require(
            self.grpc_port is None or (1024 <= self.grpc_port <= 65_535 and self.grpc_port not in (self.port, 80)),
            f"{service}: grpc_port {self.grpc_port}; use 1024 to 65535, and another one than port {self.port}.",
        )
        require(
            1 <= self.target_cpu_percent <= 100,
            f"{service}: target_cpu_percent {self.target_cpu_percent}; use 1 to 100, such as 70.",
        )
        require(self.startup_seconds >= 10, f"{service}: startup_seconds {self.startup_seconds}; use 10 or more.")
        require(self.drain_seconds > 0, f"{service}: drain_seconds {self.drain_seconds}; use more than 0.")
        require(
            self.surges or self.replicas_min > 1,
            f"{service}: without surging an update takes its only replica away; raise replicas_min to 2 or more, or "
            "let it surge.",
        )
