"""Writes AWS's part of `planner/catalog/data/instance_families.csv`, every instance type that the EC2 API names:
`python tools/instance_families.py`. The rows of other clouds are kept as they are.
"""

from __future__ import annotations

import csv
import datetime
from importlib.metadata import version

import botocore.session

from planner.catalog.instances import FAMILIES, table


def main() -> None:
    """Take the names of the EC2 API's own model, as botocore ships it."""
    model = botocore.session.get_session().get_service_model("ec2")
    families: dict[str, list[str]] = {}
    for name in model.shape_for("InstanceType").enum:
        family, _, size = name.partition(".")
        families.setdefault(family, []).append(size)
    source, today = f"EC2 API model, enumeration InstanceType, botocore {version('botocore')}", datetime.date.today()
    others = [row for row in table(FAMILIES) if row["cloud"] != "aws"]
    aws = [
        {"cloud": "aws", "family": family, "sizes": " ".join(sorted(sizes)), "source": source, "as_of": str(today)}
        for family, sizes in sorted(families.items())
    ]
    with FAMILIES.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, ("cloud", "family", "sizes", "source", "as_of"), lineterminator="\n")
        writer.writeheader()
        writer.writerows([*aws, *others])


if __name__ == "__main__":
    main()
