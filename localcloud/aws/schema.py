"""Names and types of the served resource types, as `tools/aws_schema.py` took them from pulumi-aws."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources as package_files
from typing import Any

from localcloud.aws.api import ResourceType
from localcloud.provider import Failure, Properties
from localcloud.values import Unknown

EVERYWHERE = ("region", "tags", "tagsAll")


@cache
def schema() -> dict[str, Any]:
    """Inputs and outputs by type, and the object types that they use."""
    parsed: dict[str, Any] = json.loads((package_files.files("localcloud.aws") / "schema.json").read_text())
    return parsed


def inputs_of(token: str) -> dict[str, Any]:
    """Type by input: a scalar's name, `#` and an object's name, or `["list" or "map", type]`."""
    found: dict[str, Any] = schema()["resources"][token]["inputs"]
    return found


def fields_of(expected: Any) -> dict[str, Any]:
    """Type by field of an object type; nothing for any other type."""
    is_object = isinstance(expected, str) and expected.startswith("#")
    return schema()["objects"][expected[1:]]["properties"] if is_object else {}


def wrong_names(kind: ResourceType, new: Properties) -> list[Failure]:
    """Inputs that are missing, unknown to pulumi-aws, or not carried out here."""
    declared = schema()["resources"][kind.token]
    failures = [
        Failure(name, f"required, and not set on {kind.token}")
        for name in sorted({*declared["required"], *kind.needs})
        if new.get(name) is None
    ]
    for name, value in new.items():
        if name not in declared["inputs"] and name not in EVERYWHERE:
            failures.append(Failure(name, f"{kind.token} has no such input"))
        elif name not in kind.carried and name not in EVERYWHERE:
            failures.append(Failure(name, f"the local cloud does not carry this input of {kind.token} out"))
        elif name in kind.carried:
            failures += [
                Failure(path, f"the local cloud does not carry this field of {kind.token} out")
                for path in _refused(name, name, value, kind.refused)
            ]
    return failures


def _refused(path: str, place: str, value: Any, refused: frozenset[str]) -> list[str]:
    """Where a value has fields that are not carried out; ``place`` is the path without positions."""
    if value is None:
        return []
    if place in refused:
        return [path]
    if isinstance(value, Mapping):
        return [
            each for key, part in value.items() for each in _refused(f"{path}.{key}", f"{place}.{key}", part, refused)
        ]
    if isinstance(value, list):
        return [each for index, part in enumerate(value) for each in _refused(f"{path}[{index}]", place, part, refused)]
    return []


def wrong_types(kind: ResourceType, new: Properties) -> list[Failure]:
    """Inputs whose values are not of their type in pulumi-aws's schema."""
    inputs = inputs_of(kind.token)
    return [
        Failure(path, reason)
        for name, value in new.items()
        if name in inputs
        for path, reason in _type_problems(name, value, inputs[name])
    ]


SCALAR_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}


def _type_problems(path: str, value: Any, expected: Any) -> list[tuple[str, str]]:
    """Where a value is not of its type in pulumi-aws's schema, with its path."""
    if value is None or isinstance(value, Unknown) or expected == "any":
        return []
    if isinstance(expected, list):
        return _container_problems(path, value, expected)
    if expected.startswith("#"):
        return _object_problems(path, value, expected.removeprefix("#"))
    allowed = SCALAR_TYPES[expected]
    fits = isinstance(value, allowed) and not (isinstance(value, bool) and expected != "boolean")
    return [] if fits else [(path, f"{value!r}: expected {expected}")]


def _container_problems(path: str, value: Any, expected: Sequence[Any]) -> list[tuple[str, str]]:
    kind, inner = expected
    if kind == "list" and isinstance(value, list):
        return [
            problem for index, each in enumerate(value) for problem in _type_problems(f"{path}[{index}]", each, inner)
        ]
    if kind == "map" and isinstance(value, Mapping):
        return [problem for key, each in value.items() for problem in _type_problems(f"{path}.{key}", each, inner)]
    return [(path, f"{value!r}: expected a {kind}")]


def _object_problems(path: str, value: Any, name: str) -> list[tuple[str, str]]:
    if not isinstance(value, Mapping):
        return [(path, f"{value!r}: expected an object")]
    declared = schema()["objects"][name]
    problems = [(f"{path}.{key}", "required, and not set") for key in declared["required"] if value.get(key) is None]
    for key, each in value.items():
        if key not in declared["properties"]:
            problems.append((f"{path}.{key}", "no such field"))
        else:
            problems += _type_problems(f"{path}.{key}", each, declared["properties"][key])
    return problems


def as_declared(kind: ResourceType, found: Properties) -> Properties:
    """What AWS says, in the types that pulumi-aws gives it: it has numbers and booleans that are written as text."""
    inputs = inputs_of(kind.token)
    return {name: _typed(value, inputs.get(name)) for name, value in found.items()}


def _typed(value: Any, expected: Any) -> Any:
    if isinstance(value, list) and isinstance(expected, list):
        return [_typed(each, expected[1]) for each in value]
    if isinstance(value, Mapping):
        fields = fields_of(expected)
        return {name: _typed(each, fields.get(name)) for name, each in value.items()}
    if expected == "string" and isinstance(value, bool | int):
        return str(value).lower()
    return value
