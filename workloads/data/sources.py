"""What `fusion data pack` can read: image folders, idx files, tables, texts, and data sets that Hugging Face saved.

Each reader finds out what there is (classes, shape, splits) and leaves a function that reads any samples by number, so
that shards can be made side by side and an interrupted pack goes on with the shards that are missing.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet
from numpy.typing import NDArray

from workloads.data.format import Inputs, Labels, Ragged, Split
from workloads.data.order import Numbers

IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
TABLES = {".csv", ".parquet", ".jsonl", ".json"}
HELD_OUT: tuple[str, ...] = ("test", "t10k", "val", "valid", "validation")
SHUFFLE_SEED = 0  # of the data set, not of a run
BYTES_TOKENIZER = "bytes"

Samples = tuple[Inputs | Ragged, Labels | None]


class SourceError(ValueError):
    """What was found can't be packed; one sentence with the way out."""


@dataclass(frozen=True)
class Options:
    """What the user says about the source."""

    label: str = "label"
    text: str = "text"
    size: tuple[int, int] = (224, 224)
    channels: int | None = None
    tokenizer: str | None = None
    length: int = 512
    test_share: float = 0.1
    held_out: str | None = None
    """Which of several held-out splits."""


@dataclass(frozen=True)
class Source:
    """A data set that can be packed."""

    fields: Mapping[str, Any]
    """Of the index: kind, shape, classes and so on."""
    read: Callable[[Split, Numbers], Samples]
    counts: Mapping[Split, int]
    """Samples of each split."""
    sample_bytes: int
    """About how large one is in a shard."""
    held_out: Numbers | None = None
    """Where the source has one split only: which of its samples become the other."""
    left_out: tuple[str, ...] = ()
    """Splits that are there and not packed, by their names."""

    def numbers(self, split: Split) -> Numbers:
        """A split's samples, shuffled: sources are sorted by class more often than not."""
        if self.held_out is None:
            return _shuffled(self.counts[split])
        order = _shuffled(self.counts["train"] + self.counts["test"])
        return self.held_out if split == "test" else order[len(self.held_out) :]


def find(path: Path, options: Options) -> Source:
    """The source at a path.

    Raises:
        SourceError: there is none that can be packed.
    """
    if not path.exists():
        raise SourceError(f"{path}: there is no such file or folder")
    texts = [path] if path.suffix == ".txt" else sorted(path.glob("*.txt"))
    if texts and (path.is_file() or not any(entry.is_dir() for entry in path.iterdir())):
        read: dict[Split, pa.Table] = {"train": pa.table({options.text: [_text(file) for file in texts]})}
        return _split(_of_tables(read, {}, options, path), options)
    if path.is_file():
        return _split(_of_tables({"train": _table(path)}, {}, options, path), options)
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        return _hugging_face(path, options)
    if idx := sorted(path.glob("*images*idx*")):
        return _idx(path, idx, options)
    if files := [file for file in sorted(path.iterdir()) if file.suffix in TABLES]:
        chosen, left_out = _by_split(files, options, path)
        read = {split: _one_table(parts) for split, parts in chosen.items()}
        return _split(replace(_of_tables(read, {}, options, path), left_out=left_out), options)
    return _image_folder(path, options)


def _split(source: Source, options: Options) -> Source:
    """The same source with a share of its samples held out, where it has no held-out split of its own."""
    if source.counts.get("test"):
        return source
    if options.held_out:
        raise SourceError(f"--held-out: got {options.held_out}, but the source has no held-out split")
    total = source.counts["train"]
    held_out = round(total * options.test_share)
    if not 0 < held_out < total:
        raise SourceError(
            f"--test-share: got {options.test_share}; of {total} samples that leaves {total - held_out} to train on "
            f"and {held_out} held out, expected at least one of each"
        )
    read = source.read
    return replace(
        source,
        read=lambda _, numbers: read("train", numbers),
        counts={"train": total - held_out, "test": held_out},
        held_out=_shuffled(total)[:held_out],
    )


def _shuffled(count: int) -> Numbers:
    random = np.random.Philox(key=np.array([SHUFFLE_SEED, 0], dtype=np.uint64))
    return np.argsort(random.random_raw(count), kind="stable")


