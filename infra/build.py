"""The whole platform of a stack, from its args to its outputs, on whichever cloud it is.

Not called platform: policy packs run with this folder on their path, where that name hides a standard module.
"""

from __future__ import annotations

import collections
import dataclasses
import importlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pulumi
import pulumi_kubernetes as kubernetes

from infra.accelerator_pool import AcceleratorPool, AcceleratorPoolArgs, Fabric
from infra.budget import BudgetArgs
from infra.builder import Builder
from infra.cluster import Cluster, ClusterArgs
from infra.config import Cloud
from infra.errors import require
from infra.failover import FailoverArgs, host
from infra.file_cache import FileCache, FileCacheArgs
from infra.inference_service import InferenceServiceArgs, ProbePaths, Route
from infra.kubernetes.autoscaling import Scaling
from infra.kubernetes.device_plugins import GPU, DevicePlugins, DevicePluginsArgs
from infra.kubernetes.gateway import Gateway, GatewayArgs
from infra.kubernetes.inference_service import InferenceService
from infra.kubernetes.manifests import Manifests, ManifestsArgs
from infra.kubernetes.monitoring import Monitoring, MonitoringArgs, TensorBoardArgs
from infra.kubernetes.namespace import make_namespace
from infra.kubernetes.objects import make_object
from infra.kubernetes.pods import PodArgs, check_name
from infra.kubernetes.policies import Policies, PoliciesArgs
from infra.kubernetes.provider import make_provider
from infra.kubernetes.queue import Flavors, Queue, priority_class
from infra.kubernetes.training_job import TrainingJob
from infra.names import STACK_TAG, KubernetesTarget
from infra.network import Network, NetworkArgs
from infra.node_autoscaler import NodeAutoscaler
from infra.object_store import ObjectStore, ObjectStoreArgs
from infra.queueing import QueueingSpec, flavors, queues
from infra.registry import Registry, RegistryArgs
from infra.training_job import Queueing, TrainingJobArgs, Volume
from infra.workload_identity import StoreAccess, WorkloadIdentity, WorkloadIdentityArgs
from planner.workloads import Priority

Tagged = TypeVar("Tagged", NetworkArgs, ClusterArgs, AcceleratorPoolArgs, ObjectStoreArgs, RegistryArgs, BudgetArgs)

NAMESPACE = "workloads"
METRICS_PORT = 9_400
"""Where a training job answers Prometheus."""
SERVING_PRIORITY = 1_000
"""Above what has no class: where a node is short, requests that people wait for come before training."""


