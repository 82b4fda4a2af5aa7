"""Offers that a cloud had no capacity of when a stack was to be built: later plans of that stack leave them out.

Kept by stack in `.fusion/sold-out/` until `fusion up --ask-again` or `fusion down` forgets them: a plan that went back
by itself would replace the pools that took their place.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from planner.errors import PlanError
from planner.workloads import PriceModel, Quota


@dataclass(frozen=True, slots=True)
class SoldOut:
    """What a cloud said it has not enough of; ``said_at`` is a time in UTC, and ``code`` the cloud's own word."""

    cloud: str
    region: str
    instance_type: str
    price_model: PriceModel
    code: str
    said_at: str

    @property
    def quota(self) -> Quota:
        """No node of it can be had."""
        return Quota.model_validate(
            {
                "cloud": self.cloud,
                "region": self.region,
                "instance_types": self.instance_type,
                "price_model": self.price_model,
                "nodes": 0,
            }
        )

    def __str__(self) -> str:
        price_model = self.price_model.replace("_", " ")
        return (
            f"{self.cloud} {self.region} had no capacity of {self.instance_type} {price_model} at {self.said_at} "
            f"({self.code}); plans leave it out until `fusion up --ask-again`"
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
    new = tuple(each for each in dict.fromkeys(found) if each.quota not in [one.quota for one in known])
    if new:
        file = _file(stack)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps([asdict(each) for each in (*known, *new)], indent=1))
    return new


def forget(stack: str) -> None:
    """Let its plans take every offer again."""
    _file(stack).unlink(missing_ok=True)
