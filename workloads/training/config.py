"""The typed config of a training run, read from one YAML file and checked whole before anything else happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from workloads.config import Section, Url, load_yaml
from workloads.data.cache import DEFAULT_FOLDER, DEFAULT_LIMIT_GIB
from workloads.data.order import STREAMS

TaskName = Literal["classification", "next_token"]


class ModelConfig(Section):
    """What is trained; its input shape and classes come from the data set's index."""

    name: str = Field(default="fusionnet", min_length=1, description="a registered name, or module:factory")
    arguments: dict[str, Any] = Field(default={}, description="passed to the model's factory")
    classes: int | None = Field(default=None, ge=2, description="if given, must be the data set's")
    channels: int | None = Field(default=None, ge=1, description="if given, must be the data set's")
    image_size: int | None = Field(default=None, ge=1, description="pixels a side; if given, must be the data set's")


class CacheConfig(Section):
    """Where a machine keeps the shards that its ranks read."""

    folder: Path = DEFAULT_FOLDER
    limit_gib: float = Field(default=DEFAULT_LIMIT_GIB, gt=0, description="over all shards of all its data sets")


class DataConfig(Section):
    """What it is trained on."""

    url: Url
    batch_size: int = Field(default=32, ge=1, le=1_048_576, description="samples of one step over all ranks together")
    streams: int = Field(
        default=STREAMS, ge=1, le=4096, description="shards read side by side; with one a node, each reads its own"
    )
    cache: CacheConfig = CacheConfig()


class OptimizerConfig(Section):
    """How the weights follow the gradients."""

    name: Literal["adam", "adamw", "sgd", "adagrad"] = "adam"
    weight_decay: float = Field(default=0, ge=0, le=1)
    momentum: float = Field(default=0, ge=0, lt=1, description="of sgd")
    clip_norm: float | None = Field(default=None, gt=0, description="a longer gradient, over all weights, is shortened")
    warmup_steps: int = Field(default=0, ge=0, description="the learning rate rises to its full value over them")
    schedule: Literal["constant", "cosine"] = Field(default="constant", description="cosine: falls to 0 at the end")
    sparse_embeddings: bool = Field(default=False, description="touch only the rows that a batch looked up")

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if self.momentum and self.name != "sgd":
            raise ValueError(f"momentum is of sgd; {self.name} has its own, leave it out")
        if self.sparse_embeddings:
            if self.name not in ("sgd", "adagrad") or self.momentum:
                raise ValueError("sparse_embeddings needs adagrad, or sgd without momentum: others move every row")
            if self.weight_decay or self.clip_norm:
                raise ValueError("sparse_embeddings goes with neither weight_decay nor clip_norm: both need every row")
        return self


class ParallelConfig(Section):
    """How the model and each batch are spread over the ranks, and over parts of a step."""

    strategy: Literal["ddp", "fsdp"] = Field(
        default="ddp", description="ddp: each rank holds the model; fsdp: each holds a part of every weight"
    )
    tensor_parallel: int = Field(default=1, ge=1, description="ranks that compute each layer together; needs fsdp")
    gradient_compression: Literal["fp16", "bf16", "powersgd"] | None = Field(
        default=None, description="of what ddp's ranks send each other"
    )
    micro_batch_size: int | None = Field(
        default=None, ge=1, description="most samples that a rank computes at once; it accumulates the batch's gradient"
    )
    activation_checkpointing: bool = Field(
        default=False, description="compute each block's activations anew in the backward pass: less memory, more work"
    )

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if self.tensor_parallel > 1 and self.strategy != "fsdp":
            raise ValueError("tensor_parallel needs strategy: fsdp")
        if self.gradient_compression and self.strategy != "ddp":
            raise ValueError("gradient_compression is of strategy: ddp; fsdp sends what `precision` says")
        return self


class PrivacyConfig(Section):
    """How much the weights may tell of one training sample; `workloads.training.privacy` says what that means."""

    noise_multiplier: float | None = Field(
        default=None, ge=0.01, le=1e6, description="standard deviation / max_grad_norm"
    )
    target_epsilon: float | None = Field(default=None, gt=0, description="at the last epoch's end; sets the noise")
    max_grad_norm: float = Field(gt=0, description="a sample's longer gradient, over all weights, is shortened")
    delta: float = Field(gt=0, lt=1, description="less than one over the number of samples")
    sampling: Literal["poisson", "shuffled"] = Field(
        default="poisson", description="poisson: by chance; shuffled: once an epoch, at a much larger ε"
    )

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if (self.noise_multiplier is None) == (self.target_epsilon is None):
            raise ValueError("expected noise_multiplier or target_epsilon, one of them")
        return self


