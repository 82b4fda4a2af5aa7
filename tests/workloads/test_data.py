from __future__ import annotations

import hashlib
import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from workloads import storage
from workloads.data.cache import ShardCache
from workloads.data.digits import main
from workloads.data.format import Index, decode_image, write_index, write_split
from workloads.data.loader import Dataset, Loader
from workloads.data.order import epoch_order
from workloads.storage import StorageError

shard_sizes = st.lists(st.integers(1, 40), min_size=1, max_size=20)


@given(
    shard_sizes,
    st.integers(0, 2**31 - 1),
    st.integers(0, 1000),
    st.integers(1, 9),
    st.integers(1, 50),
    st.integers(1, 10),
)
def test_every_sample_is_seen_exactly_once_an_epoch_by_the_ranks_together(
    shards: list[int], seed: int, epoch: int, world_size: int, batch_size: int, streams: int
) -> None:
    order = epoch_order(shards, seed=seed, epoch=epoch, streams=streams)
    parts = [order.part(batch_size=batch_size, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert sorted(np.concatenate([part.numbers for part in parts])) == list(range(sum(shards)))


@given(shard_sizes, st.integers(0, 99), st.integers(1, 9), st.integers(1, 9), st.integers(1, 50), st.data())
def test_a_run_that_resumes_with_another_world_size_goes_on_with_the_same_global_batches(
    shards: list[int], seed: int, before: int, after: int, batch_size: int, data: st.DataObject
) -> None:
    order = epoch_order(shards, seed=seed, epoch=0)

    def batches(world_size: int, start: int) -> list[list[int]]:
        parts = [
            order.part(batch_size=batch_size, start=start, rank=r, world_size=world_size) for r in range(world_size)
        ]
        cut = [np.split(part.numbers, part.ends[:-1]) for part in parts]
        assert all(max(map(len, ranks)) - min(map(len, ranks)) <= 1 for ranks in zip(*cut, strict=True))
        return [sorted(np.concatenate(ranks).tolist()) for ranks in zip(*cut, strict=True)]

    whole = batches(before, 0)
    done = data.draw(st.integers(0, len(whole) - 1))
    assert batches(after, done * batch_size) == whole[done:]


def test_with_a_stream_for_each_rank_a_rank_reads_its_own_shards() -> None:
    shards = [100] * 64
    order = epoch_order(shards, seed=0, epoch=0, streams=8)
    read = [set((order.part(batch_size=64, rank=rank, world_size=8).numbers // 100).tolist()) for rank in range(8)]
    assert [len(shards) for shards in read] == [8] * 8
    assert len(set.union(*read)) == 64


@given(shard_sizes, st.integers(0, 1000))
def test_the_order_is_a_function_of_seed_and_epoch_alone(shards: list[int], seed: int) -> None:
    once, again = (epoch_order(shards, seed=seed, epoch=1).numbers for _ in range(2))
    assert (once == again).all()


def test_another_epoch_and_another_seed_have_another_order() -> None:
    first = epoch_order([500, 500], seed=0, epoch=0).numbers
    assert (first != epoch_order([500, 500], seed=0, epoch=1).numbers).any()
    assert (first != epoch_order([500, 500], seed=1, epoch=0).numbers).any()


def test_the_order_never_changes_between_versions() -> None:
    """A run that is resumed after an update must go on with the samples that it had not seen."""
    assert list(epoch_order([3, 4, 2], seed=7, epoch=2, streams=2).numbers) == [1, 3, 2, 6, 0, 5, 7, 4, 8]


def test_an_epoch_resumed_in_its_middle_is_the_rest_of_that_epoch(digits: str) -> None:
    loader = Loader(Dataset(digits, "train"), batch_size=64, seed=3)
    whole = [batch.labels.tolist() for batch in loader.epoch(4)]
    rest = [batch.labels.tolist() for batch in loader.epoch(4, start=5 * 64)]
    assert rest == whole[5:]


def test_the_digits_in_the_bucket_are_scikit_learns_and_the_held_out_ones_are_in_no_training_epoch(digits: str) -> None:
    def images(split: Any) -> list[bytes]:
        taken, _ = Dataset(digits, split).take(np.arange(len(Dataset(digits, split))))
        assert (taken == taken[:, :1]).all(), "the channels of a grey image are the same"
        return [image[0].tobytes() for image in taken]

    train, test = images("train"), images("test")
    assert sorted(train + test) == sorted(image.astype(np.uint8).tobytes() for image in load_digits().images)
    assert (len(train), len(test)) == (1437, 360)
    assert not set(train) & set(test)


def test_writing_the_digits_is_one_command(bucket: str) -> None:
    done = CliRunner().invoke(main, ["--url", f"s3://{bucket}/d"])
    assert done.output == f"s3://{bucket}/d: 1,437 samples to train on, 360 held out\n"


@pytest.mark.parametrize(
    ("fields", "dtype"),
    [
        ({"kind": "image", "shape": (1, 2, 3), "classes": ("a", "b")}, np.uint8),
        ({"kind": "tabular", "shape": (4,), "classes": ("a", "b"), "categories": (9,)}, np.float32),
        ({"kind": "text", "shape": (5,), "classes": ("a", "b"), "vocabulary": 9}, np.int32),
        ({"kind": "tokens", "shape": (6,), "vocabulary": 9}, np.int32),
    ],
)
def test_every_kind_of_tensor_comes_back_as_it_was_written(tmp_path: Path, fields: dict[str, Any], dtype: Any) -> None:
    url = f"file://{tmp_path}/data"
    inputs = np.random.default_rng(0).integers(0, 9, (10, *fields["shape"])).astype(dtype)
    labels = None if fields["kind"] == "tokens" else np.arange(10) % 2
    shards = write_split(url, "train", inputs, labels, shard_samples=4)
    write_index(url, Index(name="x", source="made here", splits={"train": shards}, **fields))
    (batch,) = Loader(Dataset(url, "train", ShardCache(tmp_path / "cache")), batch_size=10).once()
    assert batch.inputs.numpy().dtype == dtype
    assert (batch.inputs.numpy() == inputs).all()
    assert batch.labels.tolist() == (labels if labels is not None else np.zeros(10, int)).tolist()


def test_texts_keep_their_length_in_the_shard_and_are_padded_in_the_batch(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/data"
    texts = [np.arange(1, 1 + length, dtype=np.int32) for length in (3, 1, 0, 5)]
    shards = write_split(url, "train", texts, np.array([0, 1, 0, 1]), shard_samples=3)
    fields: dict[str, Any] = {"kind": "text", "shape": (4,), "classes": ("a", "b"), "vocabulary": 9}
    write_index(url, Index(name="x", source="made here", splits={"train": shards}, **fields))
    (batch,) = Loader(Dataset(url, "train", ShardCache(tmp_path / "cache")), batch_size=10).once()
    assert batch.inputs.tolist() == [[1, 2, 3, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 2, 3, 4]]


@pytest.mark.parametrize(("channels", "format"), [(3, "JPEG"), (3, "PNG"), (1, "WEBP")])
def test_image_files_are_scaled_to_cover_the_shape_and_cut_to_their_middle(
    tmp_path: Path, channels: int, format: str
) -> None:
    url = f"file://{tmp_path}/data"
    wide = Image.new("RGB", (300, 100), (250, 0, 0))
    wide.paste((0, 0, 0), (100, 0, 200, 100))
    file = io.BytesIO()
    wide.save(file, format)
    shards = write_split(url, "train", [file.getvalue()], np.array([1]), shard_samples=1)
    fields: dict[str, Any] = {"kind": "image", "shape": (channels, 50, 50), "classes": ("a", "b"), "stored_as": "files"}
    write_index(url, Index(name="x", source="made here", splits={"train": shards}, **fields))
    (batch,) = Loader(Dataset(url, "train", ShardCache(tmp_path / "cache")), batch_size=1).once()
    assert batch.inputs.shape == (1, channels, 50, 50)
    assert batch.inputs.float().mean() < 6, "the black third in the middle"


@pytest.mark.parametrize(("width", "height", "channels"), [(28, 28, 1), (7, 5, 1), (7, 5, 3), (2100, 2100, 3)])
def test_an_image_that_fits_keeps_each_pixel_in_its_place(width: int, height: int, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels).save(file, "BMP")
    decoded = np.zeros((channels, height, width), dtype=np.uint8)
    decode_image(file.getvalue(), decoded)
    assert (decoded == pixels.transpose(2, 0, 1)).all()


def image_file(format: str) -> bytearray:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, format)
    return bytearray(file.getvalue())


def torn_png() -> bytes:
    content = image_file("PNG")
    content[content.index(b"IDAT") : content.index(b"IDAT") + 4] = b"\xb0\x17^\x01"
    return bytes(content)


def enormous_bmp() -> bytes:
    content = image_file("BMP")
    content[18:26] = (100_000).to_bytes(4, "little") * 2
    return bytes(content)


@pytest.mark.parametrize("content", [b"no image", torn_png(), enormous_bmp()], ids=["none", "torn", "enormous"])
def test_an_image_that_can_not_be_decoded_is_one_sentence_that_names_the_shard(content: bytes, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/data"
    shards = write_split(url, "train", [content], np.array([1]), shard_samples=1)
    fields: dict[str, Any] = {"kind": "image", "shape": (3, 8, 8), "classes": ("a", "b"), "stored_as": "files"}
    write_index(url, Index(name="x", source="made here", splits={"train": shards}, **fields))
    with pytest.raises(StorageError, match=r"data/train-00000\.arrow holds an image that can't be read"):
        list(Loader(Dataset(url, "train", ShardCache(tmp_path / "cache")), batch_size=1).once())


@pytest.mark.parametrize(
    ("fields", "row", "label", "said"),
    [
        ({"kind": "tabular", "shape": (4,), "categories": (3, 5)}, [9.5, -7, 3, 0], 0, "category column 1 (input column 3): row 2 is out of range, expected 0 to 2"),
        ({"kind": "tabular", "shape": (4,), "categories": (3, 5)}, [9.5, -7, 2, -1], 0, "category column 2 (input column 4): row 2 is out of range, expected 0 to 4"),
        ({"kind": "text", "shape": (3,), "vocabulary": 9}, [1, 9, 0], 0, "input: row 2 is out of range, expected 0 to 8"),
        ({"kind": "tabular", "shape": (2,)}, [1, float("nan")], 0, "column 2: row 2 is no finite number"),
        ({"kind": "tabular", "shape": (1,)}, [1], 2, "label: row 2 is out of range, expected 0 to 1"),
    ],
)  # fmt: skip
def test_a_number_that_the_index_does_not_allow_is_one_sentence_with_field_row_and_bound(
    tmp_path: Path, fields: dict[str, Any], row: list[float], label: int, said: str
) -> None:
    url = f"file://{tmp_path}/data"
    kind = np.int32 if fields["kind"] == "text" else np.float32
    shards = write_split(url, "train", np.array([np.zeros(len(row)), row], kind), np.array([0, label]), shard_samples=2)
    write_index(url, Index(name="x", source="made here", classes=("a", "b"), splits={"train": shards}, **fields))
    with pytest.raises(StorageError, match=rf"data/train-00000\.arrow: {re.escape(said)}; mend the source"):
        list(Loader(Dataset(url, "train", ShardCache(tmp_path / "cache")), batch_size=1).once())


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"kind": "image", "shape": (3, 8), "classes": ("a", "b")}, "shape"),
        ({"kind": "text", "shape": (8,), "classes": ("a", "b")}, "vocabulary"),
        ({"kind": "tokens", "shape": (8,), "vocabulary": 9, "classes": ("a", "b")}, "classes"),
        ({"kind": "tabular", "shape": (8,), "classes": ("a",)}, "classes"),
        ({"kind": "text", "shape": (8,), "classes": ("a", "b"), "vocabulary": 9, "stored_as": "files"}, "stored_as"),
        ({"kind": "tabular", "shape": (1,), "classes": ("a", "b"), "categories": (2, 2)}, "categories"),
    ],
)
def test_an_index_whose_fields_contradict_each_other_is_refused(fields: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValueError, match=f"{wrong}: got"):
        Index(name="x", source="made here", splits={}, **fields)


def test_a_shard_that_is_not_what_the_index_says_is_refused(s3: Any, bucket: str, digits: str) -> None:
    s3.put_object(Bucket=bucket, Key="data/digits/train-00002.arrow", Body=b"not it")
    with pytest.raises(StorageError, match=r"train-00002\.arrow is not what its index says"):
        list(Loader(Dataset(digits, "train"), 64).epoch(0))


def test_a_folder_without_a_data_set_is_refused_with_the_way_out(bucket: str) -> None:
    with pytest.raises(StorageError, match=r"holds no data set .* `python -m workloads\.data\.digits"):
        Dataset(f"s3://{bucket}/nothing", "train")


def test_a_missing_bucket_is_said_in_one_sentence(s3: Any) -> None:
    with pytest.raises(
        StorageError, match="could not write s3://no-such-bucket-here/a: there is no such object or bucket"
    ):
        storage.write("s3://no-such-bucket-here/a", b"x")


def test_large_objects_go_up_in_parts_and_come_back_whole(s3: Any, bucket: str, tmp_path: Path) -> None:
    data = os.urandom(1024) * (120 * 1024)
    (tmp_path / "large").write_bytes(data)
    storage.upload(tmp_path / "large", f"s3://{bucket}/large")
    assert "-" in s3.head_object(Bucket=bucket, Key="large")["ETag"], "a multipart upload's tag counts its parts"
    assert storage.sha256(storage.read(f"s3://{bucket}/large")) == hashlib.sha256(data).hexdigest()


def test_a_folder_of_this_machine_works_like_a_bucket(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/a"
    storage.write(f"{url}/b/c", b"x")
    assert storage.names(url) == ["b"]
    assert storage.read(f"{url}/b/c") == b"x"
    storage.remove(url)
    assert storage.names(url) == []


def test_hdfs_without_hadoops_client_is_one_sentence_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HADOOP_HOME", raising=False)
    with pytest.raises(
        StorageError, match=r"hdfs://.* could not be reached through Hadoop's client .*`hadoop classpath"
    ):
        Dataset("hdfs://127.0.0.1:9/data", "train")
