"""What `fusion calibrate` takes of a server: the real one's threads, without the model's time."""

import os
import socket

import numpy as np
import pytest

from planner.calibration.loopback import ANSWERS, NAME, measure_serving, read_answer, running_server

BYTES = 256


@pytest.fixture(scope="module")
def server():
    with running_server(BYTES, os.sched_getaffinity(0)) as started:
        yield started


def ask(port, path, body):
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        return read_answer(client)


def test_it_is_fusions_server_that_answers(server):
    port, _ = server
    row = np.arange(BYTES // 4, dtype=np.float32)
    answer = np.frombuffer(ask(port, f"/v2/models/{NAME}/raw", row.tobytes()), np.float32)
    assert answer.tolist() == row[:ANSWERS].tolist()
    with pytest.raises(RuntimeError, match="such model; this server has calibration"):
        ask(port, "/v2/models/other/raw", row.tobytes())


def test_every_request_is_counted_once_and_each_threads_time_grows_with_them(server):
    port, work = server
    before = work()
    for _ in range(20):
        ask(port, f"/v2/models/{NAME}/raw", bytes(BYTES))
    done = work().since(before)
    assert (done.requests, done.batches) == (20, 20)
    assert min(done.http_s, done.loop_s, done.net_s) > 0


def test_a_server_that_does_not_start_is_no_endless_wait():
    with pytest.raises(RuntimeError, match="did not start"), running_server(-1, os.sched_getaffinity(0)):
        pass


def test_the_costs_are_of_this_machines_size():
    costs = measure_serving(sorted(os.sched_getaffinity(0)))
    assert 1e-6 < costs.loop.batch_s + costs.loop.request_s < 0.01, "of a request that comes alone"
    assert costs.http.of_request(10_000) >= costs.http.request_s
    assert 0 <= costs.model.batch_s < 0.01
