"""Strict validation of Kubernetes objects against the API's schema of a stated version, unknown fields included.

The schemas are those of the kubernetes-validate package, made from Kubernetes's own OpenAPI document. Custom resources
are validated against the CRDs that are given; their CEL rules are not evaluated.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources as package_files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from localcloud.values import Unknown

KUBERNETES_VERSION = "1.34"
"""What objects are validated against unless the stack's cluster says another version."""

Object = Mapping[str, Any]

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
PATH_SEGMENT = re.compile(r"(?!\.{1,2}$)[^/%]+")

LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)?")
QUANTITY = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+|[numkMGTPE]|[KMGTPE]i)?$"
QUANTITY_DEFINITION = "io.k8s.apimachinery.pkg.api.resource.Quantity"

LABEL_NAMES = frozenset({"Namespace", "Service"})
"""Kinds whose names become a part of a DNS name."""
LOOSE_NAMES = frozenset({"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"})
"""Kinds whose names may hold colons and capitals (API conventions: path segment names)."""

SHOWN_VALUE_LENGTH = 60

ENUMERATIONS_FILE = "localcloud/kubernetes/enumerations.json"
"""Written by `tools/kubernetes_enumerations.py` from what an API server says; the schemas leave these out."""

ALWAYS_RESTARTED = frozenset({"Deployment", "DaemonSet", "ReplicaSet", "ReplicationController", "StatefulSet"})
"""Kinds whose pods the server takes with no other restartPolicy than Always."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with an object: the field's path, and why."""

    path: str
    reason: str


class UnknownVersion(ValueError):
    """There are no schemas of this Kubernetes version; the text lists those that there are."""


def check_version(version: str) -> None:
    """Pass for a minor version of Kubernetes, such as 1.34, whose schemas are installed.

    Raises:
        UnknownVersion: they are not.
    """
    minors = known_versions()
    if version not in minors:
        raise UnknownVersion(
            f"the cluster's Kubernetes version {version!r}: objects can be validated against {', '.join(minors)}; set "
            "kubernetes_version of fusion:cluster to one of these, or install a newer kubernetes-validate"
        )


def known_versions() -> list[str]:
    """The minor versions of Kubernetes whose schemas are installed, the oldest first."""
    known = {each.name.split("-")[0].removeprefix("v").rpartition(".")[0] for each in _schema_folders()}
    return sorted(known, key=_minor)


def validate_object(
    value: Object, version: str = KUBERNETES_VERSION, crds: Mapping[tuple[str, str], Object] | None = None
) -> list[Problem]:
    """Everything that is wrong with an object; values that are not known yet are passed over.

    Args:
        value: the object, with apiVersion and kind.
        version: of Kubernetes, such as 1.34.
        crds: by (apiVersion, kind), the OpenAPI schemas of custom resources.
    """
    api_version, kind = value.get("apiVersion"), value.get("kind")
    if isinstance(api_version, Unknown) or isinstance(kind, Unknown):
        return []
    custom = (crds or {}).get((str(api_version), str(kind)))
    if custom is not None:
        return [*_name_problems(value), *_metadata_problems(value, version), *_schema_problems(value, _of_crd(custom))]
    schema = _built_in(str(api_version), str(kind), version)
    if schema is None:
        return [
            Problem(
                "kind",
                f"Kubernetes {version} has no {kind} in {api_version}, and no CustomResourceDefinition of this stack "
                "defines it; install one first (depends_on)",
            )
        ]
    return [*_name_problems(value), *_schema_problems(value, schema), *_problems_of_kind(value)]


def schemas_of(crd: Object) -> Iterator[tuple[tuple[str, str], Object]]:
    """The (apiVersion, kind) that a CRD defines, each with its schema."""
    spec = crd.get("spec") or {}
    kind = (spec.get("names") or {}).get("kind")
    for version in spec.get("versions") or ():
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is not None and version.get("served", True):
            yield (f"{spec['group']}/{version['name']}", str(kind)), schema


