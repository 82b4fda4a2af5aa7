"""What a device takes for each layer of a model: measured there, or by the planner's roofline."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn

from planner.calibration.store import Calibration
from planner.performance.chip import Chip
from planner.performance.roofline import forward_time
from planner.profiles.model import Layer as Operation
from planner.profiles.trace import trace
from workloads.config import ConfigError, Section
from workloads.partition.layers import Layers

RUNS = 7
SECONDS_OF_A_LAYER = 0.3
"""A layer is run `RUNS` times, or for so long where that is sooner."""


class DeviceProfile(Section):
    """Seconds of one row by layer."""

    name: str
    source: Literal["measured", "roofline"]
    layers: tuple[str, ...]
    seconds: tuple[float, ...] = Field(description="by layer; the model's inputs take none")

    def fits(self, layers: Layers) -> DeviceProfile:
        """Itself, where it is of this model.

        Raises:
            ConfigError: it is of another model.
        """
        if self.layers != layers.graph.names:
            strange = next((a for a in self.layers if a not in layers.graph.names), "of another order")
            raise ConfigError(f"the profile of {self.name} is of another model (layer {strange}); measure it anew")
        return self


def read_device(path: Path) -> DeviceProfile:
    """The profile in a file that `fusion partition measure` wrote.

    Raises:
        ConfigError: it can't be read or is no such profile.
    """
    try:
        return DeviceProfile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: can't be read ({error.strerror}); `fusion partition measure` writes it") from None
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        raise ConfigError(f"{path}: {where}: {problem['msg']}; `fusion partition measure` writes such files") from None


def measured(layers: Layers, inputs: Sequence[Tensor], *, name: str, threads: int) -> DeviceProfile:
    """Measure this machine: each layer by itself, then all in proportion to the whole model.

    Layers that run alone have their results in other caches than in a whole pass, so only their shares are used.

    Args:
        layers: of the model.
        inputs: one row each.
        name: of the device.
        threads: that the model has.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            return _measured(layers, inputs, name)
    finally:
        torch.set_num_threads(before)


def _measured(layers: Layers, inputs: Sequence[Tensor], name: str) -> DeviceProfile:
    graph = layers.graph
    given = [layer for layer, reads in enumerate(graph.reads) if not reads]
    outputs: dict[int, tuple[Tensor, ...]] = {layer: (each,) for layer, each in zip(given, inputs, strict=True)}
    seconds = [0.0] * len(graph.names)
    for layer, reads in enumerate(graph.reads):
        if layer in outputs:
            continue
        part = layers.part([layer], reads, [layer])
        arguments = [each for source in reads for each in outputs[source]]
        result = part(*arguments)
        outputs[layer] = result if isinstance(result, tuple) else (result,)
        seconds[layer] = _median_s(part, arguments)
    whole = layers.part(range(len(graph.names)), given, graph.results)
    scale = _median_s(whole, list(inputs)) / sum(seconds)
    return DeviceProfile(
        name=name, source="measured", layers=graph.names, seconds=tuple(each * scale for each in seconds)
    )


def _median_s(module: Callable[..., Any], arguments: Sequence[Tensor]) -> float:
    module(*arguments)
    times: list[float] = []
    end = time.perf_counter() + SECONDS_OF_A_LAYER
    while len(times) < RUNS and (not times or time.perf_counter() < end):
        start = time.perf_counter()
        module(*arguments)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def predicted(
    layers: Layers, inputs: Sequence[Tensor], chip: Chip, precision: str, calibration: Calibration
) -> DeviceProfile:
    """By the planner's roofline, one row at a time: of a chip that need not be here.

    Raises:
        PerformanceError: the chip has no peak at the precision, or the model can't be traced.
    """
    profile = trace(
        _InLayers(layers),
        lambda batch: [each[:1].expand(batch, *each.shape[1:]).contiguous() for each in inputs],
        name=chip.name,
        source="its layers, one by one",
    )
    of_layer: dict[int, list[Operation]] = defaultdict(list)
    for operation in profile.layers:
        of_layer[int(operation.name.split(":")[1].rpartition(".")[2])].append(operation)
    seconds = [0.0] * len(layers.graph.names)
    for layer, operations in of_layer.items():
        alone = profile.model_copy(update={"layers": tuple(operations)})
        seconds[layer] = forward_time(chip, alone, precision, 1, calibration).total_s - calibration.pass_overhead_s
    return DeviceProfile(name=chip.name, source="roofline", layers=layers.graph.names, seconds=tuple(seconds))


class _InLayers(nn.Module):
    """The model as a module for each layer, so that a trace says whose each operation is."""

    def __init__(self, layers: Layers) -> None:
        super().__init__()
        self.graph = layers.graph
        self.given = [layer for layer, reads in enumerate(self.graph.reads) if not reads]
        self.parts = nn.ModuleDict(
            {str(layer): layers.part([layer], reads, [layer]) for layer, reads in enumerate(self.graph.reads) if reads}
        )

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The model's results."""
        outputs: dict[int, tuple[Tensor, ...]] = {layer: (x,) for layer, x in zip(self.given, inputs, strict=True)}
        for layer, reads in enumerate(self.graph.reads):
            if layer not in outputs:
                result = self.parts[str(layer)](*(each for source in reads for each in outputs[source]))
                outputs[layer] = result if isinstance(result, tuple) else (result,)
        return tuple(each for result in self.graph.results for each in outputs[result])
