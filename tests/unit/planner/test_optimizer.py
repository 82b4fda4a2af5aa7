"""The search finds what trying everything finds, keeps every limit, and says which limit stands in the way."""

import dataclasses
import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.catalog import load
from planner.choices import Ceilings, NothingFits
from planner.errors import PlanError
from planner.goals import LanguageModelGoal, ServiceGoal, TrainingGoal
from planner.market import Where
from planner.optimizer import Optimizer, Options
from planner.performance import InferenceLoad, TrainingRun, builtin
from planner.profiles.decoder import decoder
from planner.profiles.model import profile
from tests.unit.planner.stacks import asks, catalogs, optimizer, ways

TRAINING = TrainingGoal(TrainingRun(profile("fusionnet-8"), 200_000, 100, 1), 1024, ("bf16", "fp32"), (1, 2))


@settings(max_examples=80, deadline=None)
@given(
    catalog=catalogs(6),
    ask=asks(0),
    objective=st.sampled_from(["cost", "fast"]),
    usd=st.sampled_from([math.inf, 0.05, 1.0, 20.0]),
    scale=st.sampled_from([math.inf, 0.5, 1.1, 3.0]),
)
def test_the_answer_is_what_trying_everything_finds(catalog, ask, objective, usd, scale):
    ask = dataclasses.replace(ask, objective="cost" if objective == "cost" or ask.goal is None else fast(ask))
    unlimited = dataclasses.replace(ask, limits=Ceilings(), objective=fast(ask))
    fastest = min((way.seconds for way in ways(unlimited, catalog)), default=1.0) or 1.0
    ask = dataclasses.replace(ask, limits=Ceilings(usd=usd, seconds=fastest * scale))
    fitting = ways(ask, catalog)
    options = Options(optimizer(catalog).predictor, (ask,))
    if not fitting:
        with pytest.raises(NothingFits) as caught:
            options.search(ask)
        for name, least in caught.value.relaxed.items():
            assert_least(ask, catalog, name, least)
        return
    answer = options.search(ask)
    months = [way.usd * ask.per_month + way.egress_usd for way in fitting]
    if ask.objective == "cost":
        assert answer.best.usd_per_month == pytest.approx(min(months), rel=1e-6, abs=1e-5)
        order = [each.usd_per_month for each in (answer.best, *answer.runners_up)]
    else:
        assert answer.best.outcome.seconds == pytest.approx(min(way.seconds for way in fitting))
        order = [each.outcome.seconds for each in (answer.best, *answer.runners_up)]
    assert order == sorted(order)
    for choice in (answer.best, *answer.runners_up):
        assert choice.usd <= ask.limits.usd and choice.limited("seconds") <= ask.limits.seconds
    for rejected in answer.rejected:
        choice = rejected.choice
        assert choice.usd > ask.limits.usd or choice.limited("seconds") > ask.limits.seconds


def fast(ask):
    return "time" if ask.whole_nodes else "latency"


def assert_least(ask, catalog, name, least):
    """With the limit at its least value there is a choice, and just below there is none."""
    enough = dataclasses.replace(ask, limits=dataclasses.replace(ask.limits, **{name: least * (1 + 1e-9)}))
    assert ways(enough, catalog)
    below = dataclasses.replace(ask, limits=dataclasses.replace(ask.limits, **{name: least * (1 - 1e-6)}))
    assert not ways(below, catalog)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_a_limit_that_is_no_limit_is_named(value):
    with pytest.raises(PlanError, match=r"seconds is .* must be above zero"):
        Ceilings(seconds=value)


def test_spot_with_a_fallback_costs_less_than_on_demand_and_more_than_spot():
    answer = Optimizer(load(), builtin()).search(TRAINING, Where(buyings=("spot_fallback",)))
    offer = answer.best.offer
    assert offer.spot_price_usd_per_hour < answer.best.price_usd_per_hour < offer.price_usd_per_hour


def test_spot_without_a_fallback_waits_for_its_node_and_takes_longer():
    found = Optimizer(load(), builtin())
    where = Where(accelerators=frozenset({"A10G"}), counts=frozenset({1}), places=frozenset({("aws", "us-east-1")}))
    waiting = found.search(TRAINING, dataclasses.replace(where, buyings=("spot",))).best
    replaced = found.search(TRAINING, dataclasses.replace(where, buyings=("spot_fallback",))).best
    assert waiting.outcome.seconds > replaced.outcome.seconds
    assert waiting.price_usd_per_hour == waiting.offer.spot_price_usd_per_hour


@settings(max_examples=5, deadline=None)
@given(rate=st.floats(1_000.0, 400_000.0), batch=st.sampled_from([1, 8]), chip=st.sampled_from(["L4", "H100"]))
def test_a_further_replica_never_makes_requests_wait_longer(rate, batch, chip):
    """What the search for the fewest replicas by halves rests on."""
    goal = ServiceGoal(InferenceLoad(profile("fusionnet-8"), rate), batches=(batch,), replicas_max=12)
    found = Optimizer(load(), builtin()).predictor
    machine = found.market.machines[[m.accelerator if m else "" for m in found.market.machines].index(chip)]
    (shape,) = goal.shapes(machine)
    times = [
        outcome.seconds
        for replicas in range(1, 13)
        for outcome in (found.outcome(goal, machine, dataclasses.replace(shape, replicas=replicas)),)
        if not isinstance(outcome, str)
    ]
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in itertools.pairwise(times))


def test_a_service_that_would_need_more_replicas_says_how_many():
    goal = ServiceGoal(InferenceLoad(profile("resnet-50"), 20_000.0), replicas_max=1)
    where = Where(accelerators=frozenset({"L4"}))
    with pytest.raises(NothingFits, match=r"raise replicas\.max to (\d+)") as caught:
        Optimizer(load(), builtin()).search(goal, where)
    needed = int(str(caught.value).rsplit(" ", 1)[1])
    enough = dataclasses.replace(goal, replicas_max=needed)
    assert Optimizer(load(), builtin()).search(enough, where).best.shape.replicas == needed
    with pytest.raises(NothingFits):
        Optimizer(load(), builtin()).search(dataclasses.replace(goal, replicas_max=needed - 1), where)


def test_a_peak_that_needs_more_replicas_says_how_many():
    usual = InferenceLoad(profile("resnet-50"), 200.0)
    where = Where(accelerators=frozenset({"L4"}))

    def best(replicas_max):
        peak = ServiceGoal(dataclasses.replace(usual, requests_per_s=20_000.0), replicas_max=replicas_max)
        return Optimizer(load(), builtin()).search(ServiceGoal(usual, replicas_max=1, peak=peak), where).best

    with pytest.raises(NothingFits, match=r"raise replicas\.max to (\d+)") as caught:
        best(1)
    needed = int(str(caught.value).rsplit(" ", 1)[1])
    assert best(needed).shape.replicas == 1
    with pytest.raises(NothingFits):
        best(needed - 1)


def test_a_language_model_that_no_single_device_holds_is_split_over_several():
    goal = LanguageModelGoal(decoder("llama-3.1-70b"), 500, 100, 1.0, replicas_max=2)
    best = Optimizer(load(), builtin()).search(goal, Where(accelerators=frozenset({"A100-80GB"}))).best
    assert best.shape.parallelism.tensor >= 2
