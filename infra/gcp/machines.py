"""From an offer of the catalog to what GKE makes of it: machine type, GPUs beside it, or a slice of TPUs.

What Google documents about machine types and the catalog does not hold is in `machine_rules.csv`, with the page that
says it and the year of what is known of it; where a page was read again, its source says when.
"""

from __future__ import annotations

import csv
import functools
import re
from dataclasses import dataclass
from pathlib import Path

from infra.errors import ArgumentError, require
from planner.catalog import Offer, TpuTopology, load
from planner.catalog.instances import gcp_accelerators

TABLE = Path(__file__).with_name("machine_rules.csv")
WITH_GPUS = re.compile(r"(?P<machine>n1-[a-z]+-(?P<vcpus>\d+))\+(?P<gpu>[^x]+)x(?P<count>\d+)")
SLICE = re.compile(r"tpu-(?P<generation>[a-z0-9]+)-(?P<chips>\d+)chip")
GPUS_OF_MACHINE = re.compile(r"-(\d+)g$")
BALANCED = "pd-balanced"
DISK_SERVICES = {BALANCED: "block_storage_gib", "hyperdisk-balanced": "block_storage_hyperdisk_gib"}
"""What the catalog calls the price of each type of boot disk that is used."""


@dataclass(frozen=True, slots=True)
class MachineRule:
    """One row of `machine_rules.csv`.

    Attributes:
        family: a machine type whose last part is one of several, such as `g2-standard-4|8`; `n1` for all of N1.
        guest_accelerator: what GKE calls its GPU; empty for TPUs.
        gpus: how many are attached; 0 where the machine type says.
        vcpus_max: of a machine with so many GPUs attached; 0 where the machine type says.
        disk_type: of the boot disk.
        compact: whether GKE takes a compact placement policy for it.
        spot_only: not sold on demand.
        flex_start: sold as that.
        gpudirect: how its GPUs send to those of other nodes, past the CPU: `TCPX`, `TCPXO` or `RDMA`; empty where they
            can't.
    """

    family: str
    guest_accelerator: str
    gpus: int
    vcpus_max: int
    disk_type: str
    compact: bool
    spot_only: bool
    flex_start: bool
    gpudirect: str

    @property
    def machine_types(self) -> tuple[str, ...]:
        """All that the row is about."""
        stem, _, sizes = self.family.rpartition("-")
        return tuple(f"{stem}-{size}" for size in sizes.split("|"))


@dataclass(frozen=True, slots=True)
class Machine:
    """What a node of an offer is on GKE.

    Attributes:
        machine_type: in `node_config`.
        guest_accelerator: name of its GPU; None for CPUs and TPUs.
        gpus: of a node.
        slice: the slice of TPUs that a unit of the pool is; None for all others.
        rule: its row; None for a CPU machine.
    """

    machine_type: str
    guest_accelerator: str | None = None
    gpus: int = 0
    slice: TpuTopology | None = None
    rule: MachineRule | None = None

    @property
    def hosts(self) -> int:
        """Nodes that are made and removed together."""
        return self.slice.hosts if self.slice else 1

    @property
    def disk_type(self) -> str:
        """Of the boot disk."""
        return self.rule.disk_type if self.rule else BALANCED


def machine_of(instance_type: str, accelerator: str | None, accelerator_count: float) -> Machine:
    """The nodes of an offer.

    Raises:
        ArgumentError: GKE is not documented to make such nodes; names the offer and a way out.
    """
    if instance_type.startswith("tpu-"):
        return _slice(instance_type, accelerator)
    if "+" in instance_type:
        return _attached(instance_type, accelerator)
    rule = next((each for each in rules() if instance_type in each.machine_types), None)
    if rule is None:
        require(
            accelerator is None,
            f"instance_type {instance_type}: no node of GKE with {accelerator} is documented; choose an offer of "
            f"{TABLE.name}, such as g2-standard-8.",
        )
        return Machine(instance_type)
    accelerators = gcp_accelerators()
    named = accelerators[rule.guest_accelerator].accelerator if rule.guest_accelerator else None
    require(
        named is not None and named == accelerator,
        f"instance_type {instance_type} has {named or 'TPUs'}, but accelerator is {accelerator}; take instance_type "
        "and accelerator from the same offer.",
    )
    found = GPUS_OF_MACHINE.search(instance_type)
    gpus = int(found[1]) if found else int(accelerator_count)
    require(
        gpus == accelerator_count,
        f"instance_type {instance_type} has {gpus} {accelerator}, but accelerator_count is {accelerator_count:g}; "
        "take both from the same offer.",
    )
    return Machine(instance_type, rule.guest_accelerator, gpus, rule=rule)


