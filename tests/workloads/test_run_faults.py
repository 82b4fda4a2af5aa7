"""A run, in a process of its own, whose bucket or disk fails or that is killed in the middle of an upload.

It ends with the samples and the bits of a run without faults, or says in one sentence why it can't, and goes on later.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.workloads.conftest import SmallDisk, Whole, document_of
from tests.workloads.fault_proxy import spoiling
from tests.workloads.ranks import Ended, Ranks, run_ranks
from tests.workloads.recording import recorded
from tests.workloads.test_resume import EVERY, MODEL, assert_one_run
from tests.workloads.test_training import assert_same, final_weights
from workloads.training.manifest import COMMITTED

ALL_FAULTS = ("503", "reset", "500", "half", "slow", "cut", "lost")
ONE_CHECKPOINT_KIB = 640
"""Room for one of the model's checkpoints (406 KB with Adam's state) and not for two."""


@dataclass(frozen=True)
class Run:
    """One run on the bucket, started as often as it takes."""

    folder: Path
    document: dict[str, Any]
    recording: Path
    s3: Any
    bucket: str

    def path(self, **changes: Any) -> Path:
        path = self.folder / "training.yaml"
        path.write_text(json.dumps(self.document | changes))
        return path

    def assert_is(self, whole: Whole, *resumed_at: int) -> None:
        assert_one_run(recorded(self.recording), whole.samples, list(resumed_at))
        assert_same(final_weights(self.s3, self.bucket), whole.weights)


@pytest.fixture
def started(s3: Any, bucket: str, digits: str, recording: Path, tmp_path: Path) -> Run:
    document = document_of(digits, f"s3://{bucket}/checkpoints", f"s3://{bucket}/runs/test") | {"model": MODEL}
    document["checkpoint"]["keep"] = 1
    return Run(tmp_path, document, recording, s3, bucket)


def events(ended: Ended, name: str) -> list[dict[str, Any]]:
    return [event for event in map(json.loads, ended.out.splitlines()) if event["event"] == name]


def test_a_bucket_that_fails_in_every_way_changes_no_sample_and_no_bit(
    started: Run, whole: Whole, moto_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with spoiling(monkeypatch, moto_endpoint, ALL_FAULTS, every=2) as proxy:
        (ended,) = run_ranks(started.path(), 1)
    assert (ended.status, ended.err) == (0, "")
    assert set(proxy.made) == set(ALL_FAULTS)
    for method, folder in (("GET", "data"), ("PUT", "checkpoints"), ("PUT", "runs")):
        assert any(each == method and f"/{folder}/" in path for each, path in proxy.spoiled), f"{method} of {folder}"
    started.assert_is(whole)


@pytest.mark.parametrize(
    ("method", "what", "resumed_at"),
    [
        ("PUT", "step-000000014/__0_0.distcp", EVERY),
        ("PUT", f"step-000000014/{COMMITTED}", EVERY),
        ("POST", "?delete", 2 * EVERY),
    ],
    ids=["the state", "the marker", "an old checkpoint's deletion"],
)
def test_kill_9_in_the_middle_of_a_request_of_a_save_changes_no_sample_and_no_bit(
    method: str,
    what: str,
    resumed_at: int,
    started: Run,
    whole: Whole,
    moto_endpoint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = started.path()
    with spoiling(monkeypatch, moto_endpoint, ()) as proxy, Ranks(path, 1) as ranks:

        def kill(each: str, where: str) -> None:
            if each == method and what in where:
                ranks.kill(0)
                raise ConnectionAbortedError

        proxy.half_way = kill
        assert ranks.ended()[0].status == -9
    (ended,) = run_ranks(path, 1)
    assert (ended.status, ended.err) == (0, "")
    assert [event["step"] for event in events(ended, "resumed")] == [resumed_at]
    started.assert_is(whole, resumed_at)


def test_a_saver_that_is_killed_in_the_middle_of_an_upload_costs_one_save(
    started: Run, whole: Whole, moto_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with spoiling(monkeypatch, moto_endpoint, ()) as proxy, Ranks(started.path(), 1) as ranks:

        def kill(method: str, path: str) -> None:
            if method == "PUT" and "step-000000014/__0_0.distcp" in path:
                ranks.kill_savers()
                raise ConnectionAbortedError

        proxy.half_way = kill
        (ended,) = ranks.ended()
    assert (ended.status, ended.err) == (0, "")
    (failed,) = events(ended, "checkpoint_failed")
    assert failed["reason"] == "the process that saves ended with status -9: killed, perhaps for memory"
    assert 14 not in [event["step"] for event in events(ended, "saved")]
    started.assert_is(whole)


def test_a_disk_too_small_for_checkpoints_ends_the_run_with_one_sentence_and_a_larger_one_lets_it_go_on(
    started: Run, whole: Whole, small_disk: SmallDisk
) -> None:
    disk = small_disk(ONE_CHECKPOINT_KIB)
    path = started.path(checkpoint=started.document["checkpoint"] | {"url": f"file://{disk}"})
    (full,) = run_ranks(path, 1)
    assert full.status == 1
    assert re.fullmatch(
        r"could not write file://\S+: OSError: \[Errno 28\] No space left on device; so did the save before it\n",
        full.err,
    )
    assert [event["step"] for event in events(full, "saved")] == [EVERY]
    small_disk(4 * ONE_CHECKPOINT_KIB)
    (ended,) = run_ranks(path, 1)
    assert (ended.status, ended.err) == (0, "")
    started.assert_is(whole, EVERY)


def test_a_disk_too_small_for_the_cache_changes_no_sample_and_no_bit(
    started: Run, whole: Whole, small_disk: SmallDisk
) -> None:
    path = started.path(data=started.document["data"] | {"cache": {"folder": str(small_disk(64) / "cache")}})
    (ended,) = run_ranks(path, 1)
    assert (ended.status, ended.err) == (0, "")
    (warned,) = {event["reason"] for event in events(ended, "warning")}
    assert re.fullmatch(
        r"data\.cache\.folder: \S+ can't be written \(No space left on device\); shards are kept in memory", warned
    )
    started.assert_is(whole)


def test_a_temporary_folder_too_small_for_a_checkpoint_is_one_sentence_and_the_run_goes_on_when_there_is_room(
    started: Run, whole: Whole, small_disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = started.path()
    (killed,) = run_ranks(path, 1, {0: {"KILL_AT_STEP": 20}})
    assert killed.status == -9
    disk = small_disk(64)
    with monkeypatch.context() as patch:
        patch.setenv("TMPDIR", str(disk))
        (full,) = run_ranks(path, 1)
    assert full.status == 1
    assert re.fullmatch(
        rf"could not copy s3://\S+ to {disk}: No space left on device; free some room there, or name another folder in "
        r"TMPDIR, and run the same command again\n",
        full.err,
    )
    (ended,) = run_ranks(path, 1)
    assert (ended.status, ended.err) == (0, "")
    (resumed,) = events(ended, "resumed")
    assert resumed["step"] in (EVERY, 2 * EVERY), "the last save, or the one before it where that was still under way"
    parts = recorded(started.recording)
    assert parts[0] == whole.samples[: len(parts[0])]
    assert parts[-1] == whole.samples[64 * resumed["step"] :]
    assert_same(final_weights(started.s3, started.bucket), whole.weights)
