"""What a team may set of its guardrails: `fusion:guardrails` in a stack's file, and the same words in a pack's config.

One flat model: each guardrail names the fields that it reads, and its config schema is made of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from planner.workloads import Declared, WorkloadName

Level = Literal["mandatory", "advisory", "disabled"]
"""A mandatory violation stops the update, an advisory one is shown, a disabled guardrail is not judged."""
GuardrailName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$", description="such as monthly-cost-limit")]


@dataclass(frozen=True, slots=True)
class Stricter:
    """How two values of a field, of a stack and of a pack, become the one that holds: the stricter of them."""

    of: Callable[[Any, Any], Any]


def _each(of: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Key by key; a key that only one of them has is taken as it is."""
    return lambda one, other: {**one, **other, **{key: of(one[key], other[key]) for key in one.keys() & other.keys()}}


def _both(one: Any, other: Any) -> list[Any]:
    return [each for each in one if each in other]


def _either(one: Any, other: Any) -> list[Any]:
    return [*one, *(each for each in other if each not in one)]


AT_MOST, AT_LEAST = Stricter(min), Stricter(max)
AT_MOST_EACH = Stricter(_each(min))
ALLOWED = Stricter(_both)
REQUIRED = Stricter(_either)
PESSIMISTIC = Stricter(lambda one, other: "high" if "high" in (one, other) else one)

Usd = Annotated[float, Field(gt=0, le=1e9), AT_MOST]


class CostSettings(Declared):
    """Of the cost guardrails."""

    monthly_cost_limit_usd: Usd | None = Field(
        default=None, description="of the whole stack at the autoscaler's maximum; a month is 730 h"
    )
    expected_monthly_cost_limit_usd: Usd | None = Field(
        default=None, description="of the whole stack at the expected load, without what the autoscaler may add"
    )
    monthly_cost_increase_max_percent: Annotated[float, Field(ge=0, le=1e6), AT_MOST] | None = Field(
        default=None,
        description="by which the whole stack may cost more than the deployed one",
    )
    workload_cost_limits_usd: Annotated[dict[WorkloadName, Usd], AT_MOST_EACH] = Field(
        default_factory=dict, description="by workload, of a month at the autoscaler's maximum"
    )
    pool_hourly_limit_usd: Usd | None = Field(default=None, description="of any one pool with all its nodes")
    usd_per_1000_requests_max: Usd | None = Field(
        default=None, description="of each inference service with a target, at its declared rate"
    )
    training_run_usd_max: Usd | None = Field(default=None, description="of one run of each training job with a target")
    unpriced_types_exempt: Annotated[tuple[str, ...], ALLOWED] = Field(
        default=(), description="types of resources without a known price that may be used, with wildcards"
    )

    @property
    def limits_the_stacks_cost(self) -> bool:
        """Whether the bill of the whole stack has a limit."""
        limits = (
            self.monthly_cost_limit_usd,
            self.expected_monthly_cost_limit_usd,
            self.monthly_cost_increase_max_percent,
        )
        return any(each is not None for each in limits)


class LatencySettings(Declared):
    """Of the latency guardrails; the limits themselves are those of each workload's target."""

    latency_margin: Annotated[Literal["central", "high"], PESSIMISTIC] = Field(
        default="central", description="which end of a prediction's interval is held against a limit"
    )
    utilisation_max: Annotated[float, Field(gt=0, le=1), AT_MOST] | None = Field(
        default=None, description="of each service, at its declared rate and at its peak; such as 0.8"
    )
    service_replicas_min: Annotated[int, Field(ge=1, le=15_000), AT_LEAST] | None = Field(
        default=None, description="the least replicas that every inference service keeps"
    )
    service_zones_min: Annotated[int, Field(ge=1, le=6), AT_LEAST] | None = Field(
        default=None, description="the least zones that inference services are spread over"
    )
    node_startup_seconds: Annotated[float, Field(ge=0, le=86_400), AT_LEAST] = Field(
        default=120, description="from the request for a node until pods run on it; not measured, set your own"
    )


class CapacitySettings(Declared):
    """Of the capacity guardrails."""

    checkpoint_write_mb_per_s: Annotated[float, Field(gt=0, le=1e6), AT_MOST] = Field(
        default=85, description="to the object store; one request of S3 writes 85 MB/s, as its guidelines say"
    )
    checkpoint_factor_max: Annotated[float, Field(ge=1, le=1e6), AT_MOST] = Field(
        default=3, description="by which a checkpoint interval may miss the optimum on spot"
    )


class SecuritySettings(Declared):
    """Of the guardrails of security and privacy."""

    pods_exempt: Annotated[tuple[str, ...], ALLOWED] = Field(
        default=(), description="parts of the system, as namespace/name with wildcards, whose pods need privileges"
    )
    hiding_types_exempt: Annotated[tuple[str, ...], ALLOWED] = Field(
        default=(), description="types of resources that make others unseen and may be used, with wildcards"
    )
    image_registries_allowed: Annotated[tuple[str, ...], ALLOWED] | None = Field(
        default=None, description="such as registry.example.com/team; all unless it is set"
    )
    regions_allowed: Annotated[tuple[str, ...], ALLOWED] | None = Field(
        default=None, description="regions that data may be in, such as eu-central-1; all unless it is set"
    )
    data_class: Literal["public", "internal", "confidential"] | None = Field(
        default=None, description="of the stack's data; the tag data-class says it of one bucket"
    )
    tags_required: Annotated[tuple[str, ...], REQUIRED] = Field(
        default=(), description="tags that everything billed carries"
    )
    budget_required: Annotated[bool, Stricter(max)] = Field(
        default=False, description="the stack must have a budget with alarms"
    )


class GuardrailSettings(CostSettings, LatencySettings, CapacitySettings, SecuritySettings):
    """Everything under `fusion:guardrails`."""

    levels: dict[GuardrailName, Level] = Field(
        default_factory=dict, description="how hard each guardrail is enforced; mandatory unless said"
    )

    def level_of(self, guardrail: str, default: Level = "mandatory") -> Level:
        """How hard a guardrail is enforced in this stack."""
        return self.levels.get(guardrail, default)


def stricter(stack: Mapping[str, Any], pack: Mapping[str, Any]) -> dict[str, Any]:
    """Two raw settings as one: a field of both gets the stricter value, so neither file can loosen the other.

    Values that can't be compared are left as the stack has them, for the model to refuse.
    """
    joined = {**pack, **stack}
    for name in stack.keys() & pack.keys() & GuardrailSettings.model_fields.keys():
        rule = next((each for each in _markers(name) if isinstance(each, Stricter)), None)
        if rule is not None:
            try:
                joined[name] = rule.of(stack[name], pack[name])
            except (TypeError, AttributeError):
                continue
    return joined


def _markers(name: str) -> list[Any]:
    """The markers of a field, those inside its optional type included."""
    field = GuardrailSettings.model_fields[name]
    inside = [mark for part in getattr(field.annotation, "__args__", ()) for mark in getattr(part, "__metadata__", ())]
    return [*field.metadata, *inside]


def schema_of(fields: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """JSON schema of some fields, as Pulumi's policy config takes it.

    Without their defaults: the engine would send these as the pack's own values, which would tighten the stack's.
    """
    return {name: _without_null(_properties()[name]) for name in fields}


@functools.cache
def _properties() -> dict[str, Any]:
    found: dict[str, Any] = GuardrailSettings.model_json_schema()["properties"]
    return found


def _without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    said = {key: value for key, value in schema.items() if key not in ("anyOf", "default", "title")}
    options = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    return {**options[0], **said} if len(options) == 1 else said