class CheckpointConfig(Section):
    """Where and how often the run is saved."""

    url: Url
    every_steps: int = Field(default=100, ge=1)
    keep: int = Field(default=2, ge=1, description="whole checkpoints that are kept; older ones are deleted")


class OutputConfig(Section):
    """Where the results go: report.json, model.pt, tensorboard/, charts and classification_report.txt."""

    url: Url


class TrainingConfig(Section):
    """Everything in training.yaml."""

    run: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    model: ModelConfig = ModelConfig()
    task: TaskName | None = Field(default=None, description="if given, must be what the data set is for")
    data: DataConfig
    epochs: int = Field(default=20, ge=1, le=100_000)
    learning_rate: float = Field(default=1e-3, gt=0, le=10)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    optimizer: OptimizerConfig = OptimizerConfig()
    precision: Literal["fp32", "tf32", "bf16", "fp16", "fp8"] = Field(
        default="fp32", description="of the arithmetic; weights and optimizer stay fp32"
    )
    compile: bool = Field(default=False, description="torch.compile: a slow first step, then faster ones")
    parallel: ParallelConfig = ParallelConfig()
    privacy: PrivacyConfig | None = Field(default=None, description="train with differential privacy")
    device: Literal["auto", "cpu", "cuda", "xla"] = Field(
        default="auto",
        description="xla: what torch_xla finds, such as a TPU; auto: that where PJRT_DEVICE is set, else CUDA or CPU",
    )
    deterministic: bool = Field(default=False, description="same bits from the same config; slower on CUDA")
    threads: int | None = Field(default=None, ge=1, le=1_024, description="CPU threads of a rank; by default its share")
    checkpoint: CheckpointConfig
    outputs: OutputConfig
    metrics_port: int | None = Field(
        default=None, ge=1, le=65_535, description="one process of each machine answers Prometheus there"
    )
    log_messages: bool = Field(
        default=False,
        description="show in logs what exceptions and warnings of your own code say; they may quote samples",
    )
    stop_notices: Literal["aws", "gcp"] | None = Field(
        default=None, description="also hear that cloud's notices to its machines; where a cluster passes them on, none"
    )

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if self.precision == "fp8" and self.parallel.tensor_parallel > 1:
            raise ValueError("precision: fp8 does not go with parallel.tensor_parallel; expected bf16")
        if self.optimizer.sparse_embeddings and self.parallel.strategy == "fsdp":
            raise ValueError("optimizer.sparse_embeddings does not go with parallel.strategy: fsdp; expected ddp")
        if self.optimizer.sparse_embeddings and self.parallel.gradient_compression:
            raise ValueError("optimizer.sparse_embeddings does not go with parallel.gradient_compression")
        if self.privacy:
            self._go_with_privacy()
        return self

    def _go_with_privacy(self) -> None:
        for there, what in (
            (self.parallel.strategy == "fsdp", "parallel.strategy: fsdp; expected ddp"),
            (self.parallel.gradient_compression, "parallel.gradient_compression"),
            (
                self.parallel.activation_checkpointing,
                "parallel.activation_checkpointing; micro_batch_size saves memory",
            ),
            (self.optimizer.sparse_embeddings, "optimizer.sparse_embeddings: noise touches every row"),
            (self.optimizer.clip_norm, "optimizer.clip_norm: privacy.max_grad_norm shortens each sample's gradient"),
            (self.precision not in ("fp32", "tf32"), f"precision: {self.precision}; expected fp32 or tf32"),
            (self.compile, "compile"),
            (self.device == "xla", "device: xla"),
            (self.deterministic, "deterministic: noise that can be computed again hides nothing"),
        ):
            if there:
                raise ValueError(f"privacy does not go with {what}")


def load(path: Path) -> TrainingConfig:
    """Read and check a training.yaml.

    Raises:
        ConfigError: one line for each wrong value.
    """
    return load_yaml(path, TrainingConfig, expected="a training.yaml with fields such as run, model and data")
