"""The search finds what trying everything finds, keeps every limit, and says which limit stands in the way."""

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.catalog import Catalog, Offer, load
from planner.errors import PlanError
from planner.goals import Goal, LanguageModelGoal, Machine, Outcome, ServiceGoal, Shape, TrainingGoal
from planner.optimizer import (
    FALLBACK_HOURS,
    MONTHLY_RECLAIM,
    UNKNOWN_RECLAIM,
    Ceilings,
    NothingFits,
    Objective,
    Optimizer,
    Where,
)
from planner.performance import Chip, InferenceLoad, PerformanceError, TrainingRun, builtin
from planner.profiles.decoder import decoder
from planner.profiles.model import profile

ACCELERATORS = load().accelerators
BOTH = Where(price_models=("on_demand", "spot"))
TRAINING = TrainingGoal(TrainingRun(profile("fusionnet-8"), 200_000, 100, 1), 1024, ("bf16", "fp32"), (1, 2))
SERVICE = ServiceGoal(InferenceLoad(profile("fusionnet-8"), 20_000.0), batches=(1, 8), nodes=(1, 2))
DECODER = LanguageModelGoal(decoder("llama-3.1-8b"), 5.0, 500, 100, nodes=(1, 3))


@st.composite
def offers(draw: st.DrawFn) -> Offer:
    price = draw(st.floats(0.1, 100))
    return Offer(
        cloud=draw(st.sampled_from(["aws", "gcp"])),
        region=draw(st.sampled_from(["east", "west"])),
        zone=None,
        instance_type=draw(st.sampled_from("abcdef")),
        accelerator=draw(st.sampled_from(["H100", "A10G", "L4", "T4"])),
        accelerator_count=draw(st.sampled_from([0.5, 1, 2, 8])),
        accelerator_memory_gib=None,
        vcpus=draw(st.sampled_from([4, 64])),
        memory_gib=64,
        price_usd_per_hour=draw(st.sampled_from([price, price, None])),
        spot_price_usd_per_hour=draw(st.sampled_from([price / 3, None])),
        spot_interruption_bucket=draw(st.sampled_from(["<5%", ">20%", None])),
        price_source="test",
        price_as_of="2026",
        spot_source="test",
        spot_as_of="2026",
        note="",
    )


_KNOWN: dict[tuple[int, Machine, Shape], Outcome | None] = {}


def outcome(goal: Goal, machine: Machine, shape: Shape) -> Outcome | None:
    key = (id(goal), machine, shape)
    if key not in _KNOWN:
        try:
            chip = Chip.from_accelerator(ACCELERATORS[machine.accelerator])
            _KNOWN[key] = goal.outcome(chip, machine, shape, builtin())
        except PerformanceError:
            _KNOWN[key] = None
    return _KNOWN[key]


def everything(goal: Goal, catalog: list[Offer], where: Where) -> list[tuple[float, float, float]]:
    """(USD, seconds, seconds by token) of every offer bought every way in every shape: brute force."""
    found = []
    for offer in catalog:
        if offer.accelerator_count < 1 or offer.vcpus < where.min_vcpus or offer.price_usd_per_hour is None:
            continue
        if where.places is not None and (offer.cloud, offer.region) not in where.places:
            continue
        monthly = MONTHLY_RECLAIM.get(offer.spot_interruption_bucket, UNKNOWN_RECLAIM)
        spot_rate = -math.log(1 - monthly) / 730
        ways = [(0.0, offer.price_usd_per_hour)]
        if offer.spot_price_usd_per_hour is not None:
            away = spot_rate * FALLBACK_HOURS / (1 + spot_rate * FALLBACK_HOURS)
            ways.append((spot_rate, (1 - away) * offer.spot_price_usd_per_hour + away * offer.price_usd_per_hour))
        for rate, price in ways:
            machine = Machine(str(offer.accelerator), int(offer.accelerator_count), rate)
            for shape in goal.shapes(machine):
                result = outcome(goal, machine, shape)
                if result is not None:
                    found.append((result.billed_hours * shape.nodes * price, result.seconds, result.token_s))
    return found


def optimizer(catalog: list[Offer]) -> Optimizer:
    return Optimizer(Catalog(catalog, ACCELERATORS), builtin())


@pytest.mark.parametrize("goal", [TRAINING, SERVICE, DECODER], ids=["training", "service", "language model"])
@settings(max_examples=40, deadline=None)
@given(
    catalog=st.lists(offers(), max_size=8),
    objective=st.sampled_from(["cost", "time"]),
    usd=st.sampled_from([math.inf, 0.05, 1.0, 20.0]),
    scale=st.sampled_from([math.inf, 0.5, 1.1, 3.0]),
    places=st.sampled_from([None, frozenset({("aws", "east"), ("gcp", "west")})]),
    min_vcpus=st.sampled_from([0.0, 8.0]),
)
def test_the_answer_is_what_trying_everything_finds(
    goal: Goal,
    catalog: list[Offer],
    objective: Objective,
    usd: float,
    scale: float,
    places: frozenset[tuple[str, str]] | None,
    min_vcpus: float,
) -> None:
    where = dataclasses.replace(BOTH, places=places, min_vcpus=min_vcpus)
    all_of_them = everything(goal, catalog, where)
    fastest = min((seconds for _, seconds, _ in all_of_them), default=1.0)
    limits = Ceilings(usd=usd, seconds=fastest * scale)
    kept = [each for each in all_of_them if each[0] <= limits.usd and each[1] <= limits.seconds]
    if not kept:
        with pytest.raises(NothingFits) as caught:
            optimizer(catalog).search(goal, where, limits, objective)
        for field, least in caught.value.relaxed.items():
            relaxed = dataclasses.replace(limits, **{field: least * (1 + 1e-9)})
            optimizer(catalog).search(goal, where, relaxed, objective)
        return
    answer = optimizer(catalog).search(goal, where, limits, objective)
    if objective == "cost":
        assert answer.best.usd == pytest.approx(min(each[0] for each in kept))
    else:
        assert answer.best.outcome.seconds == pytest.approx(min(each[1] for each in kept))
    order = [each.usd if objective == "cost" else each.outcome.seconds for each in (answer.best, *answer.runners_up)]
    assert order == sorted(order)
    for choice in (answer.best, *answer.runners_up):
        assert choice.usd <= limits.usd and choice.outcome.seconds <= limits.seconds


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_a_limit_that_is_no_limit_is_named(value: float) -> None:
    with pytest.raises(PlanError, match=r"seconds is .* must be above zero"):
        Ceilings(seconds=value)


def test_spot_costs_less_than_on_demand_and_more_than_its_price() -> None:
    answer = Optimizer(load(), builtin()).search(TRAINING, Where(price_models=("spot",)), Ceilings())
    offer = answer.best.offer
    assert offer.spot_price_usd_per_hour is not None and offer.price_usd_per_hour is not None
    assert offer.spot_price_usd_per_hour < answer.best.price_usd_per_hour < offer.price_usd_per_hour
