"""The format of a data set: zstd-compressed Arrow files as shards, and an `index.json` with the SHA-256 of each.

Arrow's own file format was chosen over Parquet, WebDataset and MDS. A sample is a typed list of a declared length or of
its own, or the bytes of an image file; Parquet stores a list of bytes as 32-bit numbers with levels, which takes ten
times as long to read (`benchmarks/data_format.py`). A shard, decompressed, is the file that the cache maps into memory,
so that any sample is reached without reading the others; a tar stream can't be entered in its middle. And Arrow files
are read by pandas, Polars, Hugging Face datasets and DuckDB, MDS by one library. What Arrow lacks, a list of shards
with their checksums, is the index. The index is written last: a data set without one does not exist yet.

Each row has `input` (row-major; the index states its kind and shape) and, except for `tokens`, `label` (a class
number). The split is made when the data set is written and each split has shards of its own: training can't reach the
held-out ones.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from workloads import storage
from workloads.storage import StorageError

INDEX = "index.json"

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
Kind = Literal["image", "tabular", "text", "tokens"]
Inputs = NDArray[Any]
"""(samples, *shape) in the kind's type."""
Ragged = Sequence[bytes] | Sequence[NDArray[np.int32]]
"""Image files, or texts of different lengths."""
Labels = NDArray[np.int64]

INPUT_TYPES: dict[Kind, type[np.generic]] = {
    "image": np.uint8,
    "tabular": np.float32,
    "text": np.int32,
    "tokens": np.int32,
}
ZSTD_LEVEL = 3
PADDING = 0
"""The token that fills a text up to its length; no model attends to it."""


class Shard(BaseModel):
    """One Arrow file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = Field(pattern=r"^[A-Za-z0-9._-]+$", description="its name, beside the index")
    samples: int = Field(ge=1)
    bytes: int = Field(ge=1)
    decoded_bytes: int = Field(ge=1, description="its size in the cache")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Index(BaseModel):
    """What `index.json` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["fusion-arrow-1"] = "fusion-arrow-1"
    name: str
    source: str = Field(description="where the samples come from, for people")
    kind: Kind = Field(default="image", description="text has a label; tokens are continued and have none")
    shape: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        description="of one sample: (channels, height, width), (columns,) or (tokens,); shorter texts are padded"
    )
    stored_as: Literal["values", "files"] = Field(
        default="values", description="files: images as JPEG, PNG or WebP; decoded, scaled and cropped to the shape"
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
        if self.stored_as == "files" and (self.kind != "image" or self.shape[0] not in (1, 3)):
            raise ValueError(f"stored_as: got files; only images of 1 or 3 channels are, not {self.kind} {self.shape}")
        return self

    def samples(self, split: Split) -> int:
        """How many samples a split has."""
        return sum(shard.samples for shard in self.splits[split])


def write_split(
    url: str, split: Split, inputs: Inputs | Ragged, labels: Labels | None, *, shard_samples: int
) -> tuple[Shard, ...]:
    """Write the shards of one split and return their entries for the index."""
    return tuple(
        write_shard(
            storage.join(url, shard_file(split, number)),
            inputs[start : start + shard_samples],
            None if labels is None else labels[start : start + shard_samples],
        )
        for number, start in enumerate(range(0, len(inputs), shard_samples))
    )


def shard_file(split: Split, number: int) -> str:
    """`train-00012.arrow`."""
    return f"{split}-{number:05d}.arrow"


def write_shard(url: str, inputs: Inputs | Ragged, labels: Labels | None) -> Shard:
    """Write one shard and return its entry for the index."""
    table = to_table(inputs, labels)
    data = encode(table)
    storage.write(url, data)
    return Shard(
        file=url.rsplit("/", 1)[-1],
        samples=len(inputs),
        bytes=len(data),
        decoded_bytes=table.nbytes,
        sha256=storage.sha256(data),
    )


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


def fetch(url: str, shard: Shard, index: Index) -> pa.Table:
    """A shard's table, from the bucket.

    Raises:
        StorageError: it can't be read, is not what the index says, or holds a number that the index does not allow.
    """
    location = storage.join(url, shard.file)
    data = storage.read(location)
    if storage.sha256(data) != shard.sha256:
        data = storage.read(location)  # spoilt on its way?
    if storage.sha256(data) != shard.sha256:
        raise StorageError(f"{location} is not what its index says (SHA-256 differs); write the data set anew")
    try:
        table = decode(data, index)
    except ValueError as error:
        raise StorageError(f"{location} {error}; write the data set anew") from None
    if len(table) != shard.samples:
        raise StorageError(f"{location} has {len(table)} samples, its index says {shard.samples}; write it anew")
    if (problem := wrong_value(table, index)) is not None:
        raise StorageError(f"{location}: {problem}; mend the source and write the data set anew")
    return table


def to_table(inputs: Inputs | Ragged, labels: Labels | None) -> pa.Table:
    """The columns of a shard."""
    if isinstance(inputs, np.ndarray):
        flat = inputs.reshape(len(inputs), -1)
        columns = {"input": pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])}
    elif isinstance(inputs[0], bytes):
        columns = {"input": pa.array(inputs, pa.large_binary())}
    else:
        columns = {"input": pa.array(inputs, pa.large_list(pa.int32()))}
    if labels is not None:
        columns["label"] = pa.array(labels, pa.int32())
    return pa.table(columns)


