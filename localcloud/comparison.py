"""When two values of a resource mean the same, as far as it is the same in every cloud."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from localcloud.provider import Change, Properties


def completed(kept: Iterable[str], old: Properties, new: Properties) -> Properties:
    """New inputs with the old ones at the paths where they leave out what the cloud fills in by itself."""
    for path in sorted(kept):
        new = _completed(old, new, path.split("."))
    return new


def _completed(old: Mapping[str, Any], new: Properties, path: list[str]) -> Properties:
    name, *rest = path
    if old.get(name) is None:
        return new
    if new.get(name) is None:
        return new if rest else new | {name: old[name]}
    if rest and isinstance(new[name], Mapping) and isinstance(old[name], Mapping):
        return new | {name: _completed(old[name], new[name], rest)}
    return new


def comparable(inputs: Properties, unordered: Collection[str], form: Callable[[str, Any], Any]) -> Properties:
    """Inputs in a form in which those that mean the same are equal.

    Args:
        unordered: paths of lists in which the order means nothing.
        form: the form of the value at a path that is neither list nor object, or that has a form of its own.
    """
    return {name: _comparable(name, value, unordered, form) for name, value in inputs.items()}


def _comparable(place: str, value: Any, unordered: Collection[str], form: Callable[[str, Any], Any]) -> Any:
    if isinstance(value, Mapping):
        return {name: _comparable(f"{place}.{name}", each, unordered, form) for name, each in value.items()}
    if isinstance(value, list):
        parts = [_comparable(place, each, unordered, form) for each in value]
        return sorted(parts, key=order) if place in unordered else parts
    return form(place, value)


def by_whole_sets(change: Change, unordered: Collection[str]) -> Change:
    """A change with its details inside a set told of the whole set: places in it are those of the comparable form, and
    the engine would show what stands there in the user's.
    """
    whole = {path: _set_around(path, unordered) or path for path in change.details}
    return replace(
        change,
        details={whole[path]: kind if whole[path] == path else "UPDATE" for path, kind in change.details.items()},
        replacing_details=frozenset(whole[path] for path in change.replacing_details),
    )


def _set_around(path: str, unordered: Collection[str]) -> str | None:
    """The outermost set that a path such as `allows[0].ports[2]` leads into."""
    outer = (path[: each.start()] for each in re.finditer(r"\[\d+\]", path))
    return next((each for each in outer if re.sub(r"\[\d+\]", "", each) in unordered), None)


def order(value: Any) -> str:
    """By what sets are brought into an order, so that equal ones are equal."""
    return json.dumps(value, sort_keys=True, default=repr)
