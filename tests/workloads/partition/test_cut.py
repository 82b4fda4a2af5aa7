"""The cut is the cheapest one that there is, on any graph."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.performance.link import FIRST_WINDOW_BYTES, Link
from workloads.partition.cut import Costs, LayerGraph, best_cut, best_cuts, cost_of

COST = st.integers(0, 50).map(float)


@st.composite
def problems(draw: st.DrawFn) -> tuple[LayerGraph, Costs]:
    """Up to 2 inputs and 7 layers, each of which reads any of those before it."""
    inputs, layers = draw(st.integers(1, 2)), draw(st.integers(1, 7))
    reads: list[tuple[int, ...]] = [()] * inputs
    for layer in range(inputs, inputs + layers):
        reads.append(tuple(sorted(draw(st.sets(st.integers(0, layer - 1), min_size=1, max_size=3)))))
    count = inputs + layers
    results = tuple(sorted(draw(st.sets(st.integers(inputs, count - 1), min_size=1, max_size=2))))

    def of(number: int, first: int = 0) -> tuple[float, ...]:
        return (0.0,) * first + tuple(draw(st.lists(COST, min_size=number - first, max_size=number - first)))

    graph = LayerGraph(tuple(map(str, range(count))), tuple(reads), of(count), results)
    costs = Costs(of(count, inputs), of(count, inputs), of(count), of(len(results)), draw(COST))
    return graph, costs


def every_cut(graph: LayerGraph) -> list[frozenset[int]]:
    inputs = {layer for layer, reads in enumerate(graph.reads) if not reads}
    others = [layer for layer in range(len(graph.names)) if layer not in inputs]
    return [
        frozenset(inputs | set(chosen))
        for size in range(len(others) + 1)
        for chosen in itertools.combinations(others, size)
    ]


@settings(max_examples=150, deadline=None)
@given(problems())
def test_no_division_of_a_graph_costs_less_than_the_best_cut(problem: tuple[LayerGraph, Costs]) -> None:
    graph, costs = problem
    found = best_cut(graph, costs)
    assert found.cost == pytest.approx(min(cost_of(graph, costs, each) for each in every_cut(graph)))
    assert found.cost == pytest.approx(cost_of(graph, costs, found.on_edge))


@settings(max_examples=60, deadline=None)
@given(problems(), st.floats(0, 20))
def test_whatever_the_bandwidth_one_of_the_best_cuts_is_best(
    problem: tuple[LayerGraph, Costs], seconds_by_byte: float
) -> None:
    graph, costs = problem
    fixed = replace(costs, answer=tuple(0.0 for _ in graph.results))
    here = replace(
        fixed, send=tuple(a + seconds_by_byte * b for a, b in zip(fixed.send, graph.output_bytes, strict=True))
    )
    best = min(cost_of(graph, here, each) for each in every_cut(graph))
    kept = min(cost_of(graph, here, each) for each in best_cuts(graph, fixed, graph.output_bytes))
    assert kept == pytest.approx(best, rel=1e-6, abs=1e-6)


CHAIN = LayerGraph(("input", "conv", "fc"), ((), (0,), (1,)), (100.0, 10.0, 1.0), (2,))


def test_a_slow_edge_keeps_the_layers_that_make_the_data_small() -> None:
    costs = Costs((0, 3, 90), (0, 1, 30), (100, 10, 1), (1,))
    assert best_cut(CHAIN, costs).on_edge == {0, 1}


def test_a_round_trip_that_costs_more_than_the_cloud_saves_leaves_all_on_the_edge() -> None:
    costs = Costs((0, 3, 90), (0, 1, 30), (100, 10, 1), (1,), exchange=49.1)
    assert best_cut(CHAIN, costs).on_edge == {0, 1, 2}
    assert best_cut(CHAIN, replace(costs, exchange=48.9)).on_edge == {0, 1}


def test_an_output_that_two_layers_of_the_cloud_read_is_sent_once() -> None:
    graph = LayerGraph(("input", "left", "right", "sum"), ((), (0,), (0,), (1, 2)), (8, 8, 8, 8), (3,))
    costs = Costs((0, 9, 9, 9), (0, 1, 1, 1), (10, 50, 50, 50), (0,))
    cut = best_cut(graph, costs)
    assert (cut.on_edge, cut.cost) == ({0}, 13)


def test_the_edge_never_waits_for_an_output_of_the_cloud() -> None:
    costs = Costs((0, 9, 0), (0, 1, 9), (0, 0, 0), (0,))
    assert cost_of(CHAIN, costs, frozenset({0, 2})) == math.inf
    assert best_cut(CHAIN, costs).on_edge == {0, 1, 2}


def test_a_request_within_the_first_window_takes_one_round_trip_and_its_bytes() -> None:
    link = Link(bytes_per_s=1e6, round_trip_s=0.1)
    assert link.exchange_s(FIRST_WINDOW_BYTES, 100) == pytest.approx(0.1 + (FIRST_WINDOW_BYTES + 100) / 1e6)


def test_a_larger_request_waits_for_the_window_to_open_unless_the_link_is_slower() -> None:
    fast = Link(bytes_per_s=125e6, round_trip_s=0.1)
    assert fast.exchange_s(FIRST_WINDOW_BYTES * 7, 0) == pytest.approx(0.3, abs=0.01)  # 1 + 2 + 4 windows
    slow = Link(bytes_per_s=125e3, round_trip_s=0.1)
    assert slow.exchange_s(FIRST_WINDOW_BYTES * 7, 0) == pytest.approx(0.1 + FIRST_WINDOW_BYTES * 7 / 125e3)
