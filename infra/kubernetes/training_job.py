"""A training run as an indexed Job, or as a JobSet that waits in a queue, with what torchrun needs to make one group
of its pods."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import pulumi
import pulumi_kubernetes as kubernetes
import yaml

from infra.kubernetes import fabric, folders, pods
from infra.kubernetes.device_claims import claim_template, claim_template_of
from infra.kubernetes.objects import make_object
from infra.kubernetes.queue import PRIORITY_LABEL, QUEUE_LABEL, TOPOLOGY_ANNOTATION
from infra.training_job import Queueing, TrainingJobArgs, Volume

CONTAINER = "training"
CONFIG_PATH = "/etc/fusion"
CHECKPOINTS_PATH = "/checkpoints"
CONFIG_FILE = "training.yaml"
PROMISE_FILE = "promise.json"
METRICS_PORT_NAME = "metrics"
RENDEZVOUS_PORT = 29_500
INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"
NOT_MOVED = "karpenter.sh/do-not-disrupt"
"""Tells Karpenter to change a node (for a newer image, or a cheaper one) when the run is over.

It then drains the pod in no case, and so not before AWS takes a spot node back: there the NodePool says the same of the
nodes.
"""
GRACE_SECONDS = 120
"""Between the warning of an eviction and the end: two minutes are what spot gives, enough for a last checkpoint."""

INTERRUPTED_EXIT_CODE = 75
"""Of a run that heard that its node will be taken away, saved and left; workloads/training/stopping.py has it too."""

JOB_SET_API = "jobset.x-k8s.io/v1alpha2"
REPLICATED_JOB = "nodes"
NO_WAIT = {"pulumi.com/skipAwait": "true"}
"""An update that waited for the end of a training run would hold the stack's lock for hours."""

batch = kubernetes.batch.v1
core = kubernetes.core.v1
meta = kubernetes.meta.v1


