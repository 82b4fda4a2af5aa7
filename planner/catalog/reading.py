"""Reading catalog files: fast for the shipped ones, which the tests check, and checked for those that a user gives.

A file is refused as a whole, in one sentence that names file, row, field and what was expected there.
"""

from __future__ import annotations

import csv
import datetime
import functools
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from planner.catalog.catalog import Catalog, Row, near
from planner.catalog.model import Accelerator, CatalogError, Offer, ServicePrice, TpuTopology

SHIPPED = Path(__file__).parent / "data"
CLOUDS = ("aws", "azure", "gcp")
KINDS = ("gpu", "tpu", "neuron", "asic", "fpga")
ARCHITECTURES = ("x86_64", "arm64")
UNITS = ("hour", "month", "gib_month", "gb")
CONFIDENCES = (
    "vendor-doc",
    "vendor-code",
    "price-api",
    "code-table",
    "secondary",
    "stand-in",
    "general-knowledge",
    "identity-only",
)

MAX_PRICE_USD_PER_HOUR = 100_000.0
MAX_COUNT = 100_000.0
MAX_GIB = 1_000_000.0
MAX_TFLOPS = 1_000_000.0
"""Beyond these a figure is a wrong unit, not a machine: the largest slices (8,960 chips) stay below."""
SMALLEST = 1e-10
"""Of the largest: what is below that share is a wrong unit as well."""
USD_PER_ACCELERATOR_HOUR, USD_PER_VCPU_HOUR = 200.0, 1.0
"""No cloud asks for so much (2026: 54 for a GB200, 0.09 for a vCPU); a price by month is 730 times one by hour."""
MEMORY_TOLERANCE = 1.05
"""Clouds round the memory of a card up or down; a wrong unit or variant is off by more."""

OFFERS, ACCELERATORS, SERVICES, TOPOLOGIES = "offers.csv", "accelerators.csv", "services.csv", "tpu_topologies.csv"
OFFER_COLUMNS = tuple(field.name for field in fields(Offer))

