"""Requests and answers of the Open Inference Protocol v2 over HTTP: JSON, with tensors in it or in binary behind it.

https://github.com/kserve/open-inference-protocol, `specification/protocol/inference_rest.md`; the binary tensor data
extension is the one of Triton (`docs/protocol/extension_binary_data.md`): the header `Inference-Header-Content-Length`
says where the JSON ends, and each tensor in binary has the parameter `binary_data_size`. `parameters.priority` (1 the
highest, 3 the lowest, 0 the default) and `parameters.timeout` (microseconds) are Triton's, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from workloads.serving.package import Array, Manifest, TensorSpec
from workloads.serving.scheduler import HIGH, LOW, NORMAL

HEADER_LENGTH = "inference-header-content-length"
BINARY_SIZE = "binary_data_size"
PRIORITY, TIMEOUT_MS = "fusion-priority", "fusion-timeout-ms"
"""Headers of a raw body."""
DIGITS_MAX = 9
"""Of their whole numbers."""
JSON_TYPE, BINARY_TYPE = "application/json", "application/octet-stream"


class BadRequest(ValueError):
    """The request is wrong; one sentence that names the field and says what was expected."""


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request that fits the model."""

    inputs: list[Array]
    """(rows, *shape) each, in the manifest's order."""
    id: str | None = None
    priority: int = NORMAL
    timeout_s: float | None = None
    outputs: tuple[int, ...] = ()
    """Positions in the manifest, in the order that was asked for."""
    in_binary: frozenset[int] = frozenset()
    """Those of them that are answered in binary."""


def parse(body: bytes, header_length: str | None, manifest: Manifest, batch_max: int) -> InferRequest:
    """Read an inference request.

    Args:
        body: the HTTP body.
        header_length: the header `Inference-Header-Content-Length`, if there is one.
        manifest: of the model that is asked.
        batch_max: rows that a request may have.

    Raises:
        BadRequest: it is no such request, or does not fit the model.
    """
    document, tail = _split(body, header_length)
    given = document.get("inputs")
    if not isinstance(given, list):
        raise BadRequest(f"inputs: expected a list of tensors, got {_shown(given)}")
    arrays: dict[str, Array] = {}
    offset = 0
    specs = {each.name: each for each in manifest.inputs}
    may_hold_booleans = b"true" in body or b"false" in body  # a look at each value would take longer than to read them
    for number, tensor in enumerate(given):
        where = f"inputs[{number}]"
        name = _field(tensor, "name", str, where)
        spec = specs.get(name)
        if spec is None or name in arrays:
            known = ", ".join(specs)
            raise BadRequest(f"{where}.name: got {_shown(name)}; {manifest.name} takes {known}, each once")
        arrays[name], offset = _tensor(tensor, spec, where, tail, offset, batch_max)
        if may_hold_booleans and spec.dtype.kind in "fiu" and _holds_boolean(tensor.get("data")):
            raise BadRequest(f"{where}.data: got true or false among the values; {name} is {spec.datatype}")
    if offset != len(tail):
        raise BadRequest(f"body: {len(tail) - offset} bytes behind the tensors; expected none")
    return _request(document, arrays, manifest)


def _request(document: Mapping[str, Any], arrays: Mapping[str, Array], manifest: Manifest) -> InferRequest:
    inputs = checked_inputs(arrays, manifest)
    id = document.get("id")
    if id is not None and not isinstance(id, str):
        raise BadRequest(f"id: got {_shown(id)}; expected a string")
    parameters = _parameters(document, "parameters")
    outputs, in_binary = _wanted(document, parameters, manifest)
    timeout = _whole(parameters, "timeout")
    return InferRequest(
        inputs,
        id,
        checked_priority(_whole(parameters, "priority")),
        None if timeout is None else timeout / 1e6,
        outputs,
        in_binary,
    )


def checked_inputs(arrays: Mapping[str, Array], manifest: Manifest) -> list[Array]:
    """Inputs by name → (rows, *shape) each, in the manifest's order.

    Raises:
        BadRequest: one is missing, or they have not the same number of rows.
    """
    missing = [each.name for each in manifest.inputs if each.name not in arrays]
    if missing:
        raise BadRequest(f"inputs: {', '.join(missing)} of {manifest.name} not given")
    inputs = [arrays[each.name] for each in manifest.inputs]
    if any(len(each) != len(inputs[0]) for each in inputs):
        sizes = ", ".join(str(len(each)) for each in inputs)
        raise BadRequest(f"inputs: got batches of {sizes} rows; expected one size")
    return inputs


