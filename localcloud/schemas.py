"""Names and types of a package's resource types, from the `schema.json` that a generator in `tools/` wrote for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import resources as package_files
from typing import Any

from localcloud.provider import Failure, Properties
from localcloud.values import Unknown

SCALAR_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}

Problems = list[tuple[str, str]]


class Schema:
    """The schema of a package; a type is a scalar's name, `#` and an object's name, or `["list" or "map", type]`."""

    def __init__(self, package: str) -> None:
        self.package = package

    @cached_property
    def parsed(self) -> dict[str, Any]:
        """Inputs and outputs by type, and the object types that they use."""
        found: dict[str, Any] = json.loads((package_files.files(self.package) / "schema.json").read_text())
        return found

    def inputs_of(self, token: str) -> dict[str, Any]:
        """Type by input."""
        found: dict[str, Any] = self.parsed["resources"][token]["inputs"]
        return found

    def fields_of(self, expected: Any) -> dict[str, Any]:
        """Type by field of an object type; nothing for any other type."""
        is_object = isinstance(expected, str) and expected.startswith("#")
        return self.parsed["objects"][expected[1:]]["properties"] if is_object else {}

    def type_at(self, token: str, path: str) -> Any:
        """The type at a path such as `nodeConfig.labels`, through lists; `any` where there is none."""
        expected: Any = ["object", self.inputs_of(token)]
        for name in path.split("."):
            while isinstance(expected, list) and expected[0] == "list":
                expected = expected[1]
            fields = expected[1] if isinstance(expected, list) and expected[0] == "object" else self.fields_of(expected)
            expected = fields.get(name, "any") if isinstance(fields, dict) else "any"
        return expected

    def wrong_types(self, token: str, new: Properties) -> list[Failure]:
        """Inputs whose values are not of their type."""
        inputs = self.inputs_of(token)
        return [
            Failure(path, reason)
            for name, value in new.items()
            if name in inputs
            for path, reason in self._type_problems(name, value, inputs[name])
        ]

    def _type_problems(self, path: str, value: Any, expected: Any) -> Problems:
        if value is None or isinstance(value, Unknown) or expected == "any":
            return []
        if isinstance(expected, list):
            return self._container_problems(path, value, expected)
        if expected.startswith("#"):
            return self._object_problems(path, value, expected.removeprefix("#"))
        allowed = SCALAR_TYPES[expected]
        fits = isinstance(value, allowed) and not (isinstance(value, bool) and expected != "boolean")
        return [] if fits else [(path, f"{value!r}: expected {expected}")]

    def _container_problems(self, path: str, value: Any, expected: Sequence[Any]) -> Problems:
        kind, inner = expected
        if kind == "list" and isinstance(value, list):
            return [
                problem
                for index, each in enumerate(value)
                for problem in self._type_problems(f"{path}[{index}]", each, inner)
            ]
        if kind == "map" and isinstance(value, Mapping):
            return [
                problem for key, each in value.items() for problem in self._type_problems(f"{path}.{key}", each, inner)
            ]
        return [(path, f"{value!r}: expected a {kind}")]

    def _object_problems(self, path: str, value: Any, name: str) -> Problems:
        if not isinstance(value, Mapping):
            return [(path, f"{value!r}: expected an object")]
        declared = self.parsed["objects"][name]
        problems = [
            (f"{path}.{key}", "required, and not set") for key in declared["required"] if value.get(key) is None
        ]
        for key, each in value.items():
            if key not in declared["properties"]:
                problems.append((f"{path}.{key}", "no such field"))
            else:
                problems += self._type_problems(f"{path}.{key}", each, declared["properties"][key])
        return problems
