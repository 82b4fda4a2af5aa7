"""Event logs as Pulumi's engine writes them, made for tests."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from fusion.review.secrets import SECRET
from policies.testing import secret as marked

PLAN = "fusion:platform:Plan"


def urn(type_: str, name: str) -> str:
    return f"urn:pulumi:prod::fusion::{type_}::{name}"


def secret() -> dict[str, Any]:
    """As the engine writes a secret: marked, its value blinded."""
    return {key: value for key, value in marked("").items() if key != "value"} | {"ciphertext": SECRET}


def step(
    op: str,
    type_: str,
    name: str,
    old: Mapping[str, Any] | None = None,
    new: Mapping[str, Any] | None = None,
    diff: Mapping[str, str] | None = None,
    keys: Iterable[str] = (),
    **state: Any,
) -> dict[str, Any]:
    """The event before a step."""

    def made(inputs: Mapping[str, Any] | None) -> dict[str, Any] | None:
        if inputs is None:
            return None
        return {"type": type_, "urn": urn(type_, name), "id": "", "parent": "", "inputs": inputs, "outputs": {}} | state

    detailed = {path: {"diffKind": kind, "inputDiff": True} for path, kind in (diff or {}).items()}
    metadata = {"op": op, "urn": urn(type_, name), "type": type_, "old": made(old), "new": made(new)}
    return {"resourcePreEvent": {"metadata": metadata | {"keys": list(keys), "detailedDiff": detailed}}}


def replaced(type_: str, name: str, old: Mapping[str, Any], new: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """The three events of a replacement."""
    diff = {key: "update-replace"}
    return [
        step("create-replacement", type_, name, old, new, diff, [key]),
        step("replace", type_, name, old, new, diff, [key]),
        step("delete-replaced", type_, name, old, None),
    ]


def violation(policy: str, message: str, on: str, level: str = "mandatory") -> dict[str, Any]:
    return {
        "policyEvent": {
            "resourceUrn": on,
            "message": message,
            "policyName": policy,
            "policyPackName": "fusion",
            "enforcementLevel": level,
        }
    }


def passed(on: str, *policies: str) -> dict[str, Any]:
    return {"policyAnalyzeSummaryEvent": {"resourceUrn": on, "policyPackName": "fusion", "passed": list(policies)}}


def error(message: str, on: str = "") -> dict[str, Any]:
    return {"diagnosticEvent": {"prefix": "error: ", "message": f"{message}\n", "severity": "error", "urn": on}}


def log(*events: Mapping[str, Any], config: Mapping[str, str] | None = None, result: str = "succeeded") -> str:
    """The file, from its prelude to its end."""
    ends = {"summaryEvent": {"result": result, "isPreview": True, "resourceChanges": {}}}, {"cancelEvent": {}}
    every = [{"preludeEvent": {"config": dict(config or {})}}, *events, *ends]
    return "".join(
        json.dumps({"sequence": number, "timestamp": 1} | dict(each)) + "\n" for number, each in enumerate(every)
    )
