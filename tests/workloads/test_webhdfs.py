"""HDFS over HTTP is a bucket like the others: data, checkpoints and results.

`FUSION_WEBHDFS=HOST:PORT` runs what needs no faults against a namenode of Hadoop's own.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from fusion.commands.data import command
from tests.workloads.fake_hdfs import FakeHdfs, fake_hdfs
from tests.workloads.ranks import run_ranks
from workloads import storage, webhdfs
from workloads.data.digits import write_digits
from workloads.storage import StorageError
from workloads.training.manifest import COMMITTED


@pytest.fixture
def server() -> Iterator[FakeHdfs]:
    with fake_hdfs() as found:
        yield found


@pytest.fixture
def hdfs(server: FakeHdfs) -> str:
    """A folder's URL."""
    return f"webhdfs://trainer@{os.environ.get('FUSION_WEBHDFS', server.address)}/test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhdfs, "PAUSES_SECONDS", (0, 0, 0, 0))


def test_objects_are_written_whole_listed_read_in_part_and_deleted(hdfs: str, tmp_path: Path) -> None:
    url = f"{hdfs}/a b"
    for content in (b"first", b"second and longer", b""):
        storage.write(f"{url}/c+d=e.arrow", content)
        assert storage.read(f"{url}/c+d=e.arrow") == content
    storage.write_durably(f"{url}/large", bytes(range(256)) * 4096)
    assert storage.size(f"{url}/large") == 2**20
    assert storage.read_range(f"{url}/large", 255, 258) == b"\xff\x00\x01"
    (tmp_path / "file").write_bytes(b"uploaded")
    storage.upload(tmp_path / "file", f"{url}/f/g")
    assert storage.names(url) == ["c+d=e.arrow", "f", "large"], "and nothing that is half written"
    storage.remove(f"{url}/f")
    assert storage.names(f"{url}/f") == []
    assert storage.read_or_none(f"{url}/f/g") is None


def test_a_run_reads_its_data_from_hdfs_and_saves_there_and_goes_on_from_there(hdfs: str, tmp_path: Path) -> None:
    write_digits(f"{hdfs}/data")
    check = CliRunner().invoke(command, ["check", f"{hdfs}/data"])
    assert (check.exit_code, "all right" in check.output) == (0, True), check.output
    path = tmp_path / "training.yaml"
    for epochs in (1, 2):
        document = {
            "run": "digits",
            "data": {"url": f"{hdfs}/data", "batch_size": 128, "cache": {"folder": str(tmp_path / "cache")}},
            "epochs": epochs,
            "threads": 1,
            "checkpoint": {"url": f"{hdfs}/checkpoints", "every_steps": 6, "keep": 1},
            "outputs": {"url": f"{hdfs}/run"},
        }
        path.write_text(yaml.safe_dump(document))
        (ended,) = run_ranks(path, 1)
        assert ended.status == 0, ended.err
    assert '"event": "resumed"' in ended.out
    assert json.loads(storage.read(f"{hdfs}/run/report.json"))["accuracy"] > 0.5
    assert storage.names(f"{hdfs}/checkpoints") == ["step-000000024"]
    assert COMMITTED in storage.names(f"{hdfs}/checkpoints/step-000000024")


@pytest.mark.usefixtures("impatient")
def test_what_passes_is_tried_again_a_namenode_on_standby_among_it(server: FakeHdfs) -> None:
    url = f"webhdfs://{server.address}/data"
    server.spoil_every = 3
    for number in range(12):
        storage.write(f"{url}/{number}", b"content" * 100)
        assert storage.read(f"{url}/{number}") == b"content" * 100
    assert len(storage.names(url)) == 12
    assert server.spoiled > 8


def test_who_asks_is_named_by_the_url_or_by_hadoops_own_variable(
    server: FakeHdfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HADOOP_USER_NAME", "from-environment")
    storage.write(f"webhdfs://{server.address}/a", b"")
    storage.write(f"webhdfs://from-url@{server.address}/a", b"")
    assert server.users == {"from-environment", "from-url"}


@pytest.mark.usefixtures("impatient")
def test_what_stays_is_one_sentence(server: FakeHdfs) -> None:
    with pytest.raises(StorageError, match=r"could not read webhdfs://127\.0\.0\.1:9/a: .*127\.0\.0\.1:9 does not ans"):
        storage.read("webhdfs://127.0.0.1:9/a")
    for url, problem in (("webhdfs:///a", "it names no host"), ("webhdfs://a:99999/b", "port out of range 0-65535")):
        with pytest.raises(StorageError, match=f"could not read {url}: OSError: {problem}; expected webhdfs://HOST"):
            storage.read(url)
    server.readers = {"someone"}
    with pytest.raises(StorageError, match=r"access denied \(Permission denied: user=dr\.who, access=READ\); check"):
        storage.read(f"webhdfs://{server.address}/a")
    server.readers, server.spoil_every = None, 1
    with pytest.raises(StorageError, match=r"could not write .*/a: "):
        storage.write(f"webhdfs://{server.address}/a", b"x")
