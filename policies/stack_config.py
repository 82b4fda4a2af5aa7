"""The stack's config, as the engine sends it to a policy pack.

The engine sends the whole config when it configures the analyzer for a stack; pulumi-policy 1.21 keeps only the
stack's tags of it, and what `pulumi.Config` reads belongs to one thread while resources are judged on many. So the
config is kept here.
"""

from __future__ import annotations

import json
from typing import Any

from pulumi.runtime.proto import AnalyzerStackConfigureRequest, AnalyzerStackConfigureResponse
from pulumi_policy.policy import _PolicyAnalyzerServicer

_values: dict[str, str] = {}


def receive() -> None:
    """Keep the config of the stack that is judged; the engine sends it before the first resource."""
    keep_tags = _PolicyAnalyzerServicer.ConfigureStack

    def configure_stack(
        servicer: _PolicyAnalyzerServicer,
        request: AnalyzerStackConfigureRequest,
        context: Any,
    ) -> AnalyzerStackConfigureResponse:
        _values.clear()
        _values.update(request.config)
        answer: AnalyzerStackConfigureResponse = keep_tags(servicer, request, context)
        return answer

    setattr(_PolicyAnalyzerServicer, "ConfigureStack", configure_stack)  # noqa: B010 - mypy refuses the plain form


def text(key: str) -> str | None:
    """The value of a key such as `aws:region`; None where the stack's file does not set it."""
    return _values.get(key)


def mapping(key: str) -> dict[str, Any]:
    """The value of a structured key such as `fusion:guardrails`; empty where it is not set or no mapping."""
    try:
        value = json.loads(_values.get(key, "{}"))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
