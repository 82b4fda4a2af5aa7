"""What the clouds sell and what it costs, as data with sources and dates."""

from planner.catalog.catalog import Catalog, PriceModel
from planner.catalog.model import (
    Accelerator,
    CatalogError,
    Offer,
    ServicePrice,
    TpuTopology,
    UnknownOffer,
    UnknownService,
)
from planner.catalog.reading import load

__all__ = [
    "Accelerator",
    "Catalog",
    "CatalogError",
    "Offer",
    "PriceModel",
    "ServicePrice",
    "TpuTopology",
    "UnknownOffer",
    "UnknownService",
    "load",
]
