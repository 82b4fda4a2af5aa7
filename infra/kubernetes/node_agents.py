"""Agents of the system on the nodes of some pools: what device plugins and exporters have in common."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from infra.accelerator_pool import POOL_LABEL
from infra.errors import require
from infra.names import BY_DIGEST

NAMESPACE = "kube-system"


def agent(
    name: str,
    pools: Iterable[str],
    container: Mapping[str, Any],
    volumes: Sequence[Mapping[str, Any]],
    *,
    labels: Mapping[str, str],
    **pod: Any,
) -> dict[str, Any]:
    """A DaemonSet that runs on the pools' nodes and on no others.

    Args:
        name: its own, and by its label its pods'.
        pools: by name.
        container: its only one.
        volumes: of its pods.
        labels: of it and of its pods.
        pod: further fields of the pods' spec; without a `serviceAccountName` they get no token.
    """
    own = {**labels, "app.kubernetes.io/name": name}
    rights = {} if "serviceAccountName" in pod else {"automountServiceAccountToken": False}
    spec = {
        **rights,
        **pod,
        "affinity": on_pools(pools),
        "tolerations": [{"operator": "Exists"}],  # whatever keeps others off a node, its chips are told of
        "containers": [dict(container)],
        "volumes": [dict(each) for each in volumes],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": dict(labels)},
        "spec": {
            "selector": {"matchLabels": own},
            "updateStrategy": {"type": "RollingUpdate"},
            "template": {"metadata": {"labels": own}, "spec": spec},
        },
    }


def resources(cpu: str, memory: str, memory_max: str) -> dict[str, Any]:
    """What an agent may have: no limit of CPU, for a slow agent is taken for a sick one, and disk for its log."""
    requests = {"cpu": cpu, "memory": memory, "ephemeral-storage": "64Mi"}
    return {"requests": requests, "limits": {"memory": memory_max, "ephemeral-storage": "1Gi"}}


def on_pools(pools: Iterable[str]) -> dict[str, Any]:
    """The affinity of pods that belong on the nodes of some pools and on no others."""
    term = {"matchExpressions": [{"key": POOL_LABEL, "operator": "In", "values": sorted(pools)}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


def check_image(what: str, image: str) -> None:
    """Refuse an image of the system's own that is not named by digest.

    Raises:
        ArgumentError: it may change.
    """
    require(
        re.fullmatch(BY_DIGEST, image) is not None,
        f"{what}: image {image!r} may change; name it by digest, such as registry/name@sha256:… .",
    )
