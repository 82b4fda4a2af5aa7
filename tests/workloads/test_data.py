from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from workloads import storage
from workloads.data.digits import main
from workloads.data.format import Index, write_index, write_split
from workloads.data.loader import Dataset, Loader
from workloads.data.order import epoch_order, of_rank
from workloads.storage import StorageError

shard_sizes = st.lists(st.integers(1, 40), min_size=1, max_size=20)


@given(shard_sizes, st.integers(0, 2**31 - 1), st.integers(0, 1000), st.integers(1, 9), st.integers(1, 50))
def test_every_sample_is_seen_exactly_once_an_epoch_by_the_ranks_together(
    shards: list[int], seed: int, epoch: int, world_size: int, batch_size: int
) -> None:
    order = epoch_order(shards, seed=seed, epoch=epoch)
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    seen = [of_rank(batch, rank=rank, world_size=world_size) for batch in batches for rank in range(world_size)]
    assert sorted(np.concatenate(seen)) == list(range(sum(shards)))


@given(shard_sizes, st.integers(0, 1000))
def test_the_order_is_a_function_of_seed_and_epoch_alone(shards: list[int], seed: int) -> None:
    assert (epoch_order(shards, seed=seed, epoch=1) == epoch_order(shards, seed=seed, epoch=1)).all()


def test_another_epoch_and_another_seed_have_another_order() -> None:
    first = epoch_order([500, 500], seed=0, epoch=0)
    assert (first != epoch_order([500, 500], seed=0, epoch=1)).any()
    assert (first != epoch_order([500, 500], seed=1, epoch=0)).any()


def test_the_order_never_changes_between_versions() -> None:
    """A run that is resumed after an update must go on with the samples that it had not seen."""
    assert list(epoch_order([3, 4, 2], seed=7, epoch=2)) == [3, 4, 5, 1, 8, 2, 7, 0, 6]


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
        ({"kind": "tabular", "shape": (4,), "classes": ("a", "b"), "categories": (3,)}, np.float32),
        ({"kind": "text", "shape": (5,), "classes": ("a", "b"), "vocabulary": 9}, np.int32),
        ({"kind": "tokens", "shape": (6,), "vocabulary": 9}, np.int32),
    ],
)
def test_every_kind_of_data_comes_back_as_it_was_written(tmp_path: Path, fields: dict[str, Any], dtype: Any) -> None:
    url = f"file://{tmp_path}/data"
    inputs = np.random.default_rng(0).integers(0, 9, (10, *fields["shape"])).astype(dtype)
    labels = None if fields["kind"] == "tokens" else np.arange(10) % 2
    shards = write_split(url, "train", inputs, labels, shard_samples=4)
    write_index(url, Index(name="x", source="made here", splits={"train": shards}, **fields))
    (batch,) = Loader(Dataset(url, "train"), batch_size=10).once()
    assert batch.inputs.numpy().dtype == dtype
    assert (batch.inputs.numpy() == inputs).all()
    assert batch.labels.tolist() == (labels if labels is not None else np.zeros(10, int)).tolist()


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"kind": "image", "shape": (3, 8), "classes": ("a", "b")}, "shape"),
        ({"kind": "text", "shape": (8,), "classes": ("a", "b")}, "vocabulary"),
        ({"kind": "tokens", "shape": (8,), "vocabulary": 9, "classes": ("a", "b")}, "classes"),
        ({"kind": "tabular", "shape": (8,), "classes": ("a",)}, "classes"),
        ({"kind": "tabular", "shape": (1,), "classes": ("a", "b"), "categories": (2, 2)}, "categories"),
    ],
)
def test_an_index_whose_fields_contradict_each_other_is_refused(fields: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValueError, match=f"{wrong}: got"):
        Index(name="x", source="made here", splits={}, **fields)


def test_a_shard_that_is_not_what_the_index_says_is_refused(s3: Any, bucket: str, digits: str) -> None:
    s3.put_object(Bucket=bucket, Key="data/digits/train-00002.parquet", Body=b"not it")
    with pytest.raises(StorageError, match=r"train-00002\.parquet is not what its index says"):
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