def encode(table: pa.Table) -> bytes:
    """One shard's bytes."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", ZSTD_LEVEL))
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    encoded: bytes = sink.getvalue().to_pybytes()
    return encoded


def decode(data: Any, index: Index) -> pa.Table:
    """The table in a shard's bytes, which may be any buffer.

    Raises:
        ValueError: it is no Arrow file, or not of the index's kind.
    """
    table = pa.ipc.open_file(pa.py_buffer(data)).read_all().combine_chunks()
    expected = {"input"} if index.kind == "tokens" else {"input", "label"}
    if set(table.column_names) != expected:
        raise ValueError(f"has the columns {sorted(table.column_names)}, expected {sorted(expected)}")
    Rows(table, index)
    return table


def wrong_value(table: pa.Table, index: Index) -> str | None:
    """Where a shard first holds a number that its index does not allow, in words that follow the shard's name.

    Not which number: that is a sample's, and what is said here comes into logs.
    """
    column = table["input"].chunk(0)
    limits: list[tuple[str, Any, int]] = []
    if index.classes:
        limits.append(("label", table["label"].chunk(0).to_numpy(), len(index.classes)))
    if index.vocabulary is not None:
        limits.append(("input", column.flatten().to_numpy(), index.vocabulary))
    if index.kind == "tabular":
        columns = column.flatten().to_numpy().reshape(-1, *index.shape)
        if not (finite := np.isfinite(columns)).all():
            row, wrong = divmod(int(np.argmin(finite)), index.shape[0])
            return f"column {wrong + 1}: row {row + 1} is no finite number"
        first = index.shape[0] - len(index.categories)
        limits += [
            (f"category column {number} (input column {first + number})", columns[:, first + number - 1], count)
            for number, count in enumerate(index.categories, start=1)
        ]
    for field, values, limit in limits:
        if len(values) and not (values.min() >= 0 and values.max() < limit):
            place = int(np.argmin((values >= 0) & (values < limit)))
            row = _row_of(column, place) if field == "input" else place
            return f"{field}: row {row + 1} is out of range, expected 0 to {limit - 1}"
    return None


def _row_of(column: pa.Array, place: int) -> int:
    """The row of a value in a column of lists, counted through all of them."""
    if pa.types.is_fixed_size_list(column.type):
        return place // int(column.type.list_size)
    offsets = column.offsets.to_numpy()
    return int(np.searchsorted(offsets - offsets[0], place, side="right")) - 1


class Rows:
    """Random access to the samples of a shard."""

    def __init__(self, table: pa.Table, index: Index) -> None:
        """Find the buffers, without reading them.

        Raises:
            ValueError: the column does not hold what the index says.
        """
        column = table["input"].chunk(0)
        self._index = index
        self._fill = self._values
        if index.stored_as == "files":
            self._column, self._fill = _of_type(column, pa.large_binary()), self._files
        elif pa.types.is_fixed_size_list(column.type):
            values = column.flatten().to_numpy()
            self._array = values.reshape(-1, *index.shape)
            if values.dtype != INPUT_TYPES[index.kind]:
                raise ValueError(f"has inputs of {values.dtype}, expected {np.dtype(INPUT_TYPES[index.kind])}")
        else:
            _of_type(column, pa.large_list(pa.int32()))
            self._offsets, self._array, self._fill = column.offsets.to_numpy(), column.values.to_numpy(), self._texts
        self._labels = table["label"].chunk(0).to_numpy() if "label" in table.column_names else None

    def take(self, rows: NDArray[np.int64], inputs: Inputs, labels: Labels) -> None:
        """Write the samples in these rows into arrays of (len(rows), *shape) and (len(rows),)."""
        self._fill(rows, inputs)
        labels[:] = 0 if self._labels is None else self._labels[rows]

    def _values(self, rows: NDArray[np.int64], inputs: Inputs) -> None:
        np.take(self._array, rows, axis=0, out=inputs, mode="clip")  # "raise" would copy once more

    def _texts(self, rows: NDArray[np.int64], inputs: Inputs) -> None:
        inputs[:] = PADDING
        for place, row in enumerate(rows):
            text = self._array[self._offsets[row] : self._offsets[row + 1]][: inputs.shape[1]]
            inputs[place, : len(text)] = text

    def _files(self, rows: NDArray[np.int64], inputs: Inputs) -> None:
        for place, row in enumerate(rows.tolist()):
            decode_image(self._column[row].as_buffer(), inputs[place])


def _of_type(column: pa.Array, expected: pa.DataType) -> pa.Array:
    if column.type != expected:
        raise ValueError(f"has inputs of {column.type}, expected {expected}")
    return column


def decode_image(file: Any, into: NDArray[np.uint8]) -> None:
    """Write an image file into (channels, height, width): scaled until it covers height and width, its middle cut out.

    Raises:
        OSError: it is no image that Pillow reads.
    """
    from PIL import Image, ImageOps

    channels, height, width = into.shape
    mode = "L" if channels == 1 else "RGB"
    try:
        with Image.open(io.BytesIO(file)) as image:
            image.draft(mode, (width, height))  # a JPEG is decoded at the smallest eighth of its size that is enough
            converted = image if image.mode == mode else image.convert(mode)  # which copies in any case
            fitted = ImageOps.fit(converted, (width, height), Image.Resampling.BILINEAR)
    except OSError:
        raise
    except Exception as error:  # Pillow's parsers let out SyntaxError, DecompressionBombError and others
        raise OSError(f"{type(error).__name__}: {error}") from error
    pixels = _pixels(fitted).reshape(height, width, -1)
    np.copyto(into, pixels[:, :, :channels].transpose(2, 0, 1))  # Pillow keeps a fourth byte beside three colours


def _pixels(image: Any) -> NDArray[np.uint8]:
    """Pillow's own memory, where its rows lie without gaps: NumPy would have a copy, made under Python's lock."""
    try:
        values = pa.array(image)
    except ValueError:
        copied: NDArray[np.uint8] = np.asarray(image)
        return copied
    flat: NDArray[np.uint8] = (values.flatten() if image.mode == "RGB" else values).to_numpy()
    return flat