def _by_split(paths: Sequence[Path], options: Options, place: Path) -> tuple[dict[Split, list[Path]], tuple[str, ...]]:
    """What belongs to each split, by the word that its name begins with (`train-00000-of-00002`), and what to none."""
    named: dict[str, list[Path]] = {}
    for path in paths:
        named.setdefault(path.name.split(".")[0].split("-")[0], []).append(path)
    train = [name for name in named if name not in HELD_OUT]
    if "train" in train:
        train = ["train"]
    if len(train) > 1:
        raise SourceError(
            f"{place}: expected names that begin with train, and with {' or '.join(HELD_OUT)} for what is held out; "
            f"got {', '.join(path.name for name in train for path in named[name])}"
        )
    held_out = [name for name in HELD_OUT if name in named]
    if options.held_out and options.held_out not in held_out:
        expected = " or ".join(held_out) or "none: there is no held-out split"
        raise SourceError(f"--held-out: got {options.held_out}; {place} has {expected}")
    chosen: dict[Split, list[Path]] = {"train": named[train[0]]} if train else {}
    if held_out:
        chosen["test"] = named[options.held_out or held_out[0]]
    taken = [path for group in chosen.values() for path in group]
    return chosen, tuple(name for name, group in named.items() if group[0] not in taken)


def _image_folder(path: Path, options: Options) -> Source:
    """One folder a class, either directly or in `train` and `test` (or `val`)."""
    folders: dict[Split, Path] = {"train": path}
    left_out: tuple[str, ...] = ()
    if (path / "train").is_dir():
        found, left_out = _by_split([each for each in sorted(path.iterdir()) if each.is_dir()], options, path)
        folders = {split: _the_one(group) for split, group in found.items()}
    classes = tuple(sorted(folder.name for folder in folders["train"].iterdir() if folder.is_dir()))
    files: dict[Split, list[tuple[Path, int]]] = {}
    for split, folder in folders.items():
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
        if unknown := [name for name in names if name not in classes]:
            raise SourceError(f"{folder / unknown[0]}: there is no class of this name in {folders['train']}")
        files[split] = [
            (file, number)
            for number, name in enumerate(classes)
            for file in sorted((folder / name).rglob("*"))
            if file.suffix.lower() in IMAGES
        ]
    if len(classes) < 2 or not files["train"]:
        raise SourceError(
            f"{path}: nothing to pack; expected a folder of images for each of at least two classes, idx files, "
            f"{', '.join(sorted(TABLES))} or .txt files, or a data set that Hugging Face's save_to_disk wrote"
        )

    def read(split: Split, numbers: Numbers) -> Samples:
        chosen = [files[split][number] for number in numbers]
        return [_image_file(file) for file, _ in chosen], np.array([label for _, label in chosen])

    some = [file.stat().st_size for file, _ in files["train"][:: max(1, len(files["train"]) // 100)]]
    fields = _image_fields(options, classes)
    counts: dict[Split, int] = {split: len(listed) for split, listed in files.items()}
    return _split(Source(fields, read, counts, sum(some) // len(some), left_out=left_out), options)


def _the_one(paths: Sequence[Path]) -> Path:
    if len(paths) > 1:
        raise SourceError(f"{paths[0]} and {paths[1].name} are of the same split; expected one of them")
    return paths[0]


def _image_fields(options: Options, classes: Sequence[str]) -> dict[str, Any]:
    shape = (options.channels or 3, *options.size)
    return {"kind": "image", "shape": shape, "scale": 255, "classes": tuple(classes), "stored_as": "files"}


def _image_file(path: Path) -> bytes:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.verify()
    except (OSError, SyntaxError) as error:  # Pillow tells a broken PNG by SyntaxError
        raise SourceError(f"{path}: is no image that can be read ({error}); mend or delete it") from None
    return path.read_bytes()


def _idx(path: Path, images: Sequence[Path], options: Options) -> Source:
    """`train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and `t10k-…`, gzipped or not (MNIST's layout)."""
    arrays: dict[Split, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}
    chosen, left_out = _by_split(images, options, path)
    for split, group in chosen.items():
        file = _the_one(group)
        labels = file.with_name(file.name.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1"))
        if not labels.exists():
            raise SourceError(f"{file}: its labels are missing; expected {labels}")
        pair = _idx_array(file), _idx_array(labels)
        if len(pair[0]) != len(pair[1]):
            raise SourceError(f"{file} has {len(pair[0])} images, {labels} has {len(pair[1])} labels")
        arrays[split] = pair
    if "train" not in arrays:
        raise SourceError(f"{path}: expected train-images-idx3-ubyte beside {images[0].name}")
    first = arrays["train"][0]
    channels = options.channels or 1
    shape = (channels, *first.shape[1:])

    def read(split: Split, numbers: Numbers) -> Samples:
        pixels, labels = arrays[split]
        return np.repeat(pixels[numbers][:, np.newaxis], channels, axis=1), labels[numbers].astype(np.int64)

    classes = tuple(str(number) for number in range(max(int(labels.max()) for _, labels in arrays.values()) + 1))
    fields = {"kind": "image", "shape": shape, "scale": 255, "classes": classes}
    counts: dict[Split, int] = {split: len(labels) for split, (_, labels) in arrays.items()}
    return _split(Source(fields, read, counts, int(np.prod(shape)), left_out=left_out), options)


def _idx_array(path: Path) -> NDArray[np.uint8]:
    """http://yann.lecun.com/exdb/mnist: two zeros, type 8 (unsigned byte), dimensions, each big-endian, the bytes."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise SourceError(f"{path}: is no idx file of unsigned bytes (its first bytes are {data[:4].hex()})")
    dimensions = data[3]
    shape = struct.unpack(f">{dimensions}I", data[4 : 4 + 4 * dimensions])
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions)
    if len(values) != np.prod(shape):
        raise SourceError(f"{path}: has {len(values)} bytes, its header says {' × '.join(map(str, shape))}")
    return values.reshape(shape)


def _table(path: Path) -> pa.Table:
    try:
        match path.suffix:
            case ".csv":
                return pyarrow.csv.read_csv(path)
            case ".parquet":
                return pyarrow.parquet.read_table(path)
            case ".jsonl" | ".json":
                return pyarrow.json.read_json(path)
    except pa.ArrowInvalid as error:
        reason = re.sub(r"(got \d+|error to \w+): .*", r"\1", " ".join(str(error).split()))  # what follows is the row
        raise SourceError(f"{path}: can't be read: {reason}") from None
    raise SourceError(f"{path}: can't be packed; expected a folder, or a file in {', '.join(sorted(TABLES))} or .txt")


def _one_table(parts: Sequence[Path]) -> pa.Table:
    """The files of a split, one after the other, as Parquet of many parts has them."""
    for part, following in itertools.pairwise(parts):
        if part.name.split(".")[0] == following.name.split(".")[0]:
            _the_one([part, following])
    tables = [_table(part) for part in parts]
    for part, table in zip(parts, tables, strict=True):
        if table.schema != tables[0].schema:
            raise SourceError(
                f"{part}: its columns are {_columns(table)}; those of {parts[0].name} are {_columns(tables[0])}"
            )
    return pa.concat_tables(tables)


def _columns(table: pa.Table) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in table.schema)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: is no UTF-8 text ({error.reason} at byte {error.start})") from None


def _hugging_face(path: Path, options: Options) -> Source:
    """What `save_to_disk` of a Dataset or DatasetDict leaves."""
    folders: dict[Split, Path] = {"train": path}
    left_out: tuple[str, ...] = ()
    if (path / "dataset_dict.json").exists():
        names = json.loads((path / "dataset_dict.json").read_text())["splits"]
        found, left_out = _by_split([path / name for name in names], options, path)
        folders = {split: _the_one(group) for split, group in found.items()}
    tables: dict[Split, pa.Table] = {}
    names_of: dict[str, Sequence[str]] = {}
    for split, folder in folders.items():
        files = [entry["filename"] for entry in json.loads((folder / "state.json").read_text())["_data_files"]]
        tables[split] = pa.concat_tables(
            pa.ipc.open_stream(pa.memory_map(str(folder / name))).read_all() for name in files
        )
        features = json.loads((folder / "dataset_info.json").read_text())["features"]
        names_of |= {name: feature["names"] for name, feature in features.items() if "names" in feature}
    return _split(replace(_of_tables(tables, names_of, options, path), left_out=left_out), options)


def _of_tables(
    tables: Mapping[Split, pa.Table], names_of: Mapping[str, Sequence[str]], options: Options, path: Path
) -> Source:
    """Images, texts or numbers, as the columns say."""
    tables = {split: _without_dictionaries(table) for split, table in tables.items()}
    if "train" not in tables:
        raise SourceError(f"{path}: has a held-out split but none to train on")
    columns = tables["train"].column_names
    for split, table in tables.items():
        if table.column_names != columns:
            raise SourceError(f"{path}: the columns of {split} are {table.column_names}, those of train {columns}")
        for name in columns:
            if table[name].null_count:
                row = pc.index(pc.is_null(table[name]), True).as_py()
                raise SourceError(f"{path}: {split}, column {name}: row {row + 1} is empty; fill or drop it")
    image = next((name for name in columns if _is_image(tables["train"].schema.field(name).type)), None)
    labels: dict[Split, Labels] = {}
    classes: tuple[str, ...] = ()
    if options.label in columns:
        classes, labels = _classes(tables, options.label, names_of.get(options.label), path)
    elif image or options.text not in columns:
        raise SourceError(
            f"{path}: --label: there is no column {options.label!r}; expected one of {', '.join(columns)}"
        )
    if image:
        return _images_of(tables, image, labels, _image_fields(options, classes))
    if options.text in columns:
        texts = {split: table[options.text] for split, table in tables.items()}
        return _texts(texts, labels, classes, options, path)
    return _tabular(tables, labels, classes, options, path)


def _without_dictionaries(table: pa.Table) -> pa.Table:
    """With the words themselves, where a column has numbers that stand for them, as pandas' categoricals do."""
    for at, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(at, field.name, table[field.name].cast(field.type.value_type))
    return table


def _is_image(column: pa.DataType) -> bool:
    return bool(pa.types.is_struct(column) and column.get_field_index("bytes") >= 0)


def _classes(
    tables: Mapping[Split, pa.Table], label: str, names: Sequence[str] | None, path: Path
) -> tuple[tuple[str, ...], dict[Split, Labels]]:
    if names is not None:
        found = {split: table[label].to_numpy().astype(np.int64) for split, table in tables.items()}
        for split, numbers in found.items():
            if (wrong := (numbers < 0) | (numbers >= len(names))).any():
                raise SourceError(
                    f"{path}: {split}, column {label}: row {int(np.argmax(wrong)) + 1} is of none of the {len(names)} "
                    "classes, as in a split whose labels are kept secret; leave that split out"
                )
        return tuple(names), found
    values = pc.unique(pa.chunked_array([chunk for table in tables.values() for chunk in table[label].chunks]))
    values = values.take(pc.sort_indices(values))
    if len(values) < 2 or len(values) > 100_000:
        raise SourceError(f"{path}: --label: {label} has {len(values)} different value(s); expected 2 to 100,000")
    found = {split: pc.index_in(table[label], values).to_numpy().astype(np.int64) for split, table in tables.items()}
    return tuple(str(value) for value in values.to_pylist()), found


def _images_of(
    tables: Mapping[Split, pa.Table], column: str, labels: Mapping[Split, Labels], fields: Mapping[str, Any]
) -> Source:
    def read(split: Split, numbers: Numbers) -> Samples:
        files = tables[split][column].take(pa.array(numbers)).combine_chunks().field("bytes")
        return [bytes(file.as_buffer()) for file in files], labels[split][numbers]

    counts: dict[Split, int] = {split: len(table) for split, table in tables.items()}
    return Source(fields, read, counts, max(1, tables["train"][column].nbytes // counts["train"]))


def _tabular(
    tables: Mapping[Split, pa.Table],
    labels: Mapping[Split, Labels],
    classes: tuple[str, ...],
    options: Options,
    path: Path,
) -> Source:
    """Numbers first, then the columns of words as category numbers."""
    schema = tables["train"].schema
    numbers, words = [], []
    for name in schema.names:
        kind = schema.field(name).type
        if name == options.label:
            continue
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            numbers.append(name)
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind):
            words.append(name)
        else:
            raise SourceError(f"{path}: column {name} holds {kind}; expected numbers, words or true and false")
    if not numbers and not words:
        raise SourceError(f"{path}: has no column but the label")
    values = {name: pc.unique(pa.chunked_array([c for t in tables.values() for c in t[name].chunks])) for name in words}
    values = {name: found.take(pc.sort_indices(found)) for name, found in values.items()}
    inputs = {
        split: np.stack(
            [table[name].to_numpy() for name in numbers] + [pc.index_in(table[n], values[n]).to_numpy() for n in words],
            axis=1,
        ).astype(np.float32)
        for split, table in tables.items()
    }
    for split, values_of in inputs.items():
        if not (finite := np.isfinite(values_of)).all():
            row, column = divmod(int(np.argmin(finite)), values_of.shape[1])
            raise SourceError(
                f"{path}: {split}, column {[*numbers, *words][column]}: row {row + 1} is no finite number; mend or "
                "drop it"
            )
    width = len(numbers) + len(words)
    fields = {
        "kind": "tabular",
        "shape": (width,),
        "classes": classes,
        "categories": tuple(len(values[name]) for name in words),
    }
    counts: dict[Split, int] = {split: len(table) for split, table in tables.items()}
    return Source(fields, lambda split, at: (inputs[split][at], labels[split][at]), counts, 4 * width)


def _texts(
    texts: Mapping[Split, pa.ChunkedArray],
    labels: Mapping[Split, Labels],
    classes: tuple[str, ...],
    options: Options,
    path: Path,
) -> Source:
    """With labels one sample a text, cut to the length; without, all texts in a row, cut into samples of the length."""
    encode, vocabulary = _tokenizer(options.tokenizer, path)
    fields: dict[str, Any] = {"shape": (options.length,), "vocabulary": vocabulary, "classes": classes}
    if classes:

        def read(split: Split, numbers: Numbers) -> Samples:
            encoded = encode(texts[split].take(pa.array(numbers)).to_pylist())
            return [tokens[: options.length] for tokens in encoded], labels[split][numbers]

        counts: dict[Split, int] = {split: len(column) for split, column in texts.items()}
        size = min(texts["train"].nbytes // len(texts["train"]), 4 * options.length)
        return Source({"kind": "text", **fields}, read, counts, max(1, size))
    samples = {split: _in_samples(encode, column, options.length) for split, column in texts.items()}
    if not len(samples["train"]):
        raise SourceError(f"{path}: --length: got {options.length}; all texts together are shorter than that")
    counts = {split: len(rows) for split, rows in samples.items()}
    return Source(
        {"kind": "tokens", **fields}, lambda split, at: (samples[split][at], None), counts, 4 * options.length
    )


Encode = Callable[[Iterable[str]], list[NDArray[np.int32]]]


def _in_samples(encode: Encode, texts: pa.ChunkedArray, length: int) -> NDArray[np.int32]:
    """(samples, length): the texts one after another, token 0 between them; what is left at the end is dropped."""
    rows: list[NDArray[np.int32]] = []
    for start in range(0, len(texts), 1000):
        for tokens in encode(texts.slice(start, 1000).to_pylist()):
            rows += [tokens, np.zeros(1, np.int32)]
    stream = np.concatenate(rows)
    return stream[: len(stream) // length * length].reshape(-1, length)


def _tokenizer(name: str | None, path: Path) -> tuple[Encode, int]:
    """How texts become tokens, and how many there are; 0 stays free for padding."""
    if name is None:
        raise SourceError(f"{path}: --tokenizer: not set; expected a tokenizer.json, or bytes for one token a byte")
    if name == BYTES_TOKENIZER:
        return lambda texts: [np.frombuffer(text.encode(), np.uint8).astype(np.int32) + 1 for text in texts], 257
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(name)
    except Exception as error:  # the library raises the bare class
        raise SourceError(f"--tokenizer: {name} can't be read ({error}); expected a tokenizer.json, or bytes") from None
    tokenizer.no_padding()
    padding = [tokenizer.token_to_id(word) for word in ("[PAD]", "<pad>", "<|padding|>")]
    shift = 0 if 0 in padding else 1
    size: int = tokenizer.get_vocab_size() + shift

    def encode(texts: Iterable[str]) -> list[NDArray[np.int32]]:
        return [np.array(found.ids, np.int32) + shift for found in tokenizer.encode_batch(list(texts))]

    return encode, size


def fingerprint(path: Path, options: Options, shard_samples: int) -> str:
    """Of everything that decides what the shards hold: options, and name, size and time of change of each file."""
    digest = hashlib.sha256(repr((options, shard_samples, str(path.resolve()))).encode())
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    if options.tokenizer and options.tokenizer != BYTES_TOKENIZER:
        files.append(Path(options.tokenizer))
    for file in files:
        status = file.stat()
        digest.update(repr((str(file), status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()[:16]
