"""What a team declares: its workloads, the machines they need and the limits they must keep.

These are the models of what people type, so every field is checked where it enters and unknown fields are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

PriceModel = Literal["on_demand", "spot"]
"""What a node is billed as."""
Bought = Literal["on_demand", "spot", "capacity_block", "flex_start"]
"""What a node is asked for as."""
Precision = Literal["fp32", "tf32", "bf16", "fp16", "fp8", "int8"]
ACCELERATORS_MAX = 256
"""Of a node: the largest slice of TPUs that the catalog offers."""
Objective = Literal["cost", "time", "latency"]
Priority = Literal["low", "normal", "high"]


def matching(pattern: str, expected: str) -> AfterValidator:
    """A text of a form, told in words where it has not."""
    form = re.compile(pattern)

    def check(value: str) -> str:
        if not form.fullmatch(value):
            raise ValueError(f"expected {expected}")
        return value

    return AfterValidator(check)


WorkloadName = Annotated[
    str,
    matching(
        r"[a-z]([a-z0-9-]{0,28}[a-z0-9])?",
        "lower-case letters, digits and hyphens, at most 30, a letter first, and no hyphen last",
    ),
]
CollectorUrl = Annotated[
    str,
    Field(max_length=500),
    matching(
        r"https?://[A-Za-z0-9.-]+:[0-9]{1,5}(/[\w./-]*)?",
        "the URL of an OpenTelemetry collector with its port, such as http://otel-collector.observability:4318",
    ),
]
_PATH = r"[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*"
Image = Annotated[
    str,
    Field(max_length=500),
    matching(
        rf"([A-Za-z0-9.-]+(:[0-9]+)?/)?{_PATH}(/{_PATH})*(:\w[\w.-]{{0,127}})?(@sha256:[0-9a-f]{{64}})?",
        "a container image, such as registry.example.com/team/app:1.2 or one with its @sha256: digest",
    ),
]
"""As the grammar of references in `distribution/reference` has it; in production by digest."""


class Declared(BaseModel):
    """Base of everything that is typed by hand: unknown fields are errors, values don't change once read."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        str_strip_whitespace=True,
        allow_inf_nan=False,
        defer_build=True,  # a process builds what it reads, not all that a stack may declare
    )


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
    accelerators: Annotated[int, Field(ge=0, le=ACCELERATORS_MAX)] | Literal["any"] = Field(
        default=0, description="of one node or replica; `any` leaves the count to the target; 0 is a CPU"
    )
    accelerator_memory_gib: float = Field(default=0, ge=0, le=1_024)
    vcpus: float = Field(default=1, gt=0, le=1_024)
    memory_gib: float = Field(default=2, ge=2, le=32_768)
    architecture: Literal["x86_64", "arm64"] = Field(default="x86_64", description="what the image is built for")

    @field_validator("accelerators", mode="wrap")
    @classmethod
    def _a_count_or_any(cls, value: Any, read: ValidatorFunctionWrapHandler) -> Any:
        try:
            return read(value)
        except ValidationError:
            raise ValueError(f"expected a whole number from 0 to {ACCELERATORS_MAX}, or any") from None

    @property
    def accelerators_least(self) -> int:
        """The fewest that do."""
        return 1 if self.accelerators == "any" else self.accelerators

    @model_validator(mode="after")
    def _accelerators_counted(self) -> Needs:
        if self.accelerators == 0 and (self.accelerator or self.accelerator_memory_gib):
            raise ValueError("accelerators is 0 but an accelerator is asked for; set accelerators to 1 or more")
        return self


class Data(Declared):
    """What a workload reads from elsewhere: the cloud that holds it bills what leaves its region."""

    cloud: Literal["aws", "gcp", "azure"]
    region: str = Field(min_length=1)
    gb_per_run: float | None = Field(default=None, ge=0, le=1e9)
    gb_per_month: float | None = Field(default=None, ge=0, le=1e9)

    @model_validator(mode="after")
    def _one_amount(self) -> Data:
        if (self.gb_per_run is None) == (self.gb_per_month is None):
            raise ValueError("give either gb_per_run (a training job) or gb_per_month")
        return self


ReservationId = Annotated[
    str, matching(r"[a-z][a-z0-9/-]{0,250}[a-z0-9]", "an id such as cr-0123456789abcdef0, or on Google Cloud a name")
]


