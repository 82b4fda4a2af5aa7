"""`fusion catalog`: check the catalog's files, and rebuild the offers from the clouds' price lists."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fusion.errors import FusionError
from planner.catalog import Catalog, CatalogError
from planner.catalog.reading import CLOUDS, OFFERS, SHIPPED, check

if TYPE_CHECKING:
    from planner.catalog.refresh import Refreshed

SHOWN = 15


@click.group(name="catalog")
def command() -> None:
    """Check and refresh the catalog of offers."""


@command.command(name="check")
@click.argument("path", required=False, type=click.Path(path_type=Path))
def check_command(path: Path | None) -> None:
    """Check every row of the shipped catalog, or of a folder or an offers.csv."""
    catalog = _checked(path or SHIPPED)
    stand_ins = sum(1 for price in catalog.services.values() if price.region == "*")
    click.echo(
        f"{len(catalog.offers)} offers, {len(catalog.accelerators)} accelerators, {len(catalog.services)} prices of "
        f"services ({stand_ins} stand in for regions without one), {len(catalog.tpu_topologies)} TPU slices: all right"
    )


@command.command(name="refresh")
@click.option("--cloud", "clouds", multiple=True, help="aws, azure or gcp; may be repeated.  [default: all three]")
@click.option("--region", "regions", multiple=True, help="Only this region; may be repeated.")
@click.option("--into", type=click.Path(path_type=Path, file_okay=False), default=SHIPPED, help="Folder of offers.csv.")
@click.option(
    "--moved-factor",
    type=click.FloatRange(min=1.0),
    default=1.2,
    show_default=True,
    help="Show prices that moved by more.",
)
@click.option("--dry-run", is_flag=True, help="Show what would change, write nothing.")
def refresh_command(
    clouds: Sequence[str], regions: Sequence[str], into: Path, moved_factor: float, dry_run: bool
) -> None:
    """Rebuild the offers from the clouds' own price lists.

    AWS needs credentials that may call pricing:GetProducts, ec2:DescribeInstanceTypes and
    ec2:DescribeSpotPriceHistory; Google Cloud needs FUSION_GCP_API_KEY or application-default credentials; Azure
    needs nothing. A cloud that can't be read keeps all its rows, and the command ends with status 1.
    """
    from planner.catalog.refresh import refresh

    for cloud in clouds:
        if cloud not in CLOUDS:
            raise FusionError(f"--cloud {cloud}: not known; known: {', '.join(CLOUDS)}")
    old = _checked(into)
    done = refresh(old.offers, clouds or CLOUDS, regions=regions, today=_today(), moved_factor=moved_factor)
    _report(done)
    if len(done.failed) < len(set(clouds or CLOUDS)) and not dry_run:
        _write(into, old, done)
        click.echo(f"wrote {len(done.offers)} offers to {into / OFFERS}")
    if done.failed:
        reasons = "; ".join(f"{cloud}: {reason}" for cloud, reason in done.failed.items())
        raise FusionError(f"not refreshed, their rows are as they were: {reasons}")


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()


def _checked(path: Path) -> Catalog:
    try:
        return check(path)
    except CatalogError as error:
        raise FusionError(str(error)) from None


def _write(folder: Path, catalog: Catalog, done: Refreshed) -> None:
    from planner.catalog.writing import replace_offers

    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_offers(folder / OFFERS, done.offers, catalog.accelerators)
    except OSError as error:
        raise FusionError(f"{folder}: can't be written: {error.strerror}; nothing was changed") from None
    except CatalogError as error:
        raise FusionError(f"the clouds' answers make no valid catalog, nothing was changed: {error}") from None


def _report(done: Refreshed) -> None:
    """What changed, one line each, the first few of many."""
    click.echo(
        f"{done.updated} offers priced anew, {len(done.added)} added, {len(done.removed)} removed, "
        f"{len(done.moved)} prices moved"
    )
    _list("added", [f"{o.cloud} {o.region} {o.instance_type}" for o in done.added])
    _list("removed", [f"{o.cloud} {o.region} {o.instance_type}" for o in done.removed])
    largest = sorted(
        done.moved, key=lambda move: -max(move.after_usd / move.before_usd, move.before_usd / move.after_usd)
    )
    _list(
        "moved",
        [
            f"{move.offer.cloud} {move.offer.region} {move.offer.instance_type} {move.price_model}: "
            f"{move.before_usd:g} -> {move.after_usd:g} USD/h ({move.after_usd / move.before_usd - 1:+.0%})"
            for move in largest
        ],
    )
    for cloud, notes in done.skipped.items():
        _list(f"{cloud} note", list(notes))


def _list(name: str, lines: Sequence[str]) -> None:
    for line in lines[:SHOWN]:
        click.echo(f"  {name}: {line}")
    if len(lines) > SHOWN:
        click.echo(f"  {name}: and {len(lines) - SHOWN} more")
