"""The bucket fails now and then; what reads and writes it tries again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import obstore
import pytest

from tests.workloads.fault_proxy import FaultProxy, spoiling
from workloads import storage
from workloads.data.loader import Dataset, Loader
from workloads.storage import StorageError


@pytest.fixture
def flaky(digits: str, moto_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with spoiling(monkeypatch, moto_endpoint) as proxy:
        yield proxy


def test_reads_and_writes_are_retried(flaky: FaultProxy, bucket: str) -> None:
    for number in range(8):
        url = f"s3://{bucket}/object-{number}"
        storage.write(url, b"content" * 1000)
        assert storage.read(url) == b"content" * 1000
    assert flaky.made.total() >= 4


def test_what_is_removed_is_gone_under_a_name_of_both_an_object_and_a_folder_too(
    flaky: FaultProxy, bucket: str
) -> None:
    for name in ("run", "run/a", "run/b", "runs"):
        storage.write(f"s3://{bucket}/kept/{name}", b"content")
    storage.remove(f"s3://{bucket}/kept/run")
    assert storage.names(f"s3://{bucket}/kept") == ["runs"]
    assert flaky.made.total() >= 2


def test_a_data_set_is_read_whole_from_a_flaky_bucket(flaky: FaultProxy, digits: str) -> None:
    assert sum(len(batch.labels) for batch in Loader(Dataset(digits, "train"), 64).epoch(0)) == 1437
    assert flaky.made.total() >= 2


def test_a_request_that_is_never_answered_is_given_up_and_made_again(
    bucket: str, moto_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(storage._CLIENT, "read_timeout", "1s")
    with spoiling(monkeypatch, moto_endpoint, ("stall",), every=2) as proxy:
        for number in range(2):
            url = f"s3://{bucket}/object-{number}"
            storage.write_durably(url, b"content" * 1000)
            assert storage.read(url) == b"content" * 1000
    assert {method for method, _ in proxy.spoiled} == {"PUT", "GET"}


def unfinished(s3: Any, bucket: str) -> list[str]:
    """Objects of which parts are up, and no more: the bucket keeps and bills them, and shows them to nobody."""
    return [each["Key"] for each in s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])]


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """What goes up in four parts of the least size that S3 takes."""
    monkeypatch.setattr(storage, "_PART_BYTES", 5 * 2**20)
    return os.urandom(16 * 2**20)


@pytest.mark.parametrize("fault", ["503", "500", "cut", "reset", "lost"])
def test_a_part_that_fails_is_sent_again_and_the_object_is_whole(
    fault: str, small_parts: bytes, s3: Any, bucket: str, moto_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with spoiling(monkeypatch, moto_endpoint, (fault,), every=2) as proxy:
        storage.write_durably(f"s3://{bucket}/large", small_parts)
    assert ("PUT", f"/{bucket}/large") in proxy.spoiled
    assert storage.read(f"s3://{bucket}/large") == small_parts
    assert unfinished(s3, bucket) == []


def test_an_upload_whose_last_answer_is_cut_is_made_again(
    small_parts: bytes, s3: Any, bucket: str, moto_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with spoiling(monkeypatch, moto_endpoint, ("half",), every=1) as proxy:
        ends: list[str] = []

        def first_end(method: str, path: str) -> bool:
            is_end = method == "POST" and "uploadId=" in path
            ends.extend([path] * is_end)
            return is_end and len(ends) == 1

        proxy.spoils = first_end
        storage.write_durably(f"s3://{bucket}/large", small_parts)
    assert len({*ends}) == 2, "of the first upload, which the client believes to have failed, and of the second"
    assert storage.read(f"s3://{bucket}/large") == small_parts
    assert unfinished(s3, bucket) == []


def test_on_a_link_too_slow_for_all_parts_at_once_fewer_and_smaller_ones_are_sent(
    s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, sent = obstore.put, []

    def slow(store: Any, key: str, data: Any, *, chunk_size: int, max_concurrency: int) -> object:
        sent.append((max_concurrency, chunk_size // 2**20))
        if max_concurrency > 1:
            raise obstore.exceptions.GenericError("error sending request")
        return put(store, key, data, chunk_size=chunk_size, max_concurrency=max_concurrency)

    monkeypatch.setattr(obstore, "put", slow)
    storage.write_durably(f"s3://{bucket}/large", bytes(6 * 2**20))
    assert sent == [(12, 16), (3, 5), (1, 5)], "(parts at a time, MiB of each)"
    assert "-2" in s3.head_object(Bucket=bucket, Key="large")["ETag"], "a multipart upload's tag counts its parts"


def test_an_upload_that_fails_for_good_leaves_neither_an_object_nor_its_parts(
    small_parts: bytes, s3: Any, bucket: str, moto_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(storage._RETRIES, "max_retries", 1)
    monkeypatch.setattr(storage, "PATIENCE_SECONDS", 1)
    with spoiling(monkeypatch, moto_endpoint, ("500",), every=1) as proxy:
        proxy.spoils = lambda method, path: "partNumber=2" in path
        with pytest.raises(StorageError, match=rf"could not write s3://{bucket}/large"):
            storage.write_durably(f"s3://{bucket}/large", small_parts)
    assert storage.read_or_none(f"s3://{bucket}/large") is None
    assert unfinished(s3, bucket) == []


def test_kill_9_between_parts_leaves_no_object_and_the_next_one_is_whole(
    s3: Any, bucket: str, moto_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{bucket}/large"
    script = (
        "from workloads import storage; storage._PART_BYTES = 5 * 2**20;"
        f"storage.write_durably({url!r}, bytes(16 * 2**20))"
    )
    with spoiling(monkeypatch, moto_endpoint, ()) as proxy:
        writer = subprocess.Popen([sys.executable, "-c", script])

        def kill(method: str, path: str) -> None:
            if "partNumber=2" in path:
                writer.kill()

        proxy.half_way = kill
        assert writer.wait(60) == -signal.SIGKILL
    assert storage.read_or_none(url) is None
    assert unfinished(s3, bucket) == ["large"], "what the buckets that the platform makes delete after some days"
    storage.write_durably(url, bytes(16 * 2**20))
    assert storage.read(url) == bytes(16 * 2**20)


def at_first(proxy: FaultProxy, fault: str) -> Callable[[str, str], bool]:
    """The first three requests are spoiled."""
    return lambda method, path: proxy.made[fault] < 3


@pytest.mark.parametrize("fault", ["reset", "503"])
def test_a_bucket_that_is_away_for_longer_than_clients_try_is_waited_for(
    fault: str, bucket: str, moto_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(storage._RETRIES, "max_retries", 0)
    url = f"s3://{bucket}/object"
    for write in (storage.write, storage.write_durably):
        with spoiling(monkeypatch, moto_endpoint, (fault,), every=1) as proxy:
            proxy.spoils = at_first(proxy, fault)
            write(url, b"content")
            assert proxy.made[fault] == 3
    reads: tuple[Callable[[str], object], ...] = (
        storage.read,
        lambda url: storage.read_range(url, 0, 7),
        lambda url: storage.names(url.removesuffix("/object")) and b"content",
    )
    for read in reads:
        with spoiling(monkeypatch, moto_endpoint, (fault,), every=1) as proxy:
            proxy.spoils = at_first(proxy, fault)
            assert read(url) == b"content"
            assert proxy.made[fault] == 3


def test_a_bucket_that_stays_away_is_one_sentence_within_a_minute(digits: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shorter_by_s = storage.PATIENCE_SECONDS - 1
    monkeypatch.setattr(storage, "PATIENCE_SECONDS", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(StorageError, match=r"could not read s3://[^\n]*$"):
        Dataset(digits, "train")
    assert time.monotonic() - began < 60 - shorter_by_s
    for act in (storage.names, storage.remove):
        began = time.monotonic()
        with pytest.raises(StorageError, match=r"could not (list|delete) s3://[^\n]*$"):
            act(digits)
        assert 0.5 < time.monotonic() - began < 60 - shorter_by_s, "as long as reads are tried"
