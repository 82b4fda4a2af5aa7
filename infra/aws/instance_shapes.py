"""What AWS documents about instance types and the catalog of offers does not hold: network cards, EFA, images."""

from __future__ import annotations

import csv
import difflib
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.errors import ArgumentError

TABLE = Path(__file__).with_suffix(".csv")


@dataclass(frozen=True, slots=True)
class InstanceShape:
    """One row of `instance_shapes.csv`, which gives source and date of each.

    Attributes:
        instance_type: such as `p5.48xlarge`.
        architecture: `x86_64` or `arm64`.
        accelerator_vendor: `nvidia`, `neuron`, `fpga` or `none`.
        ami_type: the EKS image with its drivers; empty where AWS documents none.
        network_cards: physical cards, each with its own bandwidth.
        network_interfaces_max: on all cards together.
        efa_interfaces_max: 0 where EFA is not supported; at most one a card.
        cluster_placement_group: whether it may be in one.
        capacity_block: whether it is sold as Capacity Blocks.
    """

    instance_type: str
    architecture: str
    accelerator_vendor: str
    ami_type: str
    network_cards: int
    network_interfaces_max: int
    efa_interfaces_max: int
    cluster_placement_group: bool
    capacity_block: bool


def shape_of(instance_type: str) -> InstanceShape:
    """Look an instance type up.

    Raises:
        ArgumentError: it is not in the table; names the nearest that are.
    """
    shapes = instance_shapes()
    if instance_type in shapes:
        return shapes[instance_type]
    family = instance_type.partition(".")[0]
    near = [known for known in shapes if known.partition(".")[0] == family]
    near = near or difflib.get_close_matches(instance_type, shapes, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near[:3])}?" if near else f"add its row to {TABLE.name}, with the source."
    raise ArgumentError(f"instance_type {instance_type!r} is unknown on AWS; {hint}")


def can_build(instance_type: str) -> bool:
    """Whether an EKS image is documented to drive it."""
    shape = instance_shapes().get(instance_type)
    return shape is not None and bool(shape.ami_type)


@functools.cache
def instance_shapes() -> Mapping[str, InstanceShape]:
    """All rows by instance type."""
    with TABLE.open(newline="") as lines:
        return {row["instance_type"]: _shape(row) for row in csv.DictReader(lines)}


def _shape(row: Mapping[str, str]) -> InstanceShape:
    return InstanceShape(
        instance_type=row["instance_type"],
        architecture=row["architecture"],
        accelerator_vendor=row["accelerator_vendor"],
        ami_type=row["ami_type"],
        network_cards=int(row["network_cards"]),
        network_interfaces_max=int(row["network_interfaces_max"]),
        efa_interfaces_max=int(row["efa_interfaces_max"]),
        cluster_placement_group=row["cluster_placement_group"] == "true",
        capacity_block=row["capacity_block"] == "true",
    )