def checked_priority(value: int | None) -> int:
    """A request's priority; 0 and none are the usual one.

    Raises:
        BadRequest: there is no such priority.
    """
    if value is None or value == 0:
        return NORMAL
    if not HIGH <= value <= LOW:
        raise BadRequest(f"priority: got {value}; expected {HIGH} (first) to {LOW} (last)")
    return value


def _split(body: bytes, header_length: str | None) -> tuple[dict[str, Any], memoryview]:
    length = len(body)
    if header_length is not None:
        if not header_length.isascii() or not header_length.isdigit() or int(header_length) > len(body):
            raise BadRequest(
                f"Inference-Header-Content-Length: got {header_length!r}; expected bytes of JSON, at most {len(body)}"
            )
        length = int(header_length)
    view = memoryview(body)
    try:
        document = orjson.loads(view[:length])
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"body: not JSON: {error}") from None
    if not isinstance(document, dict):
        raise BadRequest(f"body: expected an object with inputs, got {_shown(document)}")
    return document, view[length:]


def _tensor(
    tensor: Any, spec: TensorSpec, where: str, tail: memoryview, offset: int, batch_max: int
) -> tuple[Array, int]:
    """One tensor, and where the next one starts behind the JSON."""
    datatype, shape = _field(tensor, "datatype", str, where), _field(tensor, "shape", list, where)
    check_tensor(datatype, shape, spec, where, batch_max)
    size = _whole(_parameters(tensor, f"{where}.parameters"), BINARY_SIZE)
    if size is None:
        return _from_json(tensor, spec, where, shape), offset
    if spec.datatype == "BYTES":
        if offset + size > len(tail):
            raise BadRequest(f"{where}.parameters.{BINARY_SIZE}: got {size}; {len(tail) - offset} follow the JSON")
        return unpacked(tail[offset : offset + size], shape, where), offset + size
    if size != shape[0] * spec.row_bytes or offset + size > len(tail):
        raise BadRequest(
            f"{where}.parameters.{BINARY_SIZE}: got {size}; {shape[0]} rows are {shape[0] * spec.row_bytes} bytes, "
            f"and {len(tail) - offset} follow the JSON"
        )
    return np.frombuffer(tail[offset : offset + size], spec.dtype).reshape(shape), offset + size


def check_tensor(datatype: str, shape: Sequence[Any], spec: TensorSpec, where: str, batch_max: int) -> None:
    """Pass where a tensor has an input's type and, but for the number of its rows, its shape.

    Raises:
        BadRequest: it has not.
    """
    if datatype != spec.datatype:
        raise BadRequest(f"{where}.datatype: got {_shown(datatype)}; {spec.name} is {spec.datatype}")
    if not shape or not all(type(side) is int and side > 0 for side in shape) or tuple(shape[1:]) != spec.shape:
        raise BadRequest(f"{where}.shape: got {_shown(list(shape))}; expected {_expected_shape(spec)}")
    if not 1 <= shape[0] <= batch_max:
        raise BadRequest(f"{where}.shape: got {shape[0]} rows; this server takes 1 to {batch_max} a request")


def _from_json(tensor: Mapping[str, Any], spec: TensorSpec, where: str, shape: Sequence[int]) -> Array:
    data = _field(tensor, "data", list, where)
    if spec.datatype == "BYTES":
        return _from_texts(data, where, shape)
    try:
        given = np.asarray(data)
        if given.size and given.dtype.kind not in _KINDS[spec.dtype.kind]:
            raise ValueError(f"values of another type than {spec.datatype}")
        with np.errstate(over="raise", invalid="raise"):
            array = given.astype(spec.dtype)
        if spec.dtype.kind in "iu" and not (np.array_equal(array, given) and _is_exact(given)):
            raise ValueError(f"values beyond {spec.datatype}")
        return np.ascontiguousarray(array.reshape(shape))
    except (ValueError, TypeError, OverflowError, FloatingPointError) as error:
        raise BadRequest(
            f"{where}.data: expected {math.prod(shape)} values of {spec.datatype} in the tensor's order ({error})"
        ) from None


