"""The Open Inference Protocol, in JSON and in binary, and what is refused of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from workloads.serving.package import Artifact, Manifest, PackageFile, TensorSpec
from workloads.serving.protocol import BINARY_SIZE, BadRequest, InferRequest, answer, parse, parse_raw

FILE = PackageFile(name="model", bytes=1, sha256="0" * 64)
MANIFEST = Manifest(
    name="both",
    version="1",
    source="a test",
    inputs=(
        TensorSpec(name="image", datatype="FP32", shape=(2, 3)),
        TensorSpec(name="age", datatype="INT64", shape=()),
    ),
    outputs=(
        TensorSpec(name="logits", datatype="FP32", shape=(4,)),
        TensorSpec(name="best", datatype="INT64", shape=()),
    ),
    self_test=FILE,
    artifacts=(Artifact(format="pytorch", files=(FILE,), made_with="a test", max_abs_error=0),),
)
SINGLE = MANIFEST.model_copy(update={"inputs": MANIFEST.inputs[:1]})
IMAGE = {"name": "image", "datatype": "FP32", "shape": [1, 2, 3], "data": [1, 2, 3, 4, 5, 6.5]}
AGE = {"name": "age", "datatype": "INT64", "shape": [1], "data": [7]}


def parsed(document: object, tail: bytes = b"") -> InferRequest:
    head = json.dumps(document).encode()
    return parse(head + tail, str(len(head)) if tail else None, MANIFEST, batch_max=8)


def test_tensors_may_come_in_json_in_any_order_and_nested() -> None:
    request = parsed({"inputs": [AGE, IMAGE | {"data": [[[1, 2, 3], [4, 5, 6.5]]]}]})
    assert request.inputs[0].tolist() == [[[1, 2, 3], [4, 5, 6.5]]]
    assert request.inputs[1].tolist() == [7]
    assert [each.dtype for each in request.inputs] == [np.float32, np.int64]


def test_whole_numbers_are_whole_however_json_writes_them() -> None:
    request = parsed({"inputs": [IMAGE, AGE | {"data": [7.0]}], "parameters": {"priority": 1.0, "timeout": 5e3}})
    assert (request.inputs[1].tolist(), request.priority, request.timeout_s) == ([7], 1, 0.005)


@given(
    images=arrays.arrays(
        np.float32, st.tuples(st.integers(1, 8), st.just(2), st.just(3)), elements=st.floats(width=32)
    ),
    json_too=st.booleans(),
)
def test_binary_and_json_carry_the_same_values(images: np.ndarray, json_too: bool) -> None:
    ages = np.arange(len(images), dtype=np.int64)
    tail = images.tobytes() + (b"" if json_too else ages.tobytes())
    age = AGE | {"shape": [len(ages)], "data": ages.tolist()}
    if not json_too:
        age = {"name": "age", "datatype": "INT64", "shape": [len(ages)], "parameters": {BINARY_SIZE: ages.nbytes}}
    image = {
        "name": "image",
        "datatype": "FP32",
        "shape": list(images.shape),
        "parameters": {BINARY_SIZE: images.nbytes},
    }
    request = parsed({"inputs": [image, age]}, tail)
    np.testing.assert_array_equal(request.inputs[0], images)
    np.testing.assert_array_equal(request.inputs[1], ages)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ([], "body: expected an object"),
        ({}, "inputs: expected a list of tensors, got null"),
        ({"inputs": [IMAGE]}, "inputs: age of both not given"),
        ({"inputs": [IMAGE, IMAGE]}, 'inputs[1].name: got "image"; both takes image, age, each once'),
        ({"inputs": [IMAGE | {"name": "picture"}]}, 'inputs[0].name: got "picture"'),
        ({"inputs": [IMAGE | {"datatype": "FP64"}]}, 'inputs[0].datatype: got "FP64"; image is FP32'),
        ({"inputs": [IMAGE | {"shape": [1, 6]}]}, "inputs[0].shape: got [1,6]; expected [rows, 2, 3]"),
        ({"inputs": [IMAGE | {"shape": [9, 2, 3]}]}, "inputs[0].shape: got 9 rows; this server takes 1 to 8"),
        ({"inputs": [IMAGE | {"shape": [True, 2, 3]}]}, "inputs[0].shape"),
        ({"inputs": [IMAGE | {"data": [1, 2]}]}, "inputs[0].data: expected 6 values of FP32"),
        ({"inputs": [IMAGE | {"data": [[[1, 2, 3], [4, 5, False]]]}]}, "inputs[0].data: got true or false among the values; image is FP32"),
        ({"inputs": [IMAGE | {"data": ["a"] * 6}]}, "inputs[0].data: expected 6 values of FP32"),
        ({"inputs": [IMAGE | {"data": [[1], [2, 3]]}]}, "inputs[0].data: expected 6 values"),
        ({"inputs": [IMAGE | {"data": [1e300] * 6}]}, "inputs[0].data: expected 6 values of FP32"),
        ({"inputs": [IMAGE, AGE | {"data": [1.5]}]}, "inputs[1].data: expected 1 values of INT64"),
        ({"inputs": [IMAGE | {"shape": [2, 2, 3], "data": [1] * 12}, AGE | {"shape": [2], "data": [2**60 + 1, 1.0]}]}, "inputs[1].data: expected 2 values of INT64"),
        ({"inputs": [IMAGE, AGE | {"shape": [2], "data": [1, 2]}]}, "got batches of 1, 2 rows"),
        ({"inputs": [IMAGE | {"parameters": {BINARY_SIZE: 5}}]}, f"inputs[0].parameters.{BINARY_SIZE}: got 5; 1 rows are 24"),
        ({"inputs": [IMAGE, AGE], "outputs": [{"name": "x"}]}, 'outputs[0].name: got "x"; both gives logits, best'),
        ({"inputs": [IMAGE, AGE], "parameters": {"priority": 9}}, "priority: got 9; expected 1 (first) to 3 (last)"),
        ({"inputs": [IMAGE, AGE], "parameters": {"timeout": -1}}, "parameters.timeout: got -1"),
        ({"inputs": [IMAGE, AGE], "id": 3}, "id: got 3; expected a string"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(document: object, expected: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        parsed(document)
    assert expected in str(refusal.value)
    assert "\n" not in str(refusal.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10**12) | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["name", "shape", "data", "inputs"]), inner)
    ),
    max_leaves=12,
)


@given(
    document=st.builds(
        lambda image, age, more: {"inputs": [IMAGE | image, AGE | age], **more},
        st.dictionaries(st.sampled_from(["name", "datatype", "shape", "data", "parameters"]), JSON, max_size=2),
        st.dictionaries(st.sampled_from(["shape", "data", "parameters"]), JSON, max_size=2),
        st.dictionaries(st.sampled_from(["id", "outputs", "parameters"]), JSON, max_size=2),
    ),
    tail=st.binary(max_size=40),
)
def test_whatever_comes_is_parsed_or_refused_and_never_breaks(document: object, tail: bytes) -> None:
    try:
        request = parsed(document, tail)
    except BadRequest:
        return
    assert [each.shape[1:] for each in request.inputs] == [(2, 3), ()]


@given(st.binary(max_size=200), st.none() | st.text(max_size=5))
def test_any_bytes_are_parsed_or_refused(body: bytes, header: str | None) -> None:
    with pytest.raises(BadRequest):
        parse(body, header, MANIFEST, batch_max=8)


@pytest.mark.parametrize("binary", [False, True])
def test_an_answer_holds_what_was_asked_for(binary: bool) -> None:
    request = parsed(
        {"inputs": [IMAGE, AGE], "id": "a", "outputs": [{"name": "best", "parameters": {"binary_data": binary}}]}
    )
    headers, body = answer(request, [np.zeros((1, 4), np.float32), np.array([3])], MANIFEST)
    length = int(dict(headers).get("inference-header-content-length", len(body)))
    document = json.loads(body[:length])
    assert (document["id"], document["model_name"], document["model_version"]) == ("a", "both", "1")
    (output,) = document["outputs"]
    assert (output["name"], output["shape"], output["datatype"]) == ("best", [1], "INT64")
    assert (np.frombuffer(body[length:], np.int64).tolist() if binary else output["data"]) == [3]


def test_a_raw_body_is_rows_of_the_one_input() -> None:
    (images,) = parse_raw(np.arange(12, dtype=np.float32).tobytes(), SINGLE, batch_max=8)
    assert images.shape == (2, 2, 3)
    for body in (b"", b"x" * 23, b"x" * 24 * 9):
        with pytest.raises(BadRequest, match="a row of image"):
            parse_raw(body, SINGLE, batch_max=8)
    with pytest.raises(BadRequest, match="both takes image, age"):
        parse_raw(b"x" * 24, MANIFEST, batch_max=8)
