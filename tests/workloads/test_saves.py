"""A save goes on in a process of its own: what it holds, and what becomes of it when something fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn, optim

from workloads.storage import StorageError
from workloads.training.checkpoint import Checkpoints
from workloads.training.logs import Log
from workloads.training.manifest import COMMITTED, Position
from workloads.training.saver import parts_at_a_time
from workloads.training.world import World

TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.uint8, torch.bool)


class Everything(nn.Module):
    """Tensors of every type and of odd shapes, some of which share or skip memory."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(7, 5, generator=generator))
        self.tied = self.weight
        self.transposed = nn.Parameter(torch.randn(5, 7, generator=generator).t())
        for dtype in TYPES:
            values = torch.randint(0, 2, (3, 2), generator=generator).to(dtype)
            self.register_buffer(f"of_{dtype}".replace(".", "_"), values)
        self.register_buffer("scalar", torch.tensor(float(seed)))
        self.register_buffer("empty", torch.empty(0, 4))


def checkpoints(url: Path, keep: int = 5) -> Checkpoints:
    return Checkpoints(f"file://{url}", keep, {}, World(torch.device("cpu")), Log())


def made(seed: int) -> tuple[nn.Module, optim.Optimizer]:
    model = Everything(seed)
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    model.weight.grad = torch.ones_like(model.weight)
    model.transposed.grad = torch.ones_like(model.transposed)
    optimizer.step()
    return model, optimizer


def test_every_tensor_comes_back_as_it_was_when_the_save_began(tmp_path: Path) -> None:
    model, optimizer = made(1)
    wanted = {name: value.clone() for name, value in model.state_dict().items()}
    with checkpoints(tmp_path) as kept:
        kept.save(model, optimizer, Position(step=3))
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.zero_()  # training goes on at once
        kept.finish()
    other, other_optimizer = made(2)
    with checkpoints(tmp_path) as kept:
        assert kept.resume(other, other_optimizer) == Position(step=3)
    for name, value in other.state_dict().items():
        assert value.dtype == wanted[name].dtype
        assert torch.equal(value, wanted[name]), name
    assert other_optimizer.state_dict()["state"][0]["step"] == 1


def test_a_second_save_holds_the_second_state(tmp_path: Path) -> None:
    model, optimizer = made(1)
    with checkpoints(tmp_path) as kept:
        kept.save(model, optimizer, Position(step=1))
        with torch.no_grad():
            model.weight.add_(1)
        wanted = model.weight.clone()
        kept.save(model, optimizer, Position(step=2))
        kept.finish()
    other, other_optimizer = made(2)
    with checkpoints(tmp_path) as kept:
        assert kept.resume(other, other_optimizer).step == 2
    assert torch.equal(other.weight, wanted)


def test_one_failed_save_is_a_warning_and_the_next_one_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "runs"
    place.write_text("a file where the folder should be")
    model, optimizer = made(1)
    with checkpoints(place) as kept:
        kept.save(model, optimizer, Position(step=1))
        settle(kept)
        assert "checkpoint_failed" in capsys.readouterr().out
        place.unlink()
        kept.save(model, optimizer, Position(step=2))
        kept.finish()
    with checkpoints(place) as kept:
        assert kept.resume(*made(2)).step == 2


def test_two_failed_saves_in_a_row_end_the_run_with_one_sentence(tmp_path: Path) -> None:
    place = tmp_path / "runs"
    place.write_text("a file where the folder should be")
    model, optimizer = made(1)
    with (
        pytest.raises(StorageError, match=r"could not write .*; so did the save before it"),
        checkpoints(place) as kept,
    ):
        kept.save(model, optimizer, Position(step=1))
        settle(kept)
        kept.save(model, optimizer, Position(step=2))
        settle(kept)


def test_a_last_save_that_fails_is_an_error(tmp_path: Path) -> None:
    place = tmp_path / "runs"
    place.write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="could not write"), checkpoints(place) as kept:
        kept.save(*made(1), Position(step=1))
        kept.finish()


def test_a_killed_saver_is_told_and_another_one_takes_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, optimizer = made(1)
    with checkpoints(tmp_path) as kept:
        kept.save(model, optimizer, Position(step=1))
        kept.finish()
        process = kept._saver._process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kept.save(model, optimizer, Position(step=2))
        settle(kept)
        events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [each["reason"] for each in events if each["event"] == "checkpoint_failed"] == [
            "the process that saves ended with status -9: killed, perhaps for memory"
        ]
        kept.save(model, optimizer, Position(step=3))
        kept.finish()
    with checkpoints(tmp_path) as kept:
        assert kept.resume(*made(2)).step == 3


@pytest.fixture(scope="module")
def two_saves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of steps 7 and 14."""
    folder = tmp_path_factory.mktemp("two-saves")
    with checkpoints(folder) as kept:
        for step in (7, 14):
            kept.save(*made(step), Position(step=step))
        kept.finish()
    return folder


@pytest.mark.parametrize(
    ("file", "spoil", "reason"),
    [
        (COMMITTED, None, "it was never completed"),
        ("__0_0.distcp", None, "__0_0.distcp is missing"),
        ("__0_0.distcp", lambda data: data[:-1], "bytes, "),
        (
            "__0_0.distcp",
            lambda data: data[:900] + bytes([data[900] ^ 1]) + data[901:],
            "is not what was written (SHA-256 of bytes 0 to",
        ),
        (".metadata", lambda data: b"", ".metadata has 0 bytes, "),
        (COMMITTED, lambda data: data[:40], "COMMITTED can't be read"),
        (COMMITTED, lambda data: data.replace(b'"step": 14', b'"step": 13'), "COMMITTED was changed"),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_skipped_with_a_warning_and_the_one_before_it_is_taken(
    file: str,
    spoil: Callable[[bytes], bytes] | None,
    reason: str,
    two_saves: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(two_saves, tmp_path / "saves")
    place = tmp_path / "saves" / f"step-{14:09d}" / file
    place.write_bytes(spoil(place.read_bytes())) if spoil else place.unlink()
    model, optimizer = made(1)
    with checkpoints(tmp_path / "saves") as kept:
        assert kept.resume(model, optimizer).step == 7
    events = {line["event"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert reason in events["checkpoint_skipped"]["reason"]
    assert torch.equal(model.weight, made(7)[0].weight)


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    with checkpoints(tmp_path, keep=2) as kept:
        for step in (1, 2, 3):
            kept.save(*made(1), Position(step=step))
        kept.finish()
    assert sorted(folder.name for folder in tmp_path.iterdir()) == [f"step-{2:09d}", f"step-{3:09d}"]


def settle(kept: Checkpoints) -> None:
    """What the loop does at each step, until the save is over."""
    for _ in range(3000):
        kept.advance(*kept.flags())
        if kept._under_way is None:
            return
        time.sleep(0.01)
    raise AssertionError("the save does not end")


@pytest.mark.parametrize(
    ("processors", "ranks", "parts"),
    [(1, None, 1), (2, None, 1), (8, "1", 7), (8, "4", 1), (192, "8", 12), (64, "8", 7)],
)
def test_a_save_leaves_each_rank_a_processor_for_its_loop(
    processors: int, ranks: str | None, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))
    assert parts_at_a_time({} if ranks is None else {"LOCAL_WORLD_SIZE": ranks}) == parts
