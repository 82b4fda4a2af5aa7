"""What the nodes of a plan cost by hour: what the cluster's nodes are held against."""

from __future__ import annotations

from dataclasses import dataclass

from planner.catalog import Catalog
from planner.plan import Plan


@dataclass(frozen=True, slots=True)
class Spending:
    """USD by hour of the nodes, at the autoscaler's minimum, the expected load and the maximum."""

    min: float
    expected: float
    max: float


def spending_of(plan: Plan, catalog: Catalog) -> Spending:
    """Of the pools and the system's nodes; the control plane, disks and traffic are not in it."""
    system = catalog.offer(plan.cloud, plan.region, plan.platform.system_instance_type)
    base = plan.platform.system_nodes * (system.price_usd_per_hour or 0.0)
    sums = (
        base + sum(getattr(pool, nodes) * pool.price_usd_per_hour for pool in plan.pools)
        for nodes in ("nodes_min", "nodes_expected", "nodes_max")
    )
    return Spending(*sums)
