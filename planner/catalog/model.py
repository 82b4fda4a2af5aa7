"""What the catalog holds, one immutable class for each of its tables; a field is a column of the file of that name."""

from __future__ import annotations

from dataclasses import dataclass


class CatalogError(ValueError):
    """A catalog file can't be used; the text names the file, the row, the field and what was expected there."""


class UnknownOffer(LookupError):
    """Something is asked for that the catalog does not hold; the text names what comes nearest."""


class UnknownService(UnknownOffer):
    """A service price is asked for that the catalog does not hold."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Something a cloud sells (``offers.csv``): an instance type, or a TPU slice with its hosts, in one region.

    Prices are of the whole offer with its host, in USD by hour; None where it is not sold that way or not known.
    """

    cloud: str
    region: str
    zone: str | None
    instance_type: str
    accelerator: str | None
    """A name of ``accelerators.csv``; None for CPU offers."""
    accelerator_count: float
    """Whole chips, or the part of one (0.125, 0.25 ...) of a fractional GPU; 0 for CPU offers."""
    accelerator_memory_gib: float | None
    """Memory of one accelerator; of a fractional GPU, only the part that the offer may use."""
    vcpus: float
    memory_gib: float
    """Host memory of the offer, over all hosts of a TPU slice."""
    price_usd_per_hour: float | None
    spot_price_usd_per_hour: float | None
    spot_interruption_bucket: str | None
    """Monthly reclaim rate as AWS Spot Advisor gives it: <5%, 5-10%, 10-15%, 15-20%, >20%."""
    price_source: str
    price_as_of: str
    """YYYY, YYYY-MM or YYYY-MM-DD, as exact as the source is."""
    spot_source: str
    spot_as_of: str
    note: str
    architecture: str = "x86_64"
    """Of the host's CPUs, x86_64 or arm64: a container image must be built for it."""


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A chip (``accelerators.csv``): dense peaks (never with sparsity), memory, links. None is "not sourced"."""

    name: str
    vendor: str
    kind: str
    """gpu, tpu, neuron, asic or fpga."""
    memory_gib: float | None
    memory_bandwidth_gb_per_s: float | None
    fp32_tflops: float | None
    tf32_tflops: float | None
    bf16_tflops: float | None
    fp16_tflops: float | None
    fp8_tflops: float | None
    fp4_tflops: float | None
    int8_tflops: float | None
    """Tera-operations by second."""
    interconnect: str
    interconnect_gb_per_s_bidirectional: float | None
    """All links of one chip together, both directions added."""
    pcie_gb_per_s_per_direction: float | None
    tdp_watts: float | None
    source: str
    as_of: str
    confidence: str
    """vendor-doc, vendor-code, code-table, secondary, general-knowledge or identity only; docs/catalog.md explains."""
    note: str


@dataclass(frozen=True, slots=True)
class ServicePrice:
    """The price of something that is not an instance (``services.csv``)."""

    cloud: str
    region: str
    """``*`` is a price that stands in for every region without a row of its own."""
    service: str
    unit: str
    """hour, month, gib_month (a GiB kept for a month) or gb (a GB moved or ingested)."""
    price_usd: float
    source: str
    as_of: str
    confidence: str
    note: str


@dataclass(frozen=True, slots=True)
class TpuTopology:
    """A slice of TPU chips that GKE can make (``tpu_topologies.csv``)."""

    accelerator: str
    topology: str
    """Chips along each axis: ``4x4`` or ``2x2x4``."""
    chips: int
    hosts: int
    """Nodes of the node pool."""
    machine_type: str
    """Of each node, as GKE names it: ``ct5lp-hightpu-4t``."""
    source: str
    as_of: str
