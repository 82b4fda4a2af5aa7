"""Where an exported model comes from: a training run's outputs, a factory with weights, or an exported program."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from workloads import models, storage
from workloads.data.loader import Dataset
from workloads.serving.export import Source
from workloads.serving.package import Array, PackageError
from workloads.training.config import TrainingConfig

SELF_TEST_ROWS = 16


def of_run(url: str, rows: int = SELF_TEST_ROWS) -> Source:
    """The model that a training run left under its `outputs.url`, tried on so many samples that it never saw.

    Raises:
        PackageError: there is no finished run.
        ModelError: the model's code is not the one that was trained.
        StorageError: the bucket refused, or the run's data set is gone.
    """
    report = storage.read_or_none(storage.join(url, "report.json"))
    if report is None:
        raise PackageError(f"{url} holds no finished training run (report.json is missing); expected its outputs.url")
    config = TrainingConfig.model_validate(json.loads(report)["config"])
    data = Dataset(config.data.url, "test")
    index = data.index
    module = models.build(config.model.name, index, config.model.arguments)
    _load(module, storage.join(url, "model.pt"))
    inputs, labels = data.take(np.arange(min(rows, len(data))))
    scale = None
    if index.kind == "image":
        scale = float(index.scale)
        inputs = inputs.astype(np.float32) / np.float32(scale)  # as in training
    text = f"training run {config.run} ({url})"
    return Source(
        module, {"input": inputs}, classes=index.classes, text=text, name=config.run, labels=labels, scale=scale
    )


def of_factory(
    name: str, *, shape: tuple[int, ...], classes: int, arguments: dict[str, Any], weights: str | None
) -> Source:
    """A registered model of images or a `module:factory`, with the weights of a `state_dict` file or initial ones.

    Raises:
        ModelError: no such model, or it refuses the arguments.
        PackageError: the weights are of another model.
    """
    try:
        module = models.factory(name)(shape=shape, classes=classes, **arguments)
    except (TypeError, ValueError) as error:
        raise models.ModelError(f"{name} refuses these arguments: {error}") from error
    if weights is not None:
        _load(module, weights)
    inputs = np.random.default_rng(0).standard_normal((SELF_TEST_ROWS, *shape), dtype=np.float32)
    return Source(
        module,
        {"input": inputs},
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
    examples, _ = program.example_inputs
    inputs = {f"input{number}": _rows(each.numpy()) for number, each in enumerate(examples)}
    outputs = len(program.graph_signature.user_outputs)
    return Source(
        program.module(),
        inputs,
        tuple("output" if outputs == 1 else f"output{number}" for number in range(outputs)),
        text=f"exported program {url}",
        name=url.rpartition("/")[2].removesuffix(".pt2"),
    )


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
