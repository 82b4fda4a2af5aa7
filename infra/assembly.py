"""From a stack's config and its plan to the args of the platform."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, cast

from infra import language_model, serving_metrics
from infra.accelerator_pool import AcceleratorPoolArgs
from infra.budget import BudgetArgs
from infra.build import METRICS_PORT, InferenceServiceSpec, PlatformArgs, TrainingJobSpec
from infra.cluster import ClusterArgs, SystemPoolArgs
from infra.config import DEFAULT_QUEUE, Cloud, StackConfig
from infra.failover import FailoverArgs
from infra.inference_service import ProbePaths
from infra.kubernetes.autoscaling import Scaling, Trigger
from infra.kubernetes.device_plugins import DevicePluginsArgs, NvidiaArgs
from infra.kubernetes.gateway import GatewayArgs
from infra.kubernetes.manifests import ManifestsArgs
from infra.kubernetes.monitoring import MonitoringArgs, PoolCost
from infra.kubernetes.pods import PodArgs
from infra.kubernetes.training_job import CHECKPOINTS_PATH
from infra.network import NetworkArgs
from infra.object_store import ObjectStoreArgs
from infra.planning import has_fpgas
from infra.queueing import NodeRoom, QueueingSpec, QueueSpec
from infra.registry import RegistryArgs
from infra.training_job import Volume
from planner.catalog import load
from planner.packing import room_of
from planner.plan import Plan, PoolPlan
from planner.prediction import WorkloadPrediction
from planner.workloads import InferenceService, ServiceTarget, TrainingJob

BUCKET, DATA_FILES = "${FUSION_BUCKET_URL}", "file://${FUSION_DATA_PATH}"
"""Filled in by the training container, from its environment."""
REPOSITORIES = ("training", "serving")
PROJECT = Path(__file__).resolve().parents[1]
"""The folder of Pulumi.yaml."""


def platforms_args(config: StackConfig, plan: Plan) -> tuple[PlatformArgs, ...]:
    """The platforms that a plan describes, one a cloud; nothing in them is chosen here.

    Raises:
        infra.errors.ArgumentError: the plan can't be built as it is; one sentence with the way out.
    """
    if not plan.others:
        return (platform_args(config, plan),)
    whole_usd = plan.monthly_usd.expected
    shares = (part.monthly_usd.expected / whole_usd for part in plan.parts)
    return tuple(platform_args(config, part, share) for part, share in zip(plan.parts, shares, strict=True))


def failover_args(config: StackConfig, plan: Plan) -> FailoverArgs | None:
    """What leads clients of services on two clouds to the one that is well; None where that is not Fusion's."""
    asked = config.failover
    if asked is None or asked.domain is None:
        return None
    first, second = (each.cloud for each in plan.parts)
    services = [each for each in plan.workloads if isinstance(each, InferenceService)]
    return FailoverArgs(
        domain=asked.domain,
        clouds=(first, second),
        services={each.name: _probes(each).ready for each in services},
        tags=config.tags,
    )


def platform_args(config: StackConfig, plan: Plan, share: float | None = None) -> PlatformArgs:
    """The platform that the plan of one cloud describes; raises as `platforms_args`.

    Args:
        share: of what the stack costs, where it is on another cloud too.
    """
    region, shape = plan.region, plan.platform
    jobs = [workload for workload in plan.workloads if isinstance(workload, TrainingJob)]
    has_cache = config.object_store.file_cache_gib is not None
    services = [workload for workload in plan.workloads if isinstance(workload, InferenceService)]
    removable = config.object_store.delete_with_contents
    return PlatformArgs(
        stack=plan.stack,
        cloud=cast("Cloud", plan.cloud),
        network=NetworkArgs(
            region=region,
            zones=shape.zones,
            cidr=config.network.cidr,
            nat=config.network.nat,
            flow_logs=config.network.flow_logs,
        ),
        cluster=ClusterArgs(
            region=region,
            kubernetes_version=config.cluster.kubernetes_version,
            public_access_cidrs=config.cluster.public_access_cidrs,
            system_pool=SystemPoolArgs(
                instance_type=shape.system_instance_type, nodes=shape.system_nodes, disk_gib=shape.system_disk_gib
            ),
            mounts_buckets=has_cache,
        ),
        object_store=ObjectStoreArgs(
            region=region,
            noncurrent_days=config.object_store.noncurrent_days,
            soft_delete_days=config.object_store.soft_delete_days,
            retention_days=config.object_store.retention_days,
            delete_with_contents=removable,
            access_log=config.is_confidential,
            file_cache_gib=config.object_store.file_cache_gib,
        ),
        registry=RegistryArgs(region=region, repositories=REPOSITORIES, delete_with_contents=removable),
        pools=tuple(_pool(pool, plan, config) for pool in plan.pools),
        training_jobs=tuple(_training_job(job, plan, reads_files=has_cache) for job in jobs),
        inference_services=tuple(
            dataclasses.replace(_inference_service(service, plan), scaling=_scaling(service, config))
            for service in services
        ),
        budget=_budget(config, plan, share),
        is_one_of_two=share is not None,
        kubernetes=config.kubernetes,
        namespace=config.cluster.namespace,
        manifests=tuple(
            ManifestsArgs(file=PROJECT / each.path, sha256=each.sha256) for each in config.cluster.manifests
        ),
        queueing=_queueing(config, plan),
        gateway=_gateway(config),
        device_plugins=_device_plugins(config, plan.stack),
        monitoring=_monitoring(config, plan),
        tensorboard_image=config.monitoring.tensorboard_image if config.monitoring else None,
        tags=config.tags,
    )


