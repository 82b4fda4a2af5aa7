"""How Cloud TPU names its slices, and how the catalog's offers do.

An accelerator type is a generation and a number: `v5litepod-16`. Its API also takes a generation and a topology:
`V5LITE_POD` and `2x4`. An offer of the catalog is `tpu-v5e-16chip`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from planner.catalog.model import TpuTopology

CORES_PER_CHIP = {"v2": 2, "v3": 2, "v4": 2, "v5p": 2, "v5litepod": 1, "v6e": 1}
"""What the number in an accelerator type counts: TensorCores, two a chip, or chips ("TPU versions", Cloud TPU
documentation)."""
GENERATIONS = {"v2": "TPUv2", "v3": "TPUv3", "v4": "TPUv4", "v5p": "TPUv5p", "v5litepod": "TPUv5e", "v6e": "TPUv6e"}
"""As the catalog names them."""


@dataclass(frozen=True, slots=True)
class TpuSlice:
    """Chips of one generation that are joined; whether there is such a slice is `planner.guardrails.capacity`'s to say.

    Attributes:
        accelerator: the generation as the catalog names it.
        chips: a whole number, unless an accelerator type counts half of one.
    """

    accelerator: str
    chips: float

    @property
    def instance_type(self) -> str:
        """The offer of it."""
        return f"tpu-{self.accelerator.removeprefix('TPU')}-{self.chips:g}chip"


def slice_of_type(accelerator_type: str) -> TpuSlice | None:
    """The slice of an accelerator type such as `v5litepod-16`; None where it is none."""
    version, _, number = accelerator_type.partition("-")
    if version not in GENERATIONS or not number.isdecimal():
        return None
    return TpuSlice(GENERATIONS[version], int(number) / CORES_PER_CHIP[version])


def slice_of_config(kind: str, topology: str) -> TpuSlice | None:
    """The slice of a generation that the API names, such as `V5LITE_POD`, and a topology; None where that is none."""
    accelerator = GENERATIONS.get(kind.lower().replace("_", ""))
    return TpuSlice(accelerator, chips_of(topology)) if accelerator else None


def slice_of_nodes(
    machine_type: str, topology: str | None, known: Iterable[TpuTopology]
) -> tuple[TpuSlice, int] | None:
    """The slice that nodes of GKE are, and how many of them make it; None where the machine type has no TPUs.

    Args:
        topology: that of the node pool's placement; None where each node is a slice.
        known: the slices that GKE can make.
    """
    host = next((each for each in known if each.machine_type == machine_type), None)
    if host is None:
        return None
    chips_each = host.chips / host.hosts
    chips = chips_of(topology) if topology else chips_each
    return TpuSlice(host.accelerator, chips), max(1, round(chips / chips_each))


def chips_of(topology: str) -> int:
    """Of a topology such as `2x2x4`; 0 for what is none."""
    axes = topology.split("x")
    return math.prod(map(int, axes)) if re.fullmatch(r"[0-9]{1,4}(x[0-9]{1,4}){0,3}", topology) else 0
