"""A service whose clients run the first layers: the best cut, what requests see of it, and the guardrail that judges it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from planner.calibration.store import builtin
from planner.catalog import load
from planner.errors import PlanError
from planner.performance.checks import PerformanceError
from planner.performance.chip import Chip
from planner.performance.inference import InferencePrediction
from planner.performance.link import Link
from planner.performance.roofline import forward_time
from planner.performance.split import EdgeSide, best_split, edge_devices
from planner.plan import Plan
from planner.profiles.model import ModelProfile, profile
from planner.repredict import runs
from tests.unit.planner.test_latency_guardrails import A10G, broken, edited
from tests.unit.planner.test_plan import planned, service

A10G_CHIP = Chip.from_accelerator(load().accelerators["A10G"])
ORIN = "Jetson-Orin-Nano-8GB"


def edge(mbit_per_s: float, rtt_ms: float) -> dict[str, Any]:
    return {"edge": {"device": ORIN, "bandwidth_mbit_per_s": mbit_per_s, "rtt_ms": rtt_ms}}


def classify(**target: Any) -> Plan:
    return planned(service(needs=A10G, target={"profile": "resnet-50", "requests_per_s": 50} | target))


def part(model: ModelProfile, first: int, last: int) -> ModelProfile:
    return model.model_copy(update={"layers": model.layers[first:last]})


@pytest.mark.parametrize("mbit_per_s", [0.5, 5, 50, 5000])
def test_no_cut_of_a_model_is_faster_than_the_best_one(mbit_per_s: float) -> None:
    model, calibration = profile("resnet-50"), builtin()
    side = EdgeSide(edge_devices()[ORIN], Link(mbit_per_s * 125e3, 0.01), calibration)
    found = best_split(side, model, A10G_CHIP, "fp16", calibration)
    best = found.edge_s + found.link_s + forward_time(A10G_CHIP, found.rest, "fp16", 1, calibration).total_s
    for count in range(0, len(model.layers) - 1, 3):
        sent = model.layers[count - 1].crossing_numbers if count else model.input_numbers
        on_edge = forward_time(side.chip, part(model, 0, count), "fp16", 1, calibration).total_s if count else 0.0
        in_cloud = forward_time(A10G_CHIP, part(model, count, len(model.layers)), "fp16", 1, calibration).total_s
        assert sent is not None
        seconds = on_edge + side.link.exchange_s(sent, 4 * model.output_numbers) + in_cloud
        assert seconds >= best * (1 - 1e-9), (count, seconds, best)


def test_a_slow_link_moves_layers_to_the_edge() -> None:
    calibration = builtin()
    at = [
        best_split(
            EdgeSide(edge_devices()[ORIN], Link(mbit * 125e3, 1e-5), calibration),
            profile("resnet-50"),
            A10G_CHIP,
            "fp16",
            calibration,
        ).layers_on_edge
        for mbit in (0.5, 50_000)
    ]
    assert at[0] > at[1] == 0


def test_a_plan_carries_the_split_and_every_quantile_has_the_edge_and_its_link() -> None:
    plan = classify(**edge(20, 40))
    (stated,) = plan.predictions
    assert stated.split is not None and stated.split.device == ORIN
    assert stated.p50_ms is not None and stated.p50_ms.value > stated.split.edge_ms + stated.split.link_ms
    assert any(ORIN in reason for reason in stated.reasons)
    assert Plan.from_props(plan.as_props()).predictions == plan.predictions
    farther = classify(**edge(20, 140)).predictions[0]
    assert farther.p99_ms is not None and stated.p99_ms is not None
    assert farther.p99_ms.value >= stated.p99_ms.value + 99


def test_the_latency_guardrail_judges_a_split_service_by_what_it_predicts_anew() -> None:
    plan = classify(**edge(20, 40), p99_ms_max=250)
    (run,) = runs(plan, load())
    anew = run.predict()
    assert isinstance(anew, InferencePrediction)
    assert anew.p99_s.scaled(1e3) == plan.predictions[0].p99_ms
    assert broken(plan) == {}
    message = broken(edited(plan, **edge(20, 400)))["latency-slo"]
    assert "p99 is predicted to be" in message and "its limit of 250 ms" in message


def test_what_can_not_be_split_is_said() -> None:
    with pytest.raises(PlanError, match=rf"edge.device is 'Orin'; expected one of {ORIN}"):
        classify(edge={"device": "Orin", "bandwidth_mbit_per_s": 1, "rtt_ms": 1})
    with pytest.raises(ValidationError, match="network is set and edge has a link of its own"):
        classify(**edge(20, 40), network={"round_trip_ms": 8})
    old = profile("resnet-50").model_copy(
        update={"layers": tuple(x.model_copy(update={"crossing_numbers": None}) for x in profile("resnet-50").layers)}
    )
    side = EdgeSide(edge_devices()[ORIN], Link(1e6, 0.01), builtin())
    with pytest.raises(PerformanceError, match="make it anew with `fusion profile`"):
        best_split(side, old, A10G_CHIP, "fp16", builtin())
