"""What rendering and applying have in common: objects are named, checked and compared in one way."""

from __future__ import annotations

import json
import threading
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from localcloud.kubernetes import gke
from localcloud.kubernetes.objects import (
    CRD_KIND,
    changed_fields,
    is_same_place,
    replacing_fields,
    with_name,
    without_nulls,
)
from localcloud.kubernetes.validation import (
    KUBERNETES_VERSION,
    Object,
    Problem,
    UnknownVersion,
    check_version,
    known_versions,
    schemas_of,
    validate_object,
)
from localcloud.official import official_version
from localcloud.provider import Backend, Change, Failure, Properties, ProviderError, Resource
from localcloud.values import has_unknown

DECODE = "kubernetes:yaml:decode"
"""What ConfigFile and ConfigGroup of pulumi_kubernetes.yaml ask for."""
RENDERED_BY = {"kubernetes:helm:template": "helm template", "kubernetes:kustomize:directory": "kubectl kustomize"}
"""What charts and Kustomize ask for, and the command that prints the same objects."""
CLUSTER_EXTENSION = "fusion.dev/cluster"
"""The entry of a kubeconfig's cluster that says its Kubernetes version, as `kubernetesVersion`."""


class KubernetesBackend(Backend):
    """Kubernetes objects, checked strictly; where they go is for the subclass to say."""

    package = "kubernetes"
    version = official_version("pulumi-kubernetes")

    def __init__(self) -> None:
        self.kubernetes_versions: tuple[str, ...] = (KUBERNETES_VERSION,)
        self.is_version_to_come = False
        self.crds: dict[tuple[str, str], Object] = {}
        self.clouds_own: Mapping[tuple[str, str], Object] = {}
        self.lock = threading.Lock()

    def check_config(self, variables: Properties) -> Properties:
        """Without what is not known yet: the stack's own config says where objects go, so that they are checked in a
        first preview too, before there is a cluster.
        """
        known = {name: value for name, value in variables.items() if not has_unknown(value)}
        self.is_version_to_come = "kubeconfig" in variables and "kubeconfig" not in known
        return known

    def configure(self, variables: Properties) -> None:
        """Take the cluster's Kubernetes version from the kubeconfig, which the program makes from its cluster.

        Raises:
            ProviderError: objects of that version can't be validated.
        """
        config = read_kubeconfig(variables.get("kubeconfig"))
        self.clouds_own = gke.KINDS if self.is_version_to_come or gke.is_gke(config) else {}
        if self.is_version_to_come:
            self.kubernetes_versions = tuple(known_versions())
            return
        version = version_in(variables.get("kubeconfig")) or KUBERNETES_VERSION
        self.kubernetes_versions = (version,)
        try:
            check_version(version)
        except UnknownVersion as error:
            raise ProviderError(str(error)) from None

    def check(
        self, resource: Resource, old: Properties, new: Properties, seed: bytes
    ) -> tuple[Properties, list[Failure]]:
        """Fill in the name, and validate strictly."""
        inputs = with_name(without_nulls(new), old, resource.name, seed)
        if failures := _unserved(resource, inputs):
            return inputs, failures
        failures = self.failures(resource, old, inputs)
        if not failures and inputs.get("kind") == CRD_KIND and not has_unknown(inputs):
            with self.lock:
                self.crds.update(schemas_of(inputs))
        return inputs, failures

    @abstractmethod
    def failures(self, resource: Resource, old: Properties, inputs: Properties) -> list[Failure]:
        """What is wrong with an object that has a name."""

    def schema_failures(self, inputs: Properties) -> list[Failure]:
        """What is wrong with an object by its schema; while the version is not known, by that of each version."""
        problems: list[Problem] = []
        for version in self.kubernetes_versions:
            problems = validate_object(inputs, version, self.known_crds())
            if not problems:
                return []
        return [Failure(problem.path, problem.reason) for problem in problems]

    def known_crds(self) -> Mapping[tuple[str, str], Object]:
        """The schemas of this run's CRDs, and of those that the cluster's cloud brings."""
        with self.lock:
            return {**self.clouds_own, **self.crds}

    def diff(self, resource: Resource, id: str, old: Properties, new: Properties) -> Change:
        """Update, or replace where Kubernetes does not let a field change."""
        changed, replacing = changed_fields(old, new), replacing_fields(old, new)
        return Change(
            sorted({*changed, *replacing}),
            replacing,
            delete_before_replace=bool(replacing) and is_same_place(old, new),
        )

    def invoke(self, token: str, args: Properties) -> Properties:
        """Read YAML. No other function is served: charts need the official plugin.

        Raises:
            ProviderError: it is another one, or no YAML.
        """
        if token == DECODE:
            return {"result": list(_objects_in(str(args.get("text", ""))))}
        way_out = RENDERED_BY.get(token)
        instead = f"declare what `{way_out}` prints" if way_out else "see docs/local-cloud.md"
        raise ProviderError(f"function {token}: the local cloud does not serve it; {instead}")


