"""An inference service as a Deployment behind a Service, scaled between its bounds and never drained at once."""

from __future__ import annotations

import math

import pulumi
import pulumi_kubernetes as kubernetes

from infra.inference_service import InferenceServiceArgs, Route
from infra.kubernetes import pods
from infra.kubernetes.autoscaling import Autoscaling, AutoscalingArgs
from infra.kubernetes.device_claims import claim_template
from infra.kubernetes.gateway import GATEWAY_API, HTTPS_LISTENER
from infra.kubernetes.objects import make_object

PORT = 80
"""Of the Service, inside the cluster."""
HTTP2 = "kubernetes.io/h2c"
"""KEP-3726's name of HTTP/2 in clear text, by which gateways and meshes take a port for gRPC."""
PROBE_SECONDS = 10
DEREGISTRATION_SECONDS = 10
"""How long a replica that leaves still gets requests, until every node knows that it is gone."""
ROLLOUT_MINUTES = 30
"""A node with accelerators takes minutes to start, and its image minutes more."""

apps = kubernetes.apps.v1
autoscaling = kubernetes.autoscaling.v2
core = kubernetes.core.v1
meta = kubernetes.meta.v1


class InferenceService(pulumi.ComponentResource):
    """Replicas of a server, and what keeps enough of them.

    Makes: Deployment, Service, HorizontalPodAutoscaler (or Autoscaling, where something is said to scale it by) and
    PodDisruptionBudget; with a route an HTTPRoute; with a device class a ResourceClaimTemplate.

    Attributes:
        url: where the cluster's pods reach it.

    Example:
        >>> pod = PodArgs(image=image, cpus=4, memory_gib=12, device_resource="nvidia.com/gpu", devices=1)
        >>> args = InferenceServiceArgs(name="classify", namespace="workloads", pod=pod, replicas_max=8)
        >>> InferenceService("prod-classify", args, pulumi.ResourceOptions(provider=on_cluster))
    """

    def __init__(self, name: str, args: InferenceServiceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fusion:kubernetes:InferenceService", name, facts(args), opts)
        self.args = args
        self._name = name
        self._labels = pods.labels(args.name, "inference")
        self._selector = meta.LabelSelectorArgs(match_labels=self._labels)
        self._child = pulumi.ResourceOptions(parent=self)
        if args.pod.device_class:
            template = claim_template(args.name, args.namespace, self._labels, args.pod)
            make_object(f"{name}-devices", template, self._child)
        deployment = self._make_deployment()
        service = core.Service(
            name,
            metadata=self._metadata(),
            spec=core.ServiceSpecArgs(
                type="ClusterIP",
                selector=self._labels,
                ports=self._service_ports(),
            ),
            opts=self._child,
        )
        self._bound(deployment)
        if args.route:
            self._make_route(args.route)
        self.url = pulumi.Output.concat("http://", service.metadata.name, f".{args.namespace}.svc")
        self.register_outputs({"url": self.url})

    def _service_ports(self) -> list[kubernetes.core.v1.ServicePortArgs]:
        ports = [core.ServicePortArgs(name="http", port=PORT, target_port="http")]
        if self.args.grpc_port:  # what stands in front of it must speak HTTP/2 without TLS there
            ports.append(
                core.ServicePortArgs(name="grpc", port=self.args.grpc_port, target_port="grpc", app_protocol=HTTP2)
            )
        return ports

    def _metadata(self) -> kubernetes.meta.v1.ObjectMetaArgs:
        return meta.ObjectMetaArgs(name=self.args.name, namespace=self.args.namespace, labels=self._labels)

    def _make_deployment(self) -> kubernetes.apps.v1.Deployment:
        return apps.Deployment(
            self._name,
            metadata=self._metadata(),
            # No `replicas`: the autoscaler's alone, or each update would reset what it decided.
            spec=apps.DeploymentSpecArgs(
                selector=self._selector,
                strategy=apps.DeploymentStrategyArgs(
                    type="RollingUpdate",
                    rolling_update=apps.RollingUpdateDeploymentArgs(
                        max_unavailable=0 if self.args.surges else 1, max_surge=1 if self.args.surges else 0
                    ),
                ),
                progress_deadline_seconds=self.args.startup_seconds + ROLLOUT_MINUTES * 60,
                template=core.PodTemplateSpecArgs(
                    metadata=meta.ObjectMetaArgs(labels=self._labels), spec=self._pod_spec()
                ),
            ),
            opts=pulumi.ResourceOptions(
                parent=self,
                custom_timeouts=pulumi.CustomTimeouts(create=f"{ROLLOUT_MINUTES}m", update=f"{ROLLOUT_MINUTES}m"),
            ),
        )

    def _pod_spec(self) -> kubernetes.core.v1.PodSpecArgs:
        args, pod = self.args, self.args.pod
        return core.PodSpecArgs(
            service_account_name=args.service_account,
            priority_class_name=args.priority_class,
            automount_service_account_token=False,
            enable_service_links=False,
            termination_grace_period_seconds=args.drain_seconds + DEREGISTRATION_SECONDS,
            security_context=pods.pod_security(),
            node_selector=pod.node_selector or None,
            tolerations=pods.tolerations(pod),
            resource_claims=pods.claims(args.name, pod),
            topology_spread_constraints=[
                core.TopologySpreadConstraintArgs(
                    topology_key=key, max_skew=1, when_unsatisfiable="ScheduleAnyway", label_selector=self._selector
                )
                for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
            ],
            volumes=pods.volumes(pod),
            containers=[self._container()],
        )

    def _container(self) -> kubernetes.core.v1.ContainerArgs:
        args, pod = self.args, self.args.pod
        linger = core.LifecycleHandlerArgs(sleep=core.SleepActionArgs(seconds=DEREGISTRATION_SECONDS))
        return core.ContainerArgs(
            name="inference",
            image=pod.image,
            command=list(pod.command) or None,
            args=list(pod.args) or None,
            env=pods.environment({"FUSION_WORKLOAD": args.name, **self._told(), **pod.env}),
            ports=[
                core.ContainerPortArgs(name=name, container_port=port)
                for name, port in (("http", args.port), ("grpc", args.grpc_port))
                if port
            ],
            resources=pods.resources(pod),
            security_context=pods.container_security(),
            volume_mounts=pods.volume_mounts(),
            lifecycle=core.LifecycleArgs(pre_stop=linger),
            startup_probe=self._probe(args.probes.ready, math.ceil(args.startup_seconds / PROBE_SECONDS)),
            readiness_probe=self._probe(args.probes.ready, 2),
            liveness_probe=self._probe(args.probes.live, 6),
        )

    def _told(self) -> dict[str, str]:
        args = self.args
        grpc = {"FUSION_GRPC_PORT": str(args.grpc_port)} if args.grpc_port else {}
        traces = {"OTEL_EXPORTER_OTLP_ENDPOINT": args.traces, "OTEL_SERVICE_NAME": args.name} if args.traces else {}
        return {**grpc, **traces}

    def _probe(self, path: str, failures: int) -> kubernetes.core.v1.ProbeArgs:
        return core.ProbeArgs(
            http_get=core.HTTPGetActionArgs(path=path, port="http"),
            period_seconds=PROBE_SECONDS,
            timeout_seconds=5,
            failure_threshold=failures,
        )

    def _make_route(self, route: Route) -> None:
        """From the Gateway's listener with TLS, and from no other."""
        metadata = {"name": self.args.name, "namespace": self.args.namespace, "labels": self._labels}
        spec = {
            "parentRefs": [{"name": route.gateway, "sectionName": HTTPS_LISTENER}],
            "hostnames": route.hostnames,
            "rules": [{"backendRefs": [{"name": self.args.name, "port": PORT}]}],
        }
        value = {"apiVersion": GATEWAY_API, "kind": "HTTPRoute", "metadata": metadata, "spec": spec}
        make_object(f"{self._name}-route", value, self._child)

    def _bound(self, deployment: kubernetes.apps.v1.Deployment) -> None:
        """Never fewer or more replicas than the bounds, and never more than one gone for maintenance."""
        args = self.args
        if args.scaling and args.replicas_min < args.replicas_max:
            Autoscaling(
                f"{self._name}-scaling",
                AutoscalingArgs(
                    name=args.name,
                    namespace=args.namespace,
                    replicas_min=args.replicas_min,
                    replicas_max=args.replicas_max,
                    scaling=args.scaling,
                ),
                pulumi.ResourceOptions(parent=self, depends_on=[deployment]),
            )
        else:
            self._bound_by_cpu()
        kubernetes.policy.v1.PodDisruptionBudget(
            self._name,
            metadata=self._metadata(),
            spec=kubernetes.policy.v1.PodDisruptionBudgetSpecArgs(max_unavailable=1, selector=self._selector),
            opts=self._child,
        )

    def _bound_by_cpu(self) -> None:
        args = self.args
        cpu = autoscaling.MetricTargetArgs(type="Utilization", average_utilization=args.target_cpu_percent)
        autoscaling.HorizontalPodAutoscaler(
            self._name,
            metadata=self._metadata(),
            spec=autoscaling.HorizontalPodAutoscalerSpecArgs(
                scale_target_ref=autoscaling.CrossVersionObjectReferenceArgs(
                    api_version="apps/v1", kind="Deployment", name=args.name
                ),
                min_replicas=args.replicas_min,
                max_replicas=args.replicas_max,
                metrics=[
                    autoscaling.MetricSpecArgs(
                        type="Resource", resource=autoscaling.ResourceMetricSourceArgs(name="cpu", target=cpu)
                    )
                ],
            ),
            opts=self._child,
        )


def facts(args: InferenceServiceArgs) -> dict[str, object]:
    """What guardrails judge a service by; plain values, known in every preview."""
    return {
        "workload": args.name,
        "namespace": args.namespace,
        "image": args.pod.image,
        "replicas_min": args.replicas_min,
        "replicas_max": args.replicas_max,
        "cpus": args.pod.cpus,
        "memory_gib": args.pod.memory_gib,
        "device_resource": args.pod.device_resource,
        "devices": args.pod.devices,
    }
