"""The edge and the cloud answer together over a real link: rightly, by the best way, and whatever becomes of the link."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.workloads.partition.conftest import Cloud, Split
from workloads.partition.client import Answer, SplitClient


def ask(client: SplitClient, split: Split, row: int) -> Answer:
    row %= len(split.images)
    answer = client.infer([split.images[row : row + 1]])
    split.check(row, answer.outputs)
    return answer


def asked_until(client: SplitClient, split: Split, way: str, *, within_s: float) -> list[Answer]:
    """Ask one row after another until three answers in a row come by that way."""
    answers: list[Answer] = []
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        answers.append(ask(client, split, len(answers)))
        if len(answers) >= 3 and all(each.way.startswith(way) and not each.is_stand_in for each in answers[-3:]):
            return answers
    raise AssertionError(f"never {way}: {[each.way for each in answers]}, {client.last_error}")


def test_every_way_gives_the_models_answer(client: SplitClient, split: Split) -> None:
    ways = client.ranking()
    assert {each.way.kind for each in ways} == {"edge", "cloud", "split"}
    for number, each in enumerate(ways):
        answer = client.infer_by(each, [split.images[number : number + 1]])
        split.check(number, answer.outputs)
        assert answer.way == each.label and not answer.is_stand_in


def test_it_moves_to_the_cloud_and_back_as_the_link_changes(client: SplitClient, split: Split, cloud: Cloud) -> None:
    asked_until(client, split, "cloud", within_s=5)
    cloud.link.shape(100, 300)
    asked_until(client, split, "edge", within_s=15)
    cloud.link.shape(100, 1)
    asked_until(client, split, "cloud", within_s=15)


def test_the_link_is_measured_while_nobody_asks(client: SplitClient, cloud: Cloud) -> None:
    cloud.link.shape(2, 40)
    end = time.monotonic() + 20
    while True:
        link = client.meter.link()
        found = (link.round_trip_s, link.bytes_per_s)
        if found == pytest.approx((0.04, 0.25e6), rel=0.25):
            return
        assert time.monotonic() < end, found
        time.sleep(0.2)


def test_when_the_link_is_cut_the_edge_answers_alone_and_the_cloud_comes_back_with_it(
    client: SplitClient, split: Split, cloud: Cloud
) -> None:
    asked_until(client, split, "cloud", within_s=5)
    cloud.link.cut()
    during = [ask(client, split, row) for row in range(20)]
    assert all(each.way == "edge" for each in during)
    assert during[0].is_stand_in
    assert not any(each.is_stand_in for each in during[2:]), "an answer waited for a link that was known to be lost"
    cloud.link.shape(100, 1)
    asked_until(client, split, "cloud", within_s=15)


def test_a_server_that_dies_under_load_costs_no_answer(client: SplitClient, split: Split, cloud: Cloud) -> None:
    asked_until(client, split, "cloud", within_s=5)
    died = threading.Event()

    def keep_asking(first: int) -> list[Answer]:
        answers = []
        while not died.is_set():
            answers.append(ask(client, split, first + len(answers)))
        return [*answers, ask(client, split, first)]

    with ThreadPoolExecutor(3) as users:
        asking = [users.submit(keep_asking, 50 * user) for user in range(3)]
        time.sleep(0.5)
        cloud.kill()
        died.set()
        by_user = [each.result() for each in asking]
    assert {answers[-1].way for answers in by_user} == {"edge"}
    assert "cloud" in {each.way.partition("/")[0] for answers in by_user for each in answers}
    cloud.start()
    asked_until(client, split, "cloud", within_s=15)
