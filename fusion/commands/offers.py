"""`fusion offers`: what the clouds sell, filtered and sorted, as a table, JSON or CSV."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from fusion.errors import FusionError
from planner.catalog import Catalog, CatalogError, Offer, load
from planner.catalog.catalog import near
from planner.catalog.reading import ARCHITECTURES

ROWS_OF_A_TABLE = 40

SORTS: Mapping[str, Callable[[Offer], Any]] = {
    "price": lambda offer: offer.price_usd_per_hour or math.inf,
    "spot": lambda offer: offer.spot_price_usd_per_hour or math.inf,
    "price-per-accelerator": lambda offer: (offer.price_usd_per_hour or math.inf) / (offer.accelerator_count or 1.0),
    "memory": lambda offer: -offer.memory_gib,
    "accelerator-memory": lambda offer: -(offer.accelerator_memory_gib or 0.0) * offer.accelerator_count,
    "name": lambda offer: (offer.cloud, offer.region, offer.instance_type),
}


class _Number(click.ParamType[float]):
    """A finite number of at least 0, whose error says so."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number, or click's error."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or number < 0:
            self.fail(f"{value!r} is not a number of at least 0, such as 8 or 12.5", param, ctx)
        return number


_NUMBER = _Number()


@click.command(name="offers")
@click.option("--cloud", help="aws, azure or gcp.")
@click.option("--region", help="A cloud's region, such as us-east-1.")
@click.option("--instance-type", help="An instance type, such as p5.48xlarge.")
@click.option("--accelerator", help="A name of accelerators.csv, such as H100; `none` for CPU offers.")
@click.option("--count", type=_NUMBER, help="Exactly so many accelerators.")
@click.option("--min-accelerator-memory", type=_NUMBER, metavar="GIB", help="At least this memory an accelerator.")
@click.option("--min-memory", type=_NUMBER, metavar="GIB", help="At least this host memory.")
@click.option("--min-vcpus", type=_NUMBER, metavar="N", help="At least so many vCPUs.")
@click.option("--architecture", help="Of the host's CPUs: x86_64 or arm64.")
@click.option("--max-price", type=_NUMBER, metavar="USD", help="At most this by hour: on demand, or spot with --spot.")
@click.option("--spot", is_flag=True, help="Only offers with a spot price; sorts and limits by it.")
@click.option("--sort", help=f"One of {', '.join(SORTS)}.  [default: price, or spot with --spot]")
@click.option("--limit", type=click.IntRange(min=1), help=f"At most so many.  [default: {ROWS_OF_A_TABLE} in a table]")
@click.option("--json", "as_json", is_flag=True, help="Every field, as JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Every field, as CSV in the catalog's columns.")
@click.option("--catalog", type=click.Path(path_type=Path), help="A folder with offers.csv, or such a file.")
def command(
    *,
    sort: str | None,
    limit: int | None,
    as_json: bool,
    as_csv: bool,
    catalog: Path | None,
    **filters: Any,
) -> None:
    """List what the clouds sell, with prices by hour."""
    if as_json and as_csv:
        raise FusionError("--json and --csv exclude each other; give one of them")
    try:
        offers = load(catalog)
    except CatalogError as error:
        raise FusionError(str(error)) from None
    _refuse_unknown(offers, filters)
    key = SORTS[_known("--sort", sort or ("spot" if filters["spot"] else "price"), SORTS)]
    found = matching(offers, filters)
    if not found:
        raise FusionError(_nothing(offers, filters))
    found.sort(key=lambda offer: (key(offer), offer.cloud, offer.region, offer.instance_type))
    if as_json:
        _print_json(found[:limit])
    elif as_csv:
        _print_csv(found[:limit])
    else:
        _print_table(found, limit or ROWS_OF_A_TABLE)


