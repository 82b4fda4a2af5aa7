"""The bucket fails now and then; what reads and writes it tries again."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import s3fs

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


def test_a_bucket_that_stays_away_is_one_sentence_within_a_minute(digits: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    began = time.monotonic()
    with pytest.raises(StorageError, match="could not read s3://"):
        Dataset(digits, "train")
    assert time.monotonic() - began < 60
