"""Objects that others wrote, such as a controller's CRDs: applied before the stack's own, from files that are pinned.

A chart is rendered once (`helm template`), reviewed and kept as a file: what reaches the cluster is then what was read,
by the policy pack too.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
import yaml

from infra.errors import require
from infra.kubernetes.objects import make_object
from infra.names import digest


class _Loader(yaml.SafeLoader):
    """A list may hold a plain `=`, as a CRD of the Prometheus operator has it: text, which PyYAML refuses."""


_Loader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: str(node.value))

FIRST = ("CustomResourceDefinition", "Namespace")
"""Kinds that the other objects of a file need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestsArgs:
    """One file of Kubernetes objects.

    Attributes:
        file: YAML, one or several documents.
        sha256: of the file, in hexadecimal; another file is refused.

    Raises:
        ArgumentError: the file is not there, is another one, or holds no objects.
    """

    file: Path
    sha256: str

    def __post_init__(self) -> None:
        require(self.file.is_file(), f"manifests: {self.file} is no file; put it there, or remove it from the config.")
        found = hashlib.sha256(self.file.read_bytes()).hexdigest()
        require(
            found == self.sha256.lower(),
            f"manifests: {self.file} has sha256 {found}, and {self.sha256} is expected; put the pinned file back, or "
            "review what changed and write its digest.",
        )
        for each in self.objects():
            require(
                isinstance(each, dict) and {"apiVersion", "kind", "metadata"} <= each.keys(),
                f"manifests: {self.file} holds something that is no Kubernetes object; each needs apiVersion, kind and "
                "metadata.",
            )

    def objects(self) -> list[dict[str, Any]]:
        """Its objects; what others need comes first.

        Raises:
            ArgumentError: no YAML.
        """
        try:
            found = [each for each in yaml.load_all(self.file.read_text(), _Loader) if each]
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            require(False, f"manifests: {self.file} is no YAML ({type(error).__name__}); expected Kubernetes objects.")
        return sorted(found, key=lambda each: not isinstance(each, dict) or each.get("kind") not in FIRST)


class Manifests(pulumi.ComponentResource):
    """A file's objects.

    Makes: each of its objects; CRDs and namespaces before the rest.

    Example:
        >>> args = ManifestsArgs(file=Path("manifests/kueue-v0.10.0.yaml"), sha256="…")
        >>> Manifests("prod-kueue", args, pulumi.ResourceOptions(provider=on_cluster))
    """

    def __init__(self, name: str, args: ManifestsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        props = {"file": args.file.name, "sha256": args.sha256}
        super().__init__("fusion:kubernetes:Manifests", name, props, opts)
        self.args = args
        first: list[pulumi.Resource] = []
        for value in args.objects():
            is_first = value["kind"] in FIRST
            options = pulumi.ResourceOptions(parent=self, depends_on=[] if is_first else first)
            made = make_object(f"{name}-{_role(value)}", _without_status(value), options)
            if is_first:
                first.append(made)
        self.register_outputs({})


def _role(value: dict[str, Any]) -> str:
    """Tells the objects of a file apart."""
    metadata = value["metadata"]
    place = "/".join((str(value["apiVersion"]), str(value["kind"]), str(metadata.get("namespace"))))
    return f"{str(value['kind']).lower()}-{metadata.get('name')}-{digest(place)}"


def _without_status(value: dict[str, Any]) -> dict[str, Any]:
    """What controller-gen leaves in CRDs, and only the server may write."""
    return {name: part for name, part in value.items() if name != "status"}