def matching(catalog: Catalog, filters: Mapping[str, Any]) -> list[Offer]:
    """The offers that pass the command's filters."""
    cpu_only = filters["accelerator"] == "none"
    found: Iterable[Offer] = catalog.find(
        cloud=filters["cloud"],
        region=filters["region"],
        instance_type=filters["instance_type"],
        accelerator=None if cpu_only else filters["accelerator"],
        min_accelerator_memory_gib=filters["min_accelerator_memory"],
        min_vcpus=filters["min_vcpus"],
        min_memory_gib=filters["min_memory"],
        architecture=filters["architecture"],
        price_model="spot" if filters["spot"] else None,
        max_price_usd_per_hour=filters["max_price"],
    )
    if cpu_only:
        found = (offer for offer in found if offer.accelerator is None)
    if filters["count"] is not None:
        found = (offer for offer in found if math.isclose(offer.accelerator_count, filters["count"], rel_tol=1e-3))
    return list(found)


def _known(option: str, value: str, known: Iterable[str]) -> str:
    names = sorted(known)
    if value not in names:
        raise FusionError(f"{option} {value}: not known{near(value, names)}")
    return value


def _refuse_unknown(catalog: Catalog, filters: Mapping[str, Any]) -> None:
    """Names that the catalog does not have are errors, with the nearest that it has.

    Raises:
        FusionError: names the option.
    """
    cloud = filters["cloud"]
    if cloud is not None:
        _known("--cloud", cloud, {place[0] for place in catalog.places})
    if filters["region"] is not None:
        _known("--region", filters["region"], {place[1] for place in catalog.places if cloud in (None, place[0])})
    if filters["accelerator"] not in (None, "none"):
        _known("--accelerator", filters["accelerator"], catalog.accelerators)
    if filters["architecture"] is not None:
        _known("--architecture", filters["architecture"], ARCHITECTURES)
    if filters["instance_type"] is not None:
        _known("--instance-type", filters["instance_type"], {offer.instance_type for offer in catalog.offers})


def _nothing(catalog: Catalog, filters: Mapping[str, Any]) -> str:
    """Why no offer is left: the options without which there would be some."""
    given = [name for name, value in filters.items() if value is not None and value is not False]
    empty = dict.fromkeys(filters)
    options = {name: f"--{name.replace('_', '-')}" for name in given}
    relaxing = {name: len(matching(catalog, {**filters, name: empty[name]})) for name in given}
    ways = [f"{options[name]} ({count} without it)" for name, count in relaxing.items() if count]
    asked = " ".join(options[name] if filters[name] is True else f"{options[name]} {filters[name]}" for name in given)
    return f"no offer matches {asked}; leave out or relax {' or '.join(ways) or 'more than one of them'}"


def _print_json(offers: Sequence[Offer]) -> None:
    import json

    click.echo(json.dumps([dataclasses.asdict(offer) for offer in offers], indent=2))


def _print_csv(offers: Sequence[Offer]) -> None:
    from planner.catalog.writing import write_offers

    write_offers(sys.stdout, offers)


def _print_table(offers: Sequence[Offer], limit: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("cloud", "region", "instance type", "accelerators"):
        table.add_column(name, no_wrap=True)
    for name in ("vCPUs", "GiB", "USD/h", "spot USD/h"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("price as of", no_wrap=True)
    for offer in offers[:limit]:
        table.add_row(
            offer.cloud,
            offer.region,
            offer.instance_type,
            _accelerators(offer),
            f"{offer.vcpus:g}",
            f"{offer.memory_gib:g}",
            _usd(offer.price_usd_per_hour),
            _usd(offer.spot_price_usd_per_hour),
            offer.price_as_of or offer.spot_as_of,
        )
    wide = None if sys.stdout.isatty() else 200  # a pipe has no width: cut nothing
    console = Console(width=wide, highlight=False)
    console.print(table)
    if len(offers) > limit:
        console.print(f"{limit} of {len(offers)} offers; --limit shows more, --json and --csv show all")


def _accelerators(offer: Offer) -> str:
    if offer.accelerator is None:
        return "-"
    memory = "" if offer.accelerator_memory_gib is None else f" {offer.accelerator_memory_gib:g} GiB"
    return f"{offer.accelerator_count:g} x {offer.accelerator}{memory}"


def _usd(price: float | None) -> str:
    return "-" if price is None else f"{price:,.4f}".rstrip("0").rstrip(".")
