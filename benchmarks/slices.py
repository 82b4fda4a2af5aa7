"""Measurements that are made a slice at a time, on a machine that is still for some minutes only, and read as one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def rounds_of(found: Mapping[str, Sequence[Any]]) -> str:
    """How many rounds there are, of each number that a contender has."""
    return " and ".join(sorted({str(len(rounds)) for rounds in found.values()}))


def added(file: Path | None, rounds: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """What a file held of earlier slices, each contender's rounds, with those of this one; the file then holds both."""
    held: dict[str, list[Any]] = json.loads(file.read_text()) if file and file.exists() else {}
    for name, more in rounds.items():
        held[name] = [*held.get(name, []), *more]
    if file:
        file.write_text(json.dumps(held, indent=2))
    return {name: rows for name, rows in held.items() if rows}
