"""Latency limits on a plan: predicted anew, at the edge, with the change that would pass."""

import dataclasses
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.calibration.store import Interval
from planner.catalog import load
from planner.errors import PlanError
from planner.guardrails.rules import check_plan
from planner.guardrails.settings import GuardrailSettings
from planner.performance.training import TrainingPrediction
from planner.plan import Plan
from planner.repredict import least, runs
from tests.unit.planner.test_plan import job, planned, service

A10G = {"accelerators": 1, "instance_type": "g5.xlarge"}
CHAT = {"model": "llama-3.1-8b", "input_tokens": 500, "output_tokens": 100}


def classify(replicas: dict[str, int] | None = None, startup_seconds: int = 60, **target: Any) -> Plan:
    asked = {"profile": "resnet-50", "requests_per_s": 500} | target
    bounds = replicas or {"min": 1, "max": 1}
    return planned(service(needs=A10G, replicas=bounds, target=asked, startup_seconds=startup_seconds))


def chat(**target: Any) -> Plan:
    return planned(service("chat", needs=A10G, replicas={"min": 1, "max": 2}, target=CHAT | target))


def train(**target: Any) -> Plan:
    return planned(job(needs=A10G, target={"profile": "resnet-50", "samples": 1_281_167} | target))


def edited(plan: Plan, replicas: dict[str, int] | None = None, **target: Any) -> Plan:
    """The plan with another workload declared than it was planned for, as an edited one has."""
    raw = plan.workloads[0].model_dump(mode="json", exclude_none=True)
    raw["target"] |= target
    raw["replicas"] = replicas or raw["replicas"]
    return dataclasses.replace(
        plan, workloads=(service(**{key: raw[key] for key in raw if key not in ("kind", "image")}),)
    )


def broken(plan: Plan, **settings: Any) -> dict[str, str]:
    found = check_plan(plan, GuardrailSettings.model_validate(settings), load())
    return {each.guardrail: each.message for each in found}


def p99_ms(plan: Plan) -> Interval:
    interval = plan.predictions[0].p99_ms
    assert interval is not None
    return interval


def test_what_is_predicted_anew_is_what_the_planner_predicted() -> None:
    for plan in (classify(), chat(requests_per_s=0.5), train()):
        (run,) = runs(Plan.from_props(plan.as_props()), load())
        predicted, stated = run.predict(), plan.predictions[0]
        for field, name, scale in (("p99_ms", "p99_s", 1e3), ("ttft_ms", "time_to_first_token_s", 1e3)):
            if getattr(stated, field):
                assert getattr(stated, field) == getattr(predicted, name).scaled(scale)
        if stated.run_hours:
            assert isinstance(predicted, TrainingPrediction)
            assert stated.run_hours.value == pytest.approx(predicted.total_s.value / 3600)


def test_a_quantile_at_its_limit_passes_and_below_it_does_not() -> None:
    p95 = classify().predictions[0].p95_ms
    assert p95 is not None
    assert broken(classify(p95_ms_max=p95.value)) == {}
    message = broken(classify(p95_ms_max=p95.value * 0.999))["latency-slo"]
    assert f"p95 is predicted to be {p95.value:.3g} ms ({p95.low:.3g} to" in message


def test_at_the_peak_all_replicas_must_keep_the_limit_and_the_change_that_is_named_does() -> None:
    at_peak: dict[str, Any] = {"p99_ms_max": 20, "peak_requests_per_s": 1500}
    plan = classify()
    message = broken(edited(plan, **at_peak))["latency-slo"]
    assert "at its peak of 1500 requests/s on 1 replica on g5.xlarge" in message
    change = re.search(r"replicas.max: (\d+)\.", message)
    assert change is not None
    enough = int(change[1])
    assert broken(edited(plan, {"min": 1, "max": enough}, **at_peak)) == {}
    assert broken(edited(plan, {"min": 1, "max": enough - 1}, **at_peak))


def test_p50_and_p95_are_kept_at_the_peak_of_what_the_planner_chose() -> None:
    crowded: dict[str, Any] = {"peak_requests_per_s": 1800, "replicas": {"min": 1, "max": 2}}
    peak = classify(**crowded).predictions[0].peak
    assert peak is not None
    assert peak.p50_ms is not None
    assert broken(classify(p50_ms_max=peak.p50_ms.value * 1.001, **crowded)) == {}
    assert "p50 is predicted" in broken(classify(p50_ms_max=peak.p50_ms.value * 0.99, **crowded))["latency-slo"]


