"""What `fusion up` says of the guardrails when it is done: how many passed, what advises, which limits are nearly full."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from fusion.review.events import Preview, read
from fusion.review.headroom import guardrail_lines, used
from planner.catalog import load
from planner.guardrails.cost import monthly_cost_usd, usd
from planner.plan import Plan
from planner.quotas import aws_quotas_of, is_of
from policies import guardrails
from tests.unit.planner.test_latency_guardrails import classify
from tests.unit.planner.test_plan import job, planned
from tests.unit.report.logs import PLAN, log, passed, step, urn, violation

CATALOG = load()
NODES = planned(job(needs={"instance_type": "g5.xlarge", "accelerators": 1}, nodes={"min": 0, "max": 4}))
MOST_USD, EXPECTED_USD = monthly_cost_usd(NODES, CATALOG, "max"), monthly_cost_usd(NODES, CATALOG, "expected")
HOURLY_USD = 4 * NODES.pools[0].price_usd_per_hour
NAMES = [each.name for each in guardrails()]


def preview(folder: Path, plan: Plan, *events: Any, workloads: list[Any] | None = None, **settings: Any) -> Preview:
    path = folder / "log.jsonl"
    config = {"fusion:guardrails": json.dumps(settings), "fusion:workloads": json.dumps(workloads or [])}
    said = [step("create", PLAN, "plan", None, plan.as_props()), *events, passed(urn(PLAN, "plan"), *NAMES)]
    path.write_text(log(*said, passed("", *NAMES), config=config))
    return read(path)


def test_all_are_counted_and_the_monthly_limit_is_always_told(tmp_path: Path) -> None:
    levels = {"imdsv2": "disabled"}
    found = preview(tmp_path, NODES, monthly_cost_limit_usd=10 * MOST_USD, levels=levels)
    counted, of_all = guardrail_lines(found, CATALOG)
    numbers = [int(part.split()[0]) for part in counted.split(", ")]
    assert sum(numbers) == len(NAMES)
    assert counted.endswith("1 disabled (imdsv2)")
    assert of_all == f"monthly-cost-limit: {usd(MOST_USD)} of {usd(10 * MOST_USD)} (10%)"


def test_a_limit_is_told_from_four_fifths_of_it_on(tmp_path: Path) -> None:
    def told(share: float) -> list[str]:
        limits = {
            "monthly_cost_limit_usd": MOST_USD * 5,
            "expected_monthly_cost_limit_usd": EXPECTED_USD / share,
            "pool_hourly_limit_usd": HOURLY_USD / share,
        }
        return [line.partition(":")[0] for line in guardrail_lines(preview(tmp_path, NODES, **limits), CATALOG)][1:]

    assert told(0.79) == ["monthly-cost-limit"]
    assert set(told(0.81)) == {"monthly-cost-limit", "expected-monthly-cost", "pool-hourly-limit"}


def test_quotas_are_told_in_their_own_unit(tmp_path: Path) -> None:
    (quota,) = (each for each in aws_quotas_of(NODES, CATALOG) if is_of(each.granted("us-east-1", 1), "g5.xlarge"))
    plan = dataclasses.replace(NODES, quotas=(quota.granted("us-east-1", 16),))
    (found,) = (each for each in used(preview(tmp_path, plan), CATALOG) if each.guardrail == "quotas")
    assert (found.share, found.sentence.partition(", ")[0]) == (1.0, "16 of 16 vcpus")


def test_a_latency_near_its_limit_is_told_with_the_service(tmp_path: Path) -> None:
    plan = classify()
    p95 = plan.predictions[0].p95_ms
    assert p95 is not None
    asked = [{"name": plan.predictions[0].workload, "target": {"p95_ms_max": p95.value * 1.1}}]
    (found,) = used(preview(tmp_path, plan, workloads=asked), CATALOG)
    assert found.guardrail == "latency-slo"
    assert found.sentence.startswith(f"{asked[0]['name']}, p95 latency {p95.value:.3g} of ")


def test_what_advises_is_told_with_its_message(tmp_path: Path) -> None:
    advice = violation(
        "quotas-read", "The account's quotas can be read.\nnobody may read them", "urn:p::plan", "advisory"
    )
    lines = list(guardrail_lines(preview(tmp_path, NODES, advice), CATALOG))
    assert "1 advise (quotas-read)" in lines[0]
    assert lines[1:] == ["quotas-read advisory, plan: nobody may read them"]


def test_without_a_plan_no_limit_is_made_up(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(log(passed("urn:a", *NAMES), config={"fusion:guardrails": '{"monthly_cost_limit_usd": 5}'}))
    assert used(read(path), CATALOG) == ()
