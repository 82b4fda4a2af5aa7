"""Names and types of the served resource types, as `tools/aws_schema.py` took them from pulumi-aws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from localcloud.aws.api import ResourceType
from localcloud.provider import Failure, Properties
from localcloud.schemas import Schema

EVERYWHERE = ("region", "tags", "tagsAll")


SCHEMA = Schema("localcloud.aws")


def schema() -> dict[str, Any]:
    """Inputs and outputs by type, and the object types that they use."""
    return SCHEMA.parsed


def inputs_of(token: str) -> dict[str, Any]:
    """As `Schema.inputs_of`."""
    return SCHEMA.inputs_of(token)


def fields_of(expected: Any) -> dict[str, Any]:
    """As `Schema.fields_of`."""
    return SCHEMA.fields_of(expected)


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
    return SCHEMA.wrong_types(kind.token, new)


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