def test_the_high_end_is_judged_where_the_stack_asks_for_it() -> None:
    calm: dict[str, Any] = {"requests_per_s": 5}
    interval = p99_ms(classify(**calm))
    between = (interval.value + interval.high) / 2
    assert broken(classify(p99_ms_max=between, **calm)) == {}
    message = broken(classify(p99_ms_max=between, **calm), latency_margin="high")["latency-slo"]
    assert "at the high end of its interval" in message


def test_what_an_edited_plan_states_of_itself_is_not_believed() -> None:
    plan = classify(p99_ms_max=20)
    boasting = dataclasses.replace(
        edited(plan, requests_per_s=5000),
        predictions=tuple(dataclasses.replace(each, p99_ms=Interval(1, 1, 1)) for each in plan.predictions),
    )
    assert "take at least" in broken(boasting)["latency-slo"]
    with pytest.raises(PlanError, match="predicts of the workload classify and doesn't declare it"):
        broken(dataclasses.replace(plan, workloads=()))


def test_replicas_beyond_what_the_workload_allows_are_not_counted() -> None:
    plan = classify(requests_per_s=800)
    more = dataclasses.replace(plan.predictions[0], replicas=50)
    (run,) = runs(dataclasses.replace(plan, predictions=(more,)), load())
    assert run.shape.replicas == 1


def test_headroom_is_kept_at_the_declared_rate_and_at_the_peak() -> None:
    (run,) = runs(classify(), load())
    used = 500 / run.bears_at_most_per_s()
    assert broken(classify(), utilisation_max=used + 0.001) == {}
    assert "over the limit of" in broken(classify(), utilisation_max=used - 0.01)["utilisation-headroom"]
    peak = edited(classify(), peak_requests_per_s=5000)
    assert "replicas.max: " in broken(peak, utilisation_max=0.9)["utilisation-headroom"]


def test_a_language_models_times_are_kept_at_its_peak_too() -> None:
    ttft, tpot = chat(requests_per_s=0.5).predictions[0].ttft_ms, chat(requests_per_s=0.5).predictions[0].tpot_ms
    assert ttft is not None
    assert tpot is not None
    kept: dict[str, Any] = {"requests_per_s": 0.5, "ttft_ms_max": ttft.value * 1.01, "tpot_ms_max": tpot.value * 1.01}
    assert broken(chat(**kept)) == {}
    crowded = edited(chat(**kept), peak_requests_per_s=100)
    assert "at its peak of 100 requests/s" in broken(crowded)["token-latency"]


def test_a_deadline_at_the_high_end_of_a_run() -> None:
    hours = train().predictions[0].run_hours
    assert hours is not None
    assert broken(train(hours_max=hours.value * 1.001)) == {}
    message = broken(train(hours_max=hours.value * 1.001), latency_margin="high")["training-deadline"]
    assert "over its limit of" in message
    assert "nodes.desired: " in message


def test_the_climb_to_a_peak_is_borne_until_new_replicas_answer() -> None:
    (run,) = runs(classify(), load())
    most = run.bears_at_most_per_s()
    climb: dict[str, Any] = {"replicas": {"min": 1, "max": 4}, "peak_requests_per_s": 2000, "startup_seconds": 60}
    ready_s = 30 + 60 + 120
    edge_s = ready_s * 1500 / (most - 500)  # when as much arrives as one replica bears
    assert broken(classify(peak_ramp_s=edge_s * 1.01, **climb)) == {}
    message = broken(classify(peak_ramp_s=edge_s * 0.99, **climb))["cold-start"]
    assert "It would pass with replicas.min: 2" in message
    assert broken(classify(peak_ramp_s=edge_s * 1.01, **climb), node_startup_seconds=300)["cold-start"]


def test_replicas_and_zones_of_every_service() -> None:
    plan = classify({"min": 2, "max": 2})
    assert broken(plan, service_replicas_min=2, service_zones_min=2) == {}
    assert "replicas.min: 3 and replicas.max: 3" in broken(plan, service_replicas_min=3)["minimum-replicas"]
    assert "the plan has 2 zones, 3 are asked for" in broken(plan, service_zones_min=3)["minimum-replicas"]


@settings(deadline=None)
@given(edge=st.integers(1, 200), lowest=st.integers(1, 200), highest=st.integers(1, 200))
def test_the_least_number_that_passes(edge: int, lowest: int, highest: int) -> None:
    expected = max(edge, lowest) if max(edge, lowest) <= highest else None
    assert least(lowest, highest, lambda number: number >= edge) == expected
