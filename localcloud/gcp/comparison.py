"""What a difference of inputs leads to in Google Cloud, and what is there other than declared."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from localcloud import comparison
from localcloud.gcp.kind import Kind
from localcloud.gcp.schema import SCHEMA, facts
from localcloud.provider import Change, Properties, changes

PROJECT = {"project": "{project}", "region": "{region}", "location": "{location}"}
"""So that names and paths can be compared where project and place are left out."""


def completed(kind: Kind, old: Properties, new: Properties) -> Properties:
    """New inputs with the old ones where they leave out what Google fills in by itself."""
    return comparison.completed(facts(kind.token)["kept"], old, new)


def comparable(kind: Kind, inputs: Properties) -> Properties:
    """Inputs in a form in which those that mean the same are equal: a resource's name, path and URL do."""

    def form(place: str, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if place in kind.references:
            return kind.references[place].resolved(value, PROJECT | inputs).rpartition("/")[2]
        return kind.forms[place](value) if place in kind.forms else value

    return comparison.comparable(inputs, facts(kind.token)["sets"], form)


def change_of(kind: Kind, old: Properties, new: Properties) -> Change:
    """Update or replace, as the provider's source says."""
    old, new = comparable(kind, old), comparable(kind, completed(kind, old, new))
    places = {*facts(kind.token)["replaces"], *(kind.replaces(old, new) if kind.replaces else ())}
    change = changes(old, new, frozenset())
    replacing = frozenset(path for path in change.details if _replaces(kind.token, path, places, old, new))
    tops = sorted({re.split(r"[.\[]", path)[0] for path in replacing})
    same_name = kind.name is None or old.get(kind.name) == new.get(kind.name)
    change = replace(
        change, replaced_by=tops, replacing_details=replacing, delete_before_replace=bool(tops) and same_name
    )
    return comparison.by_whole_sets(change, facts(kind.token)["sets"])


def _replaces(token: str, path: str, places: set[str], old: Properties, new: Properties) -> bool:
    """Whether a difference replaces: by its own mark, its map's, or as its marked block comes or goes."""
    steps = re.sub(r"\[\d+\]", "", path).split(".")
    if ".".join(steps) in places:
        return True
    for depth in range(1, len(steps)):
        block = ".".join(steps[:depth])
        is_map = SCHEMA.type_at(token, block)[0] == "map"
        if block in places and (is_map or _count(old, steps[:depth]) != _count(new, steps[:depth])):
            return True
    return False


def _count(value: Any, steps: list[str]) -> int:
    """How many blocks there are at a path."""
    for step in steps:
        value = value.get(step) if isinstance(value, Mapping) else None
    return len(value) if isinstance(value, list) else 0 if value is None else 1


def drifted(kind: Kind, declared: Properties, found: Properties, defaults: Properties) -> Properties:
    """Inputs as they would have to be to declare what is there: those that mean the same stay as they were written."""
    now = {name: value for name, value in declared.items() if name not in kind.carried}
    before, after = comparable(kind, declared), comparable(kind, found)
    for name in kind.carried:
        if name in declared and before.get(name) == after.get(name):
            now[name] = declared[name]
        elif name in found and (name in declared or found[name] != defaults.get(name)):
            now[name] = found[name]
    return now