def _budget(config: StackConfig, plan: Plan, share: float | None) -> BudgetArgs | None:
    """Of two clouds each has its share of the limit, by what is expected of it: neither sees the other's bill."""
    alarms = config.budget_alarms
    if alarms is None:
        return None
    limit_usd = alarms.monthly_limit_usd or config.guardrails.monthly_cost_limit_usd
    return BudgetArgs(
        stack=plan.stack,
        limit_usd_per_month=limit_usd if share is None else max(1.0, math.floor(limit_usd * share)),
        emails=alarms.emails,
        actual_percent=alarms.actual_percent,
        forecast_percent=alarms.forecast_percent,
    )


def _gateway(config: StackConfig) -> GatewayArgs | None:
    asked = config.cluster.gateway
    if asked is None:
        return None
    return GatewayArgs(
        name="services",
        namespace=config.cluster.namespace,
        class_name=asked.class_name,
        domain=asked.domain,
        certificate=asked.certificate,
    )


def _device_plugins(config: StackConfig, stack: str) -> DevicePluginsArgs | None:
    asked = config.cluster.device_plugins
    if asked is None:
        return None
    nvidia = (
        NvidiaArgs(image=asked.nvidia_image, mig_strategy=asked.mig_strategy, pods_per_gpu=asked.pods_per_gpu)
        if asked.nvidia_image
        else None
    )
    return DevicePluginsArgs(
        nvidia=nvidia,
        neuron_image=asked.neuron_image,
        efa_image=asked.efa_image,
        gpu_class=f"{stack}-gpu" if asked.gpu_claims else None,
    )


def _monitoring(config: StackConfig, plan: Plan) -> MonitoringArgs | None:
    asked = config.monitoring
    if asked is None:
        return None
    costs = [
        PoolCost(
            pool=pool.name,
            label=pool.stands_in_for or pool.name,
            price_model=pool.bought_as.replace("_", "-"),
            usd_per_hour=pool.price_usd_per_hour,
            nodes_expected=pool.nodes_expected,
        )
        for pool in plan.pools
    ]
    return MonitoringArgs(
        stack=plan.stack,
        namespace=config.cluster.namespace,
        labels=asked.labels,
        costs=tuple(costs),
        dcgm_image=asked.dcgm_image,
    )


def _scaling(service: InferenceService, config: StackConfig) -> Scaling | None:
    """By what a service is scaled; None where nothing is known of its server's metrics, or all is fixed."""
    asked = config.autoscaling
    if asked is None or service.replicas.min == service.replicas.max:
        return None
    own = asked.activation_queries.get(service.name)
    activating = (Trigger(query=own, per_replica=asked.requests_per_replica, activates=True),) if own else ()
    server = "vllm" if language_model.runs_vllm(service) else "fusion"
    measured: tuple[Trigger, ...] = ()
    if server == "vllm" or "command" not in service.model_fields_set:
        measured = serving_metrics.triggers(
            server,
            service.name,
            config.cluster.namespace,
            waiting_per_replica=asked.waiting_per_replica,
            utilisation=asked.utilisation,
        )
    if not (activating or measured):
        return None
    return Scaling(prometheus=asked.prometheus, triggers=(*activating, *measured), idle_seconds=asked.idle_seconds)


