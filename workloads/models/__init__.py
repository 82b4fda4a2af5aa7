"""Models by name, or by `module:factory` for a team's own.

A factory is called with what the data set's index says and with the config's `arguments`, all by name:

| kind of data | the factory gets | the model maps |
|---|---|---|
| image | `shape` (channels, height, width), `classes` | (batch, *shape) floats from 0 to 1 → (batch, classes) logits |
| tabular | `shape` (columns,), `classes`, `categories` | (batch, columns) floats → (batch, classes) logits |
| text | `shape` (tokens,), `classes`, `vocabulary` | (batch, tokens) numbers → (batch, classes) logits |
| tokens | `shape` (tokens,), `vocabulary` | (batch, tokens) numbers → (batch, tokens, vocabulary) logits |

Two things a model may declare, and then the run can use them:

- `blocks`, its repeated parts in order: what activation checkpointing recomputes, FSDP gathers and torch.compile
  compiles one at a time;
- `tensor_parallel_plan(size)`, the `ParallelStyle` of each layer, as `parallelize_module` takes it.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from torch import nn

from workloads.config import shown
from workloads.data.format import Index, Kind

Factory = Callable[..., nn.Module]


@dataclass(frozen=True)
class Registered:
    """A model that has a name; its module is imported only when the model is asked for."""

    factory: str
    kind: Kind
    """Of data that it takes."""


REGISTERED: Mapping[str, Registered] = {
    "fusionnet": Registered("workloads.models.fusionnet:FusionNet", "image"),
    "resnet-50": Registered("workloads.models.resnet:ResNet50", "image"),
    "vit-b-16": Registered("workloads.models.vit:VisionTransformer", "image"),
    "tabular": Registered("workloads.models.tabular:TabularNet", "tabular"),
    "encoder": Registered("workloads.models.encoder:Encoder", "text"),
    "decoder": Registered("workloads.models.decoder:Decoder", "tokens"),
}


class ModelError(ValueError):
    """No such model, it does not fit the data, or its factory refuses the arguments; one sentence with the way out."""


def build(name: str, index: Index, arguments: Mapping[str, Any]) -> nn.Module:
    """Build a model for a data set.

    Raises:
        ModelError: the name is unknown, the model takes another kind of data, or refuses these arguments.
    """
    if (known := REGISTERED.get(name)) and known.kind != index.kind:
        fitting = [other for other, model in REGISTERED.items() if model.kind == index.kind]
        raise ModelError(
            f"model.name: got {name}, which takes {known.kind} data; the data set {index.name} holds {index.kind}; "
            f"expected {' or '.join(fitting)}, or module:factory for one of your own"
        )
    make, told = factory(name), of_data(index)
    if twice := [each for each in arguments if each in told]:
        raise ModelError(f"model.arguments.{twice[0]}: the data set {index.name} says it; expected nothing here")
    arguments = checked_arguments(name, arguments)
    try:
        model = make(**told, **arguments)
    except (TypeError, ValueError) as error:
        raise ModelError(f"model.arguments: {name} refuses them: {error}") from error
    except Exception as error:  # a team's own code, or sizes beyond this machine's memory
        raise ModelError(f"model.name: {name} fails: {type(error).__name__}: {' '.join(str(error).split())}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"model.name: {name} gives a {type(model).__name__}; expected a torch.nn.Module")
    if not any(weight.requires_grad for weight in model.parameters()):
        raise ModelError(f"model.name: {name} has no weights that learn; expected some with requires_grad")
    return model


def checked_arguments(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A registered model's arguments, each of the type and in the range that its factory declares; others as they are.

    Raises:
        ModelError: one is not; the first of several.
    """
    if name not in REGISTERED:
        return dict(arguments)
    make = factory(name)
    try:
        checked = _declared(make).model_validate(dict(arguments))
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(("model.arguments", *map(str, problem["loc"])))
        got = shown(problem["input"])
        if problem["type"] == "extra_forbidden":
            takes = ", ".join(_declared(make).model_fields)
            expected = f"one of {takes}" if takes else "none, as it has no arguments"
            raise ModelError(f"{field}: got {got}; {name} has no such argument, expected {expected}") from None
        raise ModelError(f"{field}: got {got}; {problem['msg'][0].lower()}{problem['msg'][1:]}") from None
    return {each: getattr(checked, each) for each in arguments}


@functools.cache
def _declared(make: Factory) -> type[BaseModel]:
    """A factory's arguments as pydantic checks them, without what the data set says, which has no default."""
    fields: dict[str, Any] = {
        name: (parameter.annotation, parameter.default)
        for name, parameter in inspect.signature(make, eval_str=True).parameters.items()
        if parameter.default is not parameter.empty
    }
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    declared: type[BaseModel] = create_model("Arguments", __config__=config, **fields)
    return declared


def of_data(index: Index) -> dict[str, Any]:
    """What a factory is told of the data set."""
    told: dict[str, Any] = {"shape": index.shape}
    if index.kind == "tokens":
        told["shape"] = (index.shape[0] - 1,)  # the last token is only predicted
    else:
        told["classes"] = len(index.classes)
    if index.kind == "tabular":
        told["categories"] = index.categories
    if index.vocabulary is not None:
        told["vocabulary"] = index.vocabulary
    return told


def factory(name: str) -> Factory:
    """The factory behind a registered name or a `module:factory`, whose module may lie in the current folder.

    Raises:
        ModelError: there is none, or its module can't be imported.
    """
    reference = REGISTERED[name].factory if name in REGISTERED else name
    module, _, attribute = reference.partition(":")
    if not module or not attribute:
        known = ", ".join(REGISTERED)
        raise ModelError(f"model.name: got {name!r}; expected one of {known}, or module:factory for one of your own")
    if (here := str(Path.cwd())) not in sys.path:  # as `python -m` has it, and a command such as `fusion` has not
        sys.path.insert(0, here)
    try:
        found: Factory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ModelError(f"model.name: {name} can't be imported: {error}") from error
    except Exception as error:  # a team's own code
        raise ModelError(f"model.name: {name} can't be imported: {type(error).__name__}: {error}") from error
    return found
