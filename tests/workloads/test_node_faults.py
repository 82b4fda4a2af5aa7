"""A machine of several goes away with torchrun's agent on it: the others go on without it, or leave to be started again."""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.workloads.conftest import free_port
from tests.workloads.recording import recorded
from tests.workloads.test_resume import EVERY, MODEL, STEPS
from workloads.data.loader import Dataset
from workloads.training.config import TrainingConfig
from workloads.training.launch import launch, status_of
from workloads.training.stopping import RANK_LOST_EXIT_CODE, RESUMABLE_EXIT_CODE

SECONDS_TO_END = 280
"""At most, on a machine that is busy with other things: the waiting of these tests is some ten seconds, the rest the
start of PyTorch in each agent and rank.
"""

LAST_CALL_SECONDS = 6
"""That torchrun waits for more nodes once it has enough; its own default is 30."""

HEARTBEAT_SECONDS = 2
"""Of an agent, which is taken for dead when three are missing; torchrun's own default is 5."""

HEAD_START_SECONDS = 2
"""Of the node that waits for the other one's address, so that both are there when the first round begins."""


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str


@dataclass(frozen=True)
class Node:
    """The container's command, which becomes torchrun's agent and starts one rank."""

    process: subprocess.Popen[bytes]
    log: Path

    def ended(self) -> Ended:
        status = self.process.wait(SECONDS_TO_END)
        return Ended(status, self.log.with_suffix(".out").read_text(), self.log.with_suffix(".err").read_text())


@dataclass
class Cluster:
    """Two nodes, both on this machine."""

    config: Path
    nodes: list[Node]

    def start(self, number: int, **environment: object) -> Node:
        log = self.config.with_name(f"node-{number}-{len(self.nodes)}")
        own = {name: str(value) for name, value in environment.items()}
        with log.with_suffix(".out").open("wb") as out, log.with_suffix(".err").open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "workloads.training", "--config", self.config],
                env=os.environ | {"OMP_NUM_THREADS": "1", "PET_NODE_RANK": str(number)} | own,
                stdout=out,
                stderr=err,
            )
        self.nodes.append(Node(process, log))
        return self.nodes[-1]


@pytest.fixture
def cluster(
    configured: Callable[..., TrainingConfig], write_config: Callable[[TrainingConfig], Path], recording: Path
) -> Iterator[Cluster]:
    found = Cluster(write_config(configured(model=MODEL)), [])
    yield found
    for node in found.nodes:
        node.process.kill()


