"""The best cut of a layer graph between an edge device and a cloud: a minimum cut of a flow network.

Sources: C. Hu, W. Bao, D. Wang, F. Liu, "Dynamic Adaptive DNN Surgery for Inference Acceleration on the Edge" (INFOCOM
2019) for the network, where a layer's output is sent once however many layers read it; for chains it is Y. Kang et al.,
"Neurosurgeon" (ASPLOS 2017). Which cuts are best at any bandwidth at all: M. Eisner, D. Severance, "Mathematical
Techniques for Efficient Record Segmentation in Large Shared Databases" (JACM 23(4), 1976).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import networkx as nx

EDGE, CLOUD = "edge", "cloud"
STEPS = 10**12
"""Of a second or joule: flows of whole numbers are exact."""


@dataclass(frozen=True, slots=True)
class LayerGraph:
    """Layers in an order in which they can run; the inputs of the model come first and are layers that compute nothing.

    What a layer gives is sent whole, and any later layers may read it.
    """

    names: tuple[str, ...]
    reads: tuple[tuple[int, ...], ...]
    """By layer: whose outputs it reads. An input of the model reads none."""
    output_bytes: tuple[float, ...]
    """By layer: of its output, of one row."""
    results: tuple[int, ...]
    """Whose outputs are the model's."""

    def sent(self, on_edge: frozenset[int]) -> tuple[int, ...]:
        """The layers on the edge whose outputs the cloud needs, in order."""
        rest = set(range(len(self.names))) - on_edge
        needed = {source for layer in rest for source in self.reads[layer]}
        return tuple(sorted(needed & on_edge))


@dataclass(frozen=True, slots=True)
class Costs:
    """What a cut is charged, in one unit (seconds or joules), of one row."""

    edge: tuple[float, ...]
    """By layer: to run it on the edge."""
    cloud: tuple[float, ...]
    send: tuple[float, ...]
    """By layer: to send its output, once."""
    answer: tuple[float, ...]
    """By result: to send it back, where it was made in the cloud."""
    exchange: float = 0.0
    """Of any request that goes to the cloud, whatever it holds."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Layers on the edge; the others run in the cloud."""

    on_edge: frozenset[int]
    cost: float


def cost_of(graph: LayerGraph, costs: Costs, on_edge: frozenset[int]) -> float:
    """What a cut is charged; infinite where the edge would need an output of the cloud."""
    if any(source not in on_edge for layer in on_edge for source in graph.reads[layer]):
        return math.inf
    rest = [layer for layer in range(len(graph.names)) if layer not in on_edge]
    back = (cost for result, cost in zip(graph.results, costs.answer, strict=True) if result not in on_edge)
    return (
        math.fsum(costs.edge[layer] for layer in on_edge)
        + math.fsum(costs.cloud[layer] for layer in rest)
        + math.fsum(costs.send[layer] for layer in graph.sent(on_edge))
        + math.fsum(back)
        + (costs.exchange if rest else 0.0)
    )


def best_cut(graph: LayerGraph, costs: Costs) -> Cut:
    """The cut that is charged least; the edge alone is one, and so is the cloud alone, to which the inputs are sent."""
    edge_alone = frozenset(range(len(graph.names)))
    split = _minimum(graph, replace(costs, exchange=0.0))  # the exchange is the same for every cut but the edge alone
    return min((Cut(each, cost_of(graph, costs, each)) for each in (edge_alone, split)), key=lambda cut: cut.cost)


def best_cuts(graph: LayerGraph, fixed: Costs, by_byte: Sequence[float]) -> tuple[frozenset[int], ...]:
    """Every cut that is best at some bandwidth, the one with the least to send first.

    Args:
        graph: the layers.
        fixed: what a cut is charged at infinite bandwidth.
        by_byte: by layer, bytes that its output takes on the link: at a bandwidth b they are charged bytes ÷ b more.

    A cut is a line over seconds by byte, so the best ones are the lower envelope of lines; where two neighbours meet,
    either no other is lower, or the best one there is a new neighbour of both.
    """
    nothing = tuple(0.0 for _ in graph.names)
    wire = Costs(nothing, nothing, tuple(by_byte), tuple(0.0 for _ in graph.results))
    steep = best_cut(graph, replace(fixed, exchange=0.0)).on_edge
    flat = frozenset(range(len(graph.names)))
    found = {flat, steep}

    def between(left: frozenset[int], right: frozenset[int]) -> None:
        a, b = (cost_of(graph, fixed, each) for each in (left, right))
        slope_a, slope_b = (cost_of(graph, wire, each) for each in (left, right))
        if slope_a <= slope_b or b <= a:
            return
        seconds_by_byte = (b - a) / (slope_a - slope_b)
        here = _slower(fixed, wire, seconds_by_byte)
        middle = best_cut(graph, here)
        if middle.cost < cost_of(graph, here, left) * (1 - 1e-9) and middle.on_edge not in found:
            found.add(middle.on_edge)
            between(left, middle.on_edge)
            between(middle.on_edge, right)

    between(steep, flat)
    return tuple(sorted(found, key=lambda each: (cost_of(graph, wire, each), cost_of(graph, fixed, each))))


def _slower(fixed: Costs, wire: Costs, seconds_by_byte: float) -> Costs:
    send = tuple(a + seconds_by_byte * b for a, b in zip(fixed.send, wire.send, strict=True))
    return replace(fixed, send=send, exchange=0.0)


def _minimum(graph: LayerGraph, costs: Costs) -> frozenset[int]:
    """Layers that a minimum cut leaves on the edge's side.

    A layer is charged for the edge by an arc to the cloud's end, and for the cloud by one from the edge's. Its output
    stands between it and its readers, so that it is paid for once. No arc that leads back from a reader can be cut.
    """
    flow = nx.DiGraph()
    back = dict(zip(graph.results, costs.answer, strict=True))
    for layer, reads in enumerate(graph.reads):
        flow.add_edge(layer, CLOUD, capacity=round(costs.edge[layer] * STEPS))
        if reads:
            flow.add_edge(EDGE, layer, capacity=round((costs.cloud[layer] + back.get(layer, 0.0)) * STEPS))
        else:
            flow.add_edge(EDGE, layer)  # the inputs are on the edge
        output = ("output", layer)
        flow.add_edge(layer, output, capacity=round(costs.send[layer] * STEPS))
        for source in reads:
            flow.add_edge(("output", source), layer)
            flow.add_edge(layer, source)
    _, (on_edge, _) = nx.minimum_cut(flow, EDGE, CLOUD)
    return frozenset(each for each in on_edge if isinstance(each, int))
