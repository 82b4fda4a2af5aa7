"""The cache of shards: bounded, shared, and whole after whatever happens to its makers or its disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.workloads.conftest import SmallDisk
from workloads.data.cache import ShardCache
from workloads.data.format import Index, write_index, write_split
from workloads.data.loader import Dataset, Loader
from workloads.storage import StorageError


def table(number: int, values: int = 1000) -> pa.Table:
    return pa.table({"input": pa.array(np.full(values, number, dtype=np.int64))})


def made(cache: ShardCache, number: int) -> bool:
    """Whether an entry had to be made; checks its content."""
    calls = []
    found = cache.table(f"entry{number}", lambda: calls.append(number) or table(number))
    assert found.equals(table(number))
    return bool(calls)


@pytest.fixture
def cache(tmp_path: Path) -> ShardCache:
    return ShardCache(tmp_path / "cache", 50_000)


def held(cache: ShardCache) -> int:
    return sum(path.stat().st_size for path in cache.folder.iterdir())


def test_an_entry_is_made_once(cache: ShardCache) -> None:
    assert [made(cache, 1), made(cache, 1), made(ShardCache(cache.folder), 1)] == [True, False, False]


def test_the_folder_never_outgrows_its_limit_and_what_was_used_last_stays(cache: ShardCache) -> None:
    for number in range(20):
        os.utime(cache.folder / "entry0") if number else None
        made(cache, number)
        for age, path in enumerate(sorted(cache.folder.glob("entry*"), key=lambda path: path.stat().st_mtime_ns)):
            os.utime(path, (age, age)) if path.name != "entry0" else None
        assert held(cache) <= 50_000
    assert not made(cache, 0), "used between all the others"
    assert not made(cache, 19)
    assert made(cache, 1)


def test_a_table_outlives_its_entry(cache: ShardCache) -> None:
    first = cache.table("entry0", lambda: table(0))
    for number in range(1, 20):
        made(cache, number)
    assert not (cache.folder / "entry0").exists()
    assert first.equals(table(0))


@pytest.mark.parametrize("damage", ["flipped bit", "torn", "empty", "zeros"])
def test_a_damaged_entry_is_made_anew(cache: ShardCache, damage: str) -> None:
    made(cache, 1)
    path = cache.folder / "entry1"
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes({"flipped bit": bytes(data), "torn": data[:4000], "empty": b"", "zeros": bytes(len(data))}[damage])
    with pytest.warns(UserWarning, match="entry1: this entry of the cache is damaged; it is fetched anew"):
        assert made(cache, 1)
    assert not made(cache, 1)


def test_ranks_of_one_machine_make_an_entry_once_between_them(cache: ShardCache) -> None:
    calls: list[int] = []
    gate = threading.Barrier(8)

    def rank() -> None:
        gate.wait()
        found = ShardCache(cache.folder).table("entry7", lambda: calls.append(7) or table(7))
        assert found.equals(table(7))

    ranks = [threading.Thread(target=rank) for _ in range(8)]
    for thread in ranks:
        thread.start()
    for thread in ranks:
        thread.join()
    assert calls == [7]


KILLED = """
import os, signal, sys
from pathlib import Path
from workloads.data import cache
def kill(*_): os.kill(os.getpid(), signal.SIGKILL)
setattr(*((cache, "_write", kill) if sys.argv[2] == "while writing" else (Path, "rename", kill)))
from tests.workloads.test_data_cache import table
cache.ShardCache(Path(sys.argv[1])).table("entry3", lambda: table(3))
"""


@pytest.mark.parametrize("point", ["while writing", "before the rename"])
@pytest.mark.parametrize("then", ["the same entry", "another entry"])
def test_what_a_killed_process_left_is_taken_over_or_cleared_away(cache: ShardCache, point: str, then: str) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, cache.folder, point], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (cache.folder / "entry3.part").exists()
    assert made(cache, 3 if then == "the same entry" else 4)
    assert not list(cache.folder.glob("*.part"))


def test_an_entry_that_could_not_be_made_leaves_nothing(cache: ShardCache) -> None:
    def fail() -> pa.Table:
        raise StorageError("no such shard")

    with pytest.raises(StorageError, match="no such shard"):
        cache.table("entry1", fail)
    assert not list(cache.folder.glob("entry1*"))
    assert made(cache, 1)


def test_a_full_disk_keeps_shards_in_memory_and_says_so(small_disk: SmallDisk) -> None:
    cache = ShardCache(small_disk(64) / "cache", 10**9)
    with pytest.warns(UserWarning, match=r"data\.cache\.folder: .* can't be written \(No space left on device\)"):
        assert all(made(cache, number) for number in range(20))
    assert not list(cache.folder.glob("*.part"))


def data_set(folder: Path) -> str:
    url = f"file://{folder}/data"
    inputs = np.arange(4000 * 6, dtype=np.float32).reshape(4000, 6)
    shards = write_split(url, "train", inputs, np.arange(4000) % 2, shard_samples=100)
    index = Index(name="x", source="made", kind="tabular", shape=(6,), classes=("a", "b"), splits={"train": shards})
    write_index(url, index)
    return url


def test_a_cache_smaller_than_what_is_read_at_a_time_is_refused_with_what_is_needed(tmp_path: Path) -> None:
    loader = Loader(Dataset(data_set(tmp_path), "train", ShardCache(tmp_path / "cache", 10_000)), 64)
    with pytest.raises(StorageError, match=r"data\.cache\.limit_gib: got 9\.31e-06; .* needs .* shards .* raise it"):
        list(loader.epoch(0))


def test_a_cache_smaller_than_the_data_set_changes_no_batch(tmp_path: Path) -> None:
    url = data_set(tmp_path)
    small, large = ShardCache(tmp_path / "small", 100_000), ShardCache(tmp_path / "large")
    batches = [list(Loader(Dataset(url, "train", cache), 64).epoch(0)) for cache in (small, large)]
    assert held(small) <= 100_000 < held(large)
    for bounded, unbounded in zip(*batches, strict=True):
        assert bounded.inputs.equal(unbounded.inputs)
        assert bounded.labels.equal(unbounded.labels)


def test_the_limit_is_kept_while_many_make_entries_at_once(cache: ShardCache) -> None:
    """Files change their names while others count them, and parts are begun while others look for orphans."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with warnings.catch_warnings(), ThreadPoolExecutor(8) as pool:
            warnings.simplefilter("error")
            assert all(pool.map(lambda number: made(cache, number // 2) in (True, False), range(1600)))
    finally:
        sys.setswitchinterval(usual)
    assert held(cache) <= cache.limit_bytes


def test_an_epoch_left_early_stops_fetching(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path / "cache")
    epoch = Loader(Dataset(data_set(tmp_path), "train", cache), 16).epoch(0)
    next(epoch)
    epoch.close()
    for thread in threading.enumerate():
        if thread.name.startswith("fetch"):
            thread.join()
    assert 8 <= len(list(cache.folder.glob("[0-9a-f]*"))) < 20


def test_no_warning_is_given_where_all_is_well(cache: ShardCache) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made(cache, 1)