def _queueing(config: StackConfig, plan: Plan) -> QueueingSpec | None:
    jobs = [workload.name for workload in config.workloads if isinstance(workload, TrainingJob)]
    if config.cluster.queueing == "none" or not jobs:
        return None
    declared = tuple(QueueSpec(**each.model_dump()) for each in config.queues)
    trained_on = {plan.pool_of(job).name for job in jobs}
    return QueueingSpec(
        queues=declared or (QueueSpec(name=DEFAULT_QUEUE),),
        rooms={pool.name: _room(pool) for pool in plan.pools if {pool.name, pool.stands_in_for} & trained_on},
        topology_levels=config.cluster.topology_levels,
    )


def _room(pool: PoolPlan) -> NodeRoom:
    left = room_of(pool.accelerators_per_node, pool.vcpus_per_node, pool.memory_gib_per_node)
    return NodeRoom(cpus=left.vcpus, memory_gib=left.memory_gib)


def datasets(config: StackConfig) -> dict[str, str]:
    """By training job, the data set that it reads; its folder in the bucket is `data/<data set>`."""
    jobs = [workload for workload in config.workloads if isinstance(workload, TrainingJob)]
    return {job.name: job.training.dataset for job in jobs}


def _pool(pool: PoolPlan, plan: Plan, config: StackConfig) -> AcceleratorPoolArgs:
    plugins = config.cluster.device_plugins
    purchase, comes_later = pool.purchase, pool.bought_as == "flex_start"
    return AcceleratorPoolArgs(
        pool=pool.name,
        region=plan.region,
        zones=pool.zones,
        instance_type=pool.instance_type,
        accelerator=pool.accelerator,
        accelerator_count=pool.accelerators_per_node,
        price_model=pool.bought_as,
        reservation_id=purchase.reservation_id if purchase else None,
        max_run_hours=purchase.max_run_hours if purchase else None,
        queued=purchase is not None and purchase.queued,
        nodes_min=pool.nodes_min,
        nodes_desired=0 if comes_later else pool.nodes_expected,
        nodes_max=pool.nodes_max,
        disk_gib=pool.disk_gib,
        stands_in_for=pool.stands_in_for,
        vcpus=pool.vcpus_per_node,
        node_autoscaler=config.node_autoscaler_on(plan.cloud),
        device_resource=plugins.fpga_resource if plugins and has_fpgas(pool.accelerator, load()) else None,
        fabric_images=_fabric_images(config),
    )


def _fabric_images(config: StackConfig) -> dict[str, str] | None:
    """By kind of GPUDirect; None where pods use none."""
    asked = config.cluster.gpudirect
    if asked is None:
        return None
    images = {"TCPX": asked.tcpx_image, "TCPXO": asked.tcpxo_image}
    return {kind: image for kind, image in images.items() if image}


def _training_job(job: TrainingJob, plan: Plan, *, reads_files: bool = False) -> TrainingJobSpec:
    predicted = plan.prediction_of(job.name)
    volume = job.training.checkpoint_volume
    dataset, runs = f"data/{job.training.dataset}", f"runs/{job.name}"
    read_from = DATA_FILES if reads_files else f"{BUCKET}/{dataset}"
    return TrainingJobSpec(
        name=job.name,
        pool=plan.pool_of(job.name).name,
        pod=PodArgs(
            image=job.image,
            command=("python", "-m", "workloads.training"),
            args=("--config", "/etc/fusion/training.yaml"),
            cpus=job.needs.vcpus,
            memory_gib=job.needs.memory_gib,
        ),
        devices=_devices(job, plan),
        read=(f"{dataset}/",),
        write=(f"{runs}/",),
        config=training_config(job, read_from, f"{BUCKET}/{runs}") | as_predicted(predicted),
        promise=promise(job, plan),
        data=f"{dataset}/" if reads_files else None,
        nodes=predicted.nodes if predicted else max(job.nodes.expected, 1),
        checkpoint_volume=Volume(gib=volume.gib, storage_class=volume.storage_class) if volume else None,
        queue=job.queue,
        priority=job.priority,
    )


def _devices(workload: TrainingJob | InferenceService, plan: Plan) -> int:
    """Accelerators of one pod: those that its target was predicted with, or those that it needs."""
    predicted = plan.prediction_of(workload.name)
    return predicted.accelerators_each if predicted else workload.needs.accelerators_least


