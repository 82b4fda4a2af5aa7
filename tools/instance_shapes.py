"""Adds to `infra/aws/instance_shapes.csv` the instance types without accelerators that the catalog has and the table
lacks: `python tools/instance_shapes.py`.

Cards, interfaces, EFA, placement: EC2's DescribeInstanceTypes, asked of moto, which keeps AWS's answer. Types with
accelerators are added by hand: which image drives them is only in the EKS guide.
"""

from __future__ import annotations

import csv
import datetime
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import boto3
from moto import mock_aws

from infra.aws.instance_shapes import TABLE, instance_shapes
from planner.catalog import load

IMAGES = {"x86_64": "AL2023_x86_64_STANDARD", "arm64": "AL2023_ARM_64_STANDARD"}


def main() -> None:
    """Add the rows that are missing, sorted by instance type."""
    offered = {offer.instance_type for offer in load().find(cloud="aws") if offer.accelerator is None}
    missing = sorted(offered - instance_shapes().keys())
    with TABLE.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    added = [row(found) for found in described(missing)]
    with Path(TABLE).open("w", newline="") as lines:
        writer = csv.DictWriter(lines, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted([*rows, *added], key=lambda each: each["instance_type"]))
    sys.stdout.write(f"{len(added)} of {len(missing)} missing instance types added\n")


def described(instance_types: list[str]) -> list[dict[str, Any]]:
    """What EC2 says of them; those that it does not know are left out."""
    with mock_aws():
        ec2 = boto3.client("ec2", region_name="us-east-1", aws_access_key_id="-", aws_secret_access_key="-")
        pages = ec2.get_paginator("describe_instance_types").paginate()
        found: dict[str, Any] = {each["InstanceType"]: each for page in pages for each in page["InstanceTypes"]}
    return [found[name] for name in instance_types if name in found]


def row(found: dict[str, Any]) -> dict[str, Any]:
    """One row of the table."""
    network, architectures = found["NetworkInfo"], found["ProcessorInfo"]["SupportedArchitectures"]
    architecture = "arm64" if "arm64" in architectures else "x86_64"
    return {
        "instance_type": found["InstanceType"],
        "architecture": architecture,
        "accelerator_vendor": "none",
        "ami_type": IMAGES[architecture],
        "network_cards": network["MaximumNetworkCards"],
        "network_interfaces_max": network["MaximumNetworkInterfaces"],
        "efa_interfaces_max": network.get("EfaInfo", {}).get("MaximumEfaInterfaces", 0),
        "cluster_placement_group": str("cluster" in found["PlacementGroupInfo"]["SupportedStrategies"]).lower(),
        "capacity_block": str("capacity-block" in found["SupportedUsageClasses"]).lower(),
        "source": f"EC2 DescribeInstanceTypes as kept by moto {version('moto')}",
        "as_of": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


if __name__ == "__main__":
    main()