@pytest.fixture
def due(digits: str) -> Callable[..., list[str]]:
    """What one rank of so many has to see from a step on."""
    data = Dataset(digits, "train")

    def samples(rank: int, size: int, first_step: int) -> list[str]:
        seen: list[str] = []
        for epoch in range(2):
            start = min(len(data), max(0, (first_step - epoch * STEPS // 2) * 64))
            part = data.order(seed=0, epoch=epoch).part(batch_size=64, start=start, rank=rank, world_size=size)
            images, _ = data.take(part.numbers)
            seen += [hashlib.sha256((image.astype("float32") / 16).tobytes()).hexdigest() for image in images]
        return seen

    return samples


def elastic() -> tuple[dict[str, Any], dict[str, Any]]:
    """For two nodes, of which one is enough: what the one has through which they find each other, and the other one."""
    both = {
        "PET_NNODES": "1:2",
        "PET_RDZV_BACKEND": "c10d",
        "PET_RDZV_ENDPOINT": f"127.0.0.1:{free_port()}",
        "PET_RDZV_ID": "test",
        "PET_LOCAL_ADDR": "127.0.0.1",
        "PET_MAX_RESTARTS": 1,
    }
    waiting = f"last_call_timeout={LAST_CALL_SECONDS},keep_alive_interval={HEARTBEAT_SECONDS}"
    return both | {"PET_RDZV_CONF": f"{waiting},is_host=1"}, both | {"PET_RDZV_CONF": f"{waiting},is_host=0"}


def resumed_at(*ended: Ended) -> list[int]:
    lines = [json.loads(line) for each in ended for line in each.out.splitlines()]
    return [line["step"] for line in lines if line["event"] == "resumed"]


def test_a_node_that_dies_amid_a_collective_leaves_the_other_one_to_end_the_run_on_the_same_samples(
    cluster: Cluster, recording: Path, due: Callable[..., list[str]]
) -> None:
    host, guest = elastic()
    dying = cluster.start(1, **guest, NODE_DIES_WAITING_AT_STEP=18)
    time.sleep(HEAD_START_SECONDS)
    lasting = cluster.start(0, **host, LATE_AT_STEP=18)
    assert dying.ended().status == -signal.SIGKILL
    ended = lasting.ended()
    assert ended.status == 0, ended.err
    assert "another rank is gone" in ended.err and "Traceback" not in ended.err
    (step,) = resumed_at(ended)
    assert step in (EVERY, 2 * EVERY)
    *first, alone = recorded(recording)
    assert alone == due(0, 1, step)
    for rank, seen in enumerate(first):
        assert seen in (due(rank, 2, 0)[: len(seen)], due(1 - rank, 2, 0)[: len(seen)])


def test_a_node_that_dies_in_a_step_lets_the_other_one_leave_with_a_code_that_says_to_start_again(
    cluster: Cluster,
) -> None:
    """As the platform's jobs start them: so many nodes, the first one known by its name.

    That the run then goes on with the samples that it had not seen is in `test_rank_faults.py`.
    """
    fixed = {"PET_NNODES": 2, "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": free_port()}
    nodes = cluster.start(0, **fixed), cluster.start(1, **fixed, NODE_DIES_AT_STEP=18)
    other, dead = (node.ended() for node in nodes)
    assert (other.status, dead.status) == (RANK_LOST_EXIT_CODE, -signal.SIGKILL), other.err
    assert "another rank is gone" in other.err and "Traceback" not in other.err


def test_an_agent_that_dies_alone_takes_no_step_with_it_and_leaves_no_rank_behind(
    cluster: Cluster, recording: Path, due: Callable[..., list[str]]
) -> None:
    """The one through which the nodes find each other, so that the other one can't go on either."""
    host, guest = elastic()
    other = cluster.start(1, **guest, STEP_SECONDS=0.2)
    time.sleep(HEAD_START_SECONDS)
    dying = cluster.start(0, **host, STEP_SECONDS=0.2)
    while len(list(recording.iterdir())) < 2:
        assert dying.process.poll() is None, dying.log.with_suffix(".err").read_text()
        time.sleep(0.05)
    left_behind = children(dying.process.pid)
    dying.process.kill()
    for rank in left_behind:
        assert select.select([rank], [], [], SECONDS_TO_END)[0], "a rank trains on without its agent"
    ended = other.ended()
    assert ended.status == RANK_LOST_EXIT_CODE, ended.err
    assert "can't find each other any more" in ended.err and "Traceback" not in ended.err
    steps = {len(seen) // 32 for seen in recorded(recording)}
    assert len(steps) == 1, "both ranks left after the same step"
    again = cluster.start(0, PET_NNODES=1).ended()
    assert (again.status, resumed_at(again)) == (0, [*steps]), again.err
    assert recorded(recording)[-1] == due(0, 1, *steps)


def children(process: int) -> list[int]:
    """Descriptors of a process's own ones, which are ready once they have ended."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [os.pidfd_open(int(child)) for child in found]


def test_ranks_of_a_node_alone_need_no_address_to_meet_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As the platform's job starts those of a single pod."""
    for name, value in {"PET_NNODES": "1", "PET_NPROC_PER_NODE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert launch(tmp_path / "missing.yaml") == 1
    assert "missing.yaml" in capfd.readouterr().err, "what a rank says, so that it was started"


def test_a_nodes_status_is_a_rank_s_own_fault_before_what_follows_from_it() -> None:
    assert status_of([RESUMABLE_EXIT_CODE, RESUMABLE_EXIT_CODE]) == RESUMABLE_EXIT_CODE
    assert status_of([RESUMABLE_EXIT_CODE, RANK_LOST_EXIT_CODE]) == RANK_LOST_EXIT_CODE
    assert status_of([RANK_LOST_EXIT_CODE, -9]) == 1
    assert status_of([1]) == 1
    sent_by_torchrun = -signal.SIGTERM
    assert status_of([RESUMABLE_EXIT_CODE, sent_by_torchrun]) == RESUMABLE_EXIT_CODE
    assert status_of([1, sent_by_torchrun]) == 1
