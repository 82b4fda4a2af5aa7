"""Strict validation of Kubernetes objects against the API's schema of a stated version, unknown fields included.

The schemas are those of the kubernetes-validate package, made from Kubernetes's own OpenAPI document. Custom resources
are validated against the CRDs that are given; their CEL rules are not evaluated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources as package_files
from importlib.resources.abc import Traversable
from typing import Any

from localcloud.values import Unknown

KUBERNETES_VERSION = "1.34"
"""What objects are validated against unless the stack's cluster says another version."""

Object = Mapping[str, Any]

NAME_RULE = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
LOOSE_NAMES = frozenset({"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"})
"""Kinds whose names may hold colons and capitals (API conventions: path segment names)."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with an object: the field's path, and why."""

    path: str
    reason: str


def validate_object(
    value: Object, version: str = KUBERNETES_VERSION, crds: Mapping[tuple[str, str], Object] | None = None
) -> list[Problem]:
    """Everything that is wrong with an object; values that are not known yet are passed over.

    Args:
        value: the object, with apiVersion and kind.
        version: of Kubernetes, such as 1.34.
        crds: by (apiVersion, kind), the OpenAPI schemas of custom resources.
    """
    api_version, kind = str(value.get("apiVersion")), str(value.get("kind"))
    custom = (crds or {}).get((api_version, kind))
    if custom is not None:
        return [*_name_problems(value), *_schema_problems(value, _of_crd(custom))]
    if not _is_built_in(api_version):
        group = api_version.partition("/")[0]
        return [
            Problem("kind", f"no CustomResourceDefinition for {kind} of {group} is in this stack; install it first")
        ]
    try:
        schema = _built_in(api_version, kind, version)
    except FileNotFoundError:
        return [Problem("kind", f"Kubernetes {version} has no {kind} in {api_version}")]
    return [*_name_problems(value), *_schema_problems(value, schema)]


def schemas_of(crd: Object) -> Iterator[tuple[tuple[str, str], Object]]:
    """The (apiVersion, kind) that a CRD defines, each with its schema."""
    spec = crd.get("spec") or {}
    kind = (spec.get("names") or {}).get("kind")
    for version in spec.get("versions") or ():
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is not None and version.get("served", True):
            yield (f"{spec['group']}/{version['name']}", str(kind)), schema


def _is_built_in(api_version: str) -> bool:
    group = api_version.partition("/")[0] if "/" in api_version else ""
    return group in ("", "apps", "batch", "autoscaling", "policy") or group.endswith(".k8s.io")


def _name_problems(value: Object) -> list[Problem]:
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    if not isinstance(name, str) or value.get("kind") in LOOSE_NAMES or NAME_RULE.fullmatch(name):
        return []
    return [Problem("metadata.name", f"{name!r}: expected lower-case letters, digits, dashes and dots (RFC 1123)")]


def _schema_problems(value: Object, schema: Object) -> list[Problem]:
    validator = _validator(json.dumps(schema, sort_keys=True))
    problems = []
    for error in validator.iter_errors(value):
        deepest = _deepest(error)
        if not isinstance(deepest.instance, Unknown):
            problems.append(Problem(_path(deepest.absolute_path), _reason(deepest)))
    return problems


def _deepest(error: Any) -> Any:
    """Of alternatives that all failed, the one that came furthest."""
    while error.context:
        error = max(error.context, key=lambda each: len(each.absolute_path))
    return error


def _path(parts: Any) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _reason(error: Any) -> str:
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        unknown = ", ".join(sorted(set(error.instance) - set(known)))
        return (
            f"unknown field {unknown}; expected one of {', '.join(sorted(known)[:12])}{'…' if len(known) > 12 else ''}"
        )
    if error.validator == "type":
        kinds = error.validator_value
        return f"{error.instance!r}: expected {kinds if isinstance(kinds, str) else ' or '.join(kinds)}"
    return str(error.message)


def _schemas(version: str) -> Traversable:
    folder = package_files.files("kubernetes_validate") / "kubernetes-json-schema"
    return next(
        each for each in folder.iterdir() if re.fullmatch(rf"v{re.escape(version)}\.\d+-local-strict", each.name)
    )


@cache
def _built_in(api_version: str, kind: str, version: str) -> Object:
    short = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    schema: Object = json.loads((_schemas(version) / f"{kind.lower()}-{short}.json").read_text())
    return {**schema, "x-version": version}


@cache
def _definitions(version: str) -> Any:
    from referencing import Resource

    return Resource.from_contents(json.loads((_schemas(version) / "_definitions.json").read_text()))


@cache
def _validator(schema_text: str) -> Any:
    from jsonschema import Draft202012Validator
    from referencing import Registry, Resource

    schema = json.loads(schema_text)
    version = schema.pop("x-version", None)
    registry: Any = (
        Resource.from_contents(schema, default_specification=_specification()) @ Registry()
        if "$id" in schema
        else Registry()
    )
    if version:
        registry = _definitions(version) @ registry
    return Draft202012Validator(schema, registry=registry)


def _specification() -> Any:
    from referencing.jsonschema import DRAFT202012

    return DRAFT202012


def _of_crd(schema: Object) -> Object:
    """A CRD's schema as JSON Schema: unknown fields refused, metadata and kind allowed at the top."""
    top = dict(_strict(schema))
    properties = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
    top["properties"] = {**top.get("properties", {}), **properties}
    return top


def _strict(schema: Object) -> Object:
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    result = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if result.pop("nullable", False) and "type" in result:
        result["type"] = [result["type"], "null"]
    if "items" in result:
        result["items"] = _strict(result["items"])
    if isinstance(result.get("additionalProperties"), Mapping):
        result["additionalProperties"] = _strict(result["additionalProperties"])
    if "properties" in result:
        result["properties"] = {name: _strict(each) for name, each in result["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            result.setdefault("additionalProperties", False)
    result.pop("format", None)
    return result