def _name_problems(value: Object) -> list[Problem]:
    metadata = value.get("metadata")
    if not isinstance(metadata, Mapping):
        return []
    kind, problems = value.get("kind"), []
    rule, expected = SUBDOMAIN, "lower-case letters, digits, dashes and dots, at most 253 (RFC 1123)"
    if kind in LABEL_NAMES:
        rule, expected = LABEL, "lower-case letters, digits and dashes, at most 63 (RFC 1123)"
    if kind in LOOSE_NAMES:
        rule, expected = PATH_SEGMENT, "no slash, no percent sign"
    name, namespace = metadata.get("name"), metadata.get("namespace")
    if isinstance(name, str) and not rule.fullmatch(name):
        problems.append(Problem("metadata.name", f"{name!r}: expected {expected}"))
    if isinstance(namespace, str) and not LABEL.fullmatch(namespace):
        expected = "lower-case letters, digits and dashes, at most 63 (RFC 1123)"
        problems.append(Problem("metadata.namespace", f"{namespace!r}: expected {expected}"))
    return [*problems, *_label_problems(metadata.get("labels"))]


def _label_problems(labels: Any) -> Iterator[Problem]:
    for key, text in labels.items() if isinstance(labels, Mapping) else ():
        path = path_text(("metadata", "labels", key))
        if not LABEL_KEY.fullmatch(key):
            yield Problem(path, "expected a key of letters, digits, dashes, dots and _, at most 63, perhaps after a/")
        if isinstance(text, str) and not LABEL_VALUE.fullmatch(text):
            yield Problem(path, f"{text!r}: expected letters, digits, dashes, dots and _, at most 63")


def _metadata_problems(value: Object, version: str) -> list[Problem]:
    """Metadata is the same in each kind; a CRD does not describe it."""
    bearer = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": value.get("metadata")}
    schema = _built_in("v1", "ConfigMap", version)
    return _schema_problems(bearer, schema) if schema is not None else []


def _problems_of_kind(value: Object) -> list[Problem]:
    """What the API server checks of a kind and its schema does not say."""
    match value:
        case {"kind": "Secret", "apiVersion": "v1", "data": Mapping() as data}:
            return [
                Problem(path_text(("data", key)), "expected base64; use stringData for plain text")
                for key, text in data.items()
                if isinstance(text, str) and not _is_base64(text)
            ]
        case {
            "kind": "CustomResourceDefinition",
            "metadata": {"name": str(name)},
            "spec": {"group": str(group), "names": {"plural": str(plural)}},
        } if name != f"{plural}.{group}":
            return [Problem("metadata.name", f"{name!r}: expected {plural}.{group}, from spec.names.plural and group")]
        case {"kind": "Job", "spec": {"template": {"spec": Mapping() as pod}}}:
            return _restart_problems(pod, "spec.template.spec", ("OnFailure", "Never"), default="")
        case {"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": {"spec": Mapping() as pod}}}}}:
            return _restart_problems(pod, "spec.jobTemplate.spec.template.spec", ("OnFailure", "Never"), default="")
        case {"kind": str(kind), "spec": {"template": {"spec": Mapping() as pod}}} if kind in ALWAYS_RESTARTED:
            return _restart_problems(pod, "spec.template.spec", ("Always",), default="Always")
    return []


def _restart_problems(pod: Object, path: str, allowed: tuple[str, ...], *, default: str) -> list[Problem]:
    """Of the restart policies that a pod may have, its controller's kind allows only some."""
    policy = pod.get("restartPolicy") or default
    known = ("Always", "OnFailure", "Never", "")  # any other is a problem by the schema already
    if policy in allowed or policy not in known:
        return []
    expected = " or ".join(allowed)
    return [Problem(f"{path}.restartPolicy", f"{policy!r}: expected {expected} for pods of this kind")]


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode("".join(text.split("\n")), validate=True)
    except ValueError:
        return False
    return True