class TrainingJob(pulumi.ComponentResource):
    """Pods that train together, and the file that says what.

    Makes: ConfigMap and Job; with a checkpoint volume a PersistentVolumeClaim; with a mounted folder of the bucket
    another and its PersistentVolume; with devices or interfaces that are claimed a ResourceClaimTemplate; for several
    nodes a headless Service, through which the pods find the first. With queueing a JobSet, whose controller makes Job
    and Service, and which Kueue lets start when all its pods fit.

    Attributes:
        job_name: the Job's name in its namespace.

    Example:
        >>> pod = PodArgs(image=image, command=("python", "-m", "workloads.training"), cpus=3, memory_gib=12)
        >>> args = TrainingJobArgs(name="digits", namespace="workloads", pod=pod, config={"epochs": 12})
        >>> TrainingJob("prod-digits", args, pulumi.ResourceOptions(provider=on_cluster))
    """

    def __init__(self, name: str, args: TrainingJobArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("fusion:kubernetes:TrainingJob", name, facts(args), opts)
        self.args = args
        self._labels = pods.labels(args.name, "training")
        self._child = pulumi.ResourceOptions(parent=self)
        text = yaml.safe_dump(dict(args.config), sort_keys=False)
        config = core.ConfigMap(
            f"{name}-config",
            metadata=meta.ObjectMetaArgs(name=f"{args.name}-config", namespace=args.namespace, labels=self._labels),
            data={CONFIG_FILE: text, **self._promise_file()},
            opts=self._child,
        )
        if args.pod.device_class:
            template = claim_template(args.name, args.namespace, self._labels, args.pod)
            make_object(f"{name}-devices", template, self._child)
        if args.fabric and args.fabric.device_class:
            claimed = fabric.claim_template_name(args.name), fabric.CLAIM, args.fabric.device_class, args.fabric.devices
            value = claim_template_of(args.namespace, self._labels, *claimed)
            make_object(f"{name}-fabric", value, self._child)
        if args.checkpoint_volume:
            self._claim(f"{name}-checkpoints", args.checkpoint_volume)
        if args.data:
            folders.make_claim(f"{name}-data", args.data, args.name, args.namespace, self._labels, self._child)
        pod_template = self._pod_template(config.metadata.name, text)
        if args.queueing:
            self.job_name = pulumi.Output.from_input(args.name)
            self._make_job_set(name, args.queueing, pod_template)
        else:
            self.job_name = self._make_job(name, pod_template)
        self.register_outputs({"job_name": self.job_name})

    def _make_job(self, name: str, template: kubernetes.core.v1.PodTemplateSpecArgs) -> pulumi.Output[str]:
        args = self.args
        if args.pods > 1:
            self._make_rendezvous(name)
        metadata = meta.ObjectMetaArgs(
            name=args.name, namespace=args.namespace, labels=self._labels, annotations=NO_WAIT
        )
        spec = self._job_spec(template, backoff_limit=args.retries, when_taken_back="Ignore")
        spec.ttl_seconds_after_finished = args.keep_finished_seconds
        job = batch.Job(name, metadata=metadata, spec=spec, opts=self._child)
        return job.metadata.name.apply(str)

    def _make_job_set(self, name: str, queueing: Queueing, template: kubernetes.core.v1.PodTemplateSpecArgs) -> None:
        """A gang: it starts, restarts and is put out as a whole.

        Its Job fails at the first pod that fails, and says why: `PodFailurePolicy` where the cloud took a node back,
        which restarts the gang and is not counted, anything else is a failure of its own. `suspend` is left to Kueue,
        which owns it from the admission webhook on; to write it would stop a running job in the next update.
        """
        args = self.args
        keep = {} if args.keep_finished_seconds is None else {"ttlSecondsAfterFinished": args.keep_finished_seconds}
        rules = [
            {"name": "deadline", "action": "FailJobSet", "onJobFailureReasons": ["DeadlineExceeded"]},
            {
                "name": "takenBack",
                "action": "RestartJobSetAndIgnoreMaxRestarts",
                "onJobFailureReasons": ["PodFailurePolicy"],
            },
        ]
        job_spec = self._job_spec(template, backoff_limit=0, when_taken_back="FailJob")
        make_object(
            name,
            {
                "apiVersion": JOB_SET_API,
                "kind": "JobSet",
                "metadata": {
                    "name": args.name,
                    "namespace": args.namespace,
                    "labels": {**self._labels, QUEUE_LABEL: queueing.queue, PRIORITY_LABEL: queueing.priority_class},
                    "annotations": NO_WAIT,
                },
                "spec": {
                    "network": {"enableDNSHostnames": True, "subdomain": args.name, "publishNotReadyAddresses": True},
                    "failurePolicy": {"maxRestarts": args.retries, "rules": rules},
                    "replicatedJobs": [{"name": REPLICATED_JOB, "replicas": 1, "template": {"spec": job_spec}}],
                    **keep,
                },
            },
            # A JobSet can't be changed: another config makes another run.
            pulumi.ResourceOptions(parent=self, replace_on_changes=["spec"], delete_before_replace=True),
        )

    def _claim(self, name: str, volume: Volume) -> None:
        """Not waited for: most classes make the disk when the first pod is placed."""
        core.PersistentVolumeClaim(
            name,
            metadata=meta.ObjectMetaArgs(
                name=f"{self.args.name}-checkpoints",
                namespace=self.args.namespace,
                labels=self._labels,
                annotations=NO_WAIT,
            ),
            spec=core.PersistentVolumeClaimSpecArgs(
                access_modes=["ReadWriteOnce" if self.args.pods == 1 else "ReadWriteMany"],
                storage_class_name=volume.storage_class,
                resources=core.VolumeResourceRequirementsArgs(requests={"storage": pods.binary(volume.gib)}),
            ),
            opts=self._child,
        )

    def _promise_file(self) -> dict[str, str]:
        return {PROMISE_FILE: json.dumps(dict(self.args.promise), indent=1)} if self.args.promise else {}

    def _make_rendezvous(self, name: str) -> None:
        """A headless service: it gives each pod a DNS name, also before it is ready."""
        core.Service(
            f"{name}-rendezvous",
            metadata=meta.ObjectMetaArgs(name=self.args.name, namespace=self.args.namespace, labels=self._labels),
            spec=core.ServiceSpecArgs(
                cluster_ip="None",
                publish_not_ready_addresses=True,
                selector=self._labels,
                ports=[core.ServicePortArgs(name="rendezvous", port=RENDEZVOUS_PORT)],
            ),
            opts=self._child,
        )

    def _job_spec(
        self, template: kubernetes.core.v1.PodTemplateSpecArgs, *, backoff_limit: int, when_taken_back: str
    ) -> kubernetes.batch.v1.JobSpecArgs:
        args = self.args
        taken_back = batch.PodFailurePolicyRuleArgs(
            action=when_taken_back,
            on_pod_conditions=[
                batch.PodFailurePolicyOnPodConditionsPatternArgs(type="DisruptionTarget", status="True")
            ],
        )
        # A run may leave before its pod is evicted: at a notice to another node of the job, or to the machine itself.
        left_in_time = batch.PodFailurePolicyRuleArgs(
            action=when_taken_back,
            on_exit_codes=batch.PodFailurePolicyOnExitCodesRequirementArgs(
                container_name=CONTAINER, operator="In", values=[INTERRUPTED_EXIT_CODE]
            ),
        )
        return batch.JobSpecArgs(
            completion_mode="Indexed",
            completions=args.pods,
            parallelism=args.pods,
            backoff_limit=backoff_limit,
            active_deadline_seconds=args.deadline_seconds,
            pod_failure_policy=batch.PodFailurePolicyArgs(rules=[taken_back, left_in_time]),
            template=template,
        )

    def _pod_template(self, config_name: pulumi.Input[str], text: str) -> kubernetes.core.v1.PodTemplateSpecArgs:
        # A Job's pods can't be changed: a new config makes a new Job, which is what a new config means.
        annotations = {"fusion.dev/config": hashlib.sha256(text.encode()).hexdigest()[:16]}
        if not self.args.is_taken_back:
            annotations[NOT_MOVED] = "true"
        if self.args.data:
            annotations |= self.args.data.annotations
        if self.args.fabric:
            annotations |= self.args.fabric.annotations
        if self.args.queueing and self.args.queueing.topology_level:
            annotations[TOPOLOGY_ANNOTATION] = self.args.queueing.topology_level
        return core.PodTemplateSpecArgs(
            metadata=meta.ObjectMetaArgs(labels=self._labels, annotations=annotations),
            spec=self._pod_spec(config_name),
        )

    def _pod_spec(self, config_name: pulumi.Input[str]) -> kubernetes.core.v1.PodSpecArgs:
        args, pod = self.args, self.args.pod
        volumes = [core.VolumeArgs(name="config", config_map=core.ConfigMapVolumeSourceArgs(name=config_name))]
        mounts = [core.VolumeMountArgs(name="config", mount_path=CONFIG_PATH, read_only=True)]
        if args.checkpoint_volume:
            claim = core.PersistentVolumeClaimVolumeSourceArgs(claim_name=f"{args.name}-checkpoints")
            volumes.append(core.VolumeArgs(name="checkpoints", persistent_volume_claim=claim))
            mounts.append(core.VolumeMountArgs(name="checkpoints", mount_path=CHECKPOINTS_PATH))
        if args.data:
            volumes.append(folders.volume(args.name))
            mounts.append(folders.mount(args.data))
        resources, claims = pods.resources(pod), pods.claims(args.name, pod) or []
        if args.fabric:
            volumes += fabric.volumes(args.fabric)
            mounts += fabric.mounts(args.fabric)
            joined = fabric.claims(args.name, args.fabric)
            claims += joined
            resources.claims = [core.ResourceClaimArgs(name=each.name) for each in claims] or None
        return core.PodSpecArgs(
            restart_policy="Never",
            service_account_name=args.service_account,
            automount_service_account_token=False,
            enable_service_links=False,
            # The JobSet's controller sets its own.
            subdomain=args.name if args.pods > 1 and not args.queueing else None,
            termination_grace_period_seconds=GRACE_SECONDS,
            security_context=pods.pod_security(),
            # Kueue writes the flavor's labels into the selector, which has one owner: an update would take them out
            # again, and JobSet refuses it. What says which flavors will do is asked for beside it.
            node_selector=None if args.queueing else pod.node_selector or None,
            tolerations=pods.tolerations(pod),
            resource_claims=claims or None,
            affinity=self._affinity(),
            volumes=[*volumes, *pods.volumes(pod)],
            init_containers=(fabric.daemon(args.fabric) if args.fabric else []) or None,
            containers=[
                core.ContainerArgs(
                    name=CONTAINER,
                    image=pod.image,
                    command=list(pod.command) or None,
                    args=list(pod.args) or None,
                    env=[*pods.environment(self._environment()), *self._rank()],
                    ports=self._metrics_ports() or None,
                    resources=resources,
                    security_context=pods.container_security(),
                    volume_mounts=[*mounts, *pods.volume_mounts()],
                )
            ],
        )

    def _environment(self) -> dict[str, pulumi.Input[str]]:
        """The workload's own environment, and torchrun's arguments as it reads them from there (`PET_*`)."""
        args = self.args
        torchrun = {"PET_NNODES": str(args.pods), "PET_NPROC_PER_NODE": str(max(args.pod.devices, 1))}
        if args.pods > 1:
            first = f"{args.name}-{REPLICATED_JOB}-0-0" if args.queueing else f"{args.name}-0"
            torchrun["PET_MASTER_ADDR"] = f"{first}.{args.name}.{args.namespace}.svc"
            torchrun["PET_MASTER_PORT"] = str(RENDEZVOUS_PORT)
        promise = {"FUSION_PREDICTION": f"{CONFIG_PATH}/{PROMISE_FILE}"} if args.promise else {}
        files = {"FUSION_DATA_PATH": args.data.path} if args.data else {}
        collectives = args.fabric.environment if args.fabric else {}
        return {"FUSION_WORKLOAD": args.name, **torchrun, **promise, **files, **collectives, **args.pod.env}

    def _metrics_ports(self) -> list[kubernetes.core.v1.ContainerPortArgs]:
        """Where the program answers Prometheus; a PodMonitor selects the port by its name."""
        port = self.args.config.get("metrics_port")
        return [core.ContainerPortArgs(name=METRICS_PORT_NAME, container_port=port)] if port else []

    def _rank(self) -> list[kubernetes.core.v1.EnvVarArgs]:
        """The pod's index in the Job is the node's rank."""
        path = core.ObjectFieldSelectorArgs(field_path=f"metadata.annotations['{INDEX_ANNOTATION}']")
        return [core.EnvVarArgs(name="PET_NODE_RANK", value_from=core.EnvVarSourceArgs(field_ref=path))]

    def _affinity(self) -> kubernetes.core.v1.AffinityArgs | None:
        """In a queue, nodes with the pool's labels; of several pods one a machine, all in one slice where there are
        slices.
        """
        args, own = self.args, meta.LabelSelectorArgs(match_labels=self._labels)
        labels = args.pod.node_selector if args.queueing else {}
        if not labels and args.pods == 1:
            return None
        apart = core.PodAffinityTermArgs(topology_key="kubernetes.io/hostname", label_selector=own)
        together = [core.PodAffinityTermArgs(topology_key=args.hosts.label, label_selector=own)] if args.hosts else []
        return core.AffinityArgs(
            node_affinity=_on_nodes(labels) if labels else None,
            pod_anti_affinity=core.PodAntiAffinityArgs(required_during_scheduling_ignored_during_execution=[apart])
            if args.pods > 1
            else None,
            pod_affinity=core.PodAffinityArgs(required_during_scheduling_ignored_during_execution=together)
            if together
            else None,
        )


def _on_nodes(labels: Mapping[str, str]) -> kubernetes.core.v1.NodeAffinityArgs:
    asked = [core.NodeSelectorRequirementArgs(key=key, operator="In", values=[labels[key]]) for key in sorted(labels)]
    return core.NodeAffinityArgs(
        required_during_scheduling_ignored_during_execution=core.NodeSelectorArgs(
            node_selector_terms=[core.NodeSelectorTermArgs(match_expressions=asked)]
        )
    )


def facts(args: TrainingJobArgs) -> dict[str, object]:
    """What guardrails judge a job by; plain values, known in every preview."""
    return {
        "workload": args.name,
        "namespace": args.namespace,
        "image": args.pod.image,
        "nodes": args.nodes,
        "pods": args.pods,
        "cpus": args.pod.cpus,
        "memory_gib": args.pod.memory_gib,
        "device_resource": args.pod.device_resource,
        "devices": args.pod.devices,
        "queue": args.queueing.queue if args.queueing else None,
    }
