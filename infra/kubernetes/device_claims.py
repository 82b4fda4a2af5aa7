"""Devices claimed through Kubernetes' dynamic resource allocation (DRA), in place of counts that a plugin announces.

A driver on the nodes publishes each device with what it is (ResourceSlice), the scheduler chooses which of them a
pod gets (ResourceClaim), and the driver hands those over. Served as `resource.k8s.io/v1` from Kubernetes 1.34 on.
"""

from __future__ import annotations

from typing import Any

from infra.kubernetes.pods import CLAIM, PodArgs, claim_template_name

API = "resource.k8s.io/v1"
NVIDIA_GPUS = "device.driver == 'gpu.nvidia.com' && device.attributes['gpu.nvidia.com'].type == 'gpu'"
"""Whole GPUs of NVIDIA's driver. Source: k8s-dra-driver-gpu v25.3, its chart's DeviceClass `gpu.nvidia.com`."""


def gpu_class(name: str, labels: dict[str, str]) -> dict[str, Any]:
    """The DeviceClass of NVIDIA's whole GPUs."""
    spec = {"selectors": [{"cel": {"expression": NVIDIA_GPUS}}]}
    return {"apiVersion": API, "kind": "DeviceClass", "metadata": {"name": name, "labels": labels}, "spec": spec}


def claim_template(workload: str, namespace: str, labels: dict[str, str], pod: PodArgs) -> dict[str, Any]:
    """The ResourceClaimTemplate of a workload: of it each pod gets a claim of its own, that goes with the pod."""
    return claim_template_of(namespace, labels, claim_template_name(workload), CLAIM, pod.device_class, pod.devices)


def claim_template_of(
    namespace: str, labels: dict[str, str], name: str, request_name: str, device_class: str | None, count: int
) -> dict[str, Any]:
    """The ResourceClaimTemplate of so many devices of a class."""
    exactly = {"deviceClassName": device_class, "allocationMode": "ExactCount", "count": count}
    request = {"name": request_name, "exactly": exactly}
    return {
        "apiVersion": API,
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"spec": {"devices": {"requests": [request]}}},
    }
