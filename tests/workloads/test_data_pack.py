"""`fusion data pack` and `fusion data check`, as a user calls them."""

from __future__ import annotations

import gzip
import json
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from fusion.commands.data import command
from fusion.errors import FusionError
from workloads.data.cache import ShardCache
from workloads.data.format import Split
from workloads.data.loader import Dataset
from workloads.storage import StorageError

FUSION = Path(sys.executable).with_name("fusion")


def run(*words: Any) -> Result:
    return CliRunner().invoke(command, [str(word) for word in words])


def pack(*words: Any) -> str:
    done = run("pack", *words)
    assert not done.exception, done.exception
    return done.output


def refusal(*words: Any) -> str:
    done = run(*words)
    assert isinstance(done.exception, FusionError), done.output
    assert len(str(done.exception).splitlines()) == 1
    return str(done.exception)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/packed"


def content(url: str, tmp_path: Path) -> dict[Any, list[tuple[Any, int]]]:
    """Each split's samples, sorted."""
    found = {}
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        data = Dataset(url, split, ShardCache(tmp_path / "cache"))
        inputs, labels = data.take(np.arange(len(data)))
        found[split] = sorted((sample.tolist(), label) for sample, label in zip(inputs, labels.tolist(), strict=True))
    return found


def image_folder(folder: Path, images: int = 12) -> Path:
    for number in range(images):
        file = folder / ("cat", "dog")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (number, number % 2, 0)).save(file)
    return folder


def test_a_folder_of_images_is_packed_with_its_folders_as_classes(tmp_path: Path, url: str) -> None:
    said = pack(image_folder(tmp_path / "pets"), url, "--size", 4, 4, "--test-share", 0.25)
    assert said.startswith(f"{url}: 9 samples to train on, 3 held out; image of shape 3 × 4 × 4, 2 classes; 2 shards")
    found = content(url, tmp_path)
    samples = found["train"] + found["test"]
    assert sorted(pixels[0][0][0] for pixels, _ in samples) == list(range(12)), "each image once"
    assert all(label == pixels[1][0][0] for pixels, label in samples), "with its own class"
    assert run("check", url).output == f"{url}: 12 samples in 2 shards: all right\n"


def test_folders_named_train_and_val_are_the_splits(tmp_path: Path, url: str) -> None:
    image_folder(tmp_path / "pets" / "train", 8)
    image_folder(tmp_path / "pets" / "val", 4)
    assert "8 samples to train on, 4 held out" in pack(tmp_path / "pets", url, "--size", 4, 4)


