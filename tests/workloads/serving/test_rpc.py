"""gRPC of the Open Inference Protocol on a real server, asked by Triton's own client."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from tests.workloads.serving.conftest import CLASSES, SHAPE, Running, Start, images, servers
from tests.workloads.serving.faulty import SLOW
from tests.workloads.serving.test_faults import resident_mib
from tests.workloads.serving.test_server import expected
from workloads.models.fusionnet import FusionNet
from workloads.serving import rpc
from workloads.serving.package import Array

ROWS_MAX, QUEUE_MAX = 4, 64


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    with servers(tmp_path_factory.mktemp("rpc"), "tests.workloads.serving.faulty") as start:
        yield start


def served(start: Start, package_url: str) -> Running:
    limits = {"slo_ms": 10_000, "batch_max": ROWS_MAX, "queue_max": QUEUE_MAX, "backends": ["onnxruntime"]}
    return start({"versions": [{"package": package_url}], **limits}, device="cpu", grpc_port=0, body_max_mib=1)


@pytest.fixture(scope="module")
def server(start: Start, package_url: str) -> Running:
    return served(start, package_url)


def address(server: Running) -> str:
    return f"127.0.0.1:{server.events('ready')[0]['grpc_port']}"


@pytest.fixture
def client(server: Running) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address(server)) as found:
        yield found


@pytest.fixture
def stub(server: Running) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(address(server)) as channel:
        yield GRPCInferenceServiceStub(channel)


def asked(rows: Array) -> list[triton.InferInput]:
    tensor = triton.InferInput("input", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows)
    return [tensor]


def message(rows: Array, **fields: Any) -> Any:
    tensor = {"name": "input", "datatype": "FP32", "shape": list(rows.shape)}
    given = {"model_name": "small", "inputs": [tensor], "raw_input_contents": [rows.tobytes()]} | fields
    return service_pb2.ModelInferRequest(**given)


def slow() -> Array:
    """Rows that fill a batch, which takes a tenth of a second."""
    rows = images(ROWS_MAX)
    rows.flat[0] = SLOW
    return rows


def test_tritons_client_reads_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("small")
    assert client.is_model_ready("small", "1")
    assert not client.is_model_ready("small", "7")
    assert not client.is_model_ready("large")
    assert client.get_server_metadata().name == "fusion"
    found = client.get_model_metadata("small", as_json=True)
    assert (found["name"], found["versions"]) == ("small", ["1"])
    assert found["inputs"] == [{"name": "input", "datatype": "FP32", "shape": ["-1", *map(str, SHAPE)]}]
    assert found["outputs"][0]["shape"] == ["-1", str(CLASSES)]


def test_concurrent_calls_get_their_own_answers_and_share_batches(
    client: triton.InferenceServerClient, server: Running, module: FusionNet
) -> None:
    def ask(seed: int) -> None:
        rows = images(1 + seed % ROWS_MAX, seed)
        found = client.infer(
            "small", asked(rows), model_version="1", request_id=f"number {seed}", priority=1 + seed % 3
        )
        np.testing.assert_allclose(found.as_numpy("output"), expected(module, rows), rtol=1e-3, atol=1e-5)
        assert found.get_response().id == f"number {seed}"
        assert found.get_response().model_version == "1"

    before = server.ask("/metrics")[2].decode()
    with ThreadPoolExecutor(16) as clients:
        waits = clients.submit(client.infer, "small", asked(slow()))
        list(clients.map(ask, range(32)))
        waits.result()
    after = server.ask("/metrics")[2].decode()

    def grown(name: str) -> float:
        return value(after, name) - value(before, name)

    assert grown("fusion_batch_rows_sum") == ROWS_MAX + sum(1 + seed % ROWS_MAX for seed in range(32))
    assert grown("fusion_batch_rows_count") < 33, "some went together"


def value(metrics: str, name: str) -> float:
    return sum(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith(name + "{"))


def test_typed_contents_are_answered_with_typed_contents(stub: GRPCInferenceServiceStub, module: FusionNet) -> None:
    rows = images(2)
    request = message(rows, raw_input_contents=[])
    request.inputs[0].contents.fp32_contents.extend(rows.ravel().tolist())
    answer = stub.ModelInfer(request)
    assert not answer.raw_output_contents
    found = np.reshape(answer.outputs[0].contents.fp32_contents, answer.outputs[0].shape)
    np.testing.assert_allclose(found, expected(module, rows), rtol=1e-3, atol=1e-5)


def typed(**contents: Any) -> Callable[[], Any]:
    def make() -> Any:
        request = message(images(1), raw_input_contents=[])
        for field, values in contents.items():
            getattr(request.inputs[0].contents, field).extend(values)
        return request

    return make


def with_tensor(**fields: Any) -> Callable[[], Any]:
    return lambda: message(images(1), inputs=[{"name": "input", "datatype": "FP32", "shape": [1, *SHAPE]} | fields])


@pytest.mark.parametrize(
    ("make", "code", "sentence"),
    [
        (lambda: message(images(1), model_name="large"), "NOT_FOUND", "large: no such model"),
        (lambda: message(images(1), model_version="7"), "NOT_FOUND", "no such version"),
        (lambda: message(images(1), inputs=[], raw_input_contents=[]), "INVALID_ARGUMENT", "input of small not given"),
        (with_tensor(name="other"), "INVALID_ARGUMENT", "inputs[0].name: got 'other'"),
        (with_tensor(datatype="INT8"), "INVALID_ARGUMENT", 'inputs[0].datatype: got "INT8"'),
        (with_tensor(shape=[1, 8]), "INVALID_ARGUMENT", "inputs[0].shape: got [1,8]; expected [rows, 1, 8, 8]"),
        (with_tensor(shape=[-1, *SHAPE]), "INVALID_ARGUMENT", "inputs[0].shape"),
        (lambda: message(images(ROWS_MAX + 1)), "INVALID_ARGUMENT", "takes 1 to 4 a request"),
        (lambda: message(images(1), raw_input_contents=[b"short"]), "INVALID_ARGUMENT", "raw_input_contents[0]: got 5"),
        (lambda: message(images(1), raw_input_contents=[b"", b""]), "INVALID_ARGUMENT", "raw_input_contents: got 2"),
        (typed(fp32_contents=[1.0]), "INVALID_ARGUMENT", "fp32_contents: got 1 values; expected 64"),
        (typed(int_contents=[1] * 64), "INVALID_ARGUMENT", "int_contents: expected fp32_contents"),
        (lambda: message(images(1), outputs=[{"name": "x"}]), "INVALID_ARGUMENT", "outputs[0].name: got 'x'"),
        (
            lambda: message(images(1), parameters={"priority": service_pb2.InferParameter(int64_param=9)}),
            "INVALID_ARGUMENT",
            "priority: got 9",
        ),
        (
            lambda: message(images(1), parameters={"timeout": service_pb2.InferParameter(string_param="soon")}),
            "INVALID_ARGUMENT",
            "parameters.timeout: expected a whole number",
        ),
        (lambda: message(images(1), id="x" * 2**21), "RESOURCE_EXHAUSTED", "larger than max"),
    ],
)
def test_a_call_that_does_not_fit_is_told_which_field_and_why(
    stub: GRPCInferenceServiceStub, make: Callable[[], Any], code: str, sentence: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(make())
    assert caught.value.code().name == code
    assert sentence in caught.value.details()


NAMES = st.sampled_from(["input", "output", "small", "1", "", "priority", "timeout"]) | st.text(max_size=4)
CONTENTS = st.fixed_dictionaries(
    {},
    optional={
        "fp32_contents": st.just([0.5] * 64) | st.lists(st.floats(width=32), max_size=3),
        "bool_contents": st.lists(st.booleans(), max_size=3),
        "int64_contents": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
        "bytes_contents": st.lists(st.binary(max_size=3), max_size=3),
    },
)
PARAMETER = st.builds(service_pb2.InferParameter, int64_param=st.integers(-2, 9)) | st.builds(
    service_pb2.InferParameter, string_param=st.text(max_size=3)
)
MESSAGES = st.builds(
    service_pb2.ModelInferRequest,
    model_name=st.just("small") | NAMES,
    model_version=st.sampled_from(["", "1"]) | NAMES,
    id=st.text(max_size=3),
    parameters=st.dictionaries(NAMES, PARAMETER, max_size=2),
    inputs=st.lists(
        st.builds(
            service_pb2.ModelInferRequest.InferInputTensor,
            name=st.just("input") | NAMES,
            datatype=st.sampled_from(["FP32", "INT64", "BYTES", ""]),
            shape=st.just([1, *SHAPE]) | st.lists(st.integers(-1, 2**63 - 1), max_size=4),
            contents=CONTENTS.map(lambda given: service_pb2.InferTensorContents(**given)),
        ),
        max_size=2,
    ),
    outputs=st.lists(st.builds(service_pb2.ModelInferRequest.InferRequestedOutputTensor, name=NAMES), max_size=2),
    raw_input_contents=st.lists(st.just(bytes(256)) | st.binary(max_size=9), max_size=2),
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(content=MESSAGES.map(lambda each: each.SerializeToString()) | st.binary(max_size=60))
def test_whatever_message_comes_is_answered_or_told_what_is_wrong_with_it(server: Running, content: bytes) -> None:
    with grpc.insecure_channel(address(server)) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        try:
            service_pb2.ModelInferResponse.FromString(call(content, timeout=20))
        except grpc.RpcError as error:
            assert error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND), error
            assert error.details()
    assert not server.events("internal_error")


def test_a_message_of_100_mib_is_refused_and_costs_no_memory(stub: GRPCInferenceServiceStub, server: Running) -> None:
    request = message(images(1), raw_input_contents=[bytes(100 * 2**20)])
    before = resident_mib(server)
    for _ in range(3):
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request, timeout=60)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert resident_mib(server) - before < 40
    assert stub.ModelInfer(message(images(1))).model_version == "1"


def test_what_could_not_wait_is_refused_with_the_time_to_come_again(stub: GRPCInferenceServiceStub) -> None:
    calls = [stub.ModelInfer.future(message(slow())) for _ in range(2 * QUEUE_MAX // ROWS_MAX)]
    ends = [call.exception(timeout=60) for call in calls]
    refused = [end for end in ends if end is not None]
    assert 0 < len(refused) < len(calls)
    for end in refused:
        assert end.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        trailing = dict(end.trailing_metadata())
        status = Status.FromString(trailing["grpc-status-details-bin"])
        retry = RetryInfo()
        assert status.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        assert status.details[0].Unpack(retry)
        assert retry.retry_delay.ToMilliseconds() == int(trailing["grpc-retry-pushback-ms"]) > 0


def test_a_call_that_is_cancelled_or_whose_deadline_passes_costs_no_batch(
    stub: GRPCInferenceServiceStub, server: Running
) -> None:
    before = value(server.ask("/metrics")[2].decode(), "fusion_batch_rows_count")
    ahead = [stub.ModelInfer.future(message(slow())) for _ in range(8)]
    server.wait_until(lambda: value(server.ask("/metrics")[2].decode(), "fusion_waiting_rows") > 0)
    cancelled = [stub.ModelInfer.future(message(slow())) for _ in range(3)]
    hasty = [stub.ModelInfer.future(message(slow()), timeout=0.05) for _ in range(3)]
    for call in cancelled:
        call.cancel()
    for call in hasty:
        assert call.exception(timeout=60).code() in (
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        )
    assert all(call.exception(timeout=60) is None for call in ahead)
    stub.ModelInfer(message(slow()))
    assert value(server.ask("/metrics")[2].decode(), "fusion_batch_rows_count") - before == 9


def test_told_to_stop_it_answers_the_calls_that_it_has(start: Start, package_url: str, module: FusionNet) -> None:
    server = served(start, package_url)
    with grpc.insecure_channel(address(server)) as channel:
        stub = GRPCInferenceServiceStub(channel)
        calls = [stub.ModelInfer.future(message(slow())) for _ in range(8)]
        server.wait_until(lambda: value(server.ask("/metrics")[2].decode(), "fusion_waiting_rows") > 0)
        server.process.send_signal(signal.SIGTERM)
        server.wait_until(lambda: bool(server.events("draining")))
        assert not stub.ServerReady(service_pb2.ServerReadyRequest()).ready
        wanted = expected(module, slow())
        for call in calls:
            found = np.frombuffer(call.result(timeout=60).raw_output_contents[0], np.float32)
            np.testing.assert_allclose(found.reshape(wanted.shape), wanted, rtol=1e-3, atol=1e-5)
        assert server.process.wait(30) == 0


def test_a_port_that_is_taken_is_one_sentence(server: Running, package_url: str, tmp_path: Path) -> None:
    port = address(server).rpartition(":")[2]
    config = tmp_path / "serving.yaml"
    config.write_text(
        f"{{host: 127.0.0.1, port: 0, grpc_port: {port}, models: [{{versions: [{{package: '{package_url}'}}]}}]}}"
    )
    command = [sys.executable, "-m", "workloads.serving", "--config", str(config)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | {"GRPC_VERBOSITY": "NONE"}
    )
    assert done.returncode == 1
    assert done.stderr.strip() == (
        f"grpc_port: got {port} of 127.0.0.1, where no server can listen; expected a port that no other process uses"
    )


def test_the_generated_messages_are_those_of_the_standards_file(tmp_path: Path) -> None:
    folder = Path(rpc.__file__).parent
    root = folder.parent.parent.parent
    proto = folder.relative_to(root) / "open_inference_grpc.proto"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    subprocess.run([*command, str(proto)], cwd=root, check=True, timeout=60)
    for made in sorted(tmp_path.rglob("*_pb2.py*")):
        assert made.read_text() == (root / made.relative_to(tmp_path)).read_text(), "run `make proto`"
