"""Ranks of a run go away, one at a time or together: the others leave in words, and the run ends as if nothing were."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tests.workloads.ranks import Ended, run_ranks
from tests.workloads.test_resume import EVERY, MODEL, STEPS
from tests.workloads.test_training import assert_same, final_weights, forget_checkpoints
from workloads.training.config import TrainingConfig
from workloads.training.stopping import RANK_LOST_EXIT_CODE, RESUMABLE_EXIT_CODE

Configured = Callable[..., TrainingConfig]
Start = Callable[..., tuple[list[Ended], int, list[list[list[str]]]]]

SAMPLES, BATCH = 1437, 64
BATCHES = -(-SAMPLES // BATCH)


def cut(samples: list[str], rank: int, size: int, first_step: int) -> list[list[str]]:
    """What a rank saw, step by step."""
    steps, at = [], 0
    for step in range(first_step, STEPS):
        whole = min(BATCH, SAMPLES - step % BATCHES * BATCH)
        if at == len(samples):
            break
        end = at + whole * (rank + 1) // size - whole * rank // size
        steps.append(samples[at:end])
        at = end
    assert at == len(samples), "a rank dies between steps"
    return steps


@pytest.fixture
def start(configured: Configured, write_config: Callable[[TrainingConfig], Path], recording: Path) -> Start:
    """Run ranks until all have ended: (what became of them, the step that they began at, what each saw at each step)."""
    path = write_config(configured(model=MODEL))

    def start_ranks(size: int, **environments: Any) -> tuple[list[Ended], int, list[list[list[str]]]]:
        ended = run_ranks(path, size, {int(rank.removeprefix("rank")): each for rank, each in environments.items()})
        events = [json.loads(line) for line in ended[0].out.splitlines()]
        first = next((event["step"] for event in events if event["event"] == "resumed"), 0)
        seen = []
        for rank in range(size):
            (file,) = recording.glob(f"*-rank{rank}.txt")
            seen.append(cut(file.read_text().split(), rank, size, first))
            file.unlink()
        return ended, first, seen

    return start_ranks


def assert_the_same_samples(seen: Sequence[list[list[str]]], first: int, whole: list[list[str]]) -> None:
    """At each step the ranks together saw the samples of that step; the one that outlived the other maybe one step more."""
    for step, samples in enumerate(zip(*seen, strict=False), start=first):
        assert sorted(chain.from_iterable(samples)) == whole[step]
    assert max(map(len, seen)) - min(map(len, seen)) <= 1


def test_kill_9_of_either_rank_and_sigterm_at_random_steps_change_no_sample_and_no_bit(
    start: Start, configured: Configured, s3: Any, bucket: str
) -> None:
    ended, _, seen = start(2)
    assert [each.status for each in ended] == [0, 0], ended[0].err + ended[1].err
    whole = [sorted(first + second) for first, second in zip(*seen, strict=True)]
    epochs = whole[:BATCHES], whole[BATCHES:]
    assert all(len(set(chain.from_iterable(epoch))) == SAMPLES for epoch in epochs), "each sample once an epoch"
    weights = final_weights(s3, bucket)
    forget_checkpoints(s3, configured)

    chance = random.Random()
    steps = [chance.randrange(1, STEPS // 3) for _ in range(3)]
    victims = chance.sample([0, 1], 2)
    print(f"rank {victims[0]} is killed at step {steps[0]}, rank {victims[1]} {steps[1]} steps after the resume,")
    print(f"then SIGTERM to rank {victims[0]} {steps[2]} steps after the next")
    for victim, step in zip(victims, steps, strict=False):
        ended, first, seen = start(2, **{f"rank{victim}": {"KILL_AT_STEP": step}})
        other = ended[1 - victim]
        assert (ended[victim].status, other.status) == (-9, RANK_LOST_EXIT_CODE)
        assert "another rank is gone" in other.err
        assert "Traceback" not in other.err
        assert_the_same_samples(seen, first, whole)
    ended, first, seen = start(2, **{f"rank{victims[0]}": {"TERM_AT_STEP": steps[2]}})
    assert [each.status for each in ended] == [RESUMABLE_EXIT_CODE] * 2
    assert_the_same_samples(seen, first, whole)
    stopped = first + len(seen[0])
    ended, first, seen = start(2)
    assert first == stopped, "SIGTERM loses no step"
    assert_the_same_samples(seen, first, whole)
    assert first + len(seen[0]) == STEPS
    assert_same(final_weights(s3, bucket), weights)


def test_a_run_of_two_ranks_goes_on_with_one_and_again_with_two_on_the_same_samples(start: Start) -> None:
    chance = random.Random()
    kills = [chance.randrange(2 * EVERY + 2, 3 * EVERY), chance.randrange(EVERY, 2 * EVERY)]
    print(f"two ranks until step {kills[0]}, then one for {kills[1]} steps, then two")
    seen_at: dict[int, list[str]] = {}
    reached = 0
    for size, kill in ((2, kills[0]), (1, kills[1]), (2, None)):
        ended, first, seen = start(size, **({f"rank{size - 1}": {"KILL_AT_STEP": kill}} if kill else {}))
        assert 0 <= reached - first <= 2 * EVERY
        for step, samples in enumerate(zip(*seen, strict=False), start=first):
            together = sorted(chain.from_iterable(samples))
            assert seen_at.setdefault(step, together) == together, "a step that is done again sees the same"
        reached = first + min(map(len, seen))
    assert [each.status for each in ended] == [0, 0]
    assert reached == STEPS
    for epoch in (range(BATCHES), range(BATCHES, STEPS)):
        assert len({sample for step in epoch for sample in seen_at[step]}) == SAMPLES
        assert sum(len(seen_at[step]) for step in epoch) == SAMPLES, "each sample once an epoch"
