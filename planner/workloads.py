"""What a team declares: its workloads, the machines they need and the limits they must keep.

These are the models of what people type, so every field is checked where it enters and unknown fields are refused.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

PriceModel = Literal["on_demand", "spot"]
WorkloadName = Annotated[
    str, Field(pattern=r"^[a-z]([a-z0-9-]{0,28}[a-z0-9])?$", description="lower-case letters, digits and hyphens")
]


class Declared(BaseModel):
    """Base of everything that is typed by hand: unknown fields are errors, values don't change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True, allow_inf_nan=False)


class Bounds(Declared):
    """How many, as the autoscaler may move it: ``min`` ≤ ``desired`` ≤ ``max``; ``desired`` defaults to ``min``."""

    min: int = Field(default=0, ge=0, le=15_000)
    desired: int | None = Field(default=None, ge=0, le=15_000)
    max: int = Field(ge=1, le=15_000)

    @model_validator(mode="after")
    def _ordered(self) -> Bounds:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is above max ({self.max}); lower min or raise max")
        if self.desired is not None and not self.min <= self.desired <= self.max:
            raise ValueError(f"desired ({self.desired}) is outside min…max ({self.min}…{self.max})")
        return self

    @property
    def expected(self) -> int:
        """The count that the autoscaler starts from."""
        return self.min if self.desired is None else self.desired


class Needs(Declared):
    """What one node (training) or one replica (inference) must have; the cheapest offer that has it is planned.

    With ``instance_type`` the choice is the user's, and the other needs are checked against it.
    """

    instance_type: str | None = None
    accelerator: str | None = Field(default=None, description="a name from `fusion offers`, such as A10G or H100")
    accelerators: int = Field(default=0, ge=0, le=16)
    accelerator_memory_gib: float = Field(default=0, ge=0, le=1_024)
    vcpus: float = Field(default=1, gt=0, le=1_024)
    memory_gib: float = Field(default=2, ge=2, le=32_768)
    architecture: Literal["x86_64", "arm64"] = Field(default="x86_64", description="what the image is built for")

    @model_validator(mode="after")
    def _accelerators_counted(self) -> Needs:
        if self.accelerators == 0 and (self.accelerator or self.accelerator_memory_gib):
            raise ValueError("accelerators is 0 but an accelerator is asked for; set accelerators to 1 or more")
        return self


class Workload(Declared):
    """What training jobs and inference services have in common."""

    name: WorkloadName
    image: str = Field(min_length=1, description="container image, by digest in production")
    needs: Needs = Needs()
    price_model: PriceModel = "on_demand"
    disk_gib: int = Field(default=100, ge=20, le=16_384, description="root disk of a node, for images and scratch")


class TrainingSettings(Declared):
    """What the training container is told to do."""

    model: str = Field(default="fusionnet", min_length=1)
    dataset: str = Field(default="digits", pattern=r"^[a-z0-9][a-z0-9._-]*$", description="a folder of the bucket")
    epochs: int = Field(default=12, ge=1, le=100_000)
    batch_size: int = Field(default=64, ge=1, le=1_048_576)
    learning_rate: float = Field(default=1e-3, gt=0, le=10)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    checkpoint_every_steps: int = Field(default=100, ge=1)


class Target(Declared):
    """What a workload must keep; with it the offer is chosen by prediction, without it by needs and price alone."""

    profile: str = Field(min_length=1, description="a shipped profile, such as resnet-50")
    precision: Literal["fp32", "tf32", "bf16", "fp16", "fp8", "int8"] = "bf16"


class TrainingTarget(Target):
    """Limits of a training run; its batch size and epochs are those of `training`."""

    samples: int = Field(ge=1, le=10**15, description="of one epoch")
    hours_max: float | None = Field(default=None, gt=0, le=1e6)
    run_usd_max: float | None = Field(default=None, gt=0, le=1e9)


class ServiceTarget(Target):
    """Limits of an inference service; each replica has one accelerator."""

    requests_per_s: float = Field(gt=0, le=1e7)
    p99_ms_max: float | None = Field(default=None, gt=0, le=1e7)
    usd_per_hour_max: float | None = Field(default=None, gt=0, le=1e7)


class TrainingJob(Workload):
    """A training job: ``nodes.max`` of its pool bounds what the autoscaler may buy; it runs on ``nodes.expected``."""

    kind: Literal["training"]
    nodes: Bounds = Bounds(min=0, desired=1, max=1)
    training: TrainingSettings = TrainingSettings()
    target: TrainingTarget | None = None

    @model_validator(mode="after")
    def _has_what_its_target_is_predicted_for(self) -> TrainingJob:
        if self.target is not None and self.needs.accelerators == 0:
            raise ValueError("needs.accelerators is 0; a job with a target needs 1 or more to be predicted for")
        return self


class InferenceService(Workload):
    """An inference service of ``replicas``, each with what ``needs`` says."""

    kind: Literal["inference"]
    replicas: Bounds = Bounds(min=1, max=1)
    target: ServiceTarget | None = None
    port: int = Field(default=8080, ge=1024, le=65_535)
    command: tuple[str, ...] = ("python", "-m", "workloads.serving")

    @model_validator(mode="after")
    def _served_at_all_times(self) -> InferenceService:
        if self.replicas.min < 1:
            raise ValueError("replicas.min is 0; an inference service needs at least 1 replica that answers")
        if self.target is not None and self.needs.accelerators != 1:
            raise ValueError(
                f"needs.accelerators is {self.needs.accelerators}; a service with a target needs exactly 1"
            )
        return self


AnyWorkload = Annotated[TrainingJob | InferenceService, Field(discriminator="kind")]


class Limits(Declared):
    """The guardrails of a stack, in the words of its config (``fusion:guardrails``)."""

    monthly_cost_limit_usd: float = Field(gt=0, le=1e9, description="at the autoscaler's maximum; a month is 730 h")


class ExpectedUsage(Declared):
    """What is billed by use, as the team expects it for a month; priced in the plan, shown apart in its items."""

    object_store_gib: float = Field(default=50, ge=0)
    registry_gib: float = Field(default=20, ge=0)
    nat_gb: float = Field(default=50, ge=0)
    logs_gb: float = Field(default=5, ge=0)
    egress_gb: float = Field(default=10, ge=0)
