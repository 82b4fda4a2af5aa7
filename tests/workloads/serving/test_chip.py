"""Models that share a chip: whose batch runs next, and what each promises meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads.serving.chip import Chip, Tenant, usable_cores
from workloads.serving.choosing import Curve
from workloads.serving.scheduler import Queue, Refused

BATCH_S = 0.010


class Model:
    """A model that always has requests, and takes what its curve says."""

    def __init__(self, chip: Chip, name: str, cores: int = 1, seconds: float = BATCH_S) -> None:
        self.queue: Queue[int] = Queue(Curve((1, 4), (seconds, seconds)), batch_max=4, slo_s=0.1, queue_max=10_000)
        self.chip, self.name = chip, name
        self.tenant = Tenant(self.queue, cores, self.start)
        self.is_running = False

    def start(self) -> bool:
        assert not self.is_running, "never two batches of one model"
        self.is_running = bool(self.queue.take(0.0).batch)
        return self.is_running

    def want(self, rows: int = 4) -> None:
        self.queue.add(0, rows, 0.0)
        self.chip.enter(self.tenant)

    def end(self) -> None:
        self.is_running = False
        self.chip.leave(self.tenant)
        if self.queue.rows:
            self.chip.enter(self.tenant)


def test_models_that_have_requests_take_turns_on_one_core() -> None:
    chip = Chip(1)
    models = [Model(chip, name) for name in "abc"]
    for model in models * 20:
        model.want()
    order = ""
    for _ in range(30):
        (running,) = [model for model in models if model.is_running]
        order += running.name
        running.end()
    assert order == "abc" * 10


def test_batches_run_at_once_where_there_are_cores_for_them() -> None:
    chip = Chip(3)
    one, two, three = (Model(chip, name, cores) for name, cores in (("one", 1), ("two", 2), ("three", 3)))
    for model in (one, two, three, one):
        model.want()
    assert (one.is_running, two.is_running, three.is_running) == (True, True, False)
    one.end()
    assert not one.is_running, "one that needs all cores is not passed over for ever"
    two.end()
    assert (one.is_running, two.is_running, three.is_running) == (False, False, True)
    three.end()
    assert one.is_running


def test_a_model_whose_requests_all_went_away_gives_its_turn_on() -> None:
    chip = Chip(1)
    first, second, third = (Model(chip, name) for name in "abc")
    first.want()
    request = second.queue.add(0, 1, 0.0)
    chip.enter(second.tenant)
    third.want()
    second.queue.cancel(request)
    first.end()
    assert third.is_running


def test_what_the_others_take_counts_in_what_a_model_promises() -> None:
    chip = Chip(1)
    quick, long = Model(chip, "quick"), Model(chip, "long", seconds=0.08)
    assert chip.others_s(quick.tenant) == 0
    long.want()
    assert chip.others_s(quick.tenant) == pytest.approx(0.08)
    assert chip.others_s(long.tenant) == 0
    quick.want()
    with pytest.raises(Refused, match="100 ms are allowed"):
        quick.queue.check(4, 0.0, others_s=chip.others_s(quick.tenant))
    assert Chip(2).others_s(quick.tenant) == 0, "on another chip it is alone"


@given(
    cores=st.integers(1, 6),
    needs=st.lists(st.integers(1, 8), min_size=1, max_size=5),
    steps=st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=80),
)
def test_there_are_never_more_batches_than_cores_and_no_model_waits_beside_an_idle_chip(
    cores: int, needs: list[int], steps: list[tuple[int, bool]]
) -> None:
    chip = Chip(cores)
    models = [Model(chip, str(number), need) for number, need in enumerate(needs)]
    for number, ends in steps:
        model = models[number % len(models)]
        if ends and model.is_running:
            model.end()
        elif not ends:
            model.want()
        running = [each for each in models if each.is_running]
        assert sum(min(each.tenant.cores, cores) for each in running) <= cores
        assert running or not any(each.queue.rows for each in models)
    while running := [each for each in models if each.is_running]:
        running[0].end()
    assert not any(each.queue.rows for each in models)


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000", None), ("150000 100000", 1), ("50000 100000", 1), ("99900000 100000", None)]
)
def test_a_containers_limit_bounds_its_cores(tmp_path: Path, text: str, cores: int | None) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text(text)
    assert usable_cores(quota) == (cores or usable_cores(tmp_path / "none"))
