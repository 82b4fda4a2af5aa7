"""The format of a data set: zstd-compressed Parquet shards and an `index.json` with the SHA-256 of each.

Parquet was chosen over WebDataset and MDS. It is the one of the three that others read in place (Hugging Face datasets,
DuckDB, Athena, BigQuery); its footer gives random access to any row group, which exact resume in the middle of an epoch
needs and a tar stream hasn't; and it is kept by many, while MDS has one reader. What Parquet lacks, a list of shards
with their checksums, is the index. The index is written last: a data set without one does not exist yet.

Each row has `image` (a fixed-size list: channels × height × width, row-major) and `label` (a class number). The split
is made when the data set is written and each split has shards of its own: training can't reach the held-out ones.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workloads import storage
from workloads.storage import StorageError

INDEX = "index.json"

Split = Literal["train", "test"]
Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


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
    shape: tuple[Annotated[int, Field(ge=1)], ...] = Field(description="of one image: channels, height, width")
    scale: float = Field(gt=0, description="the largest pixel; images are divided by it")
    classes: tuple[str, ...] = Field(min_length=2, description="the name of each label, by number")
    splits: dict[Split, tuple[Shard, ...]]

    def samples(self, split: Split) -> int:
        """How many samples a split has."""
        return sum(shard.samples for shard in self.splits[split])


def write_split(url: str, split: Split, images: Images, labels: Labels, *, shard_samples: int) -> tuple[Shard, ...]:
    """Write the shards of one split and return their entries for the index."""
    shards = []
    for number, start in enumerate(range(0, len(labels), shard_samples)):
        rows = slice(start, start + shard_samples)
        data = encode(images[rows], labels[rows])
        file = f"{split}-{number:05d}.parquet"
        storage.write(storage.join(url, file), data)
        shards.append(Shard(file=file, samples=len(labels[rows]), bytes=len(data), sha256=storage.sha256(data)))
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


def encode(images: Images, labels: Labels) -> bytes:
    """One shard's bytes."""
    pixels = images.reshape(len(images), -1)
    table = pa.table(
        {
            "image": pa.FixedSizeListArray.from_arrays(pa.array(pixels.ravel()), pixels.shape[1]),
            "label": pa.array(labels, pa.int32()),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    encoded: bytes = sink.getvalue().to_pybytes()
    return encoded


def decode(data: bytes, shape: tuple[int, ...]) -> tuple[Images, Labels]:
    """The images (samples × shape) and labels of a shard."""
    table = pq.read_table(pa.BufferReader(data)).combine_chunks()
    images: Images = table["image"].chunk(0).flatten().to_numpy().reshape(-1, *shape)
    labels: Labels = table["label"].to_numpy().astype(np.int64)
    return images, labels
