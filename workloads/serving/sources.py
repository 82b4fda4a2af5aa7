"""Where an exported model comes from: a training run's outputs, a factory with weights, or an exported program."""

from __future__ import annotations

import io
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from workloads import models, storage
from workloads.data.format import INPUT_TYPES, PADDING, Index, Split, read_index
from workloads.data.loader import Batch, Dataset
from workloads.serving.export import BATCH_LIMIT, Source, outputs_of
from workloads.serving.package import Array, PackageError
from workloads.training.config import TrainingConfig
from workloads.training.tasks import Task, task_for

SELF_TEST_ROWS = 16


@dataclass(frozen=True, slots=True)
class Trained:
    """A model with its weights, and the data set that it learned from."""

    module: nn.Module
    data_url: str
    index: Index
    name: str
    text: str
    """Where it comes from, for people."""

    @property
    def task(self) -> Task:
        """What it is judged by, on the CPU."""
        return task_for(None, self.index, torch.device("cpu"))

    def split(self, split: Split) -> Dataset:
        """Its data."""
        return Dataset(self.data_url, split)

    def held_out(self, rows: int) -> Array:
        """(rows, *shape): what the model is given for samples that it never saw; fewer where there are fewer."""
        return self._samples(rows)[0]

    def source(self, module: nn.Module | None = None, rows: int = SELF_TEST_ROWS) -> Source:
        """The model, or another one that takes its place, tried on so many held-out samples."""
        inputs, labels = self._samples(rows)
        return Source(
            self.module if module is None else module,
            {"input": inputs},
            classes=self.index.classes,
            text=self.text,
            name=self.name,
            labels=labels,
            scale=float(self.index.scale) if self.index.kind == "image" else None,
            made_up={"input": self._as_given(made_up(self.index, SELF_TEST_ROWS))},
        )

    def _samples(self, rows: int) -> tuple[Array, Array]:
        data = self.split("test")
        inputs, labels = data.take(np.arange(min(rows, len(data))))
        return self._as_given(inputs), labels

    def _as_given(self, inputs: Array) -> Array:
        """Samples as the model takes them."""
        labels = np.zeros(len(inputs), dtype=np.int64)
        batch = Batch(torch.from_numpy(inputs), torch.from_numpy(labels), len(labels))
        given: Array = self.task.inputs_and_targets(batch)[0].numpy()
        return given


