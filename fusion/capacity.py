"""What an update failed of where a cloud had no capacity, read from the engine's log."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fusion.errors import FusionError
from fusion.review.events import Step, read
from planner.catalog import load
from planner.catalog.instances import gcp_accelerators
from planner.catalog.tpus import slice_of_nodes
from planner.sold_out import SoldOut
from planner.workloads import PriceModel

CODES = re.compile(
    r"InsufficientInstanceCapacity|InsufficientReservedInstanceCapacity|UnfulfillableCapacity"
    r"|ZONE_RESOURCE_POOL_EXHAUSTED\w*|GCE_STOCKOUT"
)
"""In errors of EC2 and EKS ("Error codes for the Amazon EC2 API"), and of Compute Engine and GKE ("Troubleshooting
resource availability errors")."""
NODE_GROUP, NODE_POOL = "aws:eks/nodeGroup:NodeGroup", "gcp:container/nodePool:NodePool"


def sold_out(log: Path, config: Mapping[str, Any]) -> tuple[SoldOut, ...]:
    """The offers of the pools that could not be made, each once; the regions are those of the stack's config.

    An update that ended before the engine wrote its log says nothing.
    """
    try:
        update = read(log)
    except FusionError:
        return ()
    steps = {each.urn: each for each in update.steps}
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    found = []
    for each in update.diagnostics:
        code, step = CODES.search(each.message), steps.get(each.urn)
        if each.severity == "error" and code and step and step.new:
            for cloud, kind, model in _offers(step):
                found.append(SoldOut(cloud, str(config.get(f"{cloud}:region")), kind, model, code[0], now))
    return tuple(dict.fromkeys(found))


def _offers(step: Step) -> Iterator[tuple[str, str, PriceModel]]:
    inputs: Mapping[str, Any] = step.new.inputs if step.new else {}
    if step.type == NODE_GROUP:
        for kind in inputs.get("instanceTypes") or ():
            yield "aws", str(kind), "spot" if inputs.get("capacityType") == "SPOT" else "on_demand"
    elif step.type == NODE_POOL:
        config = inputs.get("nodeConfig") or {}
        kind = str(config.get("machineType"))
        if kind.startswith("n1-"):  # the catalog names them with their GPUs; the other series have theirs built in
            kind += "".join(
                f"+{_catalog_name(each['type'])}x{each['count']}" for each in config.get("guestAccelerators") or ()
            )
        topology = (inputs.get("placementPolicy") or {}).get("tpuTopology")
        if found := slice_of_nodes(kind, topology, load().tpu_topologies):
            kind = found[0].instance_type
        yield "gcp", kind, "spot" if config.get("spot") else "on_demand"


def _catalog_name(accelerator: str) -> str:
    known = gcp_accelerators().get(accelerator)
    return known.accelerator if known else accelerator
