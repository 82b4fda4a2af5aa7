"""The ways to buy a node, from the one that is surest to be had to the one that the cloud may take back."""

from __future__ import annotations

from dataclasses import dataclass

from infra.errors import require


@dataclass(frozen=True, slots=True)
class Rung:
    """One way to buy, and what the clouds' own autoscalers call it.

    Attributes:
        name: `reservation`, `on_demand`, `flex_start` or `spot`.
        karpenter: value of the label `karpenter.sh/capacity-type`; None where AWS sells nothing of the kind.
        compute_class: fields of a priority of GKE's ComputeClass; a reservation's own name is added.
    """

    name: str
    karpenter: str | None
    compute_class: tuple[tuple[str, object], ...]


RUNGS = (
    Rung("reservation", "reserved", (("spot", False),)),
    Rung("on_demand", "on-demand", (("spot", False),)),
    Rung("flex_start", None, (("flexStart", {"enabled": True}),)),
    Rung("spot", "spot", (("spot", True),)),
)
"""Sources: Karpenter v1.8, "NodePools", karpenter.sh/capacity-type; GKE, "ComputeClass CustomResourceDefinition"."""


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