def made_up(index: Index, rows: int) -> Array:
    """(rows, *shape): samples of a data set's kind that are nobody's, the same each time."""
    random = np.random.default_rng(0)
    shape = (rows, *index.shape)
    kind = INPUT_TYPES[index.kind]
    if index.kind == "image":
        # half as bright as could be: all of white noise saturates a quantized model's layers, as no image does
        return random.integers(0, max(1, int(min(index.scale, 255)) // 2) + 1, shape).astype(kind)
    if index.vocabulary is not None:
        return random.integers(PADDING + 1, index.vocabulary, shape).astype(kind)
    columns = random.standard_normal(shape).astype(kind)
    for column, count in enumerate(index.categories, start=index.shape[0] - len(index.categories)):
        columns[:, column] = random.integers(0, count, rows)
    return columns


def of_run(url: str, rows: int = SELF_TEST_ROWS) -> Source:
    """The model that a training run left under its `outputs.url`, tried on so many samples that it never saw.

    Raises:
        PackageError: there is no finished run.
        ModelError: the model's code is not the one that was trained.
        StorageError: the bucket refused, or the run's data set is gone.
    """
    return trained_by(url).source(rows=rows)


def trained_by(url: str) -> Trained:
    """The model that a training run left under its `outputs.url`, with its data.

    Raises:
        PackageError: there is no finished run.
        ModelError: the model's code is not the one that was trained.
        StorageError: the bucket refused, or the run's data set is gone.
    """
    report = storage.read_or_none(storage.join(url, "report.json"))
    if report is None:
        raise PackageError(f"{url} holds no finished training run (report.json is missing); expected its outputs.url")
    try:
        config = TrainingConfig.model_validate(json.loads(report)["config"])
    except (ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise PackageError(f"{url}/report.json is not what a training run of this version leaves: {reason}") from None
    return of_weights(
        config.model.name,
        data_url=config.data.url,
        arguments=config.model.arguments,
        weights=storage.join(url, "model.pt"),
        name=config.run,
        text=f"training run {config.run} ({url})",
    )


def of_weights(
    model: str, *, data_url: str, arguments: dict[str, Any], weights: str, name: str = "", text: str = ""
) -> Trained:
    """A registered model or a `module:factory`, built for a data set, with the weights of a `state_dict` file.

    Raises:
        ModelError: no such model, or it does not take this data or these arguments.
        PackageError: the weights are of another model.
        StorageError: the bucket refused, or there is no such data set.
    """
    index, _ = read_index(data_url)
    module = models.build(model, index, arguments)
    _load(module, weights)
    name = name or model.rpartition(":")[2].lower()
    return Trained(module.eval(), data_url, index, name, text or f"{model} with {weights}")


def of_factory(
    name: str, *, shape: tuple[int, ...], classes: int, arguments: dict[str, Any], weights: str | None
) -> Source:
    """A registered model of images or a `module:factory`, with the weights of a `state_dict` file or initial ones.

    Raises:
        ModelError: no such model, or it refuses the arguments.
        PackageError: the weights are of another model.
    """
    make, arguments = models.factory(name), models.checked_arguments(name, arguments)
    try:
        module = make(shape=shape, classes=classes, **arguments)
    except Exception as error:  # a team's own code
        reason = " ".join(str(error).split())
        if not isinstance(error, TypeError | ValueError):
            reason = f"{type(error).__name__}: {reason}"
        raise models.ModelError(f"{name} refuses these arguments: {reason}") from error
    if weights is not None:
        _load(module, weights)
    inputs = np.random.default_rng(0).standard_normal((SELF_TEST_ROWS, *shape), dtype=np.float32)
    try:
        outputs = outputs_of(module, [inputs])
    except PackageError as error:
        raise PackageError(
            f"{name}: {error}; a model of several inputs, or of whole numbers, can be saved by torch.export.save, with "
            "real ones as its examples, and given as --program"
        ) from None
    return Source(
        module,
        {"input": inputs},
        _names("output", len(outputs)),
        text=f"{name} with {weights or 'initial weights'}",
        name=name.rpartition(":")[2].lower(),
    )


def of_program(url: str) -> Source:
    """A program that `torch.export.save` wrote, whose first dimension is free.

    Raises:
        PackageError: it is no such program, or it was exported without example inputs.
    """
    try:
        program = torch.export.load(io.BytesIO(storage.read(url)))
    except (RuntimeError, ValueError, OSError, KeyError) as error:
        raise PackageError(
            f"{url} is no exported program: {' '.join(str(error).split())[:200]}; expected what torch.export.save wrote"
        ) from None
    if program.example_inputs is None:
        raise PackageError(f"{url} has no example inputs; export it with torch.export.export, which keeps them")
    examples, named = program.example_inputs
    if named or not all(isinstance(each, Tensor) and each.ndim for each in examples):
        taken = ", ".join((*(type(each).__name__ for each in examples), *(f"{name} by name" for name in named)))
        raise PackageError(f"{url} takes {taken}; expected tensors with a batch each, in order, by no name")
    _check_batch(program, url)
    inputs = {f"input{number}": _rows(each.numpy()) for number, each in enumerate(examples)}
    return Source(
        program.module(),
        inputs,
        _names("output", len(program.graph_signature.user_outputs)),
        text=f"exported program {url}",
        name=url.rpartition("/")[2].removesuffix(".pt2"),
    )


def _check_batch(program: torch.export.ExportedProgram, url: str) -> None:
    """Pass where each input may have any number of rows that a server may ask for.

    Raises:
        PackageError: one may not.
    """
    way_out = f"export it with dynamic_shapes of {{0: torch.export.Dim('batch', max={BATCH_LIMIT})}} for each input"
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in program.graph_signature.user_inputs:
            rows = node.meta["val"].shape[0]
            if isinstance(rows, int):
                raise PackageError(f"{url}: {node.name} has {rows} rows, no more and no less; {way_out}")
            limits = program.range_constraints.get(rows.node.expr)
            if limits is not None and limits.upper < BATCH_LIMIT:
                raise PackageError(f"{url}: {node.name} has at most {limits.upper} rows; {way_out}")


def _names(name: str, count: int) -> tuple[str, ...]:
    return (name,) if count == 1 else tuple(f"{name}{number}" for number in range(count))


def _rows(example: Array) -> Array:
    return np.resize(example, (max(2, len(example)), *example.shape[1:]))


def _load(module: nn.Module, url: str) -> None:
    with tempfile.TemporaryDirectory(prefix="weights-") as folder:
        place = Path(folder) / "weights.pt"
        place.write_bytes(storage.read(url))
        try:
            module.load_state_dict(torch.load(place, map_location="cpu", weights_only=True))
        except Exception as error:  # a pickle of anything may be given
            reason = " ".join(str(error).split())[:300]
            raise PackageError(f"{url} does not hold this model's weights: {reason}") from None
