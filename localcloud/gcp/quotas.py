"""Cloud Quotas of the local Google Cloud: as much of each as here, which is no default of Google's."""

from __future__ import annotations

from typing import Any

GRANTED_VCPUS, GRANTED_ACCELERATORS = 2048, 256
UNSET = ("PREEMPTIBLE-CPUS-per-project-region",)
"""Projects have no value of it until they ask."""
FAMILIES = {
    "GPUS-PER-GPU-FAMILY-per-project-region": "gpu_family",
    "TPUS-PER-TPU-FAMILY-per-project-region": "tpu_family",
}
GRANTED_FAMILIES = {"NVIDIA_H100": 64, "CT6E": 64}
"""Of other families nothing is granted."""


def info(parent: str, service: str, quota_id: str, region: str) -> dict[str, Any]:
    """A quota as the provider's function has it, with an entry for each family that is granted."""
    amount = GRANTED_VCPUS if "CPUS" in quota_id else GRANTED_ACCELERATORS
    rows: list[tuple[dict[str, str], str]] = [({}, "" if quota_id in UNSET else str(amount))]
    if family := FAMILIES.get(quota_id):
        rows = [({}, "0")]
        rows += [({family: name, "region": region}, str(value)) for name, value in GRANTED_FAMILIES.items()]
    places = ["global"] if quota_id.endswith("-per-project") else [region]
    name = f"{parent}/locations/global/services/{service}/quotaInfos/{quota_id}"
    return {
        "id": name,
        "name": name,
        "parent": parent,
        "service": service,
        "quotaId": quota_id,
        "dimensionsInfos": [
            {"dimensions": dimensions, "details": [{"value": value}], "applicableLocations": places}
            for dimensions, value in rows
        ],
    }
