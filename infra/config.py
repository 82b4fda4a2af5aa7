"""The typed config of a stack: `stacks/Pulumi.<stack>.yaml`, checked whole before anything is planned or created."""

from __future__ import annotations

import ipaddress
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from infra.gcp.labels import wrong_labels
from infra.names import (
    BY_DIGEST,
    CLAIMS_KUBERNETES_MIN,
    DOMAIN,
    EMAIL,
    KubernetesTarget,
    MigStrategy,
    NodeAutoscalerName,
)
from planner.guardrails.settings import GuardrailSettings
from planner.workloads import (
    TARGET_KINDS,
    AnyWorkload,
    Budget,
    Declared,
    ExpectedUsage,
    InferenceService,
    Quota,
    WorkloadName,
    matching,
)

NAMESPACE = "fusion"
Cloud = Literal["aws", "gcp"]
PLACES: Mapping[Cloud, Mapping[str, str]] = {
    "aws": {"aws:region": "a region such as us-east-1"},
    "gcp": {"gcp:region": "a region such as us-central1", "gcp:project": "the id of your project"},
}
"""By cloud, what its provider is told in the stack's file, and what is expected of it."""
LOCAL: Mapping[str, tuple[str, str]] = {
    "aws": ("aws:profile", "fusion-local"),
    "gcp": ("gcp:project", "fusion-local"),
}
"""By cloud, what names this machine's stand-in for it in the stack's file."""
FIRST_ZONES: Mapping[str, tuple[str, str]] = {"us-east1": ("b", "c"), "europe-west1": ("b", "c")}
"""Regions of Google Cloud that have no zone a ("Regions and zones", Compute Engine); all others have a and b."""
DEFAULT_QUEUE = "training"
"""Has all of the pools where no queue is named."""


class ConfigError(ValueError):
    """The stack's config is wrong; one line for each wrong value, with field, value, what was expected and the file."""


