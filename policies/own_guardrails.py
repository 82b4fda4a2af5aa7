"""Guardrails of a team's own, in files beside the pack's `__main__.py`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from policies.guardrail import Guardrail


class OwnGuardrailError(Exception):
    """A file of own guardrails that can't be used, in one sentence with its path."""


def own_guardrails(folder: Path, shipped: Sequence[Guardrail]) -> list[Guardrail]:
    """The guardrails of every Python file of a folder, in the order of the files and of their lines.

    Raises:
        OwnGuardrailError: a file does not load or holds no guardrail, or a name is taken.
    """
    owners = {each.name: "the pack" for each in shipped}
    found = []
    for path in sorted(folder.glob("*.py")):
        for each in _of_module(_loaded(path), path):
            if each.name in owners:
                raise OwnGuardrailError(f"{path}: the guardrail {each.name} is there in {owners[each.name]} already")
            owners[each.name] = str(path)
            found.append(each)
    return found


def _loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"own_guardrails.{path.stem}", path)
    assert spec is not None and spec.loader is not None, "a path that ends in .py has a loader"
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the file does, its author is told in one sentence
        raise OwnGuardrailError(f"{path}: it does not load: {type(error).__name__}: {error}") from error
    return module


def _of_module(module: ModuleType, path: Path) -> Iterator[Guardrail]:
    """Those that the file makes; what it imports is the pack's."""
    made = [each for each in vars(module).values() if isinstance(each, Guardrail) and _is_made_in(module, each)]
    if not made:
        raise OwnGuardrailError(f"{path}: it holds no guardrail; make one with policies.guardrail.guardrail")
    yield from made


def _is_made_in(module: ModuleType, guardrail: Guardrail) -> bool:
    judge = guardrail.judge or guardrail.judge_stack
    return judge is not None and judge.__module__ == module.__name__
