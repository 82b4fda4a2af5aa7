"""Models by name, or by `module:factory` for a team's own.

A factory is called with `shape` (channels, height, width), `classes` and the config's `arguments`, and returns a module
that maps a batch of images to a row of logits for each.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

Factory = Callable[..., nn.Module]

FACTORIES: Mapping[str, str] = {"fusionnet": "workloads.models.fusionnet:FusionNet"}
"""Registered names; a module is imported only when its model is asked for."""


class ModelError(ValueError):
    """No such model, or its factory refuses the arguments; one sentence with the way out."""


def build(name: str, *, shape: tuple[int, ...], classes: int, arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """Build a model.

    Raises:
        ModelError: the name is unknown, or the factory does not take these arguments.
    """
    try:
        return factory(name)(shape=shape, classes=classes, **(arguments or {}))
    except (TypeError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"model.arguments: {name} refuses them: {error}") from error


def factory(name: str) -> Factory:
    """The factory behind a registered name or a `module:factory`."""
    reference = FACTORIES.get(name, name)
    module, colon, attribute = reference.partition(":")
    if not colon:
        known = ", ".join(FACTORIES)
        raise ModelError(f"model.name: got {name!r}; expected one of {known}, or module:factory for one of your own")
    try:
        found: Factory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ModelError(f"model.name: {name} can't be imported: {error}") from error
    return found
