"""A model's profile: what each layer computes, reads, writes and keeps, by sample; written as a small JSON."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from planner.performance.checks import PerformanceError

SHIPPED = Path(__file__).with_name("data")

OperationClass = Literal["gemm", "conv", "attention", "elementwise", "normalisation", "reduction", "embedding"]
Count = Annotated[float, Field(ge=0, le=1e20, allow_inf_nan=False)]


class Strict(BaseModel):
    """Immutable, and no field that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


@dataclass(frozen=True, slots=True)
class Stages:
    """How evenly a model's layers can be cut into pipeline stages, each a run of layers."""

    slowest_share: float
    """Of the FLOPs of all layers."""
    largest_share: float
    """Of the weights of all layers, in the stage that has most."""
    sent_numbers: float
    """By sample, at the widest cut."""


class Product(Strict):
    """The matrix product that a layer is at heart: `count` of (m·batch × k)·(k × n) by sample."""

    m: Annotated[int, Field(ge=1, le=10**9)]
    """Rows by sample: tokens, or output pixels of a convolution."""
    n: Annotated[int, Field(ge=1, le=10**9)]
    k: Annotated[int, Field(ge=1, le=10**9)]
    count: Annotated[int, Field(ge=1, le=10**9)] = 1


class Layer(Strict):
    """One operation. Numbers, not bytes, so that any precision follows by its size."""

    name: Annotated[str, Field(min_length=1, max_length=300)]
    operation: OperationClass
    flops: Count
    """Forward, by sample; a multiply and an add are 2."""
    read_numbers: Count
    """Inputs read by sample, without weights."""
    written_numbers: Count
    """Outputs written by sample."""
    weight_numbers: Count = 0
    """Weights read once by pass, whatever the batch."""
    kept_numbers: Count = 0
    """Numbers that the backward pass needs, by sample."""
    kept_bytes: Count = 0
    """Bytes that it needs whatever the precision, by sample: indices and masks."""
    product: Product | None = None
    crossing_numbers: Count | None = None
    """By sample: what later layers still read of this one and those before it, which a cut behind it would send. None in
    profiles that were traced before this was counted."""


class ModelProfile(Strict):
    """A model's layers in order, with where they come from."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    source: str
    input_numbers: Count
    """Numbers of one input sample."""
    output_numbers: Count
    parameters: Count
    layers: Annotated[tuple[Layer, ...], Field(min_length=1, max_length=100_000)]

    @model_validator(mode="after")
    def _whole(self) -> ModelProfile:
        if self.flops <= 0:
            raise ValueError("flops of all layers together are 0; a model computes something")
        return self

    @functools.cached_property
    def flops(self) -> float:
        """Forward FLOPs of one sample."""
        return sum(layer.flops for layer in self.layers)

    @functools.cached_property
    def convolution_flops(self) -> float:
        """Those of them that are of convolutions."""
        return sum(layer.flops for layer in self.layers if layer.operation == "conv")

    @functools.cached_property
    def activation_numbers(self) -> float:
        """Numbers kept for the backward pass, by sample."""
        return sum(layer.kept_numbers for layer in self.layers)

    def activation_bytes(self, bytes_each: float) -> float:
        """Bytes kept for the backward pass, by sample."""
        return self.activation_numbers * bytes_each + self._kept_bytes

    @functools.cached_property
    def _kept_bytes(self) -> float:
        return sum(layer.kept_bytes for layer in self.layers)

    @functools.cached_property
    def product_outputs(self) -> tuple[tuple[float, int], ...]:
        """Numbers that every second product writes by sample, and how many write so many."""
        products = [layer for layer in self.layers if layer.operation in ("gemm", "conv")]
        return tuple(Counter(layer.written_numbers for layer in products[1::2]).items())

    @functools.cached_property
    def distinct(self) -> tuple[tuple[Layer, int], ...]:
        """Layers that differ in more than their name, and how many of each there are: repeated blocks take equal time."""
        counts: dict[tuple[object, ...], tuple[Layer, int]] = {}
        for layer in self.layers:
            product = layer.product
            shape = (product.m, product.n, product.k, product.count) if product else None
            key = (
                layer.operation,
                layer.flops,
                layer.read_numbers,
                layer.written_numbers,
                layer.weight_numbers,
                shape,
            )
            counts[key] = (layer, counts.get(key, (layer, 0))[1] + 1)
        return tuple(counts.values())

    def bytes_moved(self, bytes_each: float) -> float:
        """Bytes read and written by sample in one forward pass, without weights."""
        return bytes_each * sum(layer.read_numbers + layer.written_numbers for layer in self.layers)

    def stages(self, count: int) -> Stages:
        """The layers cut into at most that many runs, so that the one with most FLOPs has as few as can be: bisection
        over what a run may have, probed greedily (A. Pınar, C. Aykanat, "Fast optimal load balancing algorithms for 1D
        partitioning", JPDC 64, 2004, section 2)."""
        if count not in self._stages:
            low, high = max(max(layer.flops for layer in self.layers), self.flops / count), self.flops
            for _ in range(50):
                middle = (low + high) / 2
                low, high = (low, middle) if len(self._runs(middle)) <= count else (middle, high)
            runs = self._runs(high)
            weights = [sum(layer.weight_numbers for layer in run) for run in runs]
            self._stages[count] = Stages(
                slowest_share=max(sum(layer.flops for layer in run) for run in runs) / self.flops,
                largest_share=max(weights) / sum(weights) if any(weights) else 1 / len(runs),
                sent_numbers=max((run[-1].written_numbers for run in runs[:-1]), default=0.0),
            )
        return self._stages[count]

    def _runs(self, most_flops: float) -> list[list[Layer]]:
        """Neighbouring layers together as long as they have at most so many FLOPs."""
        runs, taken = [[self.layers[0]]], self.layers[0].flops
        for layer in self.layers[1:]:
            taken += layer.flops
            if taken > most_flops:
                runs.append([])
                taken = layer.flops
            runs[-1].append(layer)
        return runs

    @functools.cached_property
    def _stages(self) -> dict[int, Stages]:
        return {1: Stages(1.0, 1.0, 0.0)}

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(self.model_dump_json(exclude_defaults=True, indent=1) + "\n", encoding="utf-8")


def read_profile(path: Path) -> ModelProfile:
    """The profile in a JSON file.

    Raises:
        PerformanceError: it can't be read or is wrong; names the file and the field.
    """
    try:
        return ModelProfile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise PerformanceError(
            f"profile {path} can't be read: {error.strerror}; make it with `fusion profile`"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise PerformanceError(f"profile {path}: {where}: {first['msg']}") from None


@functools.cache
def shipped() -> Mapping[str, Path]:
    """Names of the profiles that come with Fusion."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.json")) if path.stem != "decoders"}


@functools.cache
def profile(name: str) -> ModelProfile:
    """The shipped profile of that name.

    Raises:
        PerformanceError: there is none; names those that there are.
    """
    if name not in shipped():
        raise PerformanceError(f"profile is {name!r}; shipped profiles are {', '.join(shipped())}")
    return read_profile(shipped()[name])
