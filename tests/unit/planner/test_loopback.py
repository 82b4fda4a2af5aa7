"""The small batching server whose costs `fusion calibrate` takes: what it answers, and whose time it counts."""

import socket
import time

import pytest
import torch

from planner.calibration.loopback import ANSWER_BYTES, start_server

MODEL_S = 2e-3


def slow_sums():
    """Answers that each batch takes `MODEL_S` of processor time for."""

    def answer(numbers):
        end = time.thread_time() + MODEL_S
        while time.thread_time() < end:
            pass
        return [int(total) for total in numbers.sum(1)]

    return answer


@pytest.fixture
def server():
    started = start_server(slow_sums, 16, 4, None, 1)
    yield started
    started.stop()


def asked(server, numbers):
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(numbers.numpy().tobytes())
        answers = b""
        while len(answers) < ANSWER_BYTES * len(numbers):
            answers += client.recv(4096)
    return [int.from_bytes(answers[at : at + ANSWER_BYTES], "little") for at in range(0, len(answers), ANSWER_BYTES)]


def test_requests_of_one_stream_are_answered_in_their_order(server):
    numbers = torch.arange(40, dtype=torch.float32).view(10, 4)
    assert asked(server, numbers) == [int(row.sum()) for row in numbers]


def test_the_models_time_is_no_cost_of_the_servers(server):
    before, beside_before = server.processor_s(), server.beside_answers_s()
    for _ in range(20):
        asked(server, torch.ones(1, 4))
    total, beside = server.processor_s() - before, server.beside_answers_s() - beside_before
    assert total >= 20 * MODEL_S
    assert beside < total - 19 * MODEL_S
