"""Kinds that GKE's own clusters serve beside those of Kubernetes, with their schemas.

Of a Network the fields of devices alone. Source: kubernetes/cloud-provider-gcp, `crd/apis/network/v1`
(`gkenetworkparamset_types.go`, `network_types.go`), read 2026-11-28.
"""

from __future__ import annotations

from typing import Any

TEXT = {"type": "string"}
NETWORK_API = "networking.gke.io/v1"
PARAMETERS = {
    "vpc": TEXT,
    "vpcSubnet": TEXT,
    "deviceMode": {**TEXT, "enum": ["DPDK-VFIO", "NetDevice", "RDMA"]},
    "podIPv4Ranges": {"type": "object", "properties": {"rangeNames": {"type": "array", "items": TEXT, "minItems": 1}}},
    "networkAttachment": TEXT,
}
REFERENCE = {
    "type": "object",
    "properties": {"group": TEXT, "kind": TEXT, "name": TEXT, "namespace": TEXT},
    "required": ["group", "kind", "name"],
}
NETWORK = {"type": {**TEXT, "enum": ["L2", "L3", "Device"]}, "parametersRef": REFERENCE}


def _with_spec(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    spec = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "object", "properties": {"spec": spec}, "required": ["spec"]}


KINDS = {
    (NETWORK_API, "GKENetworkParamSet"): _with_spec(PARAMETERS),
    (NETWORK_API, "Network"): _with_spec(NETWORK, "type"),
}
"""By (apiVersion, kind)."""


def is_gke(kubeconfig: dict[str, Any]) -> bool:
    """Whether a kubeconfig signs in as to a cluster of GKE."""
    commands = [(each["user"].get("exec") or {}).get("command") for each in kubeconfig.get("users") or ()]
    return "gke-gcloud-auth-plugin" in commands