def _objects_in(text: str) -> Iterator[Any]:
    try:
        documents = [each for each in yaml.safe_load_all(text) if each is not None]
    except yaml.YAMLError as error:
        raise ProviderError(f"no YAML: {error}") from None
    for each in documents:
        is_list = isinstance(each, Mapping) and str(each.get("kind", "")).endswith("List") and "items" in each
        yield from each["items"] if is_list else [each]


def version_in(kubeconfig: Any) -> str | None:
    """The Kubernetes version that a kubeconfig, given by its path or as text, says of its current cluster."""
    document = read_kubeconfig(kubeconfig)
    contexts = {each["name"]: each["context"]["cluster"] for each in document.get("contexts") or ()}
    current = contexts.get(document.get("current-context"))
    for cluster in document.get("clusters") or ():
        for extension in cluster["cluster"].get("extensions") or ():
            if cluster["name"] == current and extension["name"] == CLUSTER_EXTENSION:
                return str(extension["extension"]["kubernetesVersion"])
    return None


def read_kubeconfig(kubeconfig: Any) -> dict[str, Any]:
    """A kubeconfig that is given by its path or as text; empty when there is none.

    Raises:
        ProviderError: it is neither.
    """
    if not isinstance(kubeconfig, str) or not kubeconfig.strip():
        return {}
    is_text = kubeconfig.lstrip().startswith("{") or "\n" in kubeconfig
    try:
        text = kubeconfig if is_text else Path(kubeconfig).expanduser().read_text()
        document = json.loads(text) if text.lstrip().startswith("{") else yaml.safe_load(text)
    except OSError as error:
        raise ProviderError(f"kubeconfig {kubeconfig}: {error.strerror}; name a file or give its contents") from None
    except (yaml.YAMLError, ValueError):
        raise ProviderError("kubeconfig: neither YAML nor JSON; name a file or give its contents") from None
    return document if isinstance(document, dict) else {}


def _unserved(resource: Resource, inputs: Properties) -> list[Failure]:
    """What the local cloud does not do with objects of this shape."""
    if resource.type.startswith("kubernetes:helm.sh/"):
        return [Failure("chart", "the local cloud installs no charts; declare the objects that `helm template` prints")]
    kind, metadata = str(inputs.get("kind", "")), inputs.get("metadata", {})
    if resource.type.endswith("Patch"):
        return [Failure("kind", f"{kind}: the local cloud does not patch objects of others; declare the whole object")]
    if kind.endswith("List") and "items" in inputs:
        return [Failure("kind", f"{kind}: declare each object by itself")]
    if isinstance(metadata, Mapping) and metadata.get("generateName") and not metadata.get("name"):
        reason = "the server would choose another name each time; set metadata.name, or neither for an automatic one"
        return [Failure("metadata.generateName", reason)]
    return []
