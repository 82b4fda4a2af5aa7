"""The ways to buy a node, from the one that is surest to be had to the one that the cloud may take back."""

from __future__ import annotations

from dataclasses import dataclass

from infra.errors import require


@dataclass(frozen=True, slots=True)
class Rung:
    """One way to buy, and what Karpenter calls it.

    Attributes:
        name: `reservation`, `on_demand`, `flex_start` or `spot`.
        karpenter: value of the label `karpenter.sh/capacity-type`; None where AWS sells nothing of the kind.
    """

    name: str
    karpenter: str | None


RUNGS = (
    Rung("reservation", "reserved"),
    Rung("on_demand", "on-demand"),
    Rung("flex_start", None),
    Rung("spot", "spot"),
)
"""Source: Karpenter v1.8, "NodePools", karpenter.sh/capacity-type."""


def rung_of(price_model: str, reservation_id: str | None = None) -> Rung:
    """The rung of a pool, by its price model and its reservation.

    Raises:
        ArgumentError: no such price model.
    """
    name = "reservation" if reservation_id else price_model
    found = next((each for each in RUNGS if each.name == name), None)
    require(found is not None, f"price_model {price_model}; use one of {', '.join(each.name for each in RUNGS)}.")
    assert found is not None
    return found