def _holds_boolean(data: Any) -> bool:
    """Whether there is one among nested values; numpy makes 1 or 0 of it beside numbers."""
    return isinstance(data, bool) or (isinstance(data, list) and any(map(_holds_boolean, data)))


def _is_exact(given: Array) -> bool:
    """Whether whole numbers are still those of the JSON: beside a 1.0, numpy reads large ones as their neighbours."""
    return given.dtype.kind != "f" or bool(np.all(np.abs(given) < _EXACT_BELOW))


def _from_texts(data: list[Any], where: str, shape: Sequence[int]) -> Array:
    if len(data) != math.prod(shape) or not all(isinstance(each, str) for each in data):
        raise BadRequest(f"{where}.data: expected {math.prod(shape)} strings in a flat list; other bytes go in binary")
    return of_elements([each.encode("utf-8", "surrogatepass") for each in data], shape)


def unpacked(content: bytes | memoryview, shape: Sequence[int], where: str) -> Array:
    """A BYTES tensor: before each element its length in 4 bytes, little-endian.

    Raises:
        BadRequest: it is not so many elements.
    """
    elements, place = [], 0
    for _ in range(math.prod(shape)):
        length = int.from_bytes(content[place : place + 4], "little")
        element = bytes(content[place + 4 : place + 4 + length])
        place += 4 + length
        if place > len(content) or len(element) != length:
            raise BadRequest(
                f"{where}: {len(content)} bytes do not hold {math.prod(shape)} elements with their lengths"
            )
        elements.append(element)
    if place != len(content):
        raise BadRequest(f"{where}: {len(content) - place} bytes behind {math.prod(shape)} elements; expected none")
    return of_elements(elements, shape)


def of_elements(elements: Sequence[bytes], shape: Sequence[int]) -> Array:
    """A BYTES tensor of so many elements."""
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)


def to_bytes(array: Array) -> bytes:
    """A tensor in binary; elements of BYTES have their lengths before them."""
    if array.dtype != object:
        return array.tobytes()
    return b"".join(part for each in array.ravel() for part in (len(each).to_bytes(4, "little"), each))


def _texts(array: Array, name: str) -> list[str]:
    try:
        return [each.decode() for each in array.ravel()]
    except UnicodeDecodeError:
        raise BadRequest(f"outputs: {name} is not text; ask for it with binary_data: true") from None


_EXACT_BELOW = 2.0**53
"""Whole numbers that float64 has all of."""
_KINDS: Mapping[str, str] = {"f": "fiu", "i": "iuf", "u": "iuf", "b": "b"}
"""The types of JSON numbers, as numpy reads them, that a tensor's type takes."""


def _wanted(
    document: Mapping[str, Any], parameters: Mapping[str, Any], manifest: Manifest
) -> tuple[tuple[int, ...], frozenset[int]]:
    positions = {each.name: number for number, each in enumerate(manifest.outputs)}
    everything = tuple(positions.values())
    all_binary = _flag(parameters, "binary_data_output", default=False)
    wanted = document.get("outputs")
    if wanted is None:
        return everything, frozenset(everything) if all_binary else frozenset()
    if not isinstance(wanted, list) or not wanted:
        raise BadRequest(f"outputs: expected a list of names, got {_shown(wanted)}")
    found, in_binary = [], set()
    for number, each in enumerate(wanted):
        name = _field(each, "name", str, f"outputs[{number}]")
        if name not in positions or positions[name] in found:
            known = ", ".join(positions)
            raise BadRequest(f"outputs[{number}].name: got {_shown(name)}; {manifest.name} gives {known}, each once")
        found.append(positions[name])
        if _flag(_parameters(each, f"outputs[{number}].parameters"), "binary_data", default=all_binary):
            in_binary.add(positions[name])
    return tuple(found), frozenset(in_binary)