def training_config(job: TrainingJob, dataset_url: str, runs_url: str) -> dict[str, Any]:
    """What the job's `training.yaml` holds (workloads/training/config.py)."""
    asked = job.training
    checkpoints = f"file://{CHECKPOINTS_PATH}" if asked.checkpoint_volume else f"{runs_url}/checkpoints"
    return {
        "run": job.name,
        "model": {"name": asked.model},
        "data": {"url": dataset_url, "batch_size": asked.batch_size},
        "epochs": asked.epochs,
        "learning_rate": asked.learning_rate,
        "seed": asked.seed,
        "checkpoint": {"url": checkpoints, "every_steps": asked.checkpoint_every_steps},
        "outputs": {"url": runs_url},
        "metrics_port": METRICS_PORT,
    }


def as_predicted(predicted: WorkloadPrediction | None) -> dict[str, Any]:
    """How the plan has a job compute: what it was predicted with is what runs."""
    if predicted is None:
        return {}
    parallel = {"strategy": "fsdp"} if predicted.fsdp or predicted.tensor_parallel > 1 else {}
    tensor = {"tensor_parallel": predicted.tensor_parallel} if predicted.tensor_parallel > 1 else {}
    return {"precision": predicted.precision, **({"parallel": {**parallel, **tensor}} if parallel else {})}


def promise(job: TrainingJob, plan: Plan) -> dict[str, Any] | None:
    """What the plan predicts of a job, as its container reads it (workloads/training/promise.py)."""
    predicted, pool = plan.prediction_of(job.name), plan.pool_of(job.name)
    if predicted is None:
        return None
    ranges = {
        "samples_per_s": predicted.throughput_per_s,
        "run_hours": predicted.run_hours,
        "run_usd": predicted.run_usd,
    }
    return {
        "machine": pool.accelerator or pool.instance_type,
        "instance_type": pool.instance_type,
        "nodes": predicted.nodes,
        "devices": predicted.accelerators or predicted.nodes,
        "vcpus": 0.0 if predicted.accelerators else job.needs.vcpus,
        "precision": predicted.precision,
        "profile": predicted.profile,
        "peak_flops": predicted.peak_flops,
        "usd_per_hour": predicted.usd_per_hour,
        "corrected_by": predicted.corrected_by,
        "calibration": predicted.calibration,
        **{name: dataclasses.asdict(found) for name, found in ranges.items() if found},
    }


def serving_environment(service: InferenceService, plan: Plan) -> dict[str, str]:
    """What the plan decided of a server: its precision and, of one that batches requests, its largest batch and SLO."""
    predicted = plan.prediction_of(service.name)
    if predicted is None:
        return {}
    told = {"FUSION_PRECISION": predicted.precision}
    if isinstance(service.target, ServiceTarget):
        told["FUSION_BATCH_MAX"] = str(predicted.batch)
        if service.target.p99_ms_max is not None:
            told["FUSION_SLO_MS"] = f"{service.target.p99_ms_max:g}"
    return told


def _server(service: InferenceService, plan: Plan) -> PodArgs:
    """The container of one replica: vLLM's of a language model, otherwise `workloads.serving`'s or the user's own."""
    predicted = plan.prediction_of(service.name)
    if predicted is not None and language_model.runs_vllm(service):
        return language_model.pod(service, predicted)
    return PodArgs(
        image=service.image,
        command=service.command,
        cpus=service.needs.vcpus,
        memory_gib=service.needs.memory_gib,
        env={
            "FUSION_PACKAGE_URL": f"{BUCKET}/runs/{service.name}/package",
            "FUSION_PORT": str(service.port),
            **serving_environment(service, plan),
        },
    )


def _probes(service: InferenceService) -> ProbePaths:
    return language_model.PROBES if language_model.runs_vllm(service) else ProbePaths()


def _inference_service(service: InferenceService, plan: Plan) -> InferenceServiceSpec:
    return InferenceServiceSpec(
        name=service.name,
        pool=plan.pool_of(service.name).name,
        pod=_server(service, plan),
        probes=_probes(service),
        devices=_devices(service, plan),
        read=(f"runs/{service.name}/",),
        replicas_min=service.replicas.min,
        replicas_max=service.replicas.max,
        port=service.port,
        grpc_port=service.grpc_port,
        traces=service.traces,
        startup_seconds=service.startup_seconds,
    )