def can_build(offer: Offer) -> bool:
    """Whether GKE is documented to make nodes of an offer."""
    try:
        machine_of(offer.instance_type, offer.accelerator, offer.accelerator_count)
    except ArgumentError:
        return False
    return True


def hosts_of(offer: Offer) -> int:
    """Machines that come and go as one node of an offer."""
    return machine_of(offer.instance_type, offer.accelerator, offer.accelerator_count).hosts


def disk_service(offer: Offer) -> str:
    """What the boot disk of a node of an offer is billed as."""
    return DISK_SERVICES[machine_of(offer.instance_type, offer.accelerator, offer.accelerator_count).disk_type]


@functools.cache
def rules() -> tuple[MachineRule, ...]:
    """The rows of the table."""
    with TABLE.open(encoding="utf-8", newline="") as lines:
        return tuple(
            MachineRule(
                family=row["family"],
                guest_accelerator=row["guest_accelerator"],
                gpus=int(row["gpus"] or 0),
                vcpus_max=int(row["vcpus_max"] or 0),
                disk_type=row["disk_type"],
                compact=row["compact"] == "yes",
                spot_only=row["spot_only"] == "yes",
                flex_start=row["flex_start"] == "yes",
                gpudirect=row["gpudirect"],
            )
            for row in csv.DictReader(lines)
        )


def _attached(instance_type: str, accelerator: str | None) -> Machine:
    """A machine of N1 with GPUs beside it."""
    asked = WITH_GPUS.fullmatch(instance_type)
    if asked is None or asked["gpu"] != accelerator:
        raise ArgumentError(
            f"instance_type {instance_type} with accelerator {accelerator} is no machine with GPUs; expected such as "
            "n1-standard-8+T4x1 with accelerator T4."
        )
    gpus, vcpus = int(asked["count"]), int(asked["vcpus"])
    attachable = [
        each
        for each in rules()
        if each.family == "n1" and gcp_accelerators()[each.guest_accelerator].accelerator == accelerator
    ]
    rule = next((each for each in attachable if each.gpus == gpus), None)
    if rule is None:
        counts = ", ".join(str(each.gpus) for each in attachable) or "none"
        raise ArgumentError(
            f"instance_type {instance_type}: {gpus} {accelerator} can't be attached to a machine of N1; possible "
            f"numbers: {counts}."
        )
    require(
        vcpus <= rule.vcpus_max,
        f"instance_type {instance_type}: with {gpus} {accelerator} a machine of N1 has at most {rule.vcpus_max} "
        f"vCPUs, and it has {vcpus}; attach more, or take a smaller machine.",
    )
    return Machine(asked["machine"], rule.guest_accelerator, gpus, rule=rule)


def _slice(instance_type: str, accelerator: str | None) -> Machine:
    """The slice with the fewest hosts, and of those the most cubical one: its chips are the fewest hops apart."""
    asked = SLICE.fullmatch(instance_type)
    if asked is None or accelerator != f"TPU{asked['generation']}":
        raise ArgumentError(
            f"instance_type {instance_type} with accelerator {accelerator} is no slice of TPUs; expected such as "
            "tpu-v5e-16chip with accelerator TPUv5e."
        )
    known = load().topologies(accelerator, int(asked["chips"]))
    if not known:
        raise ArgumentError(
            f"instance_type {instance_type}: GKE is not documented to make slices of {asked['chips']} {accelerator}; "
            "run `fusion offers --cloud gcp` for those that are sold."
        )
    chosen = min(known, key=lambda each: (each.hosts, max(int(side) for side in each.topology.split("x"))))
    rule = next(each for each in rules() if chosen.machine_type in each.machine_types)
    return Machine(chosen.machine_type, slice=chosen, rule=rule)