def parts_of_people(folder: Path, parts: dict[str, int]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, rows in parts.items():
        pq.write_table(pa.table({"label": ["no", "yes"] * (rows // 2), "age": list(range(rows))}), folder / name)
    return folder


def test_all_parts_of_a_split_are_packed(tmp_path: Path, url: str) -> None:
    parts = {"train-00000-of-00002.parquet": 8, "train-00001-of-00002.parquet": 6, "test-00000-of-00001.parquet": 4}
    assert "14 samples to train on, 4 held out" in pack(parts_of_people(tmp_path / "people", parts), url)
    pq.write_table(pa.table({"label": ["no"], "height": [1]}), tmp_path / "people" / "train-00002.parquet")
    said = refusal("pack", tmp_path / "people", f"{url}-2")
    assert "train-00002.parquet: its columns are label (string), height (int64); those of train-00000-of-" in said


def test_of_several_held_out_splits_one_is_packed_and_the_user_is_told(tmp_path: Path, url: str) -> None:
    people = parts_of_people(
        tmp_path / "people", {"train.parquet": 8, "validation.parquet": 6, "test.parquet": 4, "notes.parquet": 2}
    )
    said = pack(people, url)
    assert "8 samples to train on, 4 held out" in said
    assert said.startswith("left out: notes, validation (--held-out names the split to hold out)")
    assert "8 samples to train on, 6 held out" in pack(people, f"{url}-2", "--held-out", "validation")
    said = refusal("pack", people, f"{url}-3", "--held-out", "val")
    assert said.endswith(f"--held-out: got val; {people} has test or validation")


def test_a_folder_beside_train_is_not_taken_for_it(tmp_path: Path, url: str) -> None:
    for name, images in (("train", 8), ("val", 4), ("wrong", 6)):
        image_folder(tmp_path / "pets" / name, images)
    said = pack(tmp_path / "pets", url, "--size", 4, 4)
    assert "8 samples to train on, 4 held out" in said
    assert "left out: wrong" in said


def test_names_that_do_not_say_which_split_they_are_of_are_refused(tmp_path: Path, url: str) -> None:
    people = parts_of_people(tmp_path / "people", {"a.parquet": 4, "b.parquet": 4})
    assert "expected names that begin with train, and with test or" in refusal("pack", people, url)
    people = parts_of_people(tmp_path / "two", {"train.parquet": 4})
    pa.csv.write_csv(pa.table({"label": ["no", "yes"], "age": [1, 2]}), people / "train.csv")
    assert "train.csv and train.parquet are of the same split; expected one of them" in refusal("pack", people, url)


def idx(path: Path, array: np.ndarray[Any, Any]) -> None:
    header = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()) if path.suffix == ".gz" else header + array.tobytes())


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_are_packed_as_mnist_lays_them_out(tmp_path: Path, url: str, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (30, 5, 4), dtype=np.uint8)
    labels = np.arange(30, dtype=np.uint8) % 10
    for name, rows in (("train", slice(20)), ("t10k", slice(20, 30))):
        idx(tmp_path / f"{name}-images-idx3-ubyte{suffix}", pixels[rows])
        idx(tmp_path / f"{name}-labels-idx1-ubyte{suffix}", labels[rows])
    assert "20 samples to train on, 10 held out; image of shape 1 × 5 × 4, 10 classes" in pack(tmp_path, url)
    expected = sorted(([image.tolist()], int(label)) for image, label in zip(pixels[20:], labels[20:], strict=True))
    assert content(url, tmp_path)["test"] == expected


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".categorical.parquet"])
def test_a_table_is_packed_with_its_words_as_categories(tmp_path: Path, url: str, suffix: str) -> None:
    table = pa.table({"label": ["no", "yes"] * 10, "town": ["Ulm", "Bonn", "Köln", "Ulm"] * 5, "age": list(range(20))})
    path = tmp_path / f"people{suffix}"
    if suffix == ".categorical.parquet":  # as pandas writes its categoricals
        table = table.set_column(1, "town", table["town"].dictionary_encode())
    pa.csv.write_csv(table, path) if suffix == ".csv" else pq.write_table(table, path)
    assert "18 samples to train on, 2 held out; tabular of shape 2, 2 classes" in pack(path, url)
    assert Dataset(url, "train").index.categories == (3,)
    towns = ["Bonn", "Köln", "Ulm"]
    rows = [
        [float(age), float(towns.index(town))] for age, town in zip(range(20), table["town"].to_pylist(), strict=True)
    ]
    found = content(url, tmp_path)
    assert sorted(found["train"] + found["test"]) == sorted((row, number % 2) for number, row in enumerate(rows))


def test_labelled_texts_are_packed_with_a_tokenizer_and_keep_their_length(tmp_path: Path, url: str) -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "good": 1, "bad": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    lines = [{"text": "good good", "label": "up"}, {"text": "bad", "label": "down"}] * 5
    (tmp_path / "reviews.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    words = ("--tokenizer", tmp_path / "tokenizer.json", "--length", 3, "--test-share", 0.2)
    assert "8 samples to train on, 2 held out; text of shape 3, 2 classes" in pack(
        tmp_path / "reviews.jsonl", url, *words
    )
    found = content(url, tmp_path)
    assert sorted(found["train"] + found["test"]) == sorted([([2, 2, 0], 1), ([3, 0, 0], 0)] * 5), "0 is padding"


def test_texts_without_labels_become_tokens_to_be_continued(tmp_path: Path, url: str) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("abcd")
    (tmp_path / "texts" / "b.txt").write_text("efg")
    assert "tokens of shape 4, no classes" in pack(
        tmp_path / "texts", url, "--tokenizer", "bytes", "--length", 4, "--test-share", 0.5
    )
    found = content(url, tmp_path)
    first, second = [ord(letter) + 1 for letter in "abcd"], [0, *(ord(letter) + 1 for letter in "efg")]
    assert sorted(found["train"] + found["test"]) == sorted([(first, 0), (second, 0)])


def test_a_data_set_that_hugging_face_saved_is_packed_with_its_class_names(tmp_path: Path, url: str) -> None:
    """The files are laid out as `DatasetDict.save_to_disk` of datasets 4 and 5 does."""
    pets = [file for file in sorted(image_folder(tmp_path / "pets").rglob("*.png"))]
    saved = tmp_path / "saved"
    for split in ("train", "test"):
        folder = saved / split
        folder.mkdir(parents=True)
        images = [{"bytes": file.read_bytes(), "path": file.name} for file in pets]
        table = pa.table({"image": images, "label": [int(file.parent.name == "dog") for file in pets]})
        with (
            pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as file,
            pa.ipc.new_stream(file, table.schema) as out,
        ):
            out.write_table(table)
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
        features = {"image": {"_type": "Image"}, "label": {"names": ["Katze", "Hund"], "_type": "ClassLabel"}}
        (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    (saved / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    assert "12 samples to train on, 12 held out; image of shape 3 × 4 × 4, 2 classes" in pack(
        saved, url, "--size", 4, 4
    )
    assert Dataset(url, "train").index.classes == ("Katze", "Hund")
    assert all(label == pixels[1][0][0] for pixels, label in content(url, tmp_path)["test"])

    info = saved / "train" / "dataset_info.json"
    for each in (info, saved / "test" / "dataset_info.json"):
        each.write_text(info.read_text().replace('"Katze", "Hund"', '"Katze"'))
    said = refusal("pack", saved, f"{url}-other")
    assert "column label: row 7 is of none of the 1 classes, as in a split whose labels are kept secret" in said


def tables(folder: Path, rows: int) -> Path:
    folder.mkdir()
    values = np.random.default_rng(0).random((rows, 30))
    pq.write_table(
        pa.table({"label": np.arange(rows) % 7, **{f"c{n}": values[:, n] for n in range(30)}}), folder / "train.parquet"
    )
    return folder


def test_a_pack_killed_and_started_again_loses_no_sample_and_writes_no_shard_twice(tmp_path: Path, url: str) -> None:
    source = tables(tmp_path / "source", 20_000)
    words = [FUSION, "data", "pack", source, url, "--shard-mib", "0.02"]
    folder = tmp_path / "packed"
    killed = subprocess.Popen(words)
    while len(list(folder.glob(".pack-*/*.json"))) < 12 and killed.poll() is None:
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL, "killed before its end"
    finished = {file.name.removesuffix(".json") for file in folder.glob(".pack-*/*.json")}
    written = {name: (folder / name).stat().st_mtime_ns for name in finished}
    assert not (folder / "index.json").exists()
    with pytest.raises(StorageError, match="holds no data set"):
        Dataset(url, "train")

    assert subprocess.run(words, check=True, capture_output=True).returncode == 0
    assert {name: (folder / name).stat().st_mtime_ns for name in finished} == written
    pack(source, f"file://{tmp_path}/uninterrupted", "--shard-mib", 0.02)
    names = sorted(file.name for file in (tmp_path / "uninterrupted").iterdir())
    assert sorted(file.name for file in folder.iterdir()) == names
    for name in names:
        if name != "index.json":  # which holds the data set's name
            assert (folder / name).read_bytes() == (tmp_path / "uninterrupted" / name).read_bytes()


def test_a_bucket_gets_the_same_data_set_as_a_folder(tmp_path: Path, bucket: str, url: str) -> None:
    source = tables(tmp_path / "source", 500)
    pack(source, url)
    pack(source, f"s3://{bucket}/a/b")
    assert content(url, tmp_path) == content(f"s3://{bucket}/a/b", tmp_path)


def test_check_names_each_shard_that_is_not_what_its_index_says(tmp_path: Path, url: str) -> None:
    pack(tables(tmp_path / "source", 2000), url, "--shard-mib", 0.02)
    (tmp_path / "packed" / "train-00001.arrow").write_bytes(b"torn")
    (tmp_path / "packed" / "train-00003.arrow").unlink()
    done = run("check", url)
    assert "train-00001.arrow is not what its index says" in done.output
    assert "train-00003.arrow: there is no such object" in done.output
    assert "2 of 13 shards are broken" in str(done.exception)


def test_check_finds_labels_beyond_the_classes(tmp_path: Path, url: str) -> None:
    pack(tables(tmp_path / "source", 100), url)
    index = json.loads((tmp_path / "packed" / "index.json").read_text())
    index["classes"] = index["classes"][:5]
    (tmp_path / "packed" / "index.json").write_text(json.dumps(index))
    assert "train-00000.arrow: label: row 3 is out of range, expected 0 to 4" in run("check", url).output


def test_what_can_not_be_packed_is_refused_in_one_sentence(tmp_path: Path, url: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "holes.csv").write_text("label,a\nx,1\ny,\n")
    (tmp_path / "nan.csv").write_text("label,a\nx,1\ny,inf\n")
    (tmp_path / "ragged.csv").write_text("label,a\nx,1\ny,2,a secret\n")
    (tmp_path / "notes.csv").write_text("text,other\nhello,1\n")
    (tmp_path / "w.csv").write_text("a,b\n1,2\n")
    pets = image_folder(tmp_path / "pets")
    assert "no such file or folder" in refusal("pack", tmp_path / "nowhere", url)
    assert "nothing to pack; expected a folder of images" in refusal("pack", tmp_path / "empty", url)
    assert "holes.csv: train, column a: row 2 is empty" in refusal("pack", tmp_path / "holes.csv", url)
    assert "nan.csv: train, column a: row 2 is no finite number" in refusal("pack", tmp_path / "nan.csv", url)
    ragged = refusal("pack", tmp_path / "ragged.csv", url)
    assert ragged.endswith("ragged.csv: can't be read: CSV parse error: Expected 2 columns, got 3"), "without the row"
    assert "no column 'price'; expected one of a, b" in refusal("pack", tmp_path / "w.csv", url, "--label", "price")
    assert "--tokenizer: not set" in refusal("pack", tmp_path / "notes.csv", url)
    assert "--test-share: got 1.5" in refusal("pack", pets, url, "--test-share", 1.5)
    assert "expected a URL that starts with s3://" in refusal("pack", pets, "bucket/data")
    (pets / "cat" / "0.png").write_bytes(b"broken")
    assert "cat/0.png: is no image that can be read" in refusal("pack", pets, url)
    pack(tables(tmp_path / "source", 100), url)
    assert "holds a data set already" in refusal("pack", tmp_path / "source", url)
    assert "holds no data set" in refusal("check", f"file://{tmp_path}/nothing")


def test_an_idx_file_that_is_torn_is_refused(tmp_path: Path, url: str) -> None:
    idx(tmp_path / "train-images-idx3-ubyte", np.zeros((4, 2, 2), np.uint8))
    idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(4, np.uint8))
    whole = (tmp_path / "train-images-idx3-ubyte").read_bytes()
    (tmp_path / "train-images-idx3-ubyte").write_bytes(whole[:-1])
    assert "has 15 bytes, its header says 4 × 2 × 2" in refusal("pack", tmp_path, url)
