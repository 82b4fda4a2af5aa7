"""What exists in the local Google Cloud: one file of records, changed in whole transactions that no kill leaves half
done.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from localcloud.provider import Properties

PROJECT_NUMBER = "123456789012"


@dataclass(slots=True)
class Record:
    """A resource.

    Attributes:
        inputs: as they were declared, with what the provider's config and Google's defaults fill in.
        assigned: what the server made of it.
        uses: ids of others that can't be deleted while this is there.
        part_of: ids of others that it goes with.
        is_known: whether Pulumi's state is known to have it; else a kill may have come between.
        is_gone: deleted, and its id can't be used again.
        more_urns: others that it was made for as well, where Google gives all of them the same one.
    """

    id: str
    token: str
    urn: str
    inputs: Properties
    assigned: Properties = field(default_factory=dict)
    uses: list[str] = field(default_factory=list)
    part_of: list[str] = field(default_factory=list)
    is_known: bool = False
    is_gone: bool = False
    more_urns: list[str] = field(default_factory=list)


Records = dict[str, Record]


@dataclass(frozen=True, slots=True)
class Inventory:
    """The records in a folder, which is made when something is written."""

    folder: Path

    @property
    def file(self) -> Path:
        """Where they are."""
        return self.folder / "gcp.json"

    def records(self) -> Records:
        """All of them by id, as they are now."""
        try:
            kept = json.loads(self.file.read_text())
        except FileNotFoundError:
            return {}
        return {each["id"]: Record(**each) for each in kept}

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Records]:
        """The records, to be changed: all changes are kept together at the end, and none where an error is raised."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "gcp.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            records = self.records()
            yield records
            written = json.dumps([asdict(each) for each in records.values()], indent=0)
            new = self.file.with_suffix(".new")
            new.write_text(written)
            new.replace(self.file)

    def lines(self) -> list[str]:
        """What is there, one line each; empty when there is nothing."""
        return sorted(f"{each.token.split(':')[1]} {each.id}" for each in self.records().values() if not each.is_gone)

    def forget(self) -> None:
        """Empty it."""
        self.file.unlink(missing_ok=True)
