"""Chips for the planner's tests, as the catalog has them."""

from planner.catalog import load
from planner.performance import Chip


def chip(name: str) -> Chip:
    """A chip of the catalog."""
    return Chip.from_accelerator(load().accelerators[name])