def builder_of(cloud: str) -> Builder[Any, Any]:
    """Who builds the components on a cloud; the other cloud's SDK is not loaded."""
    builder: Builder[Any, Any] = importlib.import_module(f"infra.{cloud}.builder").BUILDER
    return builder


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """What training jobs and inference services have in common.

    Attributes:
        name: unique in the stack.
        pool: name of the pool that it runs on.
        pod: container and resources; the pool adds devices, node selector and tolerations.
        devices: accelerators that each pod takes.
        read: prefixes of the stack's bucket that it may read, such as `data/`.
        write: prefixes that it may read and write, such as `runs/digits/`.
    """

    name: str
    pool: str
    pod: PodArgs
    devices: int = 0
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJobSpec(WorkloadSpec):
    """A training job of the platform; the fields are those of TrainingJobArgs.

    Attributes:
        data: prefix of the objects that it reads as files, where the store has a cache; else it reads from the bucket.
    """

    data: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    promise: Mapping[str, Any] | None = None
    nodes: int = 1
    retries: int = 3
    deadline_seconds: int | None = None
    checkpoint_volume: Volume | None = None
    queue: str | None = None
    priority: Priority = "normal"


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceServiceSpec(WorkloadSpec):
    """An inference service of the platform; the fields are those of InferenceServiceArgs."""

    replicas_min: int = 2
    replicas_max: int = 4
    port: int = 8080
    grpc_port: int | None = None
    traces: str | None = None
    probes: ProbePaths = field(default_factory=ProbePaths)
    startup_seconds: int = 600
    target_cpu_percent: int = 70
    scaling: Scaling | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformArgs:
    """Everything that a stack has.

    Attributes:
        stack: the stack's name.
        network, cluster, object_store: args of the components that every stack has.
        registry: args of the container registry; None where images come from elsewhere.
        budget: args of the budget with alarms; None for a stack without one.
        pools: pools of nodes for the workloads.
        training_jobs, inference_services: what runs on the pools.
        cloud: where the components are built.
        is_one_of_two: whether the stack has a platform on another cloud too; its names and folders say then on which.
        kubernetes: where the workloads' objects go; `cluster` is the control plane on this machine.
        namespace: the workloads' Kubernetes namespace.
        manifests: others' objects, applied before the stack's own.
        queueing: how training jobs wait for nodes; None where each starts as it finds room.
        gateway: through which clients outside of the cluster reach the services; None for none.
        device_plugins: on the pools with their devices; None where the cluster brings them.
        monitoring: what is watched; None for nothing.
        tensorboard_image: by digest; None without it, or without monitoring.
        tags: put on every resource that can carry tags, besides those of the components' own args.

    Raises:
        ArgumentError: args that don't go together, or that the cloud can't build; before anything is registered.
    """

    stack: str
    network: NetworkArgs
    cluster: ClusterArgs
    object_store: ObjectStoreArgs
    registry: RegistryArgs | None
    pools: tuple[AcceleratorPoolArgs, ...]
    training_jobs: tuple[TrainingJobSpec, ...]
    inference_services: tuple[InferenceServiceSpec, ...]
    budget: BudgetArgs | None = None
    cloud: Cloud = "aws"
    is_one_of_two: bool = False
    kubernetes: KubernetesTarget = "cloud"
    namespace: str = NAMESPACE
    manifests: tuple[ManifestsArgs, ...] = ()
    queueing: QueueingSpec | None = None
    gateway: GatewayArgs | None = None
    device_plugins: DevicePluginsArgs | None = None
    monitoring: MonitoringArgs | None = None
    tensorboard_image: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(
            re.fullmatch(r"[a-z]([a-z0-9-]{0,28}[a-z0-9])?", self.names) is not None,
            f"stack {self.names!r} can't begin the names of cloud resources; use up to 30 lower-case letters, digits "
            "and dashes, a letter first.",
        )
        check_name("namespace", self.namespace, 63)
        builder = builder_of(self.cloud)
        builder.check_network(self.network)
        builder.check_cluster(self.cluster)
        builder.check_object_store(self.object_store)
        if self.budget:
            builder.check_budget(self.budget)
        for pool in self.pools:
            builder.check_accelerator_pool(pool)
        self._check_pools()
        self._check_workloads({pool.pool: builder.hosts_per_node(pool) for pool in self.pools})

    @property
    def names(self) -> str:
        """What all names begin with."""
        return f"{self.stack}-{self.cloud}" if self.is_one_of_two else self.stack

    @property
    def workloads(self) -> tuple[WorkloadSpec, ...]:
        """Training jobs and inference services, in that order."""
        return (*self.training_jobs, *self.inference_services)

    def _check_pools(self) -> None:
        _unique("pools", [pool.pool for pool in self.pools])
        for pool in self.pools:
            check_name("pool", pool.pool)
            strange = sorted(set(pool.zones) - set(self.network.zones))
            require(
                not strange,
                f"pool {pool.pool}: zones {', '.join(strange)} are not of the network, which has "
                f"{', '.join(self.network.zones)}; name some of those, or add them to the network.",
            )

    def _check_workloads(self, hosts: Mapping[str, int]) -> None:
        _unique("workloads", [workload.name for workload in self.workloads])
        pools = {pool.pool: pool for pool in self.pools}
        for workload in self.workloads:
            check_name("workload", workload.name)
            require(
                workload.pool in pools,
                f"workload {workload.name}: no pool {workload.pool}; the stack has {', '.join(pools) or 'none'}.",
            )
            pool = pools[workload.pool]
            require(
                workload.devices <= pool.accelerator_count,
                f"workload {workload.name}: devices {workload.devices} are more than the {pool.accelerator_count:g} "
                f"of a node of pool {pool.pool}; lower devices, or choose a pool of larger nodes.",
            )
            self._check_whole(workload, pool, hosts[pool.pool])
        for job in self.training_jobs:
            self._check_data(job)
            nodes_max = pools[job.pool].nodes_max
            require(
                job.nodes <= nodes_max,
                f"workload {job.name}: nodes {job.nodes} are more than pool {job.pool} may grow to ({nodes_max}); "
                "raise the pool's nodes_max, or lower nodes.",
            )
            self._check_queue(job)

    def _check_whole(self, workload: WorkloadSpec, pool: AcceleratorPoolArgs, hosts: int) -> None:
        """A slice of several hosts works as one: by a training job alone, that takes all of its chips."""
        require(
            hosts == 1 or workload in self.training_jobs,
            f"workload {workload.name}: a replica is one pod, and a node of pool {pool.pool} ({pool.instance_type}) is "
            f"{hosts} hosts; choose a slice on one host, such as one of fewer chips.",
        )
        require(
            hosts == 1 or not isinstance(workload, TrainingJobSpec) or workload.nodes == 1,
            f"workload {workload.name}: a node of pool {pool.pool} ({pool.instance_type}) is {hosts} hosts, and "
            "several such slices are not trained on together here; use one node, of more chips.",
        )
        require(
            hosts == 1 or workload.devices == pool.accelerator_count,
            f"workload {workload.name}: devices {workload.devices} are not all {pool.accelerator_count:g} of a node of "
            f"pool {pool.pool} ({pool.instance_type}), whose {hosts} hosts work as one; take all, or a smaller slice.",
        )
        least_gib = 2 * hosts * workload.pod.shared_memory_gib
        require(
            hosts == 1 or workload.pod.memory_gib >= least_gib,
            f"workload {workload.name}: memory_gib {workload.pod.memory_gib:g} is of all {hosts} hosts of a node of "
            f"pool {pool.pool} ({pool.instance_type}) together; use {least_gib:g} or more.",
        )

    def _check_data(self, job: TrainingJobSpec) -> None:
        require(
            job.data is None or (self.object_store.file_cache_gib is not None and self.cluster.mounts_buckets),
            f"workload {job.name}: it reads {job.data} as files, which needs object_store.file_cache_gib and "
            "cluster.mounts_buckets; set both, or leave data out.",
        )

    def _check_queue(self, job: TrainingJobSpec) -> None:
        known = [queue.name for queue in self.queueing.queues] if self.queueing else []
        require(
            job.queue is None or job.queue in known,
            f"workload {job.name}: no queue {job.queue}; the stack has {', '.join(known) or 'none'}.",
        )
        require(
            self.queueing is None or job.pool in self.queueing.rooms,
            f"workload {job.name}: queueing does not say what a node of pool {job.pool} leaves; add it to rooms.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What was built, for the program's outputs and for further resources.

    Attributes:
        provider: talks to the cluster.
        pools, identities, training_jobs, inference_services: by pool or workload name.
    """

    network: Network
    cluster: Cluster
    provider: kubernetes.Provider
    object_store: ObjectStore
    registry: Registry | None
    pools: Mapping[str, AcceleratorPool]
    identities: Mapping[str, WorkloadIdentity]
    training_jobs: Mapping[str, TrainingJob]
    inference_services: Mapping[str, InferenceService]

    @property
    def outputs(self) -> dict[str, Any]:
        """What a stack exports of its platform."""
        return {
            "network_id": self.network.network_id,
            "cluster_name": self.cluster.cluster_name,
            "kubeconfig": self.cluster.kubeconfig,
            "bucket_url": self.object_store.bucket_url,
            "repositories": dict(self.registry.repository_urls) if self.registry else {},
            "pools": {name: pool.pool_name for name, pool in self.pools.items()},
            "training_jobs": {name: job.job_name for name, job in self.training_jobs.items()},
            "inference_services": {name: service.url for name, service in self.inference_services.items()},
        }


def build_platform(args: PlatformArgs, registered_plan: pulumi.Resource) -> Platform:
    """Build network, cluster, pools, bucket, registry, identities and workloads, in that order.

    Everything waits for the registered plan, which the guardrails judge first: a component's children wait for their
    parent.

    Example:
        >>> platform = build_platform(PlatformArgs(stack="prod", ...), registered_plan)
        >>> for name, value in platform.outputs.items():
        ...     pulumi.export(name, value)
    """
    builder, stack = builder_of(args.cloud), args.names
    # The plan has no children, and depends_on of a component waits for its children only: so wait for its URN.
    after_plan = pulumi.ResourceOptions(depends_on=registered_plan.urn.apply(lambda _: []))
    if args.budget:
        builder.budget(f"{stack}-budget", _tagged(args, args.budget, "budget"), after_plan)
    network = builder.network(f"{stack}-network", _tagged(args, args.network, "network"), after_plan)
    cluster = builder.cluster(f"{stack}-cluster", _tagged(args, args.cluster, "cluster"), network, after_plan)
    pools = {
        pool.pool: builder.accelerator_pool(
            f"{stack}-pool-{pool.pool}", _tagged(args, pool, f"pool-{pool.pool}"), cluster, after_plan
        )
        for pool in args.pools
    }
    store = builder.object_store(f"{stack}-store", _tagged(args, args.object_store, "store"), after_plan)
    registry = (
        builder.registry(f"{stack}-registry", _tagged(args, args.registry, "registry"), after_plan)
        if args.registry
        else None
    )
    provider = make_provider(f"{stack}-kubernetes", args.kubernetes, cluster, _own_folder(args), after_plan)
    cache = _make_file_cache(args, network, store, after_plan)
    workloads = _Workloads(args, after_plan, cluster, pools, store, provider, cache)
    return Platform(
        network=network,
        cluster=cluster,
        provider=provider,
        object_store=store,
        registry=registry,
        pools=pools,
        identities=workloads.identities,
        training_jobs={job.name: workloads.training_job(job) for job in args.training_jobs},
        inference_services={each.name: workloads.inference_service(each) for each in args.inference_services},
    )


def _make_file_cache(
    args: PlatformArgs, network: Network, store: ObjectStore, opts: pulumi.ResourceOptions
) -> FileCache | None:
    """Where the first of the jobs that read from it is."""
    readers = [job for job in args.training_jobs if job.data]
    if not readers:
        return None
    zone = next(pool.zones[0] for pool in args.pools if pool.pool == readers[0].pool)
    cache_args = FileCacheArgs(store=store, zone=zone, tags=_tags(args, "file-cache"))
    made: FileCache = builder_of(args.cloud).file_cache(f"{args.names}-cache", cache_args, network, opts)
    return made


def build_failover(stack: str, args: FailoverArgs, registered_plan: pulumi.Resource) -> dict[str, Any]:
    """What leads clients to the cloud that is well; its outputs."""
    from infra.aws.failover import AwsFailover  # here, as a stack without it need not load the SDK

    opts = pulumi.ResourceOptions(depends_on=registered_plan.urn.apply(lambda _: []))
    tags = {**args.tags, STACK_TAG: stack, "fusion:component": "failover"}
    made = AwsFailover(f"{stack}-failover", dataclasses.replace(args, tags=tags), opts)
    return {
        "hosts": {name: host(name, args.domain) for name in args.services},
        "name_servers": made.name_servers,
    }


class _Workloads:
    """Builds what runs on the cluster, in a namespace of its own."""

    def __init__(
        self,
        args: PlatformArgs,
        after_plan: pulumi.ResourceOptions,
        cluster: Cluster,
        pools: Mapping[str, AcceleratorPool],
        store: ObjectStore,
        provider: kubernetes.Provider,
        cache: FileCache | None,
    ) -> None:
        self._args = args
        self._cache = cache
        self._cluster = cluster
        self._pools = pools
        self._store = store
        in_cluster = pulumi.ResourceOptions.merge(after_plan, pulumi.ResourceOptions(provider=provider))
        sees_nodes = any(self._fabric(each) for each in args.training_jobs)
        namespace = make_namespace(f"{args.names}-namespace", args.namespace, in_cluster, sees_nodes=sees_nodes)
        # What is in the namespace waits for it, and it for the plan.
        in_namespace = pulumi.ResourceOptions.merge(in_cluster, pulumi.ResourceOptions(depends_on=[namespace]))
        policies = Policies(f"{args.names}-policies", self._policies(), in_namespace)
        autoscaler = self._make_node_autoscaler(in_cluster)
        rights = pulumi.ResourceOptions(depends_on=[autoscaler.identity] if autoscaler else [])
        manifests = self._manifests(pulumi.ResourceOptions.merge(in_cluster, rights))
        before: list[pulumi.Resource] = [namespace, policies, *manifests, *self._networks(in_cluster)]
        if autoscaler:
            autoscaler.make_pools(pools, manifests)
            before.append(autoscaler)
        if args.device_plugins:
            on_pools = dataclasses.replace(args.device_plugins, pools=self._pools_by_resource())
            before.append(DevicePlugins(f"{args.names}-devices", on_pools, in_cluster))
        self._options = pulumi.ResourceOptions(depends_on=before, providers=[provider])
        self._queues = self._make_queues()
        if args.gateway and args.inference_services:
            Gateway(f"{args.names}-gateway", args.gateway, self._options)
        self._priority = self._make_priority(in_cluster) if args.inference_services else None
        self.identities = {
            workload.name: self._identity(workload) for workload in args.workloads if workload.read or workload.write
        }
        if args.monitoring:
            self._watch(args.monitoring)

    def _policies(self) -> PoliciesArgs:
        """Of the accelerators its pools have at their most, each pool that stands in for another included."""
        args, counted, claimed = self._args, collections.Counter[str](), collections.Counter[str]()
        nvidia = args.device_plugins.nvidia if args.device_plugins else None
        for pool in self._pools.values():
            if pool.device_resource:
                each = nvidia.pods_per_gpu if nvidia and pool.device_resource == GPU else 1
                name = self._device_class(pool)
                devices, of = (claimed, name) if name else (counted, pool.device_resource)
                devices[of] += pool.args.nodes_max * math.ceil(pool.args.accelerator_count) * each
        return PoliciesArgs(
            namespace=args.namespace,
            metrics_port=METRICS_PORT,
            devices=counted,
            device_classes=claimed,
            serving_ports=tuple(
                port for each in args.inference_services for port in (each.port, each.grpc_port) if port
            ),
            collector_ports=tuple(
                port for each in args.inference_services if each.traces and (port := urlsplit(each.traces).port)
            ),
            is_queued=args.queueing is not None,
        )

    def _device_class(self, pool: AcceleratorPool) -> str | None:
        """The class that a pool's devices are claimed from; None where they are counted."""
        plugins = self._args.device_plugins
        return plugins.gpu_class if plugins and pool.device_resource == GPU else None

    def _pools_by_resource(self) -> dict[str, tuple[str, ...]]:
        """By device resource, the values of the pool label on the nodes that have it."""
        found: dict[str, set[str]] = collections.defaultdict(set)
        for pool in self._pools.values():
            for resource in (pool.device_resource, pool.interconnect_resource):
                if resource:
                    found[resource].add(pool.args.stands_in_for or pool.args.pool)
        return {resource: tuple(sorted(pools)) for resource, pools in found.items()}

    def _watch(self, args: MonitoringArgs) -> None:
        image, tensorboard = self._args.tensorboard_image, None
        if image:
            pod = PodArgs(image=image, cpus=1, memory_gib=2)
            reader = WorkloadSpec(name="tensorboard", pool="", pod=pod, read=("runs/",))
            tensorboard = TensorBoardArgs(
                image=image,
                logs_url=pulumi.Output.concat(self._store.bucket_url, "/runs"),
                service_account=self._identity(reader).service_account,
                env=self._cluster.pod_environment,
            )
        on_pools = self._pools_by_resource().get(GPU, ())
        seen = dataclasses.replace(args, gpu_pools=on_pools, tensorboard=tensorboard)
        Monitoring(f"{self._args.names}-monitoring", seen, self._options)

    def _make_node_autoscaler(self, opts: pulumi.ResourceOptions) -> NodeAutoscaler | None:
        build = builder_of(self._args.cloud).node_autoscaler
        if build is None or not any(pool.args.nodes_beyond for pool in self._pools.values()):
            return None
        tags = _tags(self._args, "node-autoscaler")
        name = f"{self._args.names}-karpenter"
        made: NodeAutoscaler = build(name, self._cluster, tags, self._args.kubernetes, opts)
        return made

    def _manifests(self, opts: pulumi.ResourceOptions) -> list[Manifests]:
        return [Manifests(f"{self._args.names}-{each.file.stem}", each, opts) for each in self._args.manifests]

    def _networks(self, opts: pulumi.ResourceOptions) -> list[pulumi.CustomResource]:
        """What tells the cluster of its pools' further networks."""
        return [
            make_object(f"{self._args.names}-{each['kind'].lower()}-{each['metadata']['name']}", each, opts)
            for each in self._cluster.objects
        ]

    def _fabric(self, job: TrainingJobSpec) -> Fabric | None:
        """How the job's pods join the fast interconnect: those that train together, each with a whole node."""
        pool = self._pools[job.pool]
        return pool.fabric if job.nodes > 1 and job.devices == pool.args.accelerator_count else None

    def _make_queues(self) -> dict[str, Queue]:
        """By name, in the order of the config: a job that names none is in the first."""
        args, spec = self._args, self._args.queueing
        if spec is None:
            return {}
        others = [(each.pool, each.replicas_max, self._placed(each)) for each in args.inference_services]
        of = flavors(spec, self._pools, others, stack=args.stack)
        made = Flavors(f"{args.names}-flavors", of, self._options)
        after = pulumi.ResourceOptions.merge(self._options, pulumi.ResourceOptions(depends_on=[made]))
        return {
            each.name: Queue(f"{args.names}-queue-{each.name}", each, after)
            for each in queues(spec, of, namespace=args.namespace, cohort=args.stack)
        }

    def _make_priority(self, opts: pulumi.ResourceOptions) -> kubernetes.scheduling.v1.PriorityClass:
        name = f"{self._args.names}-serving"
        return kubernetes.scheduling.v1.PriorityClass(
            f"{name}-priority",
            metadata={"name": name, "labels": {"app.kubernetes.io/managed-by": "fusion"}},
            value=SERVING_PRIORITY,
            description="Inference services: before training, where a node is short",
            opts=opts,
        )

    def _surges(self, service: InferenceServiceSpec) -> bool:
        """Whether the pool at its maximum holds one replica more than all of its services at theirs.

        A service of one replica surges in any case: it would be away else.
        """
        pool = self._pools[service.pool].args
        asked = sum(
            each.replicas_max * each.devices for each in self._args.inference_services if each.pool == pool.pool
        )
        room = pool.nodes_max * math.ceil(pool.accelerator_count)
        return service.devices == 0 or service.replicas_min <= 1 or asked + service.devices <= room

    def _queueing(self, job: TrainingJobSpec) -> Queueing | None:
        spec, pool = self._args.queueing, self._pools[job.pool]
        if spec is None:
            return None
        is_close = job.nodes > 1 and pool.device_resource and spec.topology_levels
        return Queueing(
            queue=job.queue or spec.queues[0].name,
            priority_class=priority_class(self._args.stack, job.priority),
            topology_level=spec.topology_levels[0] if is_close else None,
        )

    def training_job(self, spec: TrainingJobSpec) -> TrainingJob:
        args = TrainingJobArgs(
            name=spec.name,
            namespace=self._args.namespace,
            pod=self._placed(spec),
            config=spec.config,
            promise=spec.promise,
            service_account=self._service_account(spec),
            nodes=spec.nodes,
            is_taken_back=self._pools[spec.pool].args.is_taken_back,
            hosts=self._pools[spec.pool].hosts,
            fabric=self._fabric(spec),
            retries=spec.retries,
            deadline_seconds=spec.deadline_seconds,
            checkpoint_volume=spec.checkpoint_volume,
            data=self._cache.folder(spec.data) if self._cache and spec.data else None,
            queueing=self._queueing(spec),
        )
        in_queue = pulumi.ResourceOptions(depends_on=list(self._queues.values()))
        opts = pulumi.ResourceOptions.merge(self._on_pool(spec), in_queue)
        return TrainingJob(f"{self._args.names}-{spec.name}", args, opts)

    def inference_service(self, spec: InferenceServiceSpec) -> InferenceService:
        opts = self._on_pool(spec)
        args = InferenceServiceArgs(
            name=spec.name,
            namespace=self._args.namespace,
            pod=self._placed(spec),
            service_account=self._service_account(spec),
            port=spec.port,
            grpc_port=spec.grpc_port,
            traces=spec.traces,
            probes=spec.probes,
            startup_seconds=spec.startup_seconds,
            replicas_min=spec.replicas_min,
            replicas_max=spec.replicas_max,
            target_cpu_percent=spec.target_cpu_percent,
            scaling=spec.scaling,
            surges=self._surges(spec),
            priority_class=f"{self._args.names}-serving",
            route=self._route(spec),
        )
        if self._priority:
            opts = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=[self._priority]))
        return InferenceService(f"{self._args.names}-{spec.name}", args, opts)

    def _route(self, spec: InferenceServiceSpec) -> Route | None:
        gateway = self._args.gateway
        if gateway is None:
            return None
        on_cloud = host(spec.name, gateway.domain, self._args.cloud) if self._args.is_one_of_two else None
        return Route(gateway=gateway.name, hostname=host(spec.name, gateway.domain), cloud_hostname=on_cloud)

    def _identity(self, workload: WorkloadSpec) -> WorkloadIdentity:
        args = WorkloadIdentityArgs(
            region=self._args.network.region,
            namespace=self._args.namespace,
            service_account=workload.name,
            access=(StoreAccess(store=self._store, read=workload.read, write=workload.write),),
            tags=_tags(self._args, workload.name),
        )
        build = builder_of(self._args.cloud).workload_identity
        return build(f"{self._args.names}-{workload.name}", args, self._cluster, self._options)

    def _service_account(self, workload: WorkloadSpec) -> pulumi.Output[str] | None:
        identity = self.identities.get(workload.name)
        return identity.service_account if identity else None

    def _on_pool(self, workload: WorkloadSpec) -> pulumi.ResourceOptions:
        pool = pulumi.ResourceOptions(depends_on=[self._pools[workload.pool]])
        return pulumi.ResourceOptions.merge(self._options, pool)

    def _placed(self, workload: WorkloadSpec) -> PodArgs:
        """The workload's pod on its pool's nodes, with what every workload finds in its environment."""
        pool = self._pools[workload.pool]
        interconnect: dict[str, int] = {}
        # Adapters belong to the pod that has the whole node; two that share it would each get half of the links.
        if pool.interconnect_resource and workload.devices == pool.args.accelerator_count:
            interconnect = {pool.interconnect_resource: pool.interconnects_per_node}
        stack: dict[str, pulumi.Input[str]] = {
            "FUSION_STACK": self._args.stack,
            "FUSION_BUCKET_URL": self._store.bucket_url,
            **self._cluster.pod_environment,
            **(pool.pod_environment if workload.devices else {}),
        }
        hosts = pool.hosts.count if pool.hosts else 1
        return dataclasses.replace(
            workload.pod,
            env={**stack, **workload.pod.env},
            cpus=workload.pod.cpus / hosts,
            memory_gib=workload.pod.memory_gib / hosts,
            device_resource=pool.device_resource if workload.devices else None,
            devices=workload.devices // hosts,
            device_class=self._device_class(pool) if workload.devices else None,
            more_devices={**interconnect, **workload.pod.more_devices},
            node_selector={**pool.node_selector, **workload.pod.node_selector},
            tolerations=(*pool.taints, *workload.pod.tolerations),
        )


def _own_folder(args: PlatformArgs) -> str | None:
    """Where the objects of one of two clusters are rendered, if they are rendered at all."""
    folder = pulumi.Config("kubernetes").get("renderYamlToDirectory") if args.is_one_of_two else None
    return f"{folder}/{args.cloud}" if folder else None


def _tags(args: PlatformArgs, component: str) -> dict[str, str]:
    return {**args.tags, STACK_TAG: args.stack, "fusion:component": component}


def _tagged(args: PlatformArgs, component: Tagged, role: str) -> Tagged:
    return dataclasses.replace(component, tags={**component.tags, **_tags(args, role)})


def _unique(what: str, names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    require(not repeated, f"{what}: the name {', '.join(repeated)} is used twice; give each a name of its own.")
