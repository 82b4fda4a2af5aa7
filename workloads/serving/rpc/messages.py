"""Messages of the Open Inference Protocol over gRPC: the same requests as in JSON, with the same checks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from workloads.serving import protocol
from workloads.serving.package import Array, Datatype, Manifest, TensorSpec
from workloads.serving.protocol import BadRequest, InferRequest
from workloads.serving.rpc.open_inference_grpc_pb2 import (
    InferParameter,
    InferTensorContents,
    ModelInferRequest,
    ModelInferResponse,
)

CONTENTS: Mapping[Datatype, str] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Fields of `InferTensorContents` by type; what is not here (FP16) travels raw only."""


def parse(
    message: ModelInferRequest, manifest: Manifest, batch_max: int, remaining_s: float | None = None
) -> InferRequest:
    """Read an inference request; outputs are answered in binary where the inputs came so, or have no other form.

    Args:
        message: as it came.
        manifest: of the model that is asked.
        batch_max: rows that a request may have.
        remaining_s: until the call's deadline, if it has one; the request's own timeout may end before.

    Raises:
        BadRequest: it does not fit the model.
    """
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise BadRequest(
            f"raw_input_contents: got {len(raw)} tensors; expected one for each of {len(message.inputs)} inputs"
        )
    arrays: dict[str, Array] = {}
    specs = {each.name: each for each in manifest.inputs}
    for number, tensor in enumerate(message.inputs):
        where = f"inputs[{number}]"
        spec = specs.get(tensor.name)
        if spec is None or tensor.name in arrays:
            known = ", ".join(specs)
            raise BadRequest(f"{where}.name: got {tensor.name!r:.60}; {manifest.name} takes {known}, each once")
        shape = tuple(tensor.shape)
        protocol.check_tensor(tensor.datatype, shape, spec, where, batch_max)
        if not raw:
            arrays[tensor.name] = _typed(tensor.contents, spec, where, shape)
        elif tensor.HasField("contents"):
            raise BadRequest(f"{where}.contents: expected none beside raw_input_contents")
        else:
            arrays[tensor.name] = _raw(raw[number], spec, number, shape)
    positions = _wanted(message, manifest)
    is_raw = bool(raw) or any(manifest.outputs[each].datatype not in CONTENTS for each in positions)
    timeout = _whole(message.parameters, "timeout")
    limits_s = [each for each in (timeout and timeout / 1e6, remaining_s) if each]
    return InferRequest(
        protocol.checked_inputs(arrays, manifest),
        message.id or None,
        protocol.checked_priority(_whole(message.parameters, "priority")),
        min(limits_s, default=None),
        positions,
        frozenset(positions) if is_raw else frozenset(),
    )


def _raw(content: bytes, spec: TensorSpec, number: int, shape: tuple[int, ...]) -> Array:
    if spec.datatype == "BYTES":
        return protocol.unpacked(content, shape, f"raw_input_contents[{number}]")
    if len(content) != shape[0] * spec.row_bytes:
        raise BadRequest(
            f"raw_input_contents[{number}]: got {len(content)} bytes; {shape[0]} rows of {spec.name} are "
            f"{shape[0] * spec.row_bytes}"
        )
    return np.frombuffer(content, spec.dtype).reshape(shape)


def _typed(contents: InferTensorContents, spec: TensorSpec, where: str, shape: tuple[int, ...]) -> Array:
    field = CONTENTS.get(spec.datatype)
    if field is None:
        raise BadRequest(f"{where}.contents: {spec.datatype} has no such form; expected raw_input_contents")
    if others := [found.name for found, _ in contents.ListFields() if found.name != field]:
        raise BadRequest(f"{where}.contents.{others[0]}: expected {field} for {spec.datatype}")
    values = getattr(contents, field)
    if len(values) != math.prod(shape):
        raise BadRequest(f"{where}.contents.{field}: got {len(values)} values; expected {math.prod(shape)}")
    if spec.datatype == "BYTES":
        return protocol.of_elements(values, shape)
    given = np.asarray(list(values))
    array = given.astype(spec.dtype)
    if spec.dtype.kind in "iu" and not np.array_equal(array, given):
        raise BadRequest(f"{where}.contents.{field}: values beyond {spec.datatype}")
    return array.reshape(shape)


def _wanted(message: ModelInferRequest, manifest: Manifest) -> tuple[int, ...]:
    positions = {each.name: number for number, each in enumerate(manifest.outputs)}
    found: list[int] = []
    for number, each in enumerate(message.outputs):
        position = positions.get(each.name)
        if position is None or position in found:
            known = ", ".join(positions)
            raise BadRequest(f"outputs[{number}].name: got {each.name!r:.60}; {manifest.name} gives {known}, each once")
        found.append(position)
    return tuple(found or positions.values())


def _whole(parameters: Mapping[str, InferParameter], name: str) -> int | None:
    if name not in parameters:
        return None
    value = parameters[name]
    kind = value.WhichOneof("parameter_choice")
    number = getattr(value, kind) if kind in ("int64_param", "uint64_param") else None
    if number is None or number < 0:
        raise BadRequest(f"parameters.{name}: expected a whole number, 0 or more, as int64_param or uint64_param")
    return int(number)


def answer(request: InferRequest, outputs: Sequence[Array], manifest: Manifest) -> ModelInferResponse:
    """The message of an answer."""
    message = ModelInferResponse(model_name=manifest.name, model_version=manifest.version, id=request.id or "")
    for position in request.outputs:
        spec, array = manifest.outputs[position], outputs[position]
        tensor = message.outputs.add(name=spec.name, datatype=spec.datatype, shape=array.shape)
        if request.in_binary:
            message.raw_output_contents.append(protocol.to_bytes(array))
        else:
            getattr(tensor.contents, CONTENTS[spec.datatype]).extend(array.ravel().tolist())
    return message
