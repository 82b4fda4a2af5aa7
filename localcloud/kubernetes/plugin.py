"""`pulumi-resource-kubernetes`: on a local stack each object becomes a YAML file, strictly validated."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from localcloud.kubernetes.validation import KUBERNETES_VERSION, Object, schemas_of, validate_object
from localcloud.official import official_version, serve_or_hand_over
from localcloud.provider import Backend, Change, Failure, Found, Properties, ProviderError, Resource
from localcloud.values import UNKNOWN, has_unknown

CRD_KIND = "CustomResourceDefinition"
RENDER_OPTION = "renderYamlToDirectory"
AUTONAMED = "pulumi.com/autonamed"

IMMUTABLE: Mapping[str, tuple[str, ...]] = {
    "Deployment": ("spec.selector",),
    "DaemonSet": ("spec.selector",),
    "StatefulSet": ("spec.selector", "spec.serviceName", "spec.podManagementPolicy", "spec.volumeClaimTemplates"),
    "Job": ("spec.selector", "spec.template", "spec.completions", "spec.completionMode"),
    "Pod": ("spec",),
    "PersistentVolumeClaim": ("spec",),
    "Service": ("spec.clusterIP", "spec.type"),
    "Secret": ("type", "stringData", "data", "immutable"),
    "ConfigMap": ("data", "binaryData", "immutable"),
    "StorageClass": ("parameters", "provisioner", "reclaimPolicy"),
    "RoleBinding": ("roleRef",),
    "ClusterRoleBinding": ("roleRef",),
}
"""Fields whose change replaces the object, as pulumi-kubernetes documents for each kind (its forceNewProperties)."""


def main() -> None:
    """Run the plugin."""
    serve_or_hand_over("kubernetes", KubernetesBackend, is_local=lambda config: bool(config.get(RENDER_OPTION)))


def render_folder() -> Path:
    """The folder that the stack's config names, relative to the project's Pulumi.yaml."""
    named = Path(str(json.loads(os.environ["PULUMI_CONFIG"])[RENDER_OPTION]))
    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / "Pulumi.yaml").is_file()), here)
    return named if named.is_absolute() else root / named


class KubernetesBackend(Backend):
    """Kubernetes objects as files."""

    package = "kubernetes"
    version = official_version("pulumi-kubernetes")

    def __init__(self, folder: Path | None = None, kubernetes_version: str = KUBERNETES_VERSION) -> None:
        self.folder = folder or render_folder()
        self.kubernetes_version = kubernetes_version
        self.crds: dict[tuple[str, str], Object] = {}
        self.lock = threading.Lock()

    def configure(self, variables: Properties) -> None:
        """The stack's config names the folder; a kubeconfig has no server to reach on a local stack."""

    def check(
        self, resource: Resource, old: Properties, new: Properties, seed: bytes
    ) -> tuple[Properties, list[Failure]]:
        """Fill in the name, and validate strictly."""
        inputs = dict(new)
        metadata = dict(inputs.get("metadata") or {}) if not has_unknown(inputs.get("metadata")) else inputs["metadata"]
        if "name" not in metadata and "generateName" not in metadata:
            earlier = (old.get("metadata") or {}).get("name")
            metadata["name"] = earlier or f"{resource.name}-{(seed.hex() or secrets.token_hex(4))[:8]}"
            metadata["annotations"] = {**(metadata.get("annotations") or {}), AUTONAMED: "true"}
        inputs["metadata"] = metadata
        if str(inputs.get("kind", "")).endswith("List"):
            return inputs, [Failure("kind", f"{inputs['kind']}: declare each object by itself")]
        if inputs.get("kind") == CRD_KIND and not has_unknown(inputs):
            with self.lock:
                self.crds.update(schemas_of(inputs))
        problems = validate_object(inputs, self.kubernetes_version, self._known_crds())
        return inputs, [Failure(problem.path, problem.reason) for problem in problems]

    def diff(self, resource: Resource, id: str, old: Properties, new: Properties) -> Change:
        """Update, or replace where Kubernetes does not let a field change."""
        changed = sorted(_changed_paths(old, new))
        fixed = ("apiVersion", "kind", "metadata.name", "metadata.namespace", *IMMUTABLE.get(str(new.get("kind")), ()))
        replaced = [
            path for path in changed if any(path == each or path.startswith((f"{each}.", f"{each}[")) for each in fixed)
        ]
        same_place = not has_unknown(new.get("metadata")) and _id(old) == _id(new)
        return Change(changed, replaced, delete_before_replace=bool(replaced) and same_place)

    def create(self, resource: Resource, inputs: Properties, preview: bool) -> tuple[str, Properties]:
        """Write the file; one that the same resource left behind is written anew."""
        if preview:
            return "", inputs if has_unknown(inputs) else _outputs(inputs)
        path = self._path(inputs)
        if path.exists() and _owner(path) != resource.urn:
            raise ProviderError(
                f"{inputs['kind']} {_id(inputs)} exists already in {path}; give it another name, import it, or "
                "remove the file"
            )
        self._write(path, resource, inputs)
        return _id(inputs), _outputs(inputs)

    def read(self, resource: Resource, id: str, inputs: Properties) -> Found | None:
        """The object in the file."""
        path = self._path(inputs) if inputs else self._find(resource, id)
        if path is None or not path.exists():
            return None
        found: Properties = yaml.safe_load(path.read_text())
        return Found(id, found, _outputs(found))

    def update(self, resource: Resource, id: str, old: Properties, new: Properties, preview: bool) -> Properties:
        """Write the file anew."""
        if not preview:
            self._write(self._path(new), resource, new)
        return new if has_unknown(new) else _outputs(new)

    def delete(self, resource: Resource, id: str, inputs: Properties) -> None:
        """Remove the file."""
        path = self._path(inputs)
        if path.exists() and _owner(path) in (resource.urn, ""):
            path.unlink()
        with contextlib.suppress(OSError):
            path.parent.rmdir()
            self.folder.rmdir()

    def invoke(self, token: str, args: Properties) -> Properties:
        """No function is served: charts and remote YAML need the official plugin."""
        raise ProviderError(f"function {token}: the local cloud does not serve it; see docs/local-cloud.md")

    def _path(self, value: Object) -> Path:
        """`0-crd/` or `1-manifest/`, then version, kind, namespace and name, as pulumi-kubernetes renders."""
        folder = "0-crd" if value.get("kind") == CRD_KIND else "1-manifest"
        metadata = value["metadata"]
        parts = (str(value["apiVersion"]).replace("/", "_"), str(value["kind"]), metadata.get("namespace") or "default")
        return self.folder / folder / f"{'-'.join(parts).lower()}-{metadata['name']}.yaml"

    def _find(self, resource: Resource, id: str) -> Path | None:
        """The file of an object that is imported by its id."""
        kind = resource.type.rpartition(":")[2]
        for path in sorted(self.folder.rglob("*.yaml")):
            found = yaml.safe_load(path.read_text())
            if found.get("kind") == kind and _id(found) == id:
                return path
        return None

    def _write(self, path: Path, resource: Resource, value: Object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}.new")
        fresh.write_text(f"{OWNER}{resource.urn}\n{yaml.safe_dump(dict(value), sort_keys=True)}")
        fresh.replace(path)

    def _known_crds(self) -> Mapping[tuple[str, str], Object]:
        """Those of this run, and those in the folder."""
        with self.lock:
            for path in sorted((self.folder / "0-crd").glob("*.yaml")):
                for key, schema in schemas_of(yaml.safe_load(path.read_text())):
                    self.crds.setdefault(key, schema)
            return dict(self.crds)


OWNER = "# "


def _owner(path: Path) -> str:
    """The URN of the resource that wrote a file; empty for a file of somebody else."""
    first = path.read_text().partition("\n")[0]
    return first.removeprefix(OWNER) if first.startswith(f"{OWNER}urn:") else ""


def _id(value: Object) -> str:
    """`namespace/name`, as pulumi-kubernetes names objects."""
    metadata = value["metadata"]
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"])


def _outputs(value: Object) -> Properties:
    return dict(value)


def _changed_paths(old: Any, new: Any, path: str = "") -> list[str]:
    """The paths of values that differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = old.keys() | new.keys()
        return [
            each
            for key in keys
            for each in _changed_paths(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            each
            for index, pair in enumerate(zip(old, new, strict=True))
            for each in _changed_paths(*pair, f"{path}[{index}]")
        ]
    return [] if old == new and new is not UNKNOWN else [path]


if __name__ == "__main__":
    main()
