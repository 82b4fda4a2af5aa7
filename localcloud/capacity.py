"""Capacity that a cloud has left, set by hand: to try what happens where an offer is sold out.

`python -m localcloud.capacity aws:g5.xlarge:us-east-1a 0` leaves no instance of that type in that zone; a region in a
zone's place means all of its zones, `:spot` at the end spot alone; the id of a capacity reservation or Capacity Block
in a type's place means that one. A count of -1 takes the limit away.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from localcloud.server import home

PRICE_MODELS = ("on_demand", "spot")
CLOUDS = ("aws", "gcp")


def _file() -> Path:
    return home() / "capacity.json"


def _limits() -> dict[str, int]:
    try:
        found: dict[str, int] = json.loads(_file().read_text())
    except FileNotFoundError:
        return {}
    return found


def left(cloud: str, instance_type: str, zone: str, price_model: str) -> int | None:
    """How many nodes can still be had; None where nothing limits them."""
    region = re.sub(r"-?[a-z]$", "", zone)
    limits = _limits()
    keys = (f"{cloud}:{instance_type}:{place}{model}" for place in (zone, region) for model in (f":{price_model}", ""))
    return next((limits[key] for key in keys if key in limits), None)


def set_left(key: str, count: int) -> None:
    """Set what is left of `cloud:instance type:zone or region[:price model]`; -1 takes the limit away.

    Raises:
        ValueError: the key is none.
    """
    cloud, *rest = key.split(":")
    if (
        cloud not in CLOUDS
        or len(rest) not in (2, 3)
        or not all(rest)
        or (len(rest) == 3 and rest[2] not in PRICE_MODELS)
    ):
        raise ValueError(f"{key}: expected cloud:instance type:zone or region, such as aws:p5.48xlarge:us-east-1a")
    limits = _limits() | {key: count}
    if count < 0:
        del limits[key]
    home().mkdir(parents=True, exist_ok=True)
    _file().write_text(json.dumps(limits, indent=1, sort_keys=True))


def forget(cloud: str) -> None:
    """Take the limits of one cloud away; those of the other stay."""
    if kept := {key: count for key, count in _limits().items() if not key.startswith(f"{cloud}:")}:
        _file().write_text(json.dumps(kept, indent=1, sort_keys=True))
    else:
        _file().unlink(missing_ok=True)


def main(arguments: list[str]) -> int:
    """Set a limit, or show those that there are."""
    if not arguments:
        sys.stdout.write("".join(f"{key} {count}\n" for key, count in sorted(_limits().items())))
        return 0
    try:
        key, count = arguments
        set_left(key, int(count))
    except ValueError as error:
        sys.stderr.write(f"usage: python -m localcloud.capacity CLOUD:TYPE:ZONE[:PRICE_MODEL] COUNT ({error})\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
