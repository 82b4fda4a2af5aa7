"""The layers of a traced model, and the modules that run some of them."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from workloads.partition.codings import Decoder
from workloads.partition.cut import LayerGraph
from workloads.serving.package import PackageError

SIZE_OF = torch.ops.aten.sym_size.int


@dataclass(frozen=True, slots=True)
class Layers:
    """A traced model in layers: an operation with weights or several inputs, and what follows it alone and makes its
    output no larger (an activation, a pooling), since a cut between them would send no less."""

    module: GraphModule
    graph: LayerGraph
    nodes: tuple[tuple[Node, ...], ...]
    """By layer, in order."""
    outputs: tuple[tuple[Node, ...], ...]
    """By layer: those of its nodes that other layers read, or that are results."""

    def part(
        self,
        layers: Iterable[int],
        takes: Sequence[int],
        gives: Sequence[int],
        decoders: Sequence[Decoder] | None = None,
    ) -> GraphModule:
        """The module that runs some layers.

        Args:
            layers: which.
            takes: layers whose outputs are the module's inputs, in their order.
            gives: layers whose outputs are the module's, in their order; one is a tensor, several are a tuple.
            decoders: by tensor that is taken, where these come coded.
        """
        wanted = [node for layer in sorted(layers) for node in self.nodes[layer] if node.op != "placeholder"]
        taken = self._outputs_of(takes)
        return _extracted(self.module, wanted, taken, self._outputs_of(gives), decoders or [Decoder(1) for _ in taken])

    def tensors(self, layers: Sequence[int]) -> list[tuple[str, bool]]:
        """What layers give: a name for each tensor, and whether it is of floats."""
        found = []
        for layer in layers:
            for number, node in enumerate(self.outputs[layer]):
                name = self.graph.names[layer] + (f".{number}" if len(self.outputs[layer]) > 1 else "")
                found.append((name, bool(node.meta["val"].is_floating_point())))
        return found

    def _outputs_of(self, layers: Sequence[int]) -> list[Node]:
        return [node for layer in layers for node in self.outputs[layer]]


def layers_of(program: torch.export.ExportedProgram) -> Layers:
    """The layers of a program that was exported with a free batch.

    Raises:
        PackageError: it has no layers to cut between, or changes its inputs or state.
    """
    if program.graph_signature.buffers_to_mutate or program.graph_signature.user_inputs_to_mutate:
        raise PackageError("the model changes its own state or inputs, so that it can't be split; export it in eval()")
    module = program.module()
    assert isinstance(module, GraphModule)
    nodes = [node for node in module.graph.nodes if node.op in ("placeholder", "call_function") and _is_tensor(node)]
    layer_of: dict[Node, int] = {}
    layers: list[list[Node]] = []
    for node in nodes:
        sources = _sources(node)
        if node.op == "call_function" and (into := _follows(node, sources, layers, layer_of)) is not None:
            layers[into].append(node)
        else:
            into = len(layers)
            layers.append([node])
        layer_of[node] = into
    results = _results(module)
    if len(layers) < 2 or any(each not in layer_of for each in results):
        raise PackageError("the model has no layers to cut between")
    reads = [
        tuple(sorted({layer_of[source] for node in layer for source in _sources(node)} - {number}))
        for number, layer in enumerate(layers)
    ]
    read = {source for node in nodes for source in _sources(node) if layer_of[source] != layer_of[node]} | set(results)
    outputs = tuple(tuple(node for node in layer if node in read) for layer in layers)
    graph = LayerGraph(
        names=_names(layers),
        reads=tuple(reads),
        output_bytes=tuple(float(sum(map(_row_bytes, each))) for each in outputs),
        results=tuple(dict.fromkeys(layer_of[each] for each in results)),
    )
    return Layers(module, graph, tuple(map(tuple, layers)), outputs)


def _is_tensor(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) or (isinstance(value, tuple | list) and any(isinstance(v, Tensor) for v in value))


def _sources(node: Node) -> list[Node]:
    """The tensors of the batch that an operation reads, without weights."""
    return [each for each in node.all_input_nodes if each.op != "get_attr" and _is_tensor(each)]


def _follows(node: Node, sources: list[Node], layers: list[list[Node]], layer_of: dict[Node, int]) -> int | None:
    """The layer that an operation belongs to; None where it begins one."""
    if not sources:
        return None
    into = layer_of[sources[0]]
    if node.target is operator.getitem:
        return into  # one of several outputs: only the ones that are read are sent
    alone = len(sources) == 1 and len(sources[0].users) == 1 and sources[0] is layers[into][-1]
    if not alone or sources[0].op == "placeholder" or _row_bytes(node) > _row_bytes(sources[0]):
        return None
    has_weights = any(each.op == "get_attr" for each in node.all_input_nodes)
    return None if has_weights and "batch_norm" not in str(node.target) else into


def _results(module: GraphModule) -> list[Node]:
    output = next(node for node in module.graph.nodes if node.op == "output")
    return [each for each in output.all_input_nodes]


def _names(layers: Sequence[Sequence[Node]]) -> tuple[str, ...]:
    """Where each layer stands in the model, such as `layer1.0.conv2`, or else what it computes."""
    found: dict[str, None] = {}
    for first, *_ in layers:
        weights = next((str(each.target) for each in first.all_input_nodes if each.op == "get_attr"), "")
        place = weights.rpartition(".")[0]
        found[place if place and place not in found else first.name] = None
    return tuple(found)


def _row_bytes(node: Node) -> int:
    values = node.meta["val"]
    tensors = [each for each in (values if isinstance(values, tuple | list) else (values,)) if isinstance(each, Tensor)]
    return sum(each.element_size() * _row_numbers(each) for each in tensors)


def _row_numbers(tensor: Tensor) -> int:
    numbers = 1
    for size in tensor.shape[1:]:
        numbers *= int(size)
    return numbers


def _extracted(
    module: GraphModule,
    wanted: Sequence[Node],
    takes: Sequence[Node],
    gives: Sequence[Node],
    decoders: Sequence[Decoder],
) -> GraphModule:
    graph = Graph()
    copied: dict[Node, Node] = {}
    given = [[graph.placeholder(f"input{n}_{k}") for k in range(each.inputs)] for n, each in enumerate(decoders)]
    for node, decoder, inputs in zip(takes, decoders, given, strict=True):
        function = decoder.function
        copied[node] = graph.call_function(function, (*inputs, *decoder.arguments)) if function else inputs[0]
    attributes: dict[str, Any] = {}

    def copy(node: Node) -> Node:
        if node in copied:
            return copied[node]
        if node.op == "get_attr":
            attributes[str(node.target)] = _attribute(module, str(node.target))
        elif node.target is SIZE_OF and node.args[1] == 0:  # the batch is that of any input
            copied[node] = graph.call_function(SIZE_OF, (copied[takes[0]], 0))
            return copied[node]
        elif _is_tensor(node) and node not in inside:
            raise PackageError(f"{node.name} is needed and lies on the other side of the cut")
        copied[node] = graph.node_copy(node, copy)
        return copied[node]

    inside = set(wanted)
    for node in wanted:
        copy(node)
    outputs = tuple(copied[node] for node in gives)
    graph.output(outputs[0] if len(outputs) == 1 else outputs)
    root = nn.Module()
    for target, value in attributes.items():
        _place(root, target, value)
    return GraphModule(root, graph)


def _attribute(module: nn.Module, target: str) -> Any:
    for name in target.split("."):
        module = getattr(module, name)
    return module


def _place(root: nn.Module, target: str, value: Any) -> None:
    *path, last = target.split(".")
    for name in path:
        if not hasattr(root, name):
            root.add_module(name, nn.Module())
        root = getattr(root, name)
    if isinstance(value, nn.Parameter):
        root.register_parameter(last, value)
    else:
        root.register_buffer(last, value)
