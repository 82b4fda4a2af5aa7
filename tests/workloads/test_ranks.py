"""Two processes train one model over gloo."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.workloads.ranks import run_ranks
from tests.workloads.recording import recorded
from tests.workloads.test_resume import MODEL
from tests.workloads.test_training import final_weights
from workloads.training.config import TrainingConfig
from workloads.training.run import run
from workloads.training.stopping import StopRequest

WITHOUT_DROPOUT = MODEL | {"arguments": {"dropout": 0}}
"""What is dropped differs by rank; without it two ranks learn what one does."""


def test_two_ranks_see_each_sample_once_an_epoch_and_learn_what_one_would(
    configured: Callable[..., TrainingConfig],
    write_config: Callable[[TrainingConfig], Path],
    recording: Path,
    s3: Any,
    bucket: str,
    capsys: Any,
) -> None:
    spoke, silent = run_ranks(write_config(configured(model=WITHOUT_DROPOUT)), 2)
    assert (spoke.status, silent.status) == (0, 0), spoke.err + silent.err
    events = [json.loads(line) for line in spoke.out.splitlines()]
    said = [event["event"] for event in events if event["event"] != "saved"]
    assert said == ["started", "epoch", "epoch", "finished"] and not silent.out, "one rank speaks"

    first, second = recorded(recording)
    assert abs(len(first) - len(second)) <= 2
    two_ranks = first + second
    assert len(two_ranks) == 2 * 1437

    again = run_alone(configured, capsys)
    alone = recorded(recording)[-1]
    assert sorted(two_ranks) == sorted(alone), "every sample exactly once an epoch, as with one rank"
    assert sorted(first[:32] + second[:32]) == sorted(alone[:64]), "the same global batches"
    assert abs(again["accuracy"] - events[-1]["accuracy"]) < 0.02
    assert final_weights(s3, bucket).keys() == {key.removeprefix("module.") for key in final_weights(s3, bucket)}


def run_alone(configured: Callable[..., TrainingConfig], capsys: Any) -> dict[str, Any]:
    config = configured(model=WITHOUT_DROPOUT)
    elsewhere = config.checkpoint.model_copy(update={"url": f"{config.checkpoint.url}-alone"})
    run(config.model_copy(update={"checkpoint": elsewhere}), StopRequest())
    result: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return result