@dataclass(frozen=True, slots=True)
class Purchase:
    """How nodes are had that are neither simply on demand nor on spot; the bill counts them as on demand."""

    price_model: Literal["on_demand", "capacity_block", "flex_start"]
    """`on_demand` where they come from a reservation."""
    reservation_id: str | None = None
    """Of the reservation or the Capacity Block."""
    max_run_hours: int | None = None
    queued: bool = False

    @property
    def name(self) -> str:
        """`reserved`, `capacity_block` or `flex_start`."""
        return "reserved" if self.price_model == "on_demand" else self.price_model

    @property
    def quota_model(self) -> PriceModel:
        """Whose quotas it takes from: flex-start, of the preemptible ones.

        Source: "Use Dynamic Workload Scheduler", Google Cloud (Managed Service for Apache Spark), read 2026-11-27. That
        Capacity Blocks have quotas of their own is left out: they count as on demand, which is never too few.
        """
        return "spot" if self.price_model == "flex_start" else "on_demand"


class Workload(Declared):
    """What training jobs and inference services have in common."""

    name: WorkloadName
    image: Image
    needs: Needs = Needs()
    price_model: Literal["on_demand", "spot", "any", "capacity_block", "flex_start"] = Field(
        default="on_demand",
        description="capacity_block: bought from AWS by you; flex_start: Google Cloud's, nodes that come when there is "
        "room; both are counted as on demand",
    )
    spot_fallback: bool = Field(default=False, description="while spot is away its nodes are bought on demand")
    reservation_id: ReservationId | None = Field(
        default=None, description="of reserved capacity of yours that its nodes come from, a Capacity Block's too"
    )
    max_run_hours: int | None = Field(default=None, ge=1, le=168, description="of a node of flex_start, until it goes")
    queued: bool = Field(
        default=False, description="with flex_start a job's nodes come all at once, when its queue asks for them"
    )
    zone: str | None = Field(
        default=None,
        min_length=1,
        description="of its nodes; without it the first for several nodes of a training job, and else every zone",
    )
    data: Data | None = None
    disk_gib: int = Field(default=100, ge=20, le=16_384, description="root disk of a node, for images and scratch")

    @property
    def purchase(self) -> Purchase | None:
        """How its nodes are had, where neither simply on demand nor on spot."""
        model = self.price_model
        if model == "spot" or model == "any" or (model == "on_demand" and not self.reservation_id):
            return None
        return Purchase(model, self.reservation_id, self.max_run_hours, self.queued)

    @model_validator(mode="after")
    def _bought_as_it_is_sold(self) -> Workload:
        model, reservation = self.price_model, self.reservation_id
        if model == "capacity_block" and not reservation:
            raise ValueError("price_model is capacity_block; set reservation_id to the id of the block that you bought")
        if reservation and model not in ("on_demand", "capacity_block"):
            raise ValueError(
                f"reservation_id is {reservation} and price_model {model}; what is reserved is bought on_demand, or as "
                "a capacity_block"
            )
        if reservation and self.zone is None:
            raise ValueError(f"reservation_id is {reservation}, which lies in one zone; set zone to it")
        if (self.queued or self.max_run_hours) and model != "flex_start":
            name = "queued" if self.queued else "max_run_hours"
            raise ValueError(f"{name} is of price_model flex_start, and it is {model}; leave it out")
        if self.purchase and self.needs.instance_type is None:
            raise ValueError(
                f"needs.instance_type is not set; capacity that is had as {self.purchase.name} is of one type: name it"
            )
        return self


