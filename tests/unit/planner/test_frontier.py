"""The frontier of cost and time is exactly what looking at every choice finds."""

from hypothesis import given
from hypothesis import strategies as st

from planner.calibration.store import builtin
from planner.catalog import load
from planner.choices import Ceilings
from planner.frontier import Bound, frontier
from planner.goals import TrainingGoal
from planner.market import Where
from planner.optimizer import Optimizer
from planner.performance.training import TrainingRun
from planner.profiles.model import profile

AMOUNT = st.integers(0, 6).map(float)


def dominated(one, others):
    return any(usd <= one[0] and seconds <= one[1] and (usd, seconds) != one for usd, seconds in others)


@given(st.lists(st.tuples(AMOUNT, AMOUNT, AMOUNT, AMOUNT, st.booleans()), max_size=12))
def test_it_holds_every_choice_that_none_beats_and_no_other(rows):
    bounds = [
        Bound(usd, seconds, lambda row=(usd, seconds, more_usd, more_s, runs): result(row))
        for usd, seconds, more_usd, more_s, runs in rows
    ]
    every = {(usd + more_usd, seconds + more_s) for usd, seconds, more_usd, more_s, runs in rows if runs}
    assert list(frontier(bounds)) == sorted(each for each in every if not dominated(each, every))


def result(row):
    usd, seconds, more_usd, more_s, runs = row
    at = (usd + more_usd, seconds + more_s)
    return (*at, at) if runs else None


def test_what_can_only_be_slower_and_dearer_is_never_predicted():
    asked = []

    def predict(name, usd, seconds):
        asked.append(name)
        return usd, seconds, name

    bounds = [
        Bound(1.0, 1.0, lambda: predict("cheap", 1.0, 2.0)),
        Bound(2.0, 3.0, lambda: predict("worse", 2.0, 3.0)),
        Bound(3.0, 1.0, lambda: predict("fast", 3.0, 1.5)),
    ]
    assert frontier(bounds) == ("cheap", "fast")
    assert asked == ["cheap", "fast"]


def test_of_the_catalog_it_begins_with_the_cheapest_and_ends_with_the_fastest():
    optimizer = Optimizer(load(), builtin())
    goal = TrainingGoal(TrainingRun(profile("resnet-50"), 100_000, 1, 1), 1024)
    choices = optimizer.frontier(goal, Where())
    assert choices[0] == optimizer.search(goal, Where(), Ceilings()).best
    assert choices[-1].outcome.seconds == optimizer.search(goal, Where(), Ceilings(), "time").best.outcome.seconds
    costs, times = [each.usd for each in choices], [each.outcome.seconds for each in choices]
    assert len(choices) > 2 and costs == sorted(costs) and times == sorted(times, reverse=True)
