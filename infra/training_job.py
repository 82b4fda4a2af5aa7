"""A training job: what it takes, whichever cluster it runs on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi

from infra.accelerator_pool import Fabric, Hosts
from infra.errors import require
from infra.file_cache import MountedFolder
from infra.kubernetes.pods import PodArgs, check_name

JOB_SET_NAME_MAX = 44
"""A JobSet's pods are called `<name>-nodes-0-<index>-<5 letters>`, which must be a DNS label of up to 63."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queueing:
    """How a job waits for its nodes: as one gang, in a queue.

    Attributes:
        queue: name of the LocalQueue in the job's namespace.
        priority_class: name of the WorkloadPriorityClass that orders it among the jobs of the queue.
        topology_level: node label of the widest domain that all its pods should be in; None where it does not matter.
    """

    queue: str
    priority_class: str
    topology_level: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A disk of the cluster that outlives pods.

    Attributes:
        gib: its size.
        storage_class: name of the StorageClass that makes it; None for the cluster's default.
    """

    gib: int
    storage_class: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJobArgs:
    """One run of a training program on one or more nodes.

    Attributes:
        name: the job's name in its namespace, and `FUSION_WORKLOAD` in its environment.
        namespace: where it runs.
        service_account: whose rights in the cloud it has; None for none at all.
        pod: container, resources and nodes.
        config: what `/etc/fusion/training.yaml` holds; the program fills in `${FUSION_BUCKET_URL}` and the like.
        promise: what the plan predicts of the run, in the file that `FUSION_PREDICTION` names; None where nothing does.
            Another prediction starts no new run.
        nodes: pods that train together, each on a node of its own.
        retries: failures of its own that it may have; what the cloud takes back or evicts is not counted.
        deadline_seconds: after how long it is stopped; None for never. A JobSet counts from its last restart.
        keep_finished_seconds: after how long a finished run is removed from the cluster; None for never. The next
            update makes a removed run anew, so it is for runs whose stack is updated no more.
        checkpoint_volume: mounted at `/checkpoints`, written to by all nodes; None where the run saves to a bucket.
        data: the folder of the bucket that it reads as files; None where it reads from the bucket.
        queueing: how it waits for its nodes; None for a plain Job, whose pods start as each finds room.
        is_taken_back: whether the cloud may take its nodes back (spot), so that it must leave them when it is told to.
        hosts: the machines of its one node, each with a pod, where a node is several; `pod` is what one of them has.
        fabric: how its pods reach those on other nodes past the CPU; None for as any pod does. The namespace must allow
            privileged pods then.

    Raises:
        ArgumentError: bounds that make no run.
    """

    name: str
    namespace: str
    pod: PodArgs
    config: Mapping[str, Any] = field(default_factory=dict)
    promise: Mapping[str, Any] | None = None
    service_account: pulumi.Input[str] | None = None
    nodes: int = 1
    retries: int = 3
    deadline_seconds: int | None = None
    keep_finished_seconds: int | None = None
    checkpoint_volume: Volume | None = None
    data: MountedFolder | None = None
    queueing: Queueing | None = None
    is_taken_back: bool = False
    hosts: Hosts | None = None
    fabric: Fabric | None = None

    @property
    def pods(self) -> int:
        """How many there are."""
        return self.nodes * (self.hosts.count if self.hosts else 1)

    def __post_init__(self) -> None:
        check_name("training job", self.name, JOB_SET_NAME_MAX if self.queueing else 52)
        check_name("namespace", self.namespace, 63)
        require(self.nodes >= 1, f"training job {self.name}: nodes {self.nodes}; use 1 or more.")
        require(
            self.hosts is None or self.nodes == 1,
            f"training job {self.name}: nodes {self.nodes} of several hosts each; slices of TPUs are not trained on "
            "together here, so use 1, of more chips.",
        )
        require(self.retries >= 0, f"training job {self.name}: retries {self.retries}; use 0 or more.")
        require(
            self.checkpoint_volume is None or self.pods == 1 or self.checkpoint_volume.storage_class is not None,
            f"training job {self.name}: {self.pods} pods write to one checkpoint_volume, which the default "
            "StorageClass of a cloud can't be mounted for; name a storage_class of a shared file system, or leave the "
            "volume out.",
        )
        require(
            self.deadline_seconds is None or self.deadline_seconds > 0,
            f"training job {self.name}: deadline_seconds {self.deadline_seconds}; use more than 0, or leave it out.",
        )
        require(
            self.keep_finished_seconds is None or self.keep_finished_seconds >= 0,
            f"training job {self.name}: keep_finished_seconds {self.keep_finished_seconds}; use 0 or more, or leave it "
            "out.",
        )
