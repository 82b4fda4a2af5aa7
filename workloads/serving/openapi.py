"""The API in OpenAPI 3.1, for the models that a server has."""

from __future__ import annotations

from typing import Any

from workloads.serving.models import Models
from workloads.serving.package import Manifest

_NUMBER = {"BOOL": "boolean", "FP16": "number", "FP32": "number", "FP64": "number", "BYTES": "string"}
_REFUSALS = {
    "400": "The request does not fit the model; the error names the field.",
    "413": "The body is too large.",
    "429": "It could not be answered in time; `Retry-After` says when to try again.",
    "503": "The server is starting or going away, or others came first.",
}


def document(models: Models) -> dict[str, Any]:
    """The description, with a path for each model's two ways to ask it."""
    paths: dict[str, Any] = {
        path: {"get": {"summary": text, "responses": {"200": {"description": "Yes."}, "503": {"description": "No."}}}}
        for path, text in (
            ("/v2/health/live", "Should it go on, without a restart?"),
            ("/v2/health/ready", "Does it take requests?"),
        )
    }
    for name, model in models.by_name.items():
        manifest = model.pick().pipeline.signature
        paths[f"/v2/models/{name}"] = {"get": {"summary": "Inputs and outputs.", "responses": {"200": _says("Them.")}}}
        paths[f"/v2/models/{name}/infer"] = {"post": _infer(manifest)}
        if len(manifest.inputs) == 1:
            paths[f"/v2/models/{name}/raw"] = {"post": _raw(manifest)}
    return {"openapi": "3.1.0", "info": {"title": "Fusion inference", "version": "2"}, "paths": paths}


def _infer(manifest: Manifest) -> dict[str, Any]:
    tensor = {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": {"enum": [each.name for each in manifest.inputs]},
            "datatype": {"enum": sorted({each.datatype for each in manifest.inputs})},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
            "data": {"type": "array", "items": {"type": _NUMBER.get(manifest.inputs[0].datatype, "integer")}},
            "parameters": {"type": "object"},
        },
    }
    inputs = {"type": "array", "items": tensor, "minItems": len(manifest.inputs), "maxItems": len(manifest.inputs)}
    schema = {"type": "object", "required": ["inputs"], "properties": {"id": {"type": "string"}, "inputs": inputs}}
    return {
        "summary": f"Ask {manifest.name}, in the Open Inference Protocol v2.",
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {"200": _says("The outputs."), **{code: _says(text) for code, text in _REFUSALS.items()}},
    }


def _raw(manifest: Manifest) -> dict[str, Any]:
    (spec,) = manifest.inputs
    return {
        "summary": f"Ask {manifest.name} with nothing but the bytes of {spec.name}: rows of {spec.datatype} "
        f"{list(spec.shape)}, little-endian; answered with the bytes of {manifest.outputs[0].name}.",
        "requestBody": {"required": True, "content": {"application/octet-stream": {}}},
        "responses": {
            "200": {"description": "The output.", "content": {"application/octet-stream": {}}},
            **{code: _says(text) for code, text in _REFUSALS.items()},
        },
    }


def _says(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": {"type": "object"}}}}
