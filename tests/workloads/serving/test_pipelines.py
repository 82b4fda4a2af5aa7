"""User code before and after the model: what clients send and get, what its errors become, and what runs meanwhile."""

from __future__ import annotations

import asyncio
import io
import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import tritonclient.grpc as triton
from PIL import Image

from tests.workloads.serving.conftest import OF_ONE_NUMBER, Running, servers
from tests.workloads.serving.test_rpc import address
from workloads.models.fusionnet import FusionNet
from workloads.serving.answering import Answering, Failed
from workloads.serving.chip import Chip
from workloads.serving.choosing import Choice, Curve
from workloads.serving.config import ServingConfig
from workloads.serving.metrics import Metrics
from workloads.serving.model import Limits, ServedModel
from workloads.serving.models import Models
from workloads.serving.package import Array, PackageError
from workloads.serving.pipelines import Pipeline, Pre, Step, made, pipeline_of
from workloads.serving.protocol import InferRequest

RAW, INFER = "/v2/models/small/raw", "/v2/models/small/infer"
GUIDE = Path(__file__).parents[3] / "docs" / "serving.md"
FAULTY = """
import time

import numpy as np

from workloads.serving.package import TensorSpec
from workloads.serving.pipelines import Pre

def faulty(manifest):
    def run(inputs):
        fault = inputs[0][0]
        if fault == b"slow":
            time.sleep(0.5)
        if fault == b"mistake":
            return [{}["nowhere"]]
        if fault == b"refused":
            raise ValueError("text: not this one")
        if fault == b"other shape":
            return [np.zeros((1, 7), np.float32)]
        return [np.zeros((1, *manifest.inputs[0].shape), np.float32)]
    return Pre((TensorSpec(name="text", datatype="BYTES", shape=()),), run)
"""


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Running]]:
    """Servers that find the guide's own pipelines.py, and one with faults."""
    folder = tmp_path_factory.mktemp("steps")
    (code,) = re.findall(r'```python\n(""".*?pipelines\.py.*?)```', GUIDE.read_text(), re.DOTALL)
    (folder / "pipelines.py").write_text(code)
    (folder / "faulty_steps.py").write_text(FAULTY)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(folder))
        with servers(folder) as start:
            yield start


@pytest.fixture(scope="module")
def server(start: Callable[..., Running], package_url: str) -> Running:
    model = {"slo_ms": 10_000, "backends": ["onnxruntime"], "versions": [{"package": package_url}]}
    return start(model | {"pre": "pipelines:jpeg", "post": "pipelines:label"}, grpc_port=0, device="cpu")


@pytest.fixture(scope="module")
def faulty(start: Callable[..., Running], package_url: str) -> Running:
    model = {"slo_ms": 5_000, "backends": ["onnxruntime"], "versions": [{"package": package_url}]}
    return start(model | {"pre": "faulty_steps:faulty", "pipeline_threads": 1}, device="cpu")


def photo(seed: int, size: int = 8) -> bytes:
    file, noise = io.BytesIO(), np.random.default_rng(seed).integers(0, 256, (size, size), np.uint8)
    Image.fromarray(noise).save(file, "JPEG")
    return file.getvalue()


def wanted(module: FusionNet, file: bytes) -> tuple[bytes, float]:
    pixels = np.asarray(Image.open(io.BytesIO(file)).resize((8, 8)), np.float32)[None, None] / 255
    with torch.no_grad():
        shares = torch.softmax(module(torch.from_numpy(pixels)), 1)[0]
    return b"%d" % int(shares.argmax()), float(shares.max())


