"""The format of a data set: zstd-compressed Parquet shards and an `index.json` with the SHA-256 of each.

Parquet was chosen over WebDataset and MDS. It is the one of the three that others read in place (Hugging Face datasets,
DuckDB, Athena, BigQuery); its footer gives random access to any row group, which exact resume in the middle of an epoch
needs and a tar stream hasn't; and it is kept by many, while MDS has one reader. What Parquet lacks, a list of shards
with their checksums, is the index. The index is written last: a data set without one does not exist yet.

Each row has `input` (a fixed-size list, row-major; the index states its kind and shape) and, except for `tokens`,
`label` (a class number). The split is made when the data set is written and each split has shards of its own: training
can't reach the held-out ones.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from workloads import storage
from workloads.storage import StorageError

INDEX = "index.json"

Split = Literal["train", "test"]
Kind = Literal["image", "tabular", "text", "tokens"]
Inputs = NDArray[Any]
"""(samples, *shape) in the kind's type."""
Labels = NDArray[np.int64]

INPUT_TYPES: dict[Kind, type[np.generic]] = {
    "image": np.uint8,
    "tabular": np.float32,
    "text": np.int32,
    "tokens": np.int32,
}
PADDING = 0
"""The token that fills a text up to its length; no model attends to it."""


class Shard(BaseModel):
    """One Parquet file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = Field(pattern=r"^[A-Za-z0-9._-]+$", description="its name, beside the index")
    samples: int = Field(ge=1)
    bytes: int = Field(ge=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Index(BaseModel):
    """What `index.json` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["fusion-parquet-1"] = "fusion-parquet-1"
    name: str
    source: str = Field(description="where the samples come from, for people")
    kind: Kind = Field(default="image", description="text has a label; tokens are continued and have none")
    shape: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        description="of one sample: (channels, height, width), (columns,) or (tokens,)"
    )
    scale: float = Field(default=1, gt=0, description="the largest pixel; images are divided by it")
    classes: tuple[str, ...] = Field(default=(), description="the name of each label, by number")
    categories: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(), description="tabular: the last columns hold category numbers; how many each has"
    )
    vocabulary: int | None = Field(default=None, ge=2, description="text and tokens: how many there are; 0 is padding")
    splits: dict[Split, tuple[Shard, ...]]

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        dimensions = 3 if self.kind == "image" else 1
        if len(self.shape) != dimensions:
            raise ValueError(f"shape: got {self.shape}; {self.kind} has {dimensions} dimension(s)")
        if (self.kind == "tokens") != (not self.classes) or len(self.classes) == 1:
            raise ValueError(f"classes: got {len(self.classes)}; tokens have none, every other kind at least two")
        if (self.kind in ("text", "tokens")) != (self.vocabulary is not None):
            raise ValueError(f"vocabulary: got {self.vocabulary}; text and tokens have one, other kinds have none")
        if len(self.categories) > (self.shape[0] if self.kind == "tabular" else 0):
            raise ValueError(f"categories: got {len(self.categories)}; only tabular data has them, at most its columns")
        return self

    def samples(self, split: Split) -> int:
        """How many samples a split has."""
        return sum(shard.samples for shard in self.splits[split])


def write_split(
    url: str, split: Split, inputs: Inputs, labels: Labels | None, *, shard_samples: int
) -> tuple[Shard, ...]:
    """Write the shards of one split and return their entries for the index."""
    shards = []
    for number, start in enumerate(range(0, len(inputs), shard_samples)):
        rows = slice(start, start + shard_samples)
        data = encode(inputs[rows], None if labels is None else labels[rows])
        file = f"{split}-{number:05d}.parquet"
        storage.write(storage.join(url, file), data)
        shards.append(Shard(file=file, samples=len(inputs[rows]), bytes=len(data), sha256=storage.sha256(data)))
    return tuple(shards)


def write_index(url: str, index: Index) -> None:
    """Write the index, which makes the data set exist."""
    storage.write(storage.join(url, INDEX), index.model_dump_json(indent=2).encode())


def read_index(url: str) -> tuple[Index, str]:
    """The index of a data set and the SHA-256 that identifies it.

    Raises:
        StorageError: there is none, or it is not of this format.
    """
    data = storage.read_or_none(storage.join(url, INDEX))
    if data is None:
        raise StorageError(
            f"{url} holds no data set ({INDEX} is missing); write it first, for example with "
            f"`python -m workloads.data.digits --url {url}`"
        )
    try:
        return Index.model_validate_json(data), storage.sha256(data)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"]) or "the file"
        raise StorageError(f"{storage.join(url, INDEX)}: {field}: {problem['msg']}; write the data set anew") from None


def encode(inputs: Inputs, labels: Labels | None) -> bytes:
    """One shard's bytes."""
    flat = inputs.reshape(len(inputs), -1)
    columns = {"input": pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])}
    if labels is not None:
        columns["label"] = pa.array(labels, pa.int32())
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd", write_page_checksum=True)
    encoded: bytes = sink.getvalue().to_pybytes()
    return encoded


def decode(data: bytes, index: Index) -> tuple[Inputs, Labels]:
    """The inputs (samples × shape) and labels of a shard; tokens, which have none, are labelled 0."""
    table = pq.read_table(pa.BufferReader(data)).combine_chunks()
    inputs: Inputs = table["input"].chunk(0).flatten().to_numpy().reshape(-1, *index.shape)
    if index.kind == "tokens":
        return inputs, np.zeros(len(inputs), dtype=np.int64)
    labels: Labels = table["label"].to_numpy().astype(np.int64)
    return inputs, labels