class CheckpointVolume(Declared):
    """A disk of the cluster that keeps a run's checkpoints, in place of the stack's bucket."""

    gib: int = Field(ge=1, le=65_536)
    storage_class: Annotated[str, matching(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", "a StorageClass such as gp3")] | None = (
        Field(default=None, description="the cluster's default unless said; one that several nodes write to for those")
    )


class TrainingSettings(Declared):
    """What the training container is told to do."""

    model: str = Field(default="fusionnet", min_length=1)
    dataset: Annotated[str, matching(r"[a-z0-9][a-z0-9._-]*", "the name of a folder of the bucket, such as digits")] = (
        "digits"
    )
    epochs: int = Field(default=12, ge=1, le=100_000)
    batch_size: int = Field(default=64, ge=1, le=1_048_576)
    learning_rate: float = Field(default=1e-3, gt=0, le=10)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    checkpoint_every_steps: int = Field(default=100, ge=1)
    checkpoint_volume: CheckpointVolume | None = Field(default=None, description="the bucket unless it is said")


class Target(Declared):
    """What a workload must keep; with it the offer is chosen by prediction, without it by needs and price alone."""

    precision: tuple[Precision, ...] | None = Field(
        default=None, description="one, or a list to choose from; bf16 on accelerators and fp32 on CPUs unless said"
    )

    @field_validator("precision", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        if value == [] or value == ():
            raise ValueError("expected at least one precision, such as bf16")
        return (value,) if isinstance(value, str) else value


class TrainingTarget(Target):
    """Limits of a training run; its batch size and epochs are those of `training`."""

    profile: str = Field(min_length=1, max_length=500, description="a shipped profile, or the path of your own")
    samples: int = Field(ge=1, le=10**15, description="of one epoch")
    objective: Literal["cost", "time"] = "cost"
    hours_max: float | None = Field(default=None, gt=0, le=1e6)
    run_usd_max: float | None = Field(default=None, gt=0, le=1e9)
    runs_per_month: float = Field(default=1, gt=0, le=1e5)


class ClientNetwork(Declared):
    """Between clients and a service. Without it, latency is as the service's own host sees it."""

    round_trip_ms: float = Field(default=0, ge=0, le=60_000)
    bandwidth_mb_per_s: float = Field(default=125, gt=0, le=1e6, description="of one client; 125 is 1 Gbit/s")
    request_kb: float = Field(default=0, ge=0, le=1e7)
    response_kb: float = Field(default=0, ge=0, le=1e7, description="of a language model: until its first token")

    @property
    def transfer_ms(self) -> float:
        """Of request and answer."""
        return (self.request_kb + self.response_kb) / self.bandwidth_mb_per_s


class EdgeDevice(Declared):
    """What clients of a service run its model's first layers on, and their link to the cloud."""

    device: str = Field(min_length=1, max_length=100, description="of planner/edge_devices.csv")
    bandwidth_mbit_per_s: float = Field(gt=0, le=1e6)
    rtt_ms: float = Field(ge=0, le=60_000)


PEAK = "borne by replicas.max; the limits hold then too"
RAMP = "seconds in which the load climbs from requests_per_s to its peak"


class ServiceTarget(Target):
    """Limits of an inference service whose replicas each have one accelerator, or a CPU."""

    profile: str = Field(min_length=1, max_length=500, description="a shipped profile, or the path of your own")
    requests_per_s: float = Field(gt=0, le=1e7)
    peak_requests_per_s: float | None = Field(default=None, gt=0, le=1e7, description=PEAK)
    peak_ramp_s: float | None = Field(default=None, gt=0, le=1e6, description=RAMP)
    network: ClientNetwork = ClientNetwork()
    edge: EdgeDevice | None = Field(
        default=None, description="takes the place of network: the model is split at the best cut, docs/partition.md"
    )
    objective: Literal["cost", "latency"] = "cost"
    p50_ms_max: float | None = Field(default=None, gt=0, le=1e7, description="kept by the guardrail latency-slo")
    p95_ms_max: float | None = Field(default=None, gt=0, le=1e7, description="kept by the guardrail latency-slo")
    p99_ms_max: float | None = Field(default=None, gt=0, le=1e7)
    usd_per_hour_max: float | None = Field(default=None, gt=0, le=1e7)

    @model_validator(mode="after")
    def _peak_is_higher(self) -> ServiceTarget:
        _check_peak(self.requests_per_s, self.peak_requests_per_s, self.peak_ramp_s)
        if self.edge is not None and self.network != ClientNetwork():
            raise ValueError("network is set and edge has a link of its own; give one of them")
        return self


class LanguageModelTarget(Target):
    """Limits of a language model behind an API; a replica takes `needs.accelerators`, which cut or share its layers."""

    model: str = Field(min_length=1, max_length=500, description="a shipped name, or the path of its configuration")
    input_tokens: int = Field(ge=1, le=10**7)
    output_tokens: int = Field(ge=1, le=10**7)
    requests_per_s: float | None = Field(default=None, gt=0, le=1e6)
    peak_requests_per_s: float | None = Field(default=None, gt=0, le=1e6, description=PEAK)
    peak_ramp_s: float | None = Field(default=None, gt=0, le=1e6, description=RAMP)
    concurrency: int | None = Field(default=None, ge=1, le=10**6)
    engine: Literal["vllm", "trtllm"] = "vllm"
    weights: Annotated[str, matching(r"[A-Za-z0-9][\w.-]*/[\w.-]+", "a repository of Hugging Face")] | None = Field(
        default=None, description="such as Qwen/Qwen3-8B; the folder runs/NAME/weights of the bucket unless said"
    )
    context_tokens_max: int | None = Field(
        default=None,
        ge=1,
        le=10**8,
        description="of the longest request; twice input_tokens + output_tokens unless said",
    )
    network: ClientNetwork = ClientNetwork()
    objective: Literal["cost", "latency"] = "cost"
    ttft_ms_max: float | None = Field(default=None, gt=0, le=1e8, description="mean time to the first token")
    tpot_ms_max: float | None = Field(default=None, gt=0, le=1e8, description="mean time of a further token")
    usd_per_hour_max: float | None = Field(default=None, gt=0, le=1e7)

    @model_validator(mode="after")
    def _one_load(self) -> LanguageModelTarget:
        if (self.requests_per_s is None) == (self.concurrency is None):
            raise ValueError("give either requests_per_s or concurrency (users who each wait for their answer)")
        _check_peak(self.requests_per_s, self.peak_requests_per_s, self.peak_ramp_s)
        tokens = self.input_tokens + self.output_tokens
        if self.context_tokens_max is not None and self.context_tokens_max < tokens:
            raise ValueError(
                f"context_tokens_max ({self.context_tokens_max}) is below input_tokens + output_tokens ({tokens})"
            )
        return self


def _check_peak(usual: float | None, peak: float | None, ramp_s: float | None) -> None:
    if peak is not None and usual is None:
        raise ValueError("peak_requests_per_s is set and requests_per_s is not; give both, or concurrency alone")
    if peak is not None and usual is not None and peak < usual:
        raise ValueError(
            f"peak_requests_per_s ({peak:g}) is below requests_per_s ({usual:g}); raise it or leave it out"
        )
    if ramp_s is not None and peak is None:
        raise ValueError("peak_ramp_s is set and peak_requests_per_s is not; say what the load climbs to")


def _kind_of_service(value: Any) -> str:
    """Told by its words, so that a wrong field is one error and not one of each kind."""
    named = "model" in value if isinstance(value, dict) else isinstance(value, LanguageModelTarget)
    return TARGET_KINDS[named]


TARGET_KINDS = ("of a profile", "of a language model")
"""What pydantic puts into the path of an error inside a service's target."""
AnyServiceTarget = Annotated[
    Annotated[ServiceTarget, Tag(TARGET_KINDS[0])] | Annotated[LanguageModelTarget, Tag(TARGET_KINDS[1])],
    Discriminator(_kind_of_service),
]


class TrainingJob(Workload):
    """A training job: ``nodes.max`` of its pool bounds what the autoscaler may buy.

    It runs on ``nodes.desired``; with a target and no ``desired``, on as many up to ``max`` as are best.
    """

    kind: Literal["training"]
    nodes: Bounds = Bounds(min=0, desired=1, max=1)
    training: TrainingSettings = TrainingSettings()
    target: TrainingTarget | None = None
    queue: WorkloadName | None = Field(default=None, description="of fusion:queues; the first unless it is said")
    priority: Priority = Field(default="normal", description="among the jobs of its queue")

    @model_validator(mode="after")
    def _counts_are_known(self) -> TrainingJob:
        if self.target is None and self.needs.accelerators == "any":
            raise ValueError("needs.accelerators is any; without a target expected a number")
        if self.price_model == "flex_start" and self.nodes.min:
            raise ValueError(
                f"nodes.min is {self.nodes.min}; nodes of flex_start come when a job waits for them: set it to 0"
            )
        return self

    @property
    def has_several_nodes(self) -> bool:
        """Which exchange gradients, and must be close to each other for that."""
        return self.nodes.max > 1


class InferenceService(Workload):
    """An inference service of ``replicas``, each with what ``needs`` says.

    With a target and no ``replicas.desired`` it has as many from ``min`` to ``max`` as the target takes.
    """

    kind: Literal["inference"]
    replicas: Bounds = Bounds(min=1, max=1)
    target: AnyServiceTarget | None = None
    port: int = Field(default=8080, ge=1024, le=65_535)
    grpc_port: int | None = Field(default=None, ge=1024, le=65_535, description="of gRPC; without it none is served")
    traces: CollectorUrl | None = Field(default=None, description="where traces go by OTLP; without it none are made")
    startup_seconds: int = Field(
        default=600, ge=10, le=86_400, description="until a new replica is ready: image, weights, warm-up"
    )
    cold_start_seconds_max: float | None = Field(
        default=None, gt=0, le=86_400, description="that the first request may wait, where replicas.min is 0"
    )
    command: tuple[str, ...] = ("python", "-m", "workloads.serving")

    @model_validator(mode="after")
    def _settings_of_its_server(self) -> InferenceService:
        if self.grpc_port == self.port:
            raise ValueError(f"grpc_port is {self.port}, as port is; expected another one")
        if isinstance(self.target, LanguageModelTarget) and (self.grpc_port or self.traces):
            name = "grpc_port" if self.grpc_port else "traces"
            raise ValueError(f"{name} is given; a language model is served by vLLM, which has no such setting here")
        return self

    @model_validator(mode="after")
    def _served_at_all_times(self) -> InferenceService:
        if self.price_model == "flex_start":
            raise ValueError(
                "price_model is flex_start, whose nodes go after seven days at most; a service needs on_demand, spot "
                "or a reservation"
            )
        if self.replicas.min < 1 and self.cold_start_seconds_max is None:
            raise ValueError(
                "replicas.min is 0; an inference service needs at least 1 replica that answers, or "
                "cold_start_seconds_max: how long its first request may wait for one"
            )
        accelerators = self.needs.accelerators
        if self.target is None and accelerators == "any":
            raise ValueError("needs.accelerators is any; without a target expected a number")
        if isinstance(self.target, ServiceTarget) and accelerators not in (0, 1):
            raise ValueError(
                f"needs.accelerators is {accelerators}; a service with a profile needs 1 by replica, or 0 for a CPU"
            )
        if isinstance(self.target, LanguageModelTarget) and accelerators == 0:
            raise ValueError("needs.accelerators is 0; a language model needs 1 or more by replica, or any")
        if self.data is not None and self.data.gb_per_run is not None:
            raise ValueError("data.gb_per_run is of training jobs; give gb_per_month")
        return self


AnyWorkload = Annotated[TrainingJob | InferenceService, Field(discriminator="kind")]


class Quota(Declared):
    """How much may be bought at once, as a cloud grants it; counted at the autoscaler's maximum.

    ``instance_types`` are patterns, such as ``p5.*`` or ``Standard_NC*``. AWS and Azure count vCPUs, Google Cloud
    counts accelerators; ``nodes`` is for what is reserved, or known to be left, ``gib`` for file systems.
    """

    cloud: Literal["aws", "gcp", "azure"]
    region: str | None = Field(default=None, min_length=1)
    instance_types: tuple[str, ...] = Field(default=("*",), min_length=1)
    accelerator: str | None = None
    price_model: PriceModel | None = None
    vcpus: int | None = Field(default=None, ge=0, le=10**9)
    accelerators: int | None = Field(default=None, ge=0, le=10**9)
    nodes: int | None = Field(default=None, ge=0, le=10**9)
    gib: int | None = Field(default=None, ge=0, le=10**9, description="of file systems; set where it was read")
    code: str | None = Field(default=None, description="the cloud's own, such as L-417A185B; set where it was read")
    in_use: int | None = Field(default=None, ge=0, description="by others than the stack; set where it was read")

    @field_validator("instance_types", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_unit(self) -> Quota:
        if sum(each is not None for each in (self.vcpus, self.accelerators, self.nodes, self.gib)) != 1:
            raise ValueError("give exactly one of vcpus, accelerators and nodes")
        return self


class Budget(Declared):
    """What all workloads of a stack together may cost, by what is predicted of them and without the platform."""

    usd_per_month: float | None = Field(default=None, gt=0, le=1e9)
    usd_per_hour: float | None = Field(default=None, gt=0, le=1e9, description="while all of them run")

    @model_validator(mode="after")
    def _says_something(self) -> Budget:
        if self.usd_per_month is None and self.usd_per_hour is None:
            raise ValueError("give usd_per_month, usd_per_hour, or both")
        return self


class ExpectedUsage(Declared):
    """What is billed by use, as the team expects it for a month; priced in the plan, shown apart in its items."""

    object_store_gib: float = Field(default=50, ge=0)
    registry_gib: float = Field(default=20, ge=0)
    nat_gb: float = Field(default=50, ge=0)
    logs_gb: float = Field(default=5, ge=0)
    egress_gb: float = Field(default=10, ge=0)