def test_an_image_file_in_and_a_label_out_by_every_protocol(server: Running, module: FusionNet) -> None:
    files = [photo(seed, size) for seed, size in ((1, 8), (2, 8), (3, 40))]
    labels, shares = zip(*(wanted(module, file) for file in files), strict=True)

    status, headers, body = server.ask(RAW, files[0], {"content-type": "image/jpeg"})
    assert (status, headers["fusion-datatype"], headers["fusion-shape"]) == (200, "BYTES", "1")
    assert body == len(labels[0]).to_bytes(4, "little") + labels[0]

    packed = b"".join(len(file).to_bytes(4, "little") + file for file in files)
    tensor = {"name": "image", "datatype": "BYTES", "shape": [3], "parameters": {"binary_data_size": len(packed)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    status, _, body = server.ask(INFER, head + packed, {"Inference-Header-Content-Length": str(len(head))})
    given = {each["name"]: each["data"] for each in json.loads(body)["outputs"]}
    assert (status, given["label"]) == (200, [label.decode() for label in labels])
    assert given["probability"] == pytest.approx(shares, rel=1e-3)

    with triton.InferenceServerClient(address(server)) as client:
        image = triton.InferInput("image", [3], "BYTES")
        image.set_data_from_numpy(np.array(files, object))
        answer = client.infer("small", [image])
        assert list(answer.as_numpy("label")) == list(labels)
        assert answer.as_numpy("probability") == pytest.approx(shares, rel=1e-3)


def test_the_metadata_and_the_description_say_what_clients_send(server: Running) -> None:
    said = json.loads(server.ask("/v2/models/small")[2])
    assert said["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    assert [each["datatype"] for each in said["outputs"]] == ["BYTES", "FP32"]
    paths = json.loads(server.ask("/openapi.json")[2])["paths"]
    assert "BYTES" in json.dumps(paths["/v2/models/small/infer"])


def test_what_the_code_refuses_is_the_clients_fault_and_what_it_gets_wrong_is_its_own(
    server: Running, faulty: Running
) -> None:
    assert server.ask(RAW, b"no image")[::2] == (400, b'{"error":"image: not a JPEG file"}')
    assert faulty.ask(RAW, b"refused")[::2] == (400, b'{"error":"text: not this one"}')
    for fault, reason in (
        (b"mistake", "pre (faulty_steps:faulty) raised KeyError: 'nowhere'"),
        (b"other shape", "pre (faulty_steps:faulty) gave float32 [1, 7]; expected float32 [1, 1, 8, 8]"),
    ):
        status, _, body = faulty.ask(RAW, fault)
        assert (status, json.loads(body)["error"]) == (500, reason)
    assert faulty.ask(RAW, b"fine")[0] == 200
    (line,) = faulty.events("pipeline_error")
    assert "Traceback" in str(line["where"])


def test_a_deadline_covers_the_code_and_the_next_request_is_served(faulty: Running) -> None:
    status, _, body = faulty.ask(RAW, b"slow", {"fusion-timeout-ms": "100"})
    assert (status, json.loads(body)["error"]) == (503, "pre (faulty_steps:faulty) took too long, and its time is over")
    assert faulty.ask(RAW, b"fine")[0] == 200


def answering(
    forward: Callable[[Sequence[Array]], list[Array]], pre: Step | None, post: Step | None
) -> tuple[Answering, ServedModel]:
    choice = Choice("eager", forward, Curve((1,), (0.001,)), ())
    metrics = Metrics()
    served = ServedModel(
        OF_ONE_NUMBER,
        choice,
        Limits(1, 10.0, 64, 1),
        metrics.of("echo", "1", slo_s=10.0, batch_max=1),
        Chip(1),
        lambda _: None,
        Pipeline(OF_ONE_NUMBER, pre, post),
    )
    models = Models(Path("nowhere"), metrics, lambda *_, **__: None, lambda _: None)
    config = ServingConfig.model_validate({"models": [{"versions": [{"package": "file:///nowhere"}]}]})
    return Answering(models, metrics, config), served


def asked(value: float) -> InferRequest:
    return InferRequest([np.full((1, 1), value, np.float32)])


def test_while_a_batch_computes_the_next_request_is_prepared_and_the_last_answer_finished() -> None:
    """Each step waits for what only an overlap lets come; the order of what happened is checked, not the time."""
    events: list[str] = []
    prepared = {number: threading.Event() for number in (1, 2)}
    computing = {number: threading.Event() for number in (1, 2)}

    def pre(inputs: Sequence[Array]) -> list[Array]:
        number = int(inputs[0][0, 0])
        events.append(f"prepared {number}")
        prepared[number].set()
        return list(inputs)

    def forward(inputs: Sequence[Array]) -> list[Array]:
        number = int(inputs[0][0, 0])
        events.append(f"compute {number} begins")
        computing[number].set()
        if number == 1:
            assert prepared[2].wait(30), "the second request is prepared while the first one computes"
        events.append(f"compute {number} ends")
        return [inputs[0].copy()]

    def post(outputs: Sequence[Array]) -> list[Array]:
        number = int(outputs[0][0, 0])
        if number == 1:
            assert computing[2].wait(30), "the first answer is finished while the second one computes"
        events.append(f"finished {number}")
        return list(outputs)

    async def both() -> list[list[Array]]:
        steps = [
            Step(name, run, OF_ONE_NUMBER.inputs, 1, 64, lambda *_, **__: None)
            for name, run in (("pre", pre), ("post", post))
        ]
        server, served = answering(forward, steps[0], steps[1])
        first = asyncio.create_task(server.run(served, asked(1), 0.0))
        await asyncio.to_thread(computing[1].wait, 30)
        second = asyncio.create_task(server.run(served, asked(2), 0.0))
        answers = await asyncio.wait_for(asyncio.gather(first, second), 60)
        await served.drain()
        return answers

    assert [float(answer[0][0, 0]) for answer in asyncio.run(both())] == [1, 2]
    assert events.index("compute 1 begins") < events.index("prepared 2") < events.index("compute 1 ends")
    assert events.index("compute 2 begins") < events.index("finished 1")


def test_beyond_what_can_wait_for_the_code_requests_are_refused_at_once() -> None:
    held, refused = threading.Event(), list[int]()

    async def many() -> None:
        step = Step(
            "pre", lambda inputs: [held.wait(30) and inputs[0]], OF_ONE_NUMBER.inputs, 1, 2, lambda *_, **__: None
        )
        server, served = answering(lambda inputs: [inputs[0].copy()], step, None)
        waiting = [asyncio.create_task(server.run(served, asked(1), 0.0)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Failed) as error:
            await server.run(served, asked(1), 0.0)
        refused.append(error.value.status)
        held.set()
        await asyncio.gather(*waiting)
        await served.drain()

    asyncio.run(many())
    assert refused == [429]


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("nowhere:pre", "pre: nowhere:pre can't be had: ModuleNotFoundError: No module named 'nowhere'"),
        ("json:dumps", "pre: json:dumps can't be had: TypeError"),
        ("operator:truth", "pre: operator:truth returned bool; expected a Pre"),
    ],
)
def test_a_factory_that_can_not_be_had_is_one_sentence(reference: str, expected: str) -> None:
    with pytest.raises(PackageError, match=re.escape(expected)):
        made(reference, Pre, OF_ONE_NUMBER)
    with pytest.raises(PackageError, match=re.escape(expected)):
        pipeline_of(OF_ONE_NUMBER, reference, None, threads=1, queue_max=1, say=print)