def _schema_problems(value: Object, schema: Object) -> list[Problem]:
    validator = _validator(json.dumps(schema, sort_keys=True))
    problems = []
    for error in validator.iter_errors(value):
        deepest = _deepest(error)
        if not isinstance(deepest.instance, Unknown):
            is_secret = value.get("kind") == "Secret"
            problems.append(Problem(path_text(deepest.absolute_path), _reason(deepest, is_secret=is_secret)))
    return problems


def _deepest(error: Any) -> Any:
    """Of alternatives that all failed, the one that came furthest."""
    while error.context:
        error = max(error.context, key=lambda each: len(each.absolute_path))
    return error


def path_text(parts: Iterable[str | int]) -> str:
    """A field's path as Pulumi writes it: `spec.containers[0].image`, `metadata.labels["a.b/c"]`."""
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[A-Za-z_$][\w$-]*", part):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part)}]"
    return text


def _reason(error: Any, *, is_secret: bool) -> str:
    if error.validator == "additionalProperties" and error.validator_value is False:
        known = error.schema.get("properties", {})
        unknown = ", ".join(sorted(set(error.instance) - set(known)))
        names = f"one of {', '.join(sorted(known)[:12])}{'…' if len(known) > 12 else ''}" if known else "none here"
        return f"unknown field {unknown}; expected {names}"
    if error.validator == "required":
        missing = ", ".join(name for name in error.validator_value if name not in error.instance)
        return f"required field {missing} is missing"
    kinds = error.validator_value
    if error.validator == "type":
        expected = " or ".join(_allowed_types(error))
        return f"{_shown(error.instance, is_secret=is_secret)}: expected {expected}"
    if error.validator == "enum":
        expected = ", ".join(str(each) for each in kinds if each not in ("", None))
        return f"{_shown(error.instance, is_secret=is_secret)}: expected one of {expected}"
    if kinds == QUANTITY:
        return f"{_shown(error.instance, is_secret=is_secret)}: expected a quantity such as 500m, 2 or 16Gi"
    if error.validator == "format":
        return f"{_shown(error.instance, is_secret=is_secret)}: expected {FORMATS[kinds]}"
    return f"{error.validator} is {kinds}" if is_secret else str(error.message)


def _allowed_types(error: Any) -> list[str]:
    """Those of all alternatives, where a field may be one of several types."""
    siblings = error.parent.context if error.parent else [error]
    kinds = [each.validator_value for each in siblings if each.validator == "type"]
    flat = [name for kind in kinds for name in ([kind] if isinstance(kind, str) else kind)]
    return list(dict.fromkeys(flat))


def _shown(value: Any, *, is_secret: bool) -> str:
    """A value in a message: short, and never a secret's."""
    if is_secret or isinstance(value, Mapping | list):
        return {"dict": "an object", "list": "a list", "str": "a string"}.get(type(value).__name__, "a number")
    text = repr(value)
    return text if len(text) <= SHOWN_VALUE_LENGTH else f"{text[:SHOWN_VALUE_LENGTH]}…"


def _schema_folders() -> list[Traversable]:
    folder = package_files.files("kubernetes_validate") / "kubernetes-json-schema"
    return [each for each in folder.iterdir() if re.fullmatch(r"v\d+\.\d+\.\d+-local-strict", each.name)]


@cache
def _schemas(version: str) -> Traversable:
    check_version(version)
    return next(each for each in _schema_folders() if each.name.startswith(f"v{version}."))


@cache
def _built_in(api_version: str, kind: str, version: str) -> Object | None:
    """The schema of one of Kubernetes's own kinds; the files' names hold only the first part of the group's name."""
    group, _, version_of_group = api_version.rpartition("/")
    file = "-".join(part for part in (kind.lower(), group.partition(".")[0], version_of_group) if part)
    if "/" in file or not (path := _schemas(version) / f"{file}.json").is_file():
        return None
    schema: dict[str, Any] = json.loads(path.read_text())
    own = {"group": group, "kind": kind, "version": version_of_group}
    if own not in schema.get("x-kubernetes-group-version-kind", ()):
        return None
    name = f"{group.removesuffix('.k8s.io').partition('.')[0] or 'core'}.{version_of_group}.{kind}"
    _enumerate(schema, f"io.k8s.api.{name}", version)
    return {**schema, "x-version": version}


