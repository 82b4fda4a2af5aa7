"""A stack's own config made into what its program registers: planned, assembled and built, without an engine."""

from __future__ import annotations

from typing import Any

import pulumi

from infra.assembly import platform_args
from infra.build import build_platform
from infra.planning import plan_stack
from planner.catalog import load
from tests.unit.infra.cloud import Cloud
from tests.unit.infra.test_config import config_of

NEEDS = {"instance_type": "g5.xlarge", "accelerators": 1, "vcpus": 3, "memory_gib": 12}
IMAGE = f"registry.example.com/fusion/training@sha256:{64 * '0'}"


def job(name: str = "digits", **changes: Any) -> dict[str, Any]:
    """A training job on one A10G a node."""
    return {"kind": "training", "name": name, "image": IMAGE, "needs": NEEDS} | changes


def service(name: str = "classify", **changes: Any) -> dict[str, Any]:
    """An inference service on one A10G a replica."""
    needs = {**NEEDS, "instance_type": "g6.xlarge"}
    return {"kind": "inference", "name": name, "image": IMAGE, "needs": needs, "replicas": {"min": 2, "max": 4}} | (
        changes
    )


def built(**config: Any) -> Cloud:
    """The stack in an empty account; a context manager."""
    limits = {"monthly_cost_limit_usd": 10_000_000}
    settings = config_of(**({"guardrails": limits} | config))
    plan = plan_stack(settings, "t", load())

    def program() -> object:
        return build_platform(platform_args(settings, plan), pulumi.ComponentResource("fusion:platform:Plan", "p", {}))

    return Cloud(program)


def of_kind(cloud: Cloud, kind: str) -> dict[str, dict[str, Any]]:
    """The stack's objects of a kind, by name."""
    return {each["metadata"]["name"]: each for each in cloud.mocks.all_objects() if each["kind"] == kind}
