"""All workloads of a stack at once: what is found is what trying everything finds, and limits are named to the unit."""

import dataclasses
import math
from unittest import mock

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import planner.stack
from planner.choices import NothingFits
from planner.stack import search
from planner.workloads import Budget, Quota
from tests.unit.planner.stacks import asks, catalogs, every_stack, optimizer, quotas, used

ENOUGH = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
STACKS = st.one_of(
    st.tuples(asks(0), asks(1)),
    st.tuples(asks(0), asks(1), asks(2)),
)
BUDGETS = st.sampled_from(
    [None, Budget(usd_per_month=300), Budget(usd_per_month=2_000), Budget(usd_per_hour=3), Budget(usd_per_hour=20)]
)


@ENOUGH
@given(catalog=catalogs(4), stack=st.tuples(asks(0), asks(1), asks(2)))
def test_where_too_many_could_share_the_plan_is_between_the_best_one_and_each_by_itself(catalog, stack):
    try:
        exact = search(optimizer(catalog), stack)
        with mock.patch.object(planner.stack, "SHARING_MOST", 2):
            found = search(optimizer(catalog), stack)
        with mock.patch.object(planner.stack, "SHARING_MOST", 0):
            apart = search(optimizer(catalog), stack)
    except NothingFits:
        assume(False)
    assert found.exact == (sum(ask.shares for ask in stack) <= 2)
    cost = [answer.usd_per_month for answer in (exact, found, apart)]
    assert cost[0] <= cost[1] + 1e-6 and cost[1] <= cost[2] + 1e-6


def kept(stack, limits, budget):
    """Whether a combination keeps quotas and budget."""
    _, month, hour, most = stack
    within = all(
        sum(used(quota, offer, buying) * nodes for (offer, buying), nodes in most.items())
        <= (quota.vcpus or quota.accelerators or quota.nodes or 0)
        for quota in limits
    )
    if budget is None:
        return within
    return (
        within
        and month <= (budget.usd_per_month or math.inf) + 1e-6
        and hour <= (budget.usd_per_hour or math.inf) + 1e-6
    )


@ENOUGH
@given(catalog=catalogs(4), stack=STACKS, limits=st.lists(quotas, max_size=2), budget=BUDGETS)
def test_the_stack_is_what_trying_everything_finds(catalog, stack, limits, budget):
    every = list(every_stack(stack, catalog))
    fitting = [each for each in every if kept(each, limits, budget)]
    if not fitting:
        with pytest.raises(NothingFits):
            search(optimizer(catalog), stack, limits, budget)
        return
    answer = search(optimizer(catalog), stack, limits, budget)
    best = min(fitting, key=lambda each: (round(each[0], 6), each[1]))
    times = sum(
        answer.answers[ask.name].best.outcome.seconds / alone_s(ask, catalog)
        for ask in stack
        if ask.objective != "cost"
    )
    assert times == pytest.approx(best[0], abs=1e-6)
    assert answer.usd_per_month == pytest.approx(best[1], rel=1e-6, abs=1e-4)
    assert answer.exact


def alone_s(ask, catalog):
    return search(optimizer(catalog), (ask,)).answers[ask.name].best.outcome.seconds


@ENOUGH
@given(catalog=catalogs(5), stack=STACKS)
def test_together_is_never_dearer_than_each_alone(catalog, stack):
    stack = tuple(dataclasses.replace(ask, objective="cost") for ask in stack)
    try:
        alone = [search(optimizer(catalog), (ask,)).usd_per_month for ask in stack]
    except NothingFits:
        assume(False)
    assert search(optimizer(catalog), stack).usd_per_month <= sum(alone) + 1e-4


@ENOUGH
@given(catalog=catalogs(4), stack=STACKS, limits=st.lists(quotas, min_size=1, max_size=2), budget=BUDGETS)
def test_what_is_to_be_relaxed_is_enough_and_no_less_would_be(catalog, stack, limits, budget):
    every = list(every_stack(stack, catalog))
    assume(every and not any(kept(each, limits, budget) for each in every))
    assume(len({named(quota) for quota in limits}) == len(limits))
    with pytest.raises(NothingFits) as caught:
        search(optimizer(catalog), stack, limits, budget)
    if "no single limit" in str(caught.value):
        raised, budget_raised = list(limits), budget
        for name, least in caught.value.relaxed.items():
            raised, budget_raised = with_limit(name, least, raised, budget_raised)
        search(optimizer(catalog), stack, raised, budget_raised)
        return
    assert caught.value.relaxed
    for name, least in caught.value.relaxed.items():
        raised, budget_raised = with_limit(name, least, limits, budget)
        search(optimizer(catalog), stack, raised, budget_raised)
        lower, budget_lower = with_limit(name, least * 0.999 - 1e-6 if "budget" in name else least - 1, limits, budget)
        assert not any(kept(each, lower, budget_lower) for each in every)


def with_limit(name, value, limits, budget):
    """The same limits with one of them changed, by its name in the message."""
    if name == "budget (USD by month)":
        return limits, budget.model_copy(update={"usd_per_month": value})
    if name == "budget (USD by hour)":
        return limits, budget.model_copy(update={"usd_per_hour": value})
    at = [named(quota) for quota in limits].index(name)
    unit = next(unit for unit in ("vcpus", "accelerators", "nodes") if getattr(limits[at], unit) is not None)
    return [*limits[:at], limits[at].model_copy(update={unit: value}), *limits[at + 1 :]], budget


def named(quota: Quota) -> str:
    from planner.optimizer import shared_limits

    return shared_limits([quota], None)[0].name


@ENOUGH
@given(catalog=catalogs(4), stack=STACKS, limits=st.lists(quotas, min_size=1, max_size=2), more=st.integers(1, 8))
def test_a_higher_limit_never_makes_it_dearer(catalog, stack, limits, more):
    stack = tuple(dataclasses.replace(ask, objective="cost") for ask in stack)
    try:
        before = search(optimizer(catalog), stack, limits).usd_per_month
    except NothingFits:
        assume(False)
    first = limits[0]
    unit = next(unit for unit in ("vcpus", "accelerators", "nodes") if getattr(first, unit) is not None)
    raised = first.model_copy(update={unit: getattr(first, unit) + more})
    assert search(optimizer(catalog), stack, [raised, *limits[1:]]).usd_per_month <= before + 1e-4


@ENOUGH
@given(catalog=catalogs(5), stack=STACKS)
def test_every_runner_up_says_why_it_lost_and_the_chosen_does_not(catalog, stack):
    try:
        answer = search(optimizer(catalog), stack)
    except NothingFits:
        assume(False)
    for each in answer.answers.values():
        assert each.best.reason == ""
        assert all(other.reason for other in each.runners_up)