@cache
def _enumerations() -> tuple[str, Mapping[str, Mapping[str, list[str]]]]:
    """The minor version of Kubernetes that they are of; then by definition and property."""
    document = json.loads((Path(__file__).parents[2] / ENUMERATIONS_FILE).read_text())
    return document["kubernetes"].rpartition(".")[0], document["enumerations"]


def _enumerate(schema: dict[str, Any], definition: str, version: str) -> None:
    """Let the properties of a definition take only the values that the API server takes.

    A later version of Kubernetes may take more, so its schemas stay as they are. Where a field need not be set, the
    server can't tell empty text from none.
    """
    of_version, definitions = _enumerations()
    if _minor(version) > _minor(of_version):
        return
    for name, values in definitions.get(definition, {}).items():
        field = name.rstrip("[]{}")
        part = schema["properties"].get(field)
        if part is None:  # this older version does not have it
            continue
        match name.removeprefix(field):
            case "[]":
                part["items"]["enum"] = values
            case "{}":
                part["additionalProperties"]["enum"] = values
            case _:
                part["enum"] = values if field in schema.get("required", ()) else [*values, "", None]


def _minor(version: str) -> int:
    return int(version.split(".")[1])


@cache
def _definitions(version: str) -> Any:
    from referencing import Resource

    document = json.loads((_schemas(version) / "_definitions.json").read_text())
    text, *_ = document["$defs"][QUANTITY_DEFINITION]["oneOf"]
    text["pattern"] = QUANTITY  # the server can't read any other; the published schema only says that it is text
    for name, schema in document["$defs"].items():
        _enumerate(schema, name, version)
    return Resource.from_contents(document)


FORMATS = {
    "int32": "a whole number that fits into 32 bits",
    "int64": "a whole number that fits into 64 bits",
    "date-time": "a time such as 2027-01-31T12:00:00Z",
}


@cache
def _formats() -> Any:
    """The formats that the server can't read when they are wrong."""
    from datetime import datetime

    from jsonschema import FormatChecker

    checker = FormatChecker(formats=())
    for name, bits in (("int32", 31), ("int64", 63)):
        checker.checks(name)(lambda value, bits=bits: not isinstance(value, int) or -(2**bits) <= value < 2**bits)
    checker.checks("date-time", raises=ValueError)(
        lambda value: not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None
    )
    return checker


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
    return Draft202012Validator(schema, registry=registry, format_checker=_formats())


def _specification() -> Any:
    from referencing.jsonschema import DRAFT202012

    return DRAFT202012


def _of_crd(schema: Object) -> Object:
    """A CRD's schema as JSON Schema: unknown fields refused, apiVersion, kind and metadata allowed at the top."""
    return _with_type_and_metadata(_strict(schema))


def _with_type_and_metadata(schema: Object) -> Object:
    own = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
    declared = {name: each for name, each in schema.get("properties", {}).items() if name != "metadata"}
    return {**schema, "properties": own | declared}


def _strict(schema: Object) -> Object:
    """A structural schema whose objects refuse what they don't name, as the API server does with strict fields."""
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    result = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-") and key != "format"}
    is_open = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    if isinstance(schema.get("items"), Mapping):
        result["items"] = _strict(schema["items"])
    if isinstance(schema.get("additionalProperties"), Mapping):
        result["additionalProperties"] = _strict(schema["additionalProperties"])
    result["properties"] = {name: _strict(each) for name, each in schema.get("properties", {}).items()}
    if schema.get("type") == "object" and not is_open:
        result.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-embedded-resource"):
        result = dict(_with_type_and_metadata(result))
    if result.pop("nullable", False) and "type" in result:
        result["type"] = [result["type"], "null"]
    return result
