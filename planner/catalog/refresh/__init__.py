"""Rebuilding the offers from the clouds' own price lists; a cloud that fails keeps every row that it had."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from planner.catalog.model import Offer
from planner.catalog.refresh.base import CloudPrices, RefreshError

Key = tuple[str, str, str]
"""(cloud, region, instance type)"""

MOST_GONE = 0.5
"""Of a cloud's offers: more have never gone at once."""
MOVED_FACTOR = 1.2
"""A price that went up or down by more than this is shown."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A price that changed by more than the factor."""

    offer: Offer
    price_model: str
    before_usd: float
    after_usd: float


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The new offers and how they differ from the old ones."""

    offers: tuple[Offer, ...]
    added: tuple[Offer, ...]
    removed: tuple[Offer, ...]
    moved: tuple[Moved, ...]
    updated: int
    """Rows that a cloud priced anew, moved or not."""
    failed: Mapping[str, str]
    """Cloud → why its prices could not be read."""
    skipped: Mapping[str, tuple[str, ...]]
    """Cloud → what it has that was not understood."""


def refresh(
    old: Sequence[Offer],
    clouds: Iterable[str],
    *,
    regions: Sequence[str] = (),
    today: datetime.date,
    moved_factor: float = MOVED_FACTOR,
) -> Refreshed:
    """The old offers with those of the clouds read anew; never raises for a cloud that can't be read."""
    rows: dict[Key, Offer] = {_key(offer): offer for offer in old}
    before = dict(rows)
    failed: dict[str, str] = {}
    skipped: dict[str, tuple[str, ...]] = {}
    updated = 0
    for cloud in clouds:
        try:
            prices = _client(cloud)([o for o in old if o.cloud == cloud], regions=regions, today=today)
        except RefreshError as error:
            failed[cloud] = str(error)
            continue
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # a document of another form than documented
            failed[cloud] = f"its answer is not of the documented form ({type(error).__name__}: {error})"
            continue
        try:
            updated += _merge(rows, cloud, prices)
        except RefreshError as error:
            failed[cloud] = str(error)
            continue
        skipped[cloud] = prices.skipped
    after = sorted(rows.values(), key=_key)
    return Refreshed(
        offers=tuple(after),
        added=tuple(offer for offer in after if _key(offer) not in before),
        removed=tuple(offer for key, offer in sorted(before.items()) if key not in rows),
        moved=tuple(_moved(before, after, moved_factor)),
        updated=updated,
        failed=failed,
        skipped=skipped,
    )


def _client(cloud: str) -> Callable[..., CloudPrices]:
    """A cloud's client, imported only when it is used: boto3 takes a quarter of a second."""
    if cloud == "aws":
        from planner.catalog.refresh import aws

        return aws.fetch
    if cloud == "gcp":
        from planner.catalog.refresh import gcp

        return gcp.fetch
    from planner.catalog.refresh import azure

    return azure.fetch


def _merge(rows: dict[Key, Offer], cloud: str, prices: CloudPrices) -> int:
    """Put a cloud's offers over the old rows; those asked for and not found are sold no more.

    Raises:
        RefreshError: most of what was asked for is not there, which an answer cut short explains better.
    """
    found = {_key(offer): offer for offer in prices.offers}
    gone = {(cloud, *key) for key in prices.asked if (cloud, *key) not in found}
    if len(gone) > len(prices.asked) * MOST_GONE:
        raise RefreshError(
            f"its answer lacks {len(gone)} of the {len(prices.asked)} offers that were asked for, so it is taken for "
            "incomplete; try again, or remove rows by hand if they are sold no more"
        )
    for key in gone:
        rows.pop(key, None)
    updated = sum(1 for key in found if key in rows)
    rows.update(found)
    return updated


def _moved(before: Mapping[Key, Offer], after: Iterable[Offer], factor: float) -> Iterable[Moved]:
    for offer in after:
        old = before.get(_key(offer))
        if old is None:
            continue
        for model, was, now in (
            ("on demand", old.price_usd_per_hour, offer.price_usd_per_hour),
            ("spot", old.spot_price_usd_per_hour, offer.spot_price_usd_per_hour),
        ):
            if was and now and max(was / now, now / was) > factor:
                yield Moved(offer, model, was, now)


def _key(offer: Offer) -> Key:
    return offer.cloud, offer.region, offer.instance_type
