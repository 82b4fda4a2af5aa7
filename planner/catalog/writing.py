"""Writing catalog files in the columns and the notation that are read."""

from __future__ import annotations

import contextlib
import csv
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TextIO

from planner.catalog.model import Accelerator, Offer
from planner.catalog.reading import OFFER_COLUMNS, checked_offers


def write_offers(file: TextIO, offers: Iterable[Offer]) -> None:
    """Offers as CSV, header first; numbers in their shortest notation, nothing for None."""
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(OFFER_COLUMNS)
    rows.writerows([_cell(getattr(offer, column)) for column in OFFER_COLUMNS] for offer in offers)


def replace_offers(path: Path, offers: Iterable[Offer], accelerators: Mapping[str, Accelerator]) -> None:
    """Write a file of offers so that a reader sees the old one or the new one, whole, also after a crash.

    The new one is read back with every check before it takes the old one's place.

    Raises:
        CatalogError: the offers make no valid file; the old file is as it was.
        OSError: the folder can't be written; the old file is as it was.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".new")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            write_offers(file, offers)
            file.flush()
            os.fsync(file.fileno())
        checked_offers(Path(name), accelerators)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else repr(float(value)).removesuffix(".0")
