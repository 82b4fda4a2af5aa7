"""Objects as YAML files in a folder: what a stack without a cluster has."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import yaml

from localcloud.kubernetes.backend import KubernetesBackend
from localcloud.kubernetes.objects import CRD_KIND, DEFAULT_NAMESPACE, object_id
from localcloud.kubernetes.validation import Object, schemas_of
from localcloud.provider import Failure, Found, Properties, ProviderError, Resource
from localcloud.values import has_unknown

OWNER = "# "
OWNER_ONLY = 0o600


class RenderBackend(KubernetesBackend):
    """Each object in a file, which says in its first line whose it is."""

    def __init__(self, folder: Path, root: Path = Path()) -> None:
        super().__init__()
        self.folder = folder
        self._root = root
        self._replaced: set[Path] = set()

    def configure(self, variables: Properties) -> None:
        """A provider's own folder comes before the stack's: a stack on two clouds has a cluster on each."""
        super().configure(variables)
        if own := variables.get("renderYamlToDirectory"):
            self.folder = self._root / str(own)

    def failures(self, resource: Resource, old: Properties, inputs: Properties) -> list[Failure]:
        """What its schema says is wrong."""
        return self.schema_failures(inputs)

    def create(self, resource: Resource, inputs: Properties, preview: bool) -> tuple[str, Properties]:
        """Write the file; one that the same resource left behind is written anew."""
        if preview:
            return "", inputs
        path = self._path(inputs)
        if path.exists() and _owner(path) != resource.urn:
            raise ProviderError(
                f"{inputs['kind']} {object_id(inputs)} exists already in {path}; give it another name, import it, or "
                "remove the file"
            )
        if path.exists():
            self._replaced.add(path)
        self._write(path, resource, inputs)
        return object_id(inputs), inputs

    def read(self, resource: Resource, id: str, inputs: Properties) -> Found | None:
        """The object in the file."""
        path = self._path(inputs) if inputs else self._find(resource, id)
        if path is None or not path.exists():
            return None
        found = _load(path)
        return Found(id, found, found)

    def update(self, resource: Resource, id: str, old: Properties, new: Properties, preview: bool) -> Properties:
        """Write the file anew."""
        if not preview:
            self._write(self._path(new), resource, new)
        return new

    def delete(self, resource: Resource, id: str, inputs: Properties) -> None:
        """Remove the file, unless it is another resource's, or this one's replacement."""
        path = self._path(inputs)
        with self.lock:
            if path in self._replaced:  # by this resource's next incarnation, made before this one was deleted
                self._replaced.discard(path)
                return
            if path.exists() and _owner(path) in (resource.urn, ""):
                path.unlink()
            with contextlib.suppress(OSError):
                path.parent.rmdir()
                self.folder.rmdir()

    def known(self, resource: Resource, id: str) -> None:
        """Nothing to remember: a file says whose it is."""

    def known_crds(self) -> Mapping[tuple[str, str], Object]:
        """Those of this run, and those in the folder."""
        rendered = [_load(path) for path in sorted((self.folder / "0-crd").glob("*.yaml"))]
        return {key: schema for crd in rendered for key, schema in schemas_of(crd)} | dict(super().known_crds())

    def _path(self, value: Object) -> Path:
        """`0-crd/` or `1-manifest/`, then version, kind, namespace and name, as pulumi-kubernetes renders."""
        folder = "0-crd" if value.get("kind") == CRD_KIND else "1-manifest"
        metadata = value["metadata"]
        namespace = metadata.get("namespace") or DEFAULT_NAMESPACE
        parts = (str(value["apiVersion"]).replace("/", "_"), str(value["kind"]), namespace)
        return self.folder / folder / f"{'-'.join(parts).lower()}-{metadata['name']}.yaml"

    def _find(self, resource: Resource, id: str) -> Path | None:
        """The file of an object that is imported by its id."""
        kind = resource.type.rpartition(":")[2]
        for path in sorted(self.folder.rglob("*.yaml")):
            found = _load(path)
            if found.get("kind") == kind and id in (object_id(found), f"{DEFAULT_NAMESPACE}/{object_id(found)}"):
                return path
        return None

    def _write(self, path: Path, resource: Resource, value: Object) -> None:
        """Write a file at once or not at all; a Secret's only its owner may read."""
        if has_unknown(value):
            raise ProviderError(f"{value['kind']} {resource.name}: a value is not known yet, so it can't be rendered")
        fresh = path.with_suffix(f".{os.getpid()}.new")
        with self.lock:  # `delete` removes folders that are empty
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh.touch(mode=OWNER_ONLY if value["kind"] == "Secret" else 0o666)
            fresh.write_text(f"{OWNER}{resource.urn}\n{yaml.safe_dump(dict(value), sort_keys=True)}")
            fresh.replace(path)


def _load(path: Path) -> Properties:
    try:
        found = yaml.safe_load(path.read_text())
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("metadata"), dict):
        raise ProviderError(f"{path} holds no Kubernetes object; put it right, or remove it and run again")
    return found


def _owner(path: Path) -> str:
    """The URN of the resource that wrote a file; empty for a file of somebody else."""
    first = path.read_text().partition("\n")[0]
    return first.removeprefix(OWNER) if first.startswith(f"{OWNER}urn:") else ""
