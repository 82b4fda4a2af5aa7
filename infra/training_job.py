"""A training job: what it takes, whichever cluster it runs on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi

from infra.errors import require
from infra.kubernetes.pods import PodArgs, check_name


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
        deadline_seconds: after how long it is stopped; None for never.

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

    def __post_init__(self) -> None:
        check_name("training job", self.name)
        check_name("namespace", self.namespace, 63)
        require(self.nodes >= 1, f"training job {self.name}: nodes {self.nodes}; use 1 or more.")
        require(self.retries >= 0, f"training job {self.name}: retries {self.retries}; use 0 or more.")
        require(
            self.deadline_seconds is None or self.deadline_seconds > 0,
            f"training job {self.name}: deadline_seconds {self.deadline_seconds}; use more than 0, or leave it out.",
        )
