"""A machine goes away in the middle of a run: nothing is lost, nothing is seen twice, and not one bit is different."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.workloads.conftest import Whole
from tests.workloads.ranks import run_ranks
from tests.workloads.recording import MachineGone, recorded
from tests.workloads.test_training import assert_same, final_weights
from workloads.training.config import TrainingConfig
from workloads.training.fetching import ResumeError
from workloads.training.run import run
from workloads.training.stopping import RESUMABLE_EXIT_CODE, Interrupted, StopRequest

Configured = Callable[..., TrainingConfig]

STEPS = 46  # two epochs of 23
EVERY = 7
MODEL = {"name": "tests.workloads.recording:RecordingNet"}


def assert_one_run(parts: list[list[str]], samples: list[str], saved_at: list[int]) -> None:
    """Each process went on from the last save before it, in the one order."""
    starts = [0, *(min(step * 64, 1437) if step <= 23 else 1437 + (step - 23) * 64 for step in saved_at)]
    for part, start in zip(parts, starts, strict=True):
        assert part == samples[start : start + len(part)]
    assert starts[-1] + len(parts[-1]) == len(samples)


def test_kill_9_and_sigterm_at_random_steps_change_no_sample_and_no_bit(
    configured: Configured,
    write_config: Callable[[TrainingConfig], Path],
    recording: Path,
    whole: Whole,
    s3: Any,
    bucket: str,
) -> None:
    path = write_config(configured(model=MODEL))
    chance = random.Random()
    killed = chance.randrange(EVERY + 1, STEPS // 2)
    terminated = chance.randrange(1, STEPS - killed)
    print(f"killed at step {killed}, then SIGTERM {terminated} steps after the resume")

    (dead,) = run_ranks(path, 1, {0: {"KILL_AT_STEP": killed}})
    assert dead.status == -9
    begun = (killed - 1) // EVERY * EVERY
    (ended,) = run_ranks(path, 1, {0: {"TERM_AT_STEP": terminated}})
    assert ended.status == RESUMABLE_EXIT_CODE
    events = [json.loads(line) for line in ended.out.splitlines()]
    assert events[-1]["event"] == "interrupted"
    saved = next((event["step"] for event in events if event["event"] == "resumed"), 0)
    assert saved in (begun, begun - EVERY), "the last save, or the one before it where that was still under way"
    (finished,) = run_ranks(path, 1)
    assert (finished.status, finished.err) == (0, "")

    assert_one_run(recorded(recording), whole.samples, [saved, saved + terminated])
    assert_same(final_weights(s3, bucket), whole.weights)


def crash_at(step: int, configured: Configured) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(MachineGone):
        patch.setenv("FAIL_AT_STEP", str(step))
        run(configured(model=MODEL), StopRequest())


@pytest.mark.parametrize("step", [1, EVERY, 22, 23, 24, STEPS])
def test_a_crash_at_this_step_changes_no_sample_and_no_bit(
    step: int,
    configured: Configured,
    recording: Path,
    whole: Whole,
    s3: Any,
    bucket: str,
) -> None:
    crash_at(step, configured)
    run(configured(model=MODEL), StopRequest())
    assert_one_run(recorded(recording), whole.samples, [(step - 1) // EVERY * EVERY])
    assert_same(final_weights(s3, bucket), whole.weights)


def test_a_stop_request_saves_at_the_very_step(configured: Configured, s3: Any, bucket: str) -> None:
    stop = StopRequest()
    stop.requested = True
    with pytest.raises(Interrupted):
        run(configured(), stop)
    assert checkpoints(s3, bucket) == ["step-000000001"]


def test_a_checkpoint_that_was_changed_is_skipped_and_the_one_before_it_ends_the_run_with_the_same_weights(
    configured: Configured,
    recording: Path,
    whole: Whole,
    s3: Any,
    bucket: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`test_saves.py` has the other ways in which one can be torn or spoiled."""
    crash_at(20, configured)
    key = f"checkpoints/step-{14:09d}/__0_0.distcp"
    data = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    s3.put_object(Bucket=bucket, Key=key, Body=data[:900] + bytes([data[900] ^ 1]) + data[901:])
    capsys.readouterr()
    run(configured(model=MODEL), StopRequest())
    events = {line["event"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert "is not what was written (SHA-256 of bytes 0 to" in events["checkpoint_skipped"]["reason"]
    assert events["resumed"]["step"] == 7
    assert_same(final_weights(s3, bucket), whole.weights)


@pytest.mark.parametrize("change", [{"seed": 1}, {"model": {"arguments": {"hidden": 8}}}])
def test_another_runs_checkpoint_is_refused(configured: Configured, change: dict[str, Any]) -> None:
    stop = StopRequest()
    stop.requested = True
    with pytest.raises(Interrupted):
        run(configured(), stop)
    with pytest.raises(ResumeError, match=r"was saved with .* give this run a checkpoint\.url of its own"):
        run(configured(**change), StopRequest())


def test_a_finished_run_goes_on_when_it_is_given_more_epochs(
    configured: Configured, recording: Path, whole: Whole, s3: Any, bucket: str
) -> None:
    run(configured(model=MODEL, epochs=1), StopRequest())
    run(configured(model=MODEL, epochs=2), StopRequest())
    assert_same(final_weights(s3, bucket), whole.weights)


def checkpoints(s3: Any, bucket: str) -> list[str]:
    found = s3.list_objects_v2(Bucket=bucket, Prefix="checkpoints/").get("Contents", [])
    return sorted({item["Key"].split("/")[1] for item in found})