def answer(request: InferRequest, outputs: Sequence[Array], manifest: Manifest) -> tuple[list[tuple[str, str]], bytes]:
    """The HTTP headers and body of an answer."""
    tensors: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for position in request.outputs:
        spec, array = manifest.outputs[position], np.ascontiguousarray(outputs[position])
        tensor: dict[str, Any] = {"name": spec.name, "datatype": spec.datatype, "shape": list(array.shape)}
        if position in request.in_binary:
            tail.append(to_bytes(array))
            tensor["parameters"] = {BINARY_SIZE: len(tail[-1])}
        elif spec.datatype == "BYTES":
            tensor["data"] = _texts(array, spec.name)
        else:
            flat = array.ravel()
            tensor["data"] = flat.astype(np.float32) if spec.datatype == "FP16" else flat
        tensors.append(tensor)
    document: dict[str, Any] = {"model_name": manifest.name, "model_version": manifest.version, "outputs": tensors}
    if request.id is not None:
        document["id"] = request.id
    head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    if not tail:
        return [("content-type", JSON_TYPE)], head
    return [("content-type", BINARY_TYPE), (HEADER_LENGTH, str(len(head)))], b"".join((head, *tail))


def parse_raw(body: bytes, manifest: Manifest, batch_max: int) -> list[Array]:
    """The one input of a model, as its bytes alone.

    Raises:
        BadRequest: the model has several inputs, or the bytes are no whole number of rows.
    """
    rows = raw_rows(len(body), manifest, batch_max)
    spec = manifest.inputs[0]
    if spec.datatype == "BYTES":
        return [of_elements([body], (1, *spec.shape))]
    return [np.frombuffer(body, spec.dtype).reshape(rows, *spec.shape)]


def raw_rows(size: int, manifest: Manifest, batch_max: int) -> int:
    """How many rows a raw body of so many bytes has; raises as `parse_raw`."""
    if len(manifest.inputs) != 1:
        names = ", ".join(each.name for each in manifest.inputs)
        raise BadRequest(f"{manifest.name} takes {names}: a raw body can hold one input only; use /infer")
    spec = manifest.inputs[0]
    if spec.datatype == "BYTES":
        if math.prod(spec.shape) != 1:
            raise BadRequest(f"{manifest.name}: a row of {spec.name} has {math.prod(spec.shape)} elements; use /infer")
        return 1
    rows, rest = divmod(size, spec.row_bytes)
    if rest or not 1 <= rows <= batch_max:
        raise BadRequest(
            f"body: got {size} bytes; a row of {spec.name} ({spec.datatype} {list(spec.shape)}) has {spec.row_bytes}, "
            f"and this server takes 1 to {batch_max} rows a request"
        )
    return rows


def metadata(manifest: Manifest, versions: Sequence[str], backend: str) -> dict[str, Any]:
    """A model's metadata."""

    def tensors(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
        return [{"name": each.name, "datatype": each.datatype, "shape": [-1, *each.shape]} for each in specs]

    return {
        "name": manifest.name,
        "versions": list(versions),
        "platform": f"fusion_{backend}",
        "inputs": tensors(manifest.inputs),
        "outputs": tensors(manifest.outputs),
    }


def _field(value: Any, name: str, kind: type, where: str) -> Any:
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, kind):
        raise BadRequest(f"{where}.{name}: expected a {_KIND_NAMES[kind]}, got {_shown(found)}")
    return found


_KIND_NAMES: Mapping[type, str] = {str: "string", list: "list"}


def _parameters(value: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    found = value.get("parameters")
    if found is not None and not isinstance(found, dict):
        raise BadRequest(f"{where}: expected an object, got {_shown(found)}")
    return found or {}


def _whole(parameters: Mapping[str, Any], name: str) -> int | None:
    found = parameters.get(name)
    if found is None:
        return None
    if type(found) not in (int, float) or found < 0 or found % 1:
        raise BadRequest(f"parameters.{name}: got {_shown(found)}; expected a whole number, 0 or more")
    return int(found)


def _flag(parameters: Mapping[str, Any], name: str, *, default: bool) -> bool:
    found = parameters.get(name, default)
    if not isinstance(found, bool):
        raise BadRequest(f"parameters.{name}: got {_shown(found)}; expected true or false")
    return found


def _expected_shape(spec: TensorSpec) -> str:
    return f"[rows, {', '.join(map(str, spec.shape))}]" if spec.shape else "[rows]"


def _shown(value: Any) -> str:
    try:
        text = orjson.dumps(value).decode()
    except (orjson.JSONEncodeError, TypeError):
        text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
