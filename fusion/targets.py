"""What a model is made for, by a name of the catalog: an accelerator, an instance type, or a family of either."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fusion.errors import FusionError
from planner.catalog import Accelerator, CatalogError, Offer, load
from planner.catalog.catalog import near
from planner.performance.chip import architectures

Kind = Literal["cpu", "nvidia", "tpu", "neuron"]

SPARSE_FROM = ("ampere", "ampere-rtx", "ada", "hopper", "blackwell", "blackwell-rtx")
"""NVIDIA's generations whose matrix units skip 2 of 4 zeros (NVIDIA's Ampere white paper, 2020, and later ones)."""


@dataclass(frozen=True, slots=True)
class Target:
    """A chip that a model will run on.

    Attributes:
        name: the accelerator in the catalog, or the CPU's instance type.
        kind: whose runtimes it has.
        accelerator: its row of the catalog; None for a CPU.
        offer: the instance type that was named, where one was.
    """

    name: str
    kind: Kind
    accelerator: Accelerator | None = None
    offer: Offer | None = None

    @property
    def generation(self) -> str:
        """NVIDIA's architecture, such as ``hopper``; empty where it is not known."""
        known = architectures().get(self.name)
        return known.generation if known else ""

    @property
    def has_sparse_units(self) -> bool:
        """Whether 2:4 sparsity can make it faster."""
        return self.generation in SPARSE_FROM

    @property
    def has_fp8(self) -> bool:
        """Whether its matrix units take fp8."""
        return self.accelerator is not None and self.accelerator.fp8_tflops is not None


def find(name: str) -> Target:
    """The target of a name: ``H100``, ``v5e``, ``trn2``, ``c7i.2xlarge``; upper and lower case are the same.

    Raises:
        FusionError: the catalog has no such name, or what it names runs no model that Fusion exports.
    """
    try:
        catalog = load()
    except CatalogError as error:
        raise FusionError(str(error)) from None
    wanted = name.lower()
    chips = {each.lower(): each for each in catalog.accelerators}
    aws = wanted.replace("trn", "trainium").replace("inf", "inferentia")
    for candidate in (wanted, f"tpu{wanted}", aws):
        if candidate in chips:
            return _of_accelerator(catalog.accelerators[chips[candidate]], None)
    offers = {each.instance_type.lower(): each for each in catalog.offers}
    of_family = (each for each in offers if each.startswith(f"{wanted}."))
    offer = offers.get(wanted) or offers.get(min(of_family, default=""))
    if offer is None:
        known = [*catalog.accelerators, *offers]
        raise FusionError(f"{name}: the catalog has no such accelerator or instance type{near(name, known)}")
    if offer.accelerator is None:
        return Target(offer.instance_type, "cpu", offer=offer)
    return _of_accelerator(catalog.accelerators[offer.accelerator], offer)


def _of_accelerator(found: Accelerator, offer: Offer | None) -> Target:
    kinds: dict[tuple[str, str], Kind] = {
        ("gpu", "nvidia"): "nvidia",
        ("tpu", "google"): "tpu",
        ("neuron", "aws"): "neuron",
    }
    kind = kinds.get((found.kind, found.vendor))
    if kind is None:
        raise FusionError(
            f"{found.name} ({found.kind}, {found.vendor}) is none for which Fusion exports packages; expected a CPU, "
            "NVIDIA's GPUs, Google's TPUs or AWS's Neuron chips"
        )
    return Target(found.name, kind, found, offer)
