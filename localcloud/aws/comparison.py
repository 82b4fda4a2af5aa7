"""When two values of a resource mean the same: what was declared before and now, and what was declared and AWS has."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from localcloud import comparison
from localcloud.aws.api import ResourceType
from localcloud.aws.schema import fields_of, inputs_of
from localcloud.comparison import order
from localcloud.provider import Properties


def completed(kind: ResourceType, old: Properties, new: Properties) -> Properties:
    """New inputs with the old ones where they leave out what AWS fills in by itself."""
    return comparison.completed(kind.kept, old, new)


def comparable(kind: ResourceType, inputs: Properties) -> Properties:
    """Inputs in a form in which those that mean the same are equal."""

    def form(place: str, value: Any) -> Any:
        is_document = place in kind.documents and isinstance(value, str)
        return json.dumps(_parsed(value), sort_keys=True) if is_document else value

    return comparison.comparable(inputs, kind.unordered, form)


def drifted(kind: ResourceType, found: Properties, inputs: Properties) -> Properties:
    """Inputs as they would have to be to declare what AWS has: unchanged as long as AWS agrees with them.

    What is set in AWS and was never declared counts too, unless AWS sets it by itself.
    """
    now = {name: value if _is_met(kind, name, found, value) else found[name] for name, value in inputs.items()}
    watched = kind.carried - kind.unread - kind.kept - inputs.keys() - {"tags"}
    return now | {name: found[name] for name in watched if _is_set(found.get(name))}


def unmet(kind: ResourceType, found: Properties, inputs: Properties) -> Iterator[str]:
    """What was asked for and AWS has otherwise, one sentence each."""
    for name in sorted(kind.carried - kind.unread - {"tags"}):
        if not _is_met(kind, name, found, inputs.get(name), is_strict=True):
            yield f"{name}: asked for {inputs[name]!r}, and there is {found.get(name)!r}"
    asked, there = inputs.get("tagsAll") or {}, found.get("tagsAll") or {}
    if "tags" in kind.carried and asked != there:
        yield f"tags: asked for {asked!r}, and there is {there!r}"


def _is_met(kind: ResourceType, name: str, found: Properties, value: Any, *, is_strict: bool = False) -> bool:
    if not _is_set(value) and not _is_set(found.get(name)):
        return True
    if name not in found:
        return not is_strict
    return value is None or agrees(kind, name, inputs_of(kind.token).get(name), found[name], value)


def _is_set(value: Any) -> bool:
    return value not in (None, False, 0, "", "0") and value != [] and value != {}


def agrees(kind: ResourceType, place: str, expected: Any, found: Any, declared: Any) -> bool:
    """Whether what AWS says holds what was declared; fields that were not declared are AWS's own."""
    if place in kind.alike and found is not None:
        return kind.alike[place](found, declared)
    if place in kind.documents:
        return bool(_parsed(found) == _parsed(declared))
    if isinstance(declared, Mapping) and isinstance(found, Mapping):
        if isinstance(expected, list):  # a map, whose keys are all the user's
            return bool(found == declared)
        fields = fields_of(expected)
        return all(
            agrees(kind, f"{place}.{name}", fields.get(name), found.get(name), value)
            for name, value in declared.items()
        )
    if isinstance(declared, list) and isinstance(found, list):
        inner = expected[1] if isinstance(expected, list) else None
        if place in kind.unordered:
            found, declared = sorted(found, key=order), sorted(declared, key=order)
        return len(declared) == len(found) and all(
            agrees(kind, place, inner, one, other) for one, other in zip(found, declared, strict=True)
        )
    if not _is_set(found) and not _is_set(declared):
        return True
    return bool(found == declared) or _text(found) == _text(declared)


def _text(value: Any) -> str:
    """Numbers and booleans are written as text here and there."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parsed(value: Any) -> Any:
    try:
        return json.loads(value)
    except (TypeError, ValueError):
        return value
