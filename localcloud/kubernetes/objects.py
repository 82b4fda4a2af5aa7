"""What is true of a Kubernetes object wherever it goes: its names, and what a change of it leads to."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from localcloud.kubernetes.validation import Object, path_text
from localcloud.provider import Properties
from localcloud.values import UNKNOWN, Unknown

CRD_KIND = "CustomResourceDefinition"
DEFAULT_NAMESPACE = "default"
AUTONAMED = "pulumi.com/autonamed"

IMMUTABLE: Mapping[str, tuple[str, ...]] = {
    "Deployment": ("spec.selector",),
    "DaemonSet": ("spec.selector",),
    "StatefulSet": ("spec.selector", "spec.serviceName", "spec.podManagementPolicy", "spec.volumeClaimTemplates"),
    "Job": ("spec.selector", "spec.template", "spec.completions", "spec.completionMode"),
    "Pod": ("spec",),
    "PersistentVolumeClaim": (
        "spec.accessModes",
        "spec.selector",
        "spec.storageClassName",
        "spec.volumeName",
        "spec.volumeMode",
    ),
    "PriorityClass": ("value", "preemptionPolicy"),
    "ResourceQuota": ("spec.scopes",),
    "Service": ("spec.clusterIP",),
    "Secret": ("type", "stringData", "data"),
    "ConfigMap": ("data", "binaryData"),
    "StorageClass": ("parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"),
    "RoleBinding": ("roleRef",),
    "ClusterRoleBinding": ("roleRef",),
}
"""Fields whose change replaces the object, after pulumi-kubernetes's forceNewProperties: those that the API server lets
nobody change, and the data of ConfigMaps and Secrets, so that what uses them is rolled with them."""

Path = tuple[str | int, ...]


def object_id(value: Object) -> str:
    """`namespace/name`, as pulumi-kubernetes names objects."""
    metadata = value["metadata"]
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"])


def with_name(inputs: Properties, old: Properties, resource_name: str, seed: bytes) -> Properties:
    """The object with a name: its own, else the automatic one that it had, else a new one from the engine's seed."""
    metadata = inputs.get("metadata", {})
    if not isinstance(metadata, Mapping) or metadata.get("name") or metadata.get("generateName"):
        return inputs
    earlier = old.get("metadata") or {}
    is_automatic = (earlier.get("annotations") or {}).get(AUTONAMED) == "true"
    name = earlier["name"] if is_automatic else f"{resource_name}-{(seed.hex() or secrets.token_hex(4))[:8]}"
    annotations = metadata.get("annotations") or {}
    if isinstance(annotations, Mapping):
        annotations = {**annotations, AUTONAMED: "true"}
    return inputs | {"metadata": {**metadata, "name": name, "annotations": annotations}}


def without_nulls(value: Any) -> Any:
    """A field that is null is one that is not set."""
    if isinstance(value, Mapping):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value


def changed_fields(old: Properties, new: Properties) -> list[str]:
    """The paths of the values that differ, as Pulumi writes paths."""
    return sorted(path_text(path) for path in _changed(old, new, ()))


def replacing_fields(old: Properties, new: Properties, default_namespace: str = DEFAULT_NAMESPACE) -> list[str]:
    """Those of the fields that can't change in place which do change; no namespace is the default one."""
    found = [name for name in ("apiVersion", "kind") if old.get(name) != new.get(name)]
    if _at(old, "metadata.name") != _at(new, "metadata.name"):
        found.append("metadata.name")
    if (_at(old, "metadata.namespace") or default_namespace) != (_at(new, "metadata.namespace") or default_namespace):
        found.append("metadata.namespace")
    fixed = IMMUTABLE.get(str(new.get("kind")), ())
    return [*found, *(path for path in fixed if _at(old, path) != _at(new, path))]


def is_same_place(old: Properties, new: Properties, default_namespace: str = DEFAULT_NAMESPACE) -> bool:
    """Whether both can't be there at once."""
    group, kind = str(new.get("apiVersion")).rpartition("/")[0], new.get("kind")
    if (group, kind) != (str(old.get("apiVersion")).rpartition("/")[0], old.get("kind")):
        return False
    name, namespace = _at(new, "metadata.name"), _at(new, "metadata.namespace")
    return (name, namespace or default_namespace) == (
        _at(old, "metadata.name"),
        _at(old, "metadata.namespace") or default_namespace,
    )


def _at(value: Any, path: str) -> Any:
    """The value at a path; what is below something unknown is unknown."""
    for part in path.split("."):
        if isinstance(value, Unknown):
            return UNKNOWN
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _changed(old: Any, new: Any, path: Path) -> Iterator[Path]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in old.keys() | new.keys():
            yield from _changed(old.get(key), new.get(key), (*path, key))
    elif _is_list(old) and _is_list(new) and len(old) == len(new):
        for index, pair in enumerate(zip(old, new, strict=True)):
            yield from _changed(*pair, (*path, index))
    elif old != new or new is UNKNOWN:
        yield path


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