class NetworkConfig(Declared):
    """The stack's private network."""

    cidr: str = "10.0.0.0/16"
    zones: tuple[str, ...] | None = Field(default=None, min_length=2, max_length=6)
    nat: Literal["single", "per_zone"] = "single"
    flow_logs: bool = True

    @field_validator("zones")
    @classmethod
    def _each_once(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value and len(set(value)) < len(value):
            raise ValueError("a zone is named twice; name each once")
        return value

    @field_validator("cidr")
    @classmethod
    def _private_range(cls, value: str) -> str:
        network = ipaddress.ip_network(value)
        if not (network.version == 4 and network.is_private and 16 <= network.prefixlen <= 20):
            raise ValueError("expected a private IPv4 range between /16 and /20, such as 10.0.0.0/16")
        return value


class GpuDirectConfig(Declared):
    """Training jobs of several nodes use GPUDirect on Google Cloud's A3 and A4; their pods see paths of their node.

    NCCL's plugin is to be on the nodes by Google's own installer, among the `manifests`.
    """

    tcpx_image: ByDigest | None = Field(default=None, description="of the daemon of a3-highgpu-8g")
    tcpxo_image: ByDigest | None = Field(default=None, description="of the daemon of a3-megagpu-8g")


class ManifestFile(Declared):
    """Objects that others wrote, applied before the stack's own, such as a controller's CRDs."""

    path: str = Field(min_length=1, description="from the folder of Pulumi.yaml")
    sha256: Annotated[str, matching(r"[0-9a-f]{64}", "64 hexadecimal digits, as `sha256sum` prints them")]


class GatewayConfig(Declared):
    """The way in from outside: a Gateway that answers for `<service>.<domain>` with TLS, and a route by service."""

    class_name: str = Field(min_length=1, description="the GatewayClass of the cluster's controller, such as envoy")
    domain: Annotated[str, matching(DOMAIN, "a domain such as models.example.com")]
    certificate: str = Field(
        min_length=1, description="Secret in the workloads' namespace with the certificate of `*.<domain>`"
    )


ByDigest = Annotated[str, matching(BY_DIGEST, "an image by digest, such as registry.example.com/name@sha256:…")]


class DevicePluginsConfig(Declared):
    """The vendors' device plugins, where the cluster does not bring them; each runs on the pools with its devices."""

    nvidia_image: ByDigest | None = None
    mig_strategy: MigStrategy = Field(default="none", description="of GPUs that are cut into instances")
    pods_per_gpu: int = Field(default=1, ge=1, le=100, description="that take turns on one; they share its memory")
    neuron_image: ByDigest | None = None
    efa_image: ByDigest | None = None
    fpga_resource: (
        Annotated[str, matching(r"[a-z0-9.-]+/[A-Za-z0-9_.-]+", "a domain and a name, such as xilinx.com/fpga-f2")]
        | None
    ) = Field(
        default=None,
        description="what your own plugin calls FPGAs (put it into `manifests`); none are planned without it",
    )
    gpu_claims: bool = Field(
        default=False, description="GPUs are claimed (DRA) and not counted; NVIDIA's DRA driver must be installed"
    )

    @model_validator(mode="after")
    def _one_way_to_share(self) -> DevicePluginsConfig:
        if self.pods_per_gpu > 1 and self.mig_strategy != "none":
            raise ValueError("mig_strategy and pods_per_gpu both share out GPUs; set one of them")
        if (self.pods_per_gpu > 1 or self.mig_strategy != "none") and self.nvidia_image is None:
            raise ValueError("mig_strategy and pods_per_gpu are read by NVIDIA's plugin; set nvidia_image")
        if self.gpu_claims and self.nvidia_image:
            raise ValueError(
                "nvidia_image and gpu_claims: NVIDIA's plugin and its DRA driver would both hand out the GPUs; "
                "set one of them"
            )
        return self


class MonitoringConfig(Declared):
    """What is watched, by the cluster's Prometheus and Grafana; its operator's definitions must be installed."""

    labels: dict[str, str] = Field(
        default_factory=dict, description="by which Prometheus chooses its objects, such as `release: prometheus`"
    )
    dcgm_image: ByDigest | None = Field(default=None, description="NVIDIA's exporter, where the cluster has none")
    tensorboard_image: ByDigest | None = Field(default=None, description="with TensorBoard in it; none without it")


class ClusterConfig(Declared):
    """The Kubernetes cluster and its small pool for system pods."""

    kubernetes_version: Annotated[str, matching(r"1\.[0-9]{2}", "a minor version of Kubernetes, such as 1.35")] = "1.35"
    public_access_cidrs: tuple[str, ...] = ()
    system_instance_type: str | None = Field(
        default=None, description="m6i.large, or the cheapest that is as large where the region has none"
    )
    system_nodes: int = Field(default=2, ge=1, le=10)
    system_disk_gib: int = Field(default=30, ge=20, le=1_000)
    namespace: WorkloadName = Field(default="workloads", description="of its own, where two stacks share a cluster")
    manifests: tuple[ManifestFile, ...] = ()
    gateway: GatewayConfig | None = None
    device_plugins: DevicePluginsConfig | None = None
    gpudirect: GpuDirectConfig | None = None
    queueing: Literal["none", "kueue"] = Field(
        default="none", description="kueue: training jobs are JobSets that wait in a queue; both must be installed"
    )
    node_autoscaler: NodeAutoscalerName = Field(
        default="none", description="karpenter: makes the nodes above a pool's minimum, on AWS; must be installed"
    )
    topology_levels: tuple[str, ...] = Field(
        default=(), max_length=8, description="labels of nodes by which Kueue places pods close together, widest first"
    )

    @field_validator("topology_levels")
    @classmethod
    def _topology_is_for_queues(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if value and info.data.get("queueing") != "kueue":
            raise ValueError("it is Kueue that reads them; set queueing to kueue, or leave them out")
        return value

    @model_validator(mode="after")
    def _claims_are_understood(self) -> ClusterConfig:
        if self.device_plugins is None or not self.device_plugins.gpu_claims:
            return self
        reason = "device_plugins.gpu_claims: "
        if tuple(int(part) for part in self.kubernetes_version.split(".")) < CLAIMS_KUBERNETES_MIN:
            oldest = ".".join(str(part) for part in CLAIMS_KUBERNETES_MIN)
            raise ValueError(f"{reason}Kubernetes {self.kubernetes_version} does not serve them; use {oldest} or newer")
        if self.queueing == "kueue":
            raise ValueError(f"{reason}Kueue v0.10 does not count them; set queueing to none, or leave them out")
        if self.node_autoscaler == "karpenter":
            raise ValueError(
                f"{reason}Karpenter v1.8 makes no node for a pod with a claim; set node_autoscaler to none, or leave "
                "them out"
            )
        return self

    @field_validator("public_access_cidrs")
    @classmethod
    def _not_the_whole_internet(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for cidr in value:
            if ipaddress.ip_network(cidr).prefixlen == 0:
                raise ValueError(
                    f"{cidr} opens the cluster's endpoint to everyone; name your own ranges, or leave it private"
                )
        return value


def _not_reserved(key: str) -> str:
    if key.lower().startswith("aws:"):
        raise ValueError("keys that begin with aws: are AWS's own; choose another")
    return key


class ObjectStoreConfig(Declared):
    """The stack's bucket."""

    delete_with_contents: bool = Field(default=False, description="destroy the bucket even when objects are in it")
    noncurrent_days: int = Field(default=30, ge=1, le=3_650)
    soft_delete_days: int = Field(default=7, ge=0, le=90, description="on Google Cloud: 0, or 7 to 90")
    retention_days: int | None = Field(
        default=None, ge=1, le=36_500, description="on Google Cloud: nobody overwrites or deletes an object so long"
    )

    file_cache_gib: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="training jobs read their data as files through a cache of this size: on AWS a file system of FSx "
        "for Lustre (1,200 GiB or the next multiple of 2,400), on Google Cloud Cloud Storage FUSE's on each node",
    )

    @field_validator("soft_delete_days")
    @classmethod
    def _none_or_a_week(cls, value: int) -> int:
        if 0 < value < 7:
            raise ValueError("expected 0, or 7 to 90")
        return value


_IN_TAGS = matching(r"[\w .:/=+\-@]*", "letters, digits, spaces and . : / = + - @ _")
TagKey = Annotated[str, Field(min_length=1, max_length=128), _IN_TAGS, AfterValidator(_not_reserved)]
TagValue = Annotated[str, Field(max_length=256), _IN_TAGS]
"""What AWS takes ("Tag your Amazon EC2 resources", Tag restrictions); of 50 tags by resource components add some."""


Email = Annotated[str, matching(EMAIL, "an address such as ml-platform@example.com")]


class BudgetAlarms(Declared):
    """The stack's budget in the cloud, which tells people before it is spent."""

    emails: tuple[Email, ...] = Field(min_length=1)
    monthly_limit_usd: float | None = Field(
        default=None, gt=0, le=1e9, description="that of the guardrails unless it is said"
    )
    actual_percent: float = Field(default=80, gt=0, le=1_000)
    forecast_percent: float = Field(default=100, gt=0, le=1_000)


class QueueConfig(Declared):
    """A team's queue for training jobs, where `cluster.queueing` is kueue."""

    name: WorkloadName
    share: float = Field(default=1, gt=0, le=1, description="of each pool's maximum, its own")
    weight: float = Field(default=1, ge=0, le=1_000, description="of its share in what is borrowed (fair sharing)")
    borrows: bool = Field(default=True, description="what the stack's other queues leave")
    lends: bool = Field(default=True, description="what it leaves itself, until it needs it")
    preempts: bool = Field(default=True, description="a job of higher priority puts out one of lower")


class AutoscalingConfig(Declared):
    """By what inference services are scaled, by KEDA; it and Prometheus must be installed."""

    prometheus: Annotated[
        str, matching(r"https?://[^\s/]+(/\S*)?", "an address such as http://prometheus-operated.monitoring.svc:9090")
    ]
    utilisation: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description="of a replica's chip, or a language model's cache; above it one is added",
    )
    waiting_per_replica: float = Field(default=8, gt=0, le=1e6, description="rows or requests; above it one is added")
    idle_seconds: int = Field(
        default=300, ge=0, le=86_400, description="without requests, until the last replica goes where min is 0"
    )
    activation_queries: dict[WorkloadName, str] = Field(
        default_factory=dict,
        description="by service that may have no replica: PromQL of the requests that come for it, as its gateway "
        "counts them; above 0 the first replica starts",
    )
    requests_per_replica: float = Field(
        default=100, gt=0, le=1e9, description="of activation_queries' value; above it a replica is added"
    )


class FailoverConfig(Declared):
    """How a stack with `fusion:cloud: both` shares its services' load between two clouds."""

    primary: Cloud = Field(default="aws", description="answers while it is well; the other takes over where it is not")
    bears: dict[Cloud, Annotated[float, Field(gt=0, le=1)]] = Field(
        default_factory=dict,
        description="by cloud, the share of each service's declared load that it must bear by itself; 1 unless said",
    )
    dns: Literal["none", "route53"] = Field(
        default="none",
        description="route53: a zone of the domain, and for each service by cloud a health check and a failover "
        "record; none: who sends requests to which cloud is yours",
    )
    domain: Annotated[str, matching(DOMAIN, "a domain such as models.example.com")] | None = Field(
        default=None, description="services are `<service>.<domain>`, and `<service>-<cloud>.<domain>` on one cloud"
    )

    @model_validator(mode="after")
    def _dns_has_a_domain(self) -> FailoverConfig:
        if (self.dns == "none") != (self.domain is None):
            raise ValueError("dns route53 and a domain belong together; set both, or neither")
        return self


class StackGuardrails(GuardrailSettings):
    """A stack's guardrails; one without a monthly limit is not planned."""

    monthly_cost_limit_usd: float = Field(gt=0, le=1e9)


class StackConfig(Declared):
    """Everything under `fusion:` in a stack's file."""

    cloud: Literal["aws", "gcp", "auto", "both"] = Field(
        default="aws",
        description="auto: the one of both where the whole stack is planned cheapest; both: inference services on "
        "each, so that the other may fail",
    )
    regions: dict[Cloud, str] = Field(description="by cloud that may be chosen; taken from `aws:region`, `gcp:region`")
    kubernetes: KubernetesTarget = Field(
        default="cloud", description="cluster: objects go to the control plane that `make cluster` starts here"
    )
    network: NetworkConfig = NetworkConfig()
    cluster: ClusterConfig = ClusterConfig()
    object_store: ObjectStoreConfig = ObjectStoreConfig()
    workloads: tuple[AnyWorkload, ...]
    guardrails: StackGuardrails
    queues: tuple[QueueConfig, ...] = Field(default=(), validate_default=True)
    quotas: tuple[Quota, ...] = ()
    budget: Budget | None = None
    budget_alarms: BudgetAlarms | None = None
    monitoring: MonitoringConfig | None = None
    autoscaling: AutoscalingConfig | None = Field(default=None, validate_default=True)
    expected_usage: ExpectedUsage = ExpectedUsage()
    tags: dict[TagKey, TagValue] = Field(default_factory=dict, max_length=40)
    failover: FailoverConfig | None = Field(default=None, validate_default=True)

    @field_validator("workloads")
    @classmethod
    def _names_are_unique(cls, value: tuple[AnyWorkload, ...]) -> tuple[AnyWorkload, ...]:
        if not value:
            raise ValueError("expected at least one training job or inference service")
        names = [workload.name for workload in value]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the name {repeated[0]} is used twice; each workload needs a name of its own")
        return value

    @field_validator("quotas")
    @classmethod
    def _of_nodes(cls, value: tuple[Quota, ...]) -> tuple[Quota, ...]:
        if any(each.gib is not None for each in value):
            raise ValueError("gib is of file systems, and read from the cloud; give vcpus, accelerators or nodes")
        return value

    @field_validator("workloads")
    @classmethod
    def _both_clouds_serve(cls, value: tuple[AnyWorkload, ...], info: ValidationInfo) -> tuple[AnyWorkload, ...]:
        jobs = [each.name for each in value if not isinstance(each, InferenceService)]
        if info.data.get("cloud") == "both" and jobs:
            raise ValueError(
                f"fusion:cloud both has inference services on two clouds, and a training job runs on one; put "
                f"{jobs[0]} into a stack of its own"
            )
        return value

    @field_validator("workloads")
    @classmethod
    def _someone_asks_for_nodes(cls, value: tuple[AnyWorkload, ...], info: ValidationInfo) -> tuple[AnyWorkload, ...]:
        cluster = info.data.get("cluster")
        for each in value:
            if each.queued and isinstance(cluster, ClusterConfig) and cluster.queueing != "kueue":
                raise ValueError(
                    f"{each.name}: queued nodes come when Kueue asks for them, and nobody else does here; set "
                    "fusion:cluster queueing to kueue, or leave queued out"
                )
            if each.queued and isinstance(cluster, ClusterConfig) and cluster.topology_levels:
                raise ValueError(
                    f"{each.name}: Kueue v0.10 places no job by topology whose nodes are queued; leave fusion:cluster "
                    "topology_levels out, or queued"
                )
        return value

    @field_validator("workloads")
    @classmethod
    def _a_cache_has_readers(cls, value: tuple[AnyWorkload, ...], info: ValidationInfo) -> tuple[AnyWorkload, ...]:
        gib = _file_cache_gib(info)
        if gib and all(isinstance(each, InferenceService) for each in value):
            raise ValueError(
                f"fusion:object_store file_cache_gib {gib} is a cache for training jobs, and there are none; leave it "
                "out"
            )
        return value

    @field_validator("guardrails")
    @classmethod
    def _a_cache_keeps_no_log(cls, value: StackGuardrails, info: ValidationInfo) -> StackGuardrails:
        if (gib := _file_cache_gib(info)) and value.data_class == "confidential":
            raise ValueError(
                f"data_class confidential asks for a record of each read, and fusion:object_store file_cache_gib {gib} "
                "lets pods read from a cache that keeps none; leave it out"
            )
        return value

    @field_validator("failover")
    @classmethod
    def _failover_is_for_both(cls, value: FailoverConfig | None, info: ValidationInfo) -> FailoverConfig | None:
        is_both = info.data.get("cloud") == "both"
        if value and not is_both:
            raise ValueError("it is read with fusion:cloud both alone; set that, or remove this key")
        cluster = info.data.get("cluster")
        gateway = cluster.gateway if isinstance(cluster, ClusterConfig) else None
        if value and value.domain and gateway and gateway.domain != value.domain:
            raise ValueError(
                f"domain {value.domain} leads clients to the clusters' gateways, which answer for {gateway.domain} "
                "(fusion:cluster gateway); use one domain"
            )
        return value or (FailoverConfig() if is_both else None)

    @field_validator("queues")
    @classmethod
    def _queues_share_the_pools(cls, value: tuple[QueueConfig, ...], info: ValidationInfo) -> tuple[QueueConfig, ...]:
        cluster = info.data.get("cluster")
        has_engine = not isinstance(cluster, ClusterConfig) or cluster.queueing != "none"
        if value and not has_engine:
            raise ValueError("no queueing engine reads them; set fusion:cluster queueing to kueue, or leave them out")
        names = [each.name for each in value]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the name {repeated[0]} is used twice; each queue needs a name of its own")
        if (total := sum(each.share for each in value)) > 1 + 1e-9:
            raise ValueError(f"the shares add up to {total:g}; expected 1 or less")
        known = (names or [DEFAULT_QUEUE]) if has_engine else []
        for workload in info.data.get("workloads") or ():
            queue = getattr(workload, "queue", None)
            if queue is not None and queue not in known:
                raise ValueError(
                    f"workload {workload.name} names the queue {queue}; there is {', '.join(known) or 'none'}"
                )
        return value

    @field_validator("autoscaling")
    @classmethod
    def _something_starts_the_first_replica(
        cls, value: AutoscalingConfig | None, info: ValidationInfo
    ) -> AutoscalingConfig | None:
        services = [each for each in info.data.get("workloads") or () if isinstance(each, InferenceService)]
        queries = value.activation_queries if value else {}
        for each in services:
            if each.replicas.min == 0 and each.name not in queries:
                raise ValueError(
                    f"inference service {each.name} may have no replica, and activation_queries has none for "
                    f"{each.name}; name the query of the requests that come for it, or set its replicas.min to 1"
                )
        if strange := sorted(queries.keys() - {each.name for each in services}):
            raise ValueError(f"activation_queries: {strange[0]} is no inference service of this stack")
        return value

    @field_validator("network")
    @classmethod
    def _zones_are_of_the_regions(cls, value: NetworkConfig, info: ValidationInfo) -> NetworkConfig:
        regions: Mapping[Cloud, str] = info.data.get("regions", {})
        strange = [zone for zone in value.zones or () if not any(_is_in(zone, *each) for each in regions.items())]
        if regions and strange:
            names = " or ".join(regions.values())
            some = " or ".join(_default_zones(*each)[0] for each in regions.items())
            raise ValueError(f"zones: {strange[0]} is not a zone of region {names}; name some such as {some}")
        return value

    @field_validator("tags")
    @classmethod
    def _tags_are_labels(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        if "gcp" in info.data.get("regions", {}) and (wrong := wrong_labels(value)):
            raise ValueError(wrong)
        return value

    @property
    def is_confidential(self) -> bool:
        """Whether the stack's data needs an access log, as the guardrail confidential-data says."""
        return self.guardrails.data_class == "confidential"

    def node_autoscaler_on(self, cloud: str) -> NodeAutoscalerName:
        """Who makes the nodes above a pool's minimum there; GKE's node pools scale by themselves."""
        return self.cluster.node_autoscaler if cloud == "aws" else "none"

    @property
    def places(self) -> tuple[tuple[Cloud, str], ...]:
        """The clouds that the stack may be built on, each with its region there."""
        return tuple(self.regions.items())

    def zones_of(self, cloud: Cloud) -> tuple[str, ...]:
        """The zones of the network on a cloud; the first two of its region unless some are named."""
        region = self.regions[cloud]
        named = tuple(zone for zone in self.network.zones or () if _is_in(zone, cloud, region))
        return named or _default_zones(cloud, region)

    def borne_by(self, cloud: Cloud) -> StackConfig:
        """What one of both clouds must bear by itself: its share of the load of each service that declares one."""
        share = self.failover.bears.get(cloud, 1.0) if self.failover else 1.0
        return self.on(cloud).model_copy(update={"workloads": tuple(_share(each, share) for each in self.workloads)})

    def on(self, cloud: str) -> StackConfig:
        """The same stack where only one of its clouds may be chosen."""
        return self.model_copy(update={"regions": {name: each for name, each in self.regions.items() if name == cloud}})


def _file_cache_gib(info: ValidationInfo) -> int | None:
    store = info.data.get("object_store")
    return store.file_cache_gib if isinstance(store, ObjectStoreConfig) else None


LOADS = ("requests_per_s", "peak_requests_per_s", "concurrency")
"""Fields of a service's target that say how much it must bear."""


def _share(workload: AnyWorkload, share: float) -> AnyWorkload:
    if workload.target is None or share == 1:
        return workload
    borne = {
        name: math.ceil(load * share) if name == "concurrency" else load * share
        for name in LOADS
        if (load := getattr(workload.target, name, None)) is not None
    }
    return workload.model_copy(update={"target": workload.target.model_copy(update=borne)})


def _is_local(cloud: Cloud, values: Mapping[str, str]) -> bool:
    key, value = LOCAL[cloud]
    return values.get(key) == value


def _is_in(zone: str, cloud: Cloud, region: str) -> bool:
    return zone.startswith(f"{region}-" if cloud == "gcp" else region)


def _default_zones(cloud: Cloud, region: str) -> tuple[str, str]:
    if cloud == "aws":
        return f"{region}a", f"{region}b"
    first, second = FIRST_ZONES.get(region, ("a", "b"))
    return f"{region}-{first}", f"{region}-{second}"


def load(values: Mapping[str, str], *, stack: str, stack_file: str) -> StackConfig:
    """Read a stack's config from Pulumi's key/value pairs (structured values are JSON text).

    Raises:
        ConfigError: one line for each wrong value.
    """
    given: dict[str, Any] = {}
    for key, value in values.items():
        namespace, _, name = key.partition(":")
        if namespace == NAMESPACE:
            given[name] = _decoded(value)
    if "region" in given or "regions" in given:
        raise ConfigError(f"{stack_file}: fusion:region: it is read from aws:region or gcp:region; remove this key")
    chosen = given.get("cloud", "aws")
    clouds: list[Cloud] = list(PLACES) if chosen in ("auto", "both") else [each for each in PLACES if each == chosen]
    missing = [pair for each in clouds for pair in PLACES[each].items() if not values.get(pair[0])]
    if missing:
        lines = (f"{stack_file}: {key}: not set; expected {expected}" for key, expected in missing)
        raise ConfigError("\n".join(lines))
    if given.get("kubernetes") == "cluster" and chosen == "both":
        raise ConfigError(
            f"{stack_file}: fusion:kubernetes: cluster: there is one control plane on this machine, and fusion:cloud "
            "both needs two clusters; leave it out, or choose one cloud"
        )
    if given.get("kubernetes") == "cluster" and (real := [each for each in clouds if not _is_local(each, values)]):
        key, value = LOCAL[real[0]]
        raise ConfigError(
            f"{stack_file}: fusion:kubernetes: cluster: the objects of a stack on the real {real[0]} belong in its own "
            f"cluster; leave it out, or set {key}: {value}"
        )
    regions = {each: values[f"{each}:region"] for each in clouds}
    try:
        return TypeAdapter(StackConfig).validate_python(given | {"regions": regions})
    except ValidationError as error:
        raise ConfigError("\n".join(_sentences(error, stack_file))) from None


def _decoded(value: str) -> Any:
    """Pulumi hands objects and lists over as JSON text and everything else as it was typed."""
    try:
        return json.loads(value) if value.startswith(("{", "[")) else value
    except ValueError:
        return value


def _sentences(error: ValidationError, stack_file: str) -> list[str]:
    return sentences(error, stack_file, f"{NAMESPACE}:")


def sentences(error: ValidationError, file: str, prefix: str) -> list[str]:
    """One line for each wrong value: file, field (after the prefix that its file gives it), and what was expected."""
    return [f"{file}: {_field(problem['loc'], prefix)}: {_expected(problem)}" for problem in error.errors()]


ADDED_BY_PYDANTIC = (*TARGET_KINDS, "[key]")


def _field(location: tuple[int | str, ...], prefix: str) -> str:
    """`('workloads', 0, 'training', 'nodes', 'max')` → `fusion:workloads[0].nodes.max`."""
    path = ""
    for depth, part in enumerate(location):
        if isinstance(part, int):
            path += f"[{part}]"
        elif not (depth == 2 and location[0] == "workloads") and part not in ADDED_BY_PYDANTIC:
            path += f".{part}" if path else part
    return f"{prefix}{path}" if path else prefix.rstrip(":")


def _expected(problem: Mapping[str, Any]) -> str:
    reason = str(problem["msg"]).removeprefix("Value error, ").replace("valid tuple", "list")
    match problem["type"]:
        case "missing":
            return "not set, and it has no default"
        case "extra_forbidden":
            return f"unknown field (got {_shown(problem['input'])}); remove it or check its spelling"
        case "model_attributes_type" | "model_type" | "dict_type":
            return f"got {_shown(problem['input'])}; expected fields and their values, such as `name: digits`"
        case "union_tag_invalid" | "union_tag_not_found":
            return f"kind: expected training or inference, got {_shown(problem['input'].get('kind'))}"
    return f"got {_shown(problem['input'])}; {reason[0].lower()}{reason[1:]}"


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
