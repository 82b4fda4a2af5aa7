"""Offers that a cloud had no capacity of when a stack was to be built: later plans of that stack leave them out.

Kept by stack in `.fusion/sold-out/` until `fusion up --ask-again` or `fusion down` forgets them: a plan that went back
by itself would replace the pools that took their place.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from planner.errors import PlanError
from planner.workloads import AnyWorkload, Bought, Quota


@dataclass(frozen=True, slots=True)
class SoldOut:
    """What a cloud said it has not enough of; ``said_at`` is a time in UTC, and ``code`` the cloud's own word.

    With ``reservation_id`` it is that reservation or Capacity Block alone: used up, over, or none of the account's.
    """

    cloud: str
    region: str
    instance_type: str
    price_model: Bought
    code: str
    said_at: str
    reservation_id: str | None = None

    @property
    def is_of_a_purchase(self) -> bool:
        """Whether it says nothing of the type on demand or on spot."""
        return self.reservation_id is not None or self.price_model not in ("on_demand", "spot")

    def is_same_as(self, other: SoldOut) -> bool:
        """Whether it is the same that can't be had, whenever and however it was said."""
        return replace(other, code=self.code, said_at=self.said_at) == self

    def is_asked_for_by(self, workload: AnyWorkload) -> bool:
        """Whether the nodes of a workload were to come from this purchase."""
        bought = workload.purchase
        return (
            self.is_of_a_purchase
            and bought is not None
            and (bought.price_model, bought.reservation_id) == (self.price_model, self.reservation_id)
            and workload.needs.instance_type == self.instance_type
        )

    @property
    def quotas(self) -> tuple[Quota, ...]:
        """That no node of it can be had; none where it is a purchase, of which there are no others to leave out."""
        if self.is_of_a_purchase:
            return ()
        quota = Quota.model_validate(
            {
                "cloud": self.cloud,
                "region": self.region,
                "instance_types": self.instance_type,
                "price_model": self.price_model,
                "nodes": 0,
            }
        )
        return (quota,)

    def __str__(self) -> str:
        what = f"{self.instance_type} {self.price_model.replace('_', ' ')}"
        if self.reservation_id is not None:
            kind = "Capacity Block" if self.price_model == "capacity_block" else "reservation"
            what = f"{self.instance_type} in the {kind} {self.reservation_id}"
        instead = "buy on demand in its place" if self.is_of_a_purchase else "leave it out"
        return (
            f"{self.cloud} {self.region} had no capacity of {what} at {self.said_at} ({self.code}); plans {instead} "
            "until `fusion up --ask-again`"
        )


def _file(stack: str) -> Path:
    home = os.environ.get("FUSION_HOME")
    return (Path(home) if home else Path(__file__).parents[1] / ".fusion") / "sold-out" / f"{stack}.json"


def of_stack(stack: str) -> tuple[SoldOut, ...]:
    """What is known of a stack, oldest first.

    Raises:
        PlanError: the file is damaged.
    """
    file = _file(stack)
    try:
        return tuple(SoldOut(**each) for each in json.loads(file.read_text()))
    except FileNotFoundError:
        return ()
    except (ValueError, TypeError) as error:
        raise PlanError(
            f"{file}: {error}; remove the file, and offers that were sold out are asked for again"
        ) from None


def remember(stack: str, found: Iterable[SoldOut]) -> tuple[SoldOut, ...]:
    """Keep what was found; those that were not known before."""
    known = of_stack(stack)
    new = tuple(each for each in dict.fromkeys(found) if not any(map(each.is_same_as, known)))
    if new:
        file = _file(stack)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps([asdict(each) for each in (*known, *new)], indent=1))
    return new


def forget(stack: str) -> None:
    """Let its plans take every offer again."""
    _file(stack).unlink(missing_ok=True)
