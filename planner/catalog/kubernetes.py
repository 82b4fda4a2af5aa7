"""Which fee a managed control plane costs: a Kubernetes version past its standard support costs six times as much.

EKS bills extended support from the beginning (UTC) of the day on which standard support ends (Amazon EKS user guide,
"Amazon EKS Kubernetes release calendar").
"""

from __future__ import annotations

import csv
import datetime
import functools
import re
from collections.abc import Mapping
from pathlib import Path

VERSIONS = Path(__file__).parent / "data" / "kubernetes_versions.csv"
STANDARD, EXTENDED = "kubernetes_control_plane", "kubernetes_extended_support"
"""Services of ``services.csv``; the second is the whole fee, not what comes on top."""


def control_plane(cloud: str, version: str, on: datetime.date | None = None) -> str:
    """The service that a control plane of a Kubernetes version is billed as.

    Args:
        cloud: such as ``aws``; one without a calendar in ``kubernetes_versions.csv`` is billed the standard fee.
        version: minor version, such as ``1.35``; one newer than the calendar's is in standard support, and so is, for
            the cloud to refuse, what is no version.
        on: the day in UTC; today by default.
    """
    day = on or datetime.datetime.now(datetime.UTC).date()
    over = [_number(each) for each, end in _standard_support_ends(cloud).items() if end <= day]
    return EXTENDED if over and () < _number(version) <= max(over) else STANDARD


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split("."))) if re.fullmatch(r"[0-9]+\.[0-9]+", version, re.ASCII) else ()


@functools.cache
def _standard_support_ends(cloud: str) -> Mapping[str, datetime.date]:
    with VERSIONS.open(newline="") as file:
        return {
            row["version"]: datetime.date.fromisoformat(row["standard_support_until"])
            for row in csv.DictReader(file)
            if row["cloud"] == cloud
        }
