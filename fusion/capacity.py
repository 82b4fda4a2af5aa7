"""What an update failed of where a cloud had no capacity, read from the engine's log."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fusion.errors import FusionError
from fusion.review.events import read
from planner.sold_out import SoldOut

CODES = re.compile(
    r"InsufficientInstanceCapacity|InsufficientReservedInstanceCapacity|UnfulfillableCapacity"
    r"|ReservationCapacityExceeded|InvalidCapacityReservationId\.(NotFound|Unavailable)"
    r"|ZONE_RESOURCE_POOL_EXHAUSTED\w*|GCE_STOCKOUT"
)
"""In errors of EC2 and EKS ("Error codes for the Amazon EC2 API"; a reservation that is over is not found, or
unavailable), and of Compute Engine and GKE ("Troubleshooting resource availability errors")."""
POOLS = ("fusion:aws:AcceleratorPool", "fusion:gcp:AcceleratorPool")


def sold_out(log: Path) -> tuple[SoldOut, ...]:
    """The offers of the pools that could not be made, each once.

    An update that ended before the engine wrote its log says nothing, and neither does a node group of the team's own,
    which no plan chose.
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
        pool = steps.get(step.new.parent) if step and step.new else None
        if each.severity == "error" and code and pool and pool.new and pool.type in POOLS:
            found.append(_offer(pool.new.inputs, code[0], now))
    return tuple(dict.fromkeys(found))


def _offer(pool: Mapping[str, Any], code: str, now: str) -> SoldOut:
    """What a pool is of, as it said for the guardrails."""
    offer = pool["cloud"], pool["region"], pool["instance_type"], pool["price_model"]
    return SoldOut(*offer, code, now, pool.get("reservation_id"))


def why(log: Path) -> str:
    """What the program and the guardrails said against an update, in the order in which they did; empty for nothing."""
    try:
        update = read(log)
    except FusionError:
        return ""
    broken = (f"{each.policy}: {each.message}" for each in update.violations if each.level == "mandatory")
    return "; ".join(dict.fromkeys([*broken, *(each.message.strip() for each in update.errors)]))