_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_DATE = re.compile(r"20[0-9]{2}(-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01]))?)?", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*", re.ASCII)
_TOPOLOGY = re.compile(r"[1-9][0-9]{0,2}(x[1-9][0-9]{0,2}){1,2}", re.ASCII)
_OLD_NAMES = {"price_usd_hour": "price_usd_per_hour", "spot_price_usd_hour": "spot_price_usd_per_hour"}


@functools.cache
def load(path: str | os.PathLike[str] | None = None) -> Catalog:
    """The catalog that ships with Fusion, or the one in a user's folder or ``offers.csv``.

    A folder may hold any of ``offers.csv``, ``accelerators.csv``, ``services.csv`` and ``tpu_topologies.csv``; the
    shipped ones stand in for what it lacks, and the shipped chips are there beside those of its ``accelerators.csv``,
    which come first. Those of a user are checked in full. Each path is read once.

    Raises:
        CatalogError: a file can't be read, or holds something impossible; names file, row and field.
    """
    if path is None:
        return _load_shipped()
    return check(Path(path))


def check(path: Path = SHIPPED) -> Catalog:
    """Read a catalog with every check; raises as `load`."""
    folder, offers_path = _places(path)
    accelerators = _accelerators(_or_shipped(folder, ACCELERATORS), checked=True)
    if (folder / ACCELERATORS).resolve() != SHIPPED / ACCELERATORS:
        accelerators = {**_accelerators(SHIPPED / ACCELERATORS, checked=False), **accelerators}
    services = _services(_or_shipped(folder, SERVICES), checked=True)
    topologies = list(_topologies(_or_shipped(folder, TOPOLOGIES), accelerators, checked=True))
    return Catalog(checked_offers(offers_path, accelerators), accelerators, services, topologies)


def _load_shipped() -> Catalog:
    rows = _read(SHIPPED / OFFERS, OFFER_COLUMNS)
    accelerators = _accelerators(SHIPPED / ACCELERATORS, checked=False)
    services = _services(SHIPPED / SERVICES, checked=False)
    topologies = _topologies(SHIPPED / TOPOLOGIES, accelerators, checked=False)
    return Catalog.of_rows(rows, _offer, accelerators, services, topologies)


def _places(path: Path) -> tuple[Path, Path]:
    if path.is_dir():
        if not any((path / name).exists() for name in (OFFERS, ACCELERATORS, SERVICES, TOPOLOGIES)):
            raise CatalogError(f"{path}: holds none of {OFFERS}, {ACCELERATORS}, {SERVICES} and {TOPOLOGIES}")
        return path, _or_shipped(path, OFFERS)
    if not path.exists():
        raise CatalogError(f"{path}: there is no such file or folder; give a folder with {OFFERS}, or such a file")
    return SHIPPED, path


def _or_shipped(folder: Path, name: str) -> Path:
    return folder / name if (folder / name).exists() else SHIPPED / name


def _read(path: Path, columns: Sequence[str]) -> list[Row]:
    """The rows of a CSV file whose first line is exactly these columns.

    Raises:
        CatalogError: the file can't be read, has other columns, or a row has too few or too many cells.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            rows: list[Row] = list(reader)
    except OSError as error:
        raise CatalogError(f"{path}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise CatalogError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8 CSV") from None
    except csv.Error as error:
        raise CatalogError(f"{path}: is not CSV: {error}; quote cells that hold commas, quotes or line ends") from None
    if tuple(header) != tuple(columns):
        raise CatalogError(f"{path}: row 1: {_header_problem(header, columns)}")
    return rows


def _header_problem(header: Sequence[str], columns: Sequence[str]) -> str:
    for name in header:
        if name in _OLD_NAMES:
            return f"column {name!r} is now named {_OLD_NAMES[name]!r}"
    missing = [name for name in columns if name not in header]
    if missing:
        return f"column {missing[0]!r} is missing; the columns are {','.join(columns)}"
    unknown = [name for name in header if name not in columns]
    if unknown:
        return f"column {unknown[0][:40]!r} is not known; the columns are {','.join(columns)}"
    return f"the columns must be in this order, each once: {','.join(columns)}"


def _number(cell: str) -> float | None:
    return float(cell) if cell else None


def _offer(row: Row) -> Offer:
    """An offer of a row that is known to be right."""
    cloud, region, zone, instance_type, accelerator, count, accelerator_gib, vcpus, gib, usd, spot_usd, bucket = row[
        :12
    ]
    return Offer(
        cloud,
        region,
        zone or None,
        instance_type,
        accelerator or None,
        float(count),
        _number(accelerator_gib),
        float(vcpus),
        float(gib),
        _number(usd),
        _number(spot_usd),
        bucket or None,
        *row[12:],
    )


class _Cells:
    """The cells of one row by column, each read with its check; an error names file, row and field."""

    def __init__(self, path: Path, number: int, columns: Sequence[str], row: Row) -> None:
        self.path, self.number = path, number
        if len(row) != len(columns):
            raise CatalogError(f"{path}: row {number}: has {len(row)} cells, the header has {len(columns)}")
        self.cells = dict(zip(columns, row, strict=True))

    def refuse(self, field: str, problem: str) -> CatalogError:
        return CatalogError(f"{self.path}: row {self.number}: {field} is {self.cells[field][:60]!r}, {problem}")

    def one_of(self, field: str, known: Iterable[str]) -> str:
        value = self.cells[field]
        if value not in known:
            raise self.refuse(field, f"which is not known{near(value, tuple(known))}")
        return value

    def matching(self, field: str, pattern: re.Pattern[str], expected: str) -> str:
        if not pattern.fullmatch(self.cells[field]):
            raise self.refuse(field, f"expected {expected}")
        return self.cells[field]

    def number_or_none(self, field: str, most: float, unit: str) -> float | None:
        cell = self.cells[field]
        if not cell:
            return None
        if not _NUMBER.fullmatch(cell):
            raise self.refuse(field, f"expected a positive number of {unit} without its unit, such as 12.5, or nothing")
        value = float(cell)
        if not most * SMALLEST <= value <= most:
            raise self.refuse(field, f"expected at least {most * SMALLEST:g} and at most {most:,.0f} {unit}")
        return value

    def number_of(self, field: str, most: float, unit: str) -> float:
        value = self.number_or_none(field, most, unit)
        if value is None:
            raise self.refuse(field, f"expected a number of {unit}")
        return value

    def sourced(self, value: object, source: str, as_of: str) -> None:
        """A figure must say where it is from and of when."""
        if value is None:
            return
        if not self.cells[source].strip():
            raise self.refuse(source, "expected where the figure comes from")
        self.date(as_of)

    def date(self, field: str) -> None:
        """A year, month or day that there is."""
        expected = "a date such as 2026, 2026-07 or 2026-07-20"
        day = f"{self.matching(field, _DATE, expected)}-01-01"[:10]
        try:
            datetime.date.fromisoformat(day)
        except ValueError:
            raise self.refuse(field, f"expected {expected}") from None


def checked_offers(path: Path, accelerators: Mapping[str, Accelerator]) -> list[Offer]:
    """The offers of a file, each row checked, none twice.

    Raises:
        CatalogError: names file, row and field.
    """
    seen: dict[tuple[str, str, str, str], int] = {}
    offers = []
    for number, row in enumerate(_read(path, OFFER_COLUMNS), start=2):
        offer = _checked_offer(_Cells(path, number, OFFER_COLUMNS, row), accelerators)
        key = (offer.cloud, offer.region, offer.zone or "", offer.instance_type)
        if key in seen:
            where = " ".join(part for part in key if part)
            raise CatalogError(f"{path}: row {number}: {where} is in row {seen[key]} already; keep one of them")
        seen[key] = number
        offers.append(offer)
    if not offers:
        raise CatalogError(f"{path}: has no rows; a catalog needs at least one offer")
    return offers


def _checked_offer(cells: _Cells, accelerators: Mapping[str, Accelerator]) -> Offer:
    cells.one_of("cloud", CLOUDS)
    for field, example in (("region", "us-east-1"), ("instance_type", "p5.48xlarge")):
        cells.matching(field, _NAME, f"a name such as {example}")
    cells.one_of("architecture", ARCHITECTURES)
    cells.number_of("vcpus", MAX_COUNT, "vCPUs")
    cells.number_of("memory_gib", MAX_GIB, "GiB")
    _check_accelerator(cells, accelerators)
    usd = cells.number_or_none("price_usd_per_hour", MAX_PRICE_USD_PER_HOUR, "USD by hour")
    spot_usd = cells.number_or_none("spot_price_usd_per_hour", MAX_PRICE_USD_PER_HOUR, "USD by hour")
    for field, price in (("price_usd_per_hour", usd), ("spot_price_usd_per_hour", spot_usd)):
        if price is not None and price > _dearest(cells):
            raise cells.refuse(
                field,
                f"expected at most {USD_PER_ACCELERATOR_HOUR:g} USD an accelerator and {USD_PER_VCPU_HOUR:g} a vCPU: "
                "is it a price by month, or in another currency?",
            )
    if usd is not None and spot_usd is not None and spot_usd > usd:
        raise cells.refuse("spot_price_usd_per_hour", f"more than the on-demand price of {usd:g}; one of them is wrong")
    if cells.cells["spot_interruption_bucket"]:
        cells.one_of("spot_interruption_bucket", ("<5%", "5-10%", "10-15%", "15-20%", ">20%"))
    cells.sourced(usd, "price_source", "price_as_of")
    cells.sourced(spot_usd, "spot_source", "spot_as_of")
    return _offer(tuple(cells.cells.values()))


def _dearest(cells: _Cells) -> float:
    """USD by hour that no offer of this size can cost."""
    count = math.ceil(float(cells.cells["accelerator_count"]))
    return count * USD_PER_ACCELERATOR_HOUR + float(cells.cells["vcpus"]) * USD_PER_VCPU_HOUR


def _check_accelerator(cells: _Cells, accelerators: Mapping[str, Accelerator]) -> None:
    if not cells.cells["accelerator"]:
        if cells.cells["accelerator_count"] != "0":
            raise cells.refuse("accelerator_count", "expected 0 where no accelerator is named")
        if cells.cells["accelerator_memory_gib"]:
            raise cells.refuse("accelerator_memory_gib", "expected nothing where no accelerator is named")
        return
    chip = accelerators[cells.one_of("accelerator", accelerators)]
    count = cells.number_of("accelerator_count", MAX_COUNT, "accelerators")
    if count > 1 and not count.is_integer():
        raise cells.refuse("accelerator_count", "expected a whole number, or a part of one accelerator below 1")
    gib = cells.number_or_none("accelerator_memory_gib", MAX_GIB, "GiB")
    if gib is None or chip.memory_gib is None:
        return
    usable_gib = chip.memory_gib * min(count, 1.0)
    if gib > usable_gib * MEMORY_TOLERANCE:
        raise cells.refuse(
            "accelerator_memory_gib",
            f"more than the {usable_gib:g} GiB of {count:g} {chip.name}: a wrong unit or variant?",
        )


_TEXTS = ("name", "vendor", "kind", "interconnect", "source", "as_of", "confidence", "note")


def _accelerators(path: Path, *, checked: bool) -> dict[str, Accelerator]:
    columns = tuple(field.name for field in fields(Accelerator))
    found: dict[str, Accelerator] = {}
    for number, row in enumerate(_read(path, columns), start=2):
        if checked:
            _check_chip(_Cells(path, number, columns, row), found)
        named = zip(columns, row, strict=True)
        values: list[Any] = [cell if column in _TEXTS else _number(cell) for column, cell in named]
        found[row[0]] = Accelerator(*values)  # the columns are the fields, in their order
    return found


def _check_chip(cells: _Cells, known: Mapping[str, Accelerator]) -> None:
    if cells.matching("name", _NAME, "a name such as H100") in known:
        raise cells.refuse("name", "which another row has already; keep one of them")
    cells.one_of("kind", KINDS)
    cells.one_of("confidence", CONFIDENCES)
    cells.sourced(cells.cells["name"], "source", "as_of")
    for field in cells.cells:
        if field not in _TEXTS:
            cells.number_or_none(field, MAX_TFLOPS, "the unit in the column's name")
    bf16, fp8 = (cells.number_or_none(name, MAX_TFLOPS, "TFLOPS") for name in ("bf16_tflops", "fp8_tflops"))
    if bf16 is not None and fp8 is not None and not bf16 <= fp8 <= 4 * bf16:
        raise cells.refuse("fp8_tflops", f"expected 1 to 4 times the bf16 peak of {bf16:g}: is one with sparsity?")


def _services(path: Path, *, checked: bool) -> list[ServicePrice]:
    columns = tuple(field.name for field in fields(ServicePrice))
    found: dict[tuple[str, ...], ServicePrice] = {}
    for number, row in enumerate(_read(path, columns), start=2):
        if checked:
            _check_service(_Cells(path, number, columns, row), found)
        cloud, region, service, unit, usd, *rest = row
        found[cloud, region, service] = ServicePrice(cloud, region, service, unit, float(usd), *rest)
    return list(found.values())


def _check_service(cells: _Cells, known: Mapping[tuple[str, ...], ServicePrice]) -> None:
    cells.one_of("cloud", CLOUDS)
    if cells.cells["region"] != "*":
        cells.matching("region", _NAME, "a region or *")
    cells.matching("service", _NAME, "a name such as nat_gateway")
    cells.one_of("unit", UNITS)
    cells.one_of("confidence", CONFIDENCES)
    cells.sourced(cells.number_of("price_usd", MAX_PRICE_USD_PER_HOUR, "USD"), "source", "as_of")
    key = (cells.cells["cloud"], cells.cells["region"], cells.cells["service"])
    if key in known:
        raise cells.refuse("service", f"which {key[0]} {key[1]} has in another row already; keep one of them")


def _topologies(path: Path, accelerators: Mapping[str, Accelerator], *, checked: bool) -> Iterator[TpuTopology]:
    """Reads when the first one is asked for: few plans need them."""
    columns = tuple(field.name for field in fields(TpuTopology))
    for number, row in enumerate(_read(path, columns), start=2):
        if checked:
            _check_topology(_Cells(path, number, columns, row), accelerators)
        accelerator, topology, chips, hosts, *rest = row
        yield TpuTopology(accelerator, topology, int(chips), int(hosts), *rest)


def _check_topology(cells: _Cells, accelerators: Mapping[str, Accelerator]) -> None:
    cells.one_of("accelerator", [name for name, chip in accelerators.items() if chip.kind == "tpu"])
    product = 1
    for side in cells.matching("topology", _TOPOLOGY, "chips by axis, such as 2x2x4").split("x"):
        product *= int(side)
    for field in ("chips", "hosts"):
        cells.matching(field, re.compile("[1-9][0-9]{0,5}"), "a whole number of at least 1")
    if int(cells.cells["chips"]) != product:
        raise cells.refuse("chips", f"expected {product}, the product of {cells.cells['topology']}")
    if product % int(cells.cells["hosts"]):
        raise cells.refuse("hosts", f"expected a divisor of its {product} chips")
    cells.matching("machine_type", _NAME, "a machine type such as ct5p-hightpu-4t")
    cells.sourced(cells.cells["chips"], "source", "as_of")
