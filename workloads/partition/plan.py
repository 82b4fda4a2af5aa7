"""A split plan: the ways in which a model can be answered, of which a client takes the best one request by request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, ValidationError

from planner.performance.link import Link
from workloads import storage
from workloads.config import ConfigError, Section
from workloads.partition.codings import Coding
from workloads.partition.devices import DeviceProfile

PLAN = "plan.json"
HEAD_BYTES = 300
"""Of an HTTP request and its tensors' names, and of an answer, about."""
Judge = Literal["labels", "the whole model's answers", "error by deviation"]
"""What loss is: of accuracy; of agreement on the best class; or error ÷ standard deviation of the outputs."""


class Way(Section):
    """One way to answer a request of one row."""

    name: str
    kind: Literal["edge", "cloud", "split"]
    layers_on_edge: int
    sends: tuple[str, ...] = Field(description="the layers whose outputs go to the cloud")
    coding: Coding | None = Field(description="none where nothing is sent")
    edge: str | None = Field(description="package of the edge's part, beside the plan")
    cloud: str | None = Field(description="package of the cloud's part, beside the plan")
    model: str | None = Field(description="the cloud part's name in the server")
    edge_s: float
    encode_s: float = Field(description="on the machine that made the plan, as zstd_s")
    cloud_s: float
    request_bytes: int
    zstd_bytes: int | None = Field(description="none where it is an image file")
    zstd_s: float
    answer_bytes: int
    loss: float = Field(description="of accuracy, on held-out rows; see judged_by")


class SplitPlan(Section):
    """What `plan.json` holds."""

    format: Literal["fusion-split-1"] = "fusion-split-1"
    name: str
    version: str
    scale: float | None = Field(description="by which 8-bit pixels were divided, where the input is images")
    held_out_rows: int
    judged_by: Judge
    loss_max: float
    edge: DeviceProfile
    cloud: DeviceProfile
    ways: tuple[Way, ...] = Field(min_length=1)
    left_out: tuple[str, ...] = Field(description="ways that lose too much, with the reason")


@dataclass(frozen=True, slots=True)
class Watts:
    """Power of the edge device, by what it does."""

    compute: float
    idle: float
    send: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a way takes on a link."""

    way: Way
    is_compressed: bool
    edge_s: float
    encode_s: float
    link_s: float
    cloud_s: float

    @property
    def latency_s(self) -> float:
        """From the input to the answer."""
        return self.edge_s + self.encode_s + self.link_s + self.cloud_s

    def joules(self, watts: Watts) -> float:
        """Of the edge device: it computes, sends, and waits for the cloud."""
        return watts.compute * (self.edge_s + self.encode_s) + watts.send * self.link_s + watts.idle * self.cloud_s

    @property
    def label(self) -> str:
        """Such as `layer4.2.conv1/int8+zstd`."""
        return f"{self.way.name}+zstd" if self.is_compressed else self.way.name


def estimates(ways: Iterable[Way], link: Link) -> list[Estimate]:
    """Of each way, plain and compressed where it can be."""
    found = []
    for way in ways:
        if way.kind == "edge":
            found.append(Estimate(way, False, way.edge_s, 0.0, 0.0, 0.0))
            continue
        sizes = [(way.request_bytes, 0.0, False)]
        if way.zstd_bytes is not None:
            sizes.append((way.zstd_bytes, way.zstd_s, True))
        for size, zstd_s, is_compressed in sizes:
            link_s = link.exchange_s(size + HEAD_BYTES, way.answer_bytes + HEAD_BYTES)
            found.append(Estimate(way, is_compressed, way.edge_s, way.encode_s + zstd_s, link_s, way.cloud_s))
    return found


def ranked(found: Sequence[Estimate], watts: Watts | None) -> list[Estimate]:
    """The fastest first, or the one that takes least energy of the edge where its power is given."""
    return sorted(found, key=lambda each: each.latency_s if watts is None else each.joules(watts))


def read_plan(url: str) -> SplitPlan:
    """The plan that `fusion partition plan` wrote to a folder.

    Raises:
        ConfigError: there is none, or it is wrong.
        StorageError: the bucket refused.
    """
    data = storage.read_or_none(storage.join(url, PLAN))
    if data is None:
        raise ConfigError(f"{url} holds no split plan ({PLAN} is missing); make one with `fusion partition plan`")
    try:
        return SplitPlan.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        raise ConfigError(f"{storage.join(url, PLAN)}: {where}: {problem['msg']}; plan anew") from None
