"""The API in OpenAPI 3.1, for the models that a server has.

What it says of a request is what the server checks, but for the one thing that JSON Schema can't: that as many values
come as rows. So where a request may have one row only, whatever fits the description is answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from workloads.serving.bodies import IMAGE_FORMATS, MODES
from workloads.serving.models import Models
from workloads.serving.package import Manifest, TensorSpec
from workloads.serving.protocol import (
    BINARY_SIZE,
    BINARY_TYPE,
    DIGITS_MAX,
    HEADER_LENGTH,
    JSON_TYPE,
    PRIORITY,
    TIMEOUT_MS,
)
from workloads.serving.scheduler import HIGH, LOW

Schema = dict[str, Any]

_REFUSALS = {
    "400": "The request does not fit the model; the error names the field.",
    "404": "There is no such model or version any more.",
    "408": "The request was not sent in time.",
    "413": "The body is too large.",
    "429": "It could not be answered in time; `Retry-After` says when to try again.",
    "500": "A mistake of this server, or of the code before or after the model.",
    "503": "The server is starting or going away, others came first, or the batch failed.",
}
_ERROR: Schema = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_TEXT: Schema = {"type": "string"}
_LIMITS: Mapping[str, Schema] = {
    "priority": {
        "type": ["integer", "null"],
        "minimum": 0,
        "maximum": LOW,
        "description": f"{HIGH} is served first.",
    },
    "timeout": {"type": ["integer", "null"], "minimum": 0, "description": "In microseconds; 0 is no limit."},
    "binary_data_output": {"type": "boolean"},
}
"""The parameters of a request."""


def document(models: Models) -> dict[str, Any]:
    """The description, with paths for each model, and for each of its versions."""
    paths: dict[str, Any] = {
        "/v2": {"get": _get("What this server is.", {"type": "object", "required": ["name", "version", "extensions"]})},
        "/v2/health/live": {"get": _get("Should it go on, without a restart?", {"type": "object"}, "503")},
        "/v2/health/ready": {"get": _get("Does it take requests?", {"type": "object"}, "503")},
        "/v2/repository/index": {"post": _get("What is served.", {"type": "array", "items": {"type": "object"}})},
        "/v2/probe": {
            "post": {
                "summary": "Takes any body and answers at once: by it a client measures its link.",
                "requestBody": {"content": {BINARY_TYPE: {}}},
                "responses": _responses({JSON_TYPE: {"type": "object", "required": ["bytes"]}}, "408", "413", "503"),
            }
        },
        "/metrics": {
            "get": {"summary": "For Prometheus.", "responses": {"200": _content("Them.", {"text/plain": _TEXT})}}
        },
    }
    for name, model in models.by_name.items():
        for version in (None, *model.versions):
            served = model.pick() if version is None else model.versions[version]
            place = f"/v2/models/{name}" if version is None else f"/v2/models/{name}/versions/{version}"
            paths |= _model_paths(place, served.pipeline.signature, served.limits.batch_max)
    return {"openapi": "3.1.0", "info": {"title": "Fusion inference", "version": "2"}, "paths": paths}


def _model_paths(place: str, manifest: Manifest, batch_max: int) -> dict[str, Any]:
    metadata: Schema = {"type": "object", "required": ["name", "versions", "platform", "inputs", "outputs"]}
    found: dict[str, Any] = {
        place: {"get": _get("Inputs and outputs.", metadata, "404", "503")},
        f"{place}/ready": {"get": _get("Is it served?", {"type": "object"}, "404", "503")},
        f"{place}/infer": {"post": _infer(manifest, batch_max)},
    }
    if len(manifest.inputs) == 1:
        found[f"{place}/raw"] = {"post": _raw(manifest, batch_max)}
    return found


def _infer(manifest: Manifest, batch_max: int) -> dict[str, Any]:
    request: Schema = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": ["string", "null"]},
            "inputs": _given(manifest, batch_max),
            "outputs": _wanted(manifest),
            "parameters": _parameters(_LIMITS),
        },
    }
    answer: Schema = {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "model_name": {"const": manifest.name},
            "model_version": _TEXT,
            "id": _TEXT,
            "outputs": {"type": "array", "items": {"oneOf": [_output(each) for each in manifest.outputs]}},
        },
    }
    return {
        "summary": f"Ask {manifest.name}, in the Open Inference Protocol v2.",
        "description": f"With the header {HEADER_LENGTH}, the bytes of that JSON, tensors may follow it in binary; "
        f"each has the parameter {BINARY_SIZE} then, and no data.",
        "requestBody": {"required": True, "content": {JSON_TYPE: {"schema": request}}},
        "responses": _responses({JSON_TYPE: answer, BINARY_TYPE: None}, *_REFUSALS),
    }


def _given(manifest: Manifest, batch_max: int) -> Schema:
    """The inputs, in any order, each once."""
    count = len(manifest.inputs)
    inputs: Schema = {
        "type": "array",
        "items": {"oneOf": [_tensor(each, batch_max) for each in manifest.inputs]},
        "minItems": count,
        "maxItems": count,
    }
    if count > 1:
        names = [each.name for each in manifest.inputs]
        inputs["allOf"] = [{"contains": {"properties": {"name": {"const": name}}}} for name in names]
    return inputs


def _wanted(manifest: Manifest) -> Schema:
    """Names of outputs, each at most once."""
    names = [each.name for each in manifest.outputs]
    outputs: Schema = {
        "type": ["array", "null"],
        "minItems": 1,
        "maxItems": len(names),
        "items": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"enum": names}, "parameters": _parameters({"binary_data": {"type": "boolean"}})},
        },
        "description": "Those that are wanted, each once; all of them where it is left out.",
    }
    if len(names) > 1:
        outputs["allOf"] = [
            {"contains": {"properties": {"name": {"const": name}}}, "minContains": 0, "maxContains": 1}
            for name in names
        ]
    return outputs


def _tensor(spec: TensorSpec, batch_max: int) -> Schema:
    """An input in JSON."""
    size = int(np.prod(spec.shape, dtype=np.int64))
    flat: Schema = {"type": "array", "items": _element(spec), "minItems": size, "maxItems": size * batch_max}
    data = flat
    if spec.datatype != "BYTES" and spec.shape:
        nested = _element(spec)
        for side in reversed(spec.shape):
            nested = {"type": "array", "items": nested, "minItems": side, "maxItems": side}
        data = {"oneOf": [flat, {"type": "array", "items": nested, "minItems": 1, "maxItems": batch_max}]}
    return {
        "type": "object",
        "required": ["name", "datatype", "shape", "data"],
        "properties": {
            "name": {"const": spec.name},
            "datatype": {"const": spec.datatype},
            "shape": {
                "type": "array",
                "prefixItems": [
                    {"type": "integer", "minimum": 1, "maximum": batch_max},
                    *({"const": side} for side in spec.shape),
                ],
                "minItems": 1 + len(spec.shape),
                "maxItems": 1 + len(spec.shape),
            },
            "data": data | {"description": "The values of all rows, flat or nested as the shape says."},
            "parameters": _parameters({BINARY_SIZE: {"type": "null"}}),
        },
    }


def _output(spec: TensorSpec) -> Schema:
    """An output, in JSON or in binary; JSON has no NaN and no infinity, so they are null."""
    element = _element(spec)
    if spec.dtype.kind == "f":
        element = {"type": ["number", "null"]}
    return {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": {"const": spec.name},
            "datatype": {"const": spec.datatype},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "data": {"type": "array", "items": element},
            "parameters": {"type": "object"},
        },
    }


def _element(spec: TensorSpec) -> Schema:
    """One value in JSON."""
    if spec.datatype == "BYTES":
        return _TEXT
    kind = spec.dtype.kind
    if kind == "b":
        return {"type": "boolean"}
    if kind == "f":
        return {"type": "number", **_rounded(spec)}
    limits = np.iinfo(spec.dtype)
    return {"type": "integer", "minimum": int(limits.min), "maximum": int(limits.max)}


def _rounded(spec: TensorSpec) -> Schema:
    """The numbers that a float rounds to one of its own; JSON's are all FP64's."""
    if spec.datatype == "FP64":
        return {}
    most = np.finfo(spec.dtype).max
    below = np.nextafter(most, most.dtype.type(0))
    bound = float(most) + (float(most) - float(below)) / 2
    return {"exclusiveMinimum": -bound, "exclusiveMaximum": bound}


def _parameters(known: Mapping[str, Any]) -> Schema:
    return {"type": ["object", "null"], "properties": dict(known)}


def _raw(manifest: Manifest, batch_max: int) -> dict[str, Any]:
    (spec,) = manifest.inputs
    content: dict[str, Any] = {BINARY_TYPE: {}}
    if spec.datatype != "BYTES":
        sizes = {"minLength": spec.row_bytes, "maxLength": spec.row_bytes * batch_max}
        content = {BINARY_TYPE: {"schema": {"type": "string", "format": "binary", **sizes}}}
        if spec.datatype == "UINT8" and len(spec.shape) == 3 and spec.shape[0] in MODES:
            content |= {kind: {} for kind in IMAGE_FORMATS}
    numbers = (
        (PRIORITY, LOW, f"{HIGH} is served first, {LOW} last."),
        (TIMEOUT_MS, 10**DIGITS_MAX - 1, "After which the answer is worthless; 0 is no limit."),
    )
    return {
        "summary": f"Ask {manifest.name} with nothing but the bytes of {spec.name}: rows of {spec.datatype} "
        f"{list(spec.shape)}, little-endian; answered with the bytes of {manifest.outputs[0].name}.",
        "parameters": [
            {
                "name": name,
                "in": "header",
                "schema": {"type": "integer", "minimum": 0, "maximum": most},
                "description": text,
            }
            for name, most, text in numbers
        ],
        "requestBody": {"required": True, "content": content},
        "responses": _responses({BINARY_TYPE: None}, *_REFUSALS),
    }


def _get(summary: str, schema: Schema, *refusals: str) -> dict[str, Any]:
    return {"summary": summary, "responses": _responses({JSON_TYPE: schema}, *refusals)}


def _responses(good: Mapping[str, Schema | None], *refusals: str) -> dict[str, Any]:
    return {
        "200": _content("The answer.", good),
        **{code: _content(_REFUSALS[code], {JSON_TYPE: _ERROR}) for code in refusals},
    }


def _content(text: str, by_type: Mapping[str, Schema | None]) -> dict[str, Any]:
    media = {kind: {} if schema is None else {"schema": schema} for kind, schema in by_type.items()}
    return {"description": text, "content": media}
