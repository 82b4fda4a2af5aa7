"""Guardrails tried without an engine, through the same analyzer that answers it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from localcloud.messages import analyzer_pb2
from policies import marks
from policies.analyzer import Analyzer
from policies.guardrail import Guardrail
from policies.resource import struct_of
from policies.state import State

UNKNOWN = marks.UNKNOWN_TEXT
"""In inputs: a value that is not known before the update."""


def secret(value: Any) -> dict[str, Any]:
    """In inputs: a value that the program marked as secret."""
    return {marks.SIGNATURE_KEY: marks.SECRET_SIGNATURE, "value": value}


@dataclass(frozen=True, slots=True)
class Declared:
    """A resource as a program declares it.

    `references` are, by input, the URNs whose outputs it is made of; `outputs` are what its provider adds to the inputs
    for guardrails of the stack.
    """

    type: str
    inputs: Mapping[str, Any]
    name: str = "tested"
    provider: Mapping[str, str] = field(default_factory=dict)
    parent: str = ""
    references: Mapping[str, Sequence[str]] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def urn(self) -> str:
        """Its URN in the stack of the test."""
        return f"urn:pulumi:test::test::{self.type}::{self.name}"


def judge(
    guardrails: Guardrail | Sequence[Guardrail],
    *resources: Declared,
    config: Mapping[str, str] | None = None,
    is_preview: bool = True,
    read_state: Callable[[str, str], State] = lambda _organization, _stack: (),
    **settings: Any,
) -> list[str]:
    """What guardrails say of resources, one after the other, and then of the stack that they make.

    Args:
        config: the stack's config by its keys; `aws:region` is `us-east-1` unless it says otherwise.
        read_state: gives what is deployed of a stack, as `policies.state` does; by default nothing is.
        settings: `fusion:guardrails` of the stack.

    Returns:
        One message for each violation, without the guardrail's description.

    Example:
        >>> from policies.testing import Declared, judge
        >>> judge(imdsv2, Declared("aws:ec2/instance:Instance", {"ami": "ami-1"}))  # doctest: +SKIP
        ['metadataOptions.httpTokens is not required, so a forged request can read its role; set it']
    """
    rules = [guardrails] if isinstance(guardrails, Guardrail) else guardrails
    analyzer = Analyzer("test", rules, read_state)
    given = {"aws:region": "us-east-1", "fusion:guardrails": json.dumps(settings)} | dict(config or {})
    analyzer.ConfigureStack(
        analyzer_pb2.AnalyzerStackConfigureRequest(stack="test", project="test", dry_run=is_preview, config=given), None
    )
    answers = [analyzer.Analyze(_filled(analyzer_pb2.AnalyzeRequest(), each), None) for each in resources]
    stack = analyzer_pb2.AnalyzeStackRequest(resources=[_in_stack(each) for each in resources])
    return [message for each in (*answers, analyzer.AnalyzeStack(stack, None)) for message in _messages(each)]


def _filled(request: Any, resource: Declared) -> Any:
    request.type, request.name, request.urn = resource.type, resource.name, resource.urn
    request.properties.CopyFrom(struct_of(resource.inputs))
    request.options.parent = resource.parent
    if resource.provider:
        request.provider.type = f"pulumi:providers:{resource.type.partition(':')[0]}"
        request.provider.properties.CopyFrom(struct_of(resource.provider))
    return request


def _in_stack(resource: Declared) -> analyzer_pb2.AnalyzerResource:
    filled: analyzer_pb2.AnalyzerResource = _filled(analyzer_pb2.AnalyzerResource(), resource)
    filled.properties.CopyFrom(struct_of({**resource.inputs, **resource.outputs}))
    for name, urns in resource.references.items():
        filled.propertyDependencies[name].urns.extend(urns)
    return filled


def _messages(response: analyzer_pb2.AnalyzeResponse) -> list[str]:
    return [each.message.removeprefix(f"{each.description}\n") for each in response.diagnostics]
