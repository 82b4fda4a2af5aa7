"""The typed config of a server, read from one YAML file and checked whole before anything is loaded."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from workloads.config import ConfigError, Section, Url, checked, load_yaml
from workloads.serving.backends import BACKENDS, Device, Precision

OTLP_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Variables of the OpenTelemetry specification, the more particular one first."""


class VersionConfig(Section):
    """One version of a model."""

    package: Url = Field(description="the folder that `fusion export` wrote")
    weight: float = Field(default=1, ge=0, le=1_000_000, description="share of the requests that name no version")


def _batch_max() -> str | int:
    return os.environ.get("FUSION_BATCH_MAX") or 32


def _precision() -> str:
    return os.environ.get("FUSION_PRECISION") or "fp32"


Factory = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]


class ModelConfig(Section):
    """How one model is served; its name is in its packages."""

    versions: tuple[VersionConfig, ...] = Field(min_length=1)
    slo_ms: float = Field(default=100, gt=0, le=3_600_000, description="what a request may take in the server")
    batch_max: int = Field(
        default_factory=_batch_max,
        ge=1,
        le=4096,
        validate_default=True,
        description="rows; by default FUSION_BATCH_MAX, which the plan sets, or 32",
    )
    queue_max: int = Field(default=4096, ge=1, le=1_000_000, description="rows that may wait")
    threads: int = Field(default=1, ge=1, le=1024, description="of the model, on a CPU")
    precision: Precision = Field(
        default_factory=_precision, validate_default=True, description="by default FUSION_PRECISION, or fp32"
    )
    cache_mib: float = Field(
        default=0, ge=0, le=1_048_576, description="of answers kept by the content of their request; 0 keeps none"
    )
    pre: Factory | None = Field(default=None, description="module:factory of the code that prepares requests")
    post: Factory | None = Field(default=None, description="module:factory of the code that finishes answers")
    pipeline_threads: int = Field(default=2, ge=1, le=256, description="of pre, and as many of post")
    backends: tuple[str, ...] = Field(default=(), description="the ones to try; by default all that load at once")

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if unknown := [each for each in self.backends if each not in BACKENDS]:
            raise ValueError(f"backends: got {unknown[0]}; expected any of {', '.join(BACKENDS)}")
        if self.queue_max < self.batch_max:
            raise ValueError(f"queue_max: got {self.queue_max}; expected at least batch_max, {self.batch_max}")
        if not any(each.weight for each in self.versions):
            raise ValueError("versions: every weight is 0; expected one that serves requests without a version")
        return self


class ServingConfig(Section):
    """Everything in serving.yaml."""

    models: tuple[ModelConfig, ...] = Field(min_length=1)
    host: str = Field(default="0.0.0.0", min_length=1, description="the address to listen on")
    port: int = Field(default=8080, ge=0, le=65_535, description="0 takes a free one")
    grpc_port: int | None = Field(default=None, ge=0, le=65_535, description="of gRPC; none: it is not served")
    device: Literal["auto"] | Device = Field(default="auto", description="auto: CUDA where there is one")
    body_max_mib: float = Field(default=64, gt=0, le=4096, description="larger requests are refused unread")
    bodies_max_mib: float = Field(
        default=512, gt=0, le=1_048_576, description="of all requests under way; above it they are refused unread"
    )
    body_timeout_s: float = Field(default=30, gt=0, le=3600, description="within which a request must be sent")
    drain_s: float = Field(default=60, gt=0, le=3600, description="for the requests under way when it is stopped")

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        if self.grpc_port and self.grpc_port == self.port:
            raise ValueError(f"grpc_port: got {self.port}, which is port, too; expected another one")
        return self

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        urls = Counter(version.package for model in self.models for version in model.versions)
        if self.bodies_max_mib < self.body_max_mib:
            raise ValueError(
                f"bodies_max_mib: got {self.bodies_max_mib:g}; expected at least body_max_mib, {self.body_max_mib:g}"
            )
        if twice := [url for url, times in urls.items() if times > 1]:
            raise ValueError(f"models: {twice[0]} is listed twice; list each package once")
        return self


def load(path: Path) -> ServingConfig:
    """Read and check a serving.yaml.

    Raises:
        ConfigError: one line for each wrong value.
    """
    return load_yaml(path, ServingConfig, expected="a serving.yaml with models")


def traces_endpoint() -> tuple[str, str] | None:
    """The variable that says where traces are sent, and its value; None where none are made."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    found = ((name, os.environ.get(name, "")) for name in OTLP_ENDPOINTS)
    return next(((name, value) for name, value in found if value), None)


def from_environment() -> ServingConfig:
    """What a stack's container is told by its environment: one package, its SLO and the port.

    Raises:
        ConfigError: `FUSION_PACKAGE_URL` is not set, or a value is wrong.
    """
    package = os.environ.get("FUSION_PACKAGE_URL")
    if not package:
        raise ConfigError("expected --config, or FUSION_PACKAGE_URL in the environment, which the stack's program sets")
    model: dict[str, Any] = {"versions": [{"package": package}]}
    document: dict[str, Any] = {"models": [model]}
    for place, name, variable in (
        (model, "slo_ms", "FUSION_SLO_MS"),
        (document, "port", "FUSION_PORT"),
        (document, "grpc_port", "FUSION_GRPC_PORT"),
    ):
        if value := os.environ.get(variable):
            place[name] = value
    return checked(document, ServingConfig, source="the environment")
