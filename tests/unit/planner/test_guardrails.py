"""The monthly limit: what breaks it is named with the nearest change that passes, and no door stays open."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.catalog import Catalog, UnknownOffer, load
from planner.cost import Tariff, price_usd_per_month
from planner.guardrails.cost import CostLedger, monthly_cost_usd
from planner.guardrails.rules import Violation
from planner.guardrails.rules import check_plan as check_plan_by
from planner.guardrails.settings import GuardrailSettings
from planner.plan import Plan
from tests.unit.planner.test_plan import job, planned

NODE = Tariff("aws", "us-east-1", "g5.xlarge", "on_demand")
G5 = {"instance_type": "g5.xlarge", "accelerators": 1}


def check_plan(plan: Plan, catalog: Catalog, **settings: object) -> list[Violation]:
    return check_plan_by(plan, GuardrailSettings.model_validate(settings), catalog)


def test_a_resource_without_a_price_is_refused_and_the_next_is_counted_as_if_it_had_not_been() -> None:
    ledger = CostLedger(load())
    with pytest.raises(UnknownOffer):
        ledger.add("urn:one", {Tariff("aws", "us-east-1", "x9.huge", "on_demand"): 1.0}, 1000.0)
    assert ledger.add("urn:two", {Tariff("aws", "us-east-1", "m6i.large", "on_demand"): 1.0}, 1000.0) is None


def test_a_plan_at_the_limit_to_the_cent_passes_and_a_cent_less_does_not() -> None:
    plan = planned(job(needs=G5, nodes={"max": 4}))
    limit = monthly_cost_usd(plan, load(), "max")
    assert check_plan(plan, load(), monthly_cost_limit_usd=limit) == []
    (violation,) = check_plan(plan, load(), monthly_cost_limit_usd=round(limit - 0.01, 2))
    assert "$0.01 over the limit" in violation.message


@given(nodes=st.integers(2, 40), share=st.floats(0.3, 0.99))
def test_the_nearest_change_passes_and_a_node_more_would_not(nodes: int, share: float) -> None:
    needs = {"instance_type": "p5.4xlarge", "accelerators": 1}  # it has no spot price to change to
    plan = planned(job(needs=needs, nodes={"max": nodes}))
    limit = round(monthly_cost_usd(plan, load(), "max") * share, 2)
    (violation,) = check_plan(plan, load(), monthly_cost_limit_usd=limit)
    change = re.search(r"from (\d+) to (\d+) node", violation.message)
    if change is None:
        assert "set monthly_cost_limit_usd to at least" in violation.message
        return
    fewer = int(change[2])
    changed = planned(job(needs=needs, nodes={"max": fewer}))
    assert check_plan(changed, load(), monthly_cost_limit_usd=limit) == []
    one_more = planned(job(needs=needs, nodes={"max": fewer + 1}))
    assert check_plan(one_more, load(), monthly_cost_limit_usd=limit)


def test_the_message_shows_sum_limit_and_the_largest_items() -> None:
    plan = planned(job(needs=G5, nodes={"max": 20}))
    (violation,) = check_plan(plan, load(), monthly_cost_limit_usd=2000)
    assert f"${monthly_cost_usd(plan, load(), 'max'):,.2f}" in violation.message
    assert "over the limit of $2,000.00" in violation.message
    assert "Largest: pool g5-xlarge-on-demand $" in violation.message


def test_prices_that_a_plan_states_are_not_believed() -> None:
    import dataclasses

    plan = planned(job(needs=G5, nodes={"max": 20}))
    cheap = dataclasses.replace(
        plan, items=tuple(dataclasses.replace(each, price_usd_per_month=0.0) for each in plan.items)
    )
    assert check_plan(cheap, load(), monthly_cost_limit_usd=2000)


def test_planned_resources_add_nothing_and_one_outside_the_plan_is_refused() -> None:
    plan = planned(job(needs=G5, nodes={"max": 2}))
    ledger = CostLedger(load())
    ledger.allow(plan.items)
    limit = ledger.total_usd + 1
    assert ledger.add("urn:planned", {NODE: 2.0}, limit) is None
    excess = ledger.add("urn:outside", {NODE: 1.0}, limit)
    assert excess is not None
    assert excess.resource_usd == pytest.approx(price_usd_per_month(load(), NODE))
    assert ledger.add("urn:outside-again", {NODE: 1.0}, limit) is not None, "a refused one leaves no trace"


def test_many_small_pools_add_up() -> None:
    ledger = CostLedger(load())
    each_usd = price_usd_per_month(load(), NODE)
    results = [ledger.add(f"urn:{number}", {NODE: 1.0}, 5.5 * each_usd) for number in range(8)]
    assert [result is None for result in results] == [True] * 5 + [False] * 3


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), max_size=30))
def test_a_resource_registered_again_counts_once(registered: list[tuple[int, int]]) -> None:
    ledger = CostLedger(load())
    for urn, nodes in registered:
        ledger.add(f"urn:{urn}", {NODE: float(nodes)}, limit_usd=1e12)
    last = {urn: nodes for urn, nodes in registered}
    assert ledger.total_usd == pytest.approx(sum(last.values()) * price_usd_per_month(load(), NODE))
