"""Limits of latency: a service too slow, too full or too few, a job too late, stops an update before anything exists."""

from typing import Any

from tests.engine.conftest import DIGITS, PACK, Engine
from tests.unit.planner.test_latency_guardrails import chat, classify, train

NEEDS = {"accelerators": 1, "instance_type": "g5.xlarge"}
DIGEST = f"registry.example.com/fusion/serving@sha256:{64 * '0'}"
RESNET = {"profile": "resnet-50", "requests_per_s": 500}
CHAT = {"model": "llama-3.1-8b", "input_tokens": 500, "output_tokens": 100, "requests_per_s": 0.5}
IMAGENET = {"profile": "resnet-50", "samples": 1_281_167}
NAMES = ("latency-slo", "token-latency", "utilisation-headroom", "minimum-replicas", "cold-start", "training-deadline")


def service(name: str, target: dict[str, Any], least: int = 1, most: int = 2) -> dict[str, Any]:
    common = {"kind": "inference", "name": name, "image": DIGEST, "needs": NEEDS, "startup_seconds": 60}
    return common | {"replicas": {"min": least, "max": most}, "target": target}


def job(hours_max: float) -> dict[str, Any]:
    only = {key: DIGITS[key] for key in ("kind", "name", "image")}
    return only | {"needs": NEEDS, "target": IMAGENET | {"hours_max": hours_max}}


def workloads(p95_ms: float, ttft_ms: float, ramp_s: float, hours: float, least: int = 1) -> list[dict[str, Any]]:
    """One workload for each limit."""
    climbing = RESNET | {"peak_requests_per_s": 1500, "peak_ramp_s": ramp_s}
    return [
        service("classify", RESNET | {"p95_ms_max": p95_ms}, least),
        service("chat", CHAT | {"ttft_ms_max": ttft_ms, "peak_requests_per_s": 0.6}, least),
        service("climb", climbing, least),
        job(hours),
    ]


def edges() -> tuple[float, float, float]:
    """p95 and the time to the first token in ms, and the hours of the job, as they are predicted."""
    p95, hours = classify().predictions[0].p95_ms, train().predictions[0].run_hours
    peak = chat(requests_per_s=0.5, peak_requests_per_s=0.6).predictions[0].peak
    assert p95 and hours and peak and peak.ttft_ms
    return p95.value, peak.ttft_ms.value, hours.value


def test_each_limit_of_latency_stops_the_update_before_anything_exists_and_at_its_edge_lets_it_create(
    platform: Engine,
) -> None:
    p95_ms, ttft_ms, hours = edges()
    limits: dict[str, Any] = {"monthly_cost_limit_usd": 10**6}
    # The planner itself keeps the central time to the first token and the deadline: their high ends are over them.
    strict = limits | {"latency_margin": "high", "utilisation_max": 0.3}
    just_below = workloads(p95_ms * 0.999, ttft_ms * 1.001, 1, hours * 1.001)
    far_below = workloads(p95_ms / 3, ttft_ms * 1.1, 60, hours * 1.1)
    for asked, few in ((just_below, {"service_replicas_min": 2}), (far_below, {"service_zones_min": 3})):
        platform.configure(guardrails=strict | few, workloads=asked)
        told_by_the_program = platform.up(status=None)
        assert platform.exists() == []
        told_by_the_pack = platform.up(status=None, **PACK) + platform.preview(status=None, **PACK)
        assert platform.exists() == []
        for each in NAMES:
            assert f"{each}: " in told_by_the_program
            assert f"[mandatory]  {each}" in told_by_the_pack

    platform.configure(
        guardrails=limits | {"utilisation_max": 0.9, "service_replicas_min": 2, "service_zones_min": 2},
        workloads=workloads(p95_ms * 1.001, ttft_ms * 1.001, 1000, hours * 1.001, least=2),
    )
    platform.up(**PACK)
    assert platform.exists() != []
