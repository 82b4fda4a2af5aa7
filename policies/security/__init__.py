"""Guardrails of security and privacy, one module a subject."""

from policies.security import (
    encryption,
    exposure,
    hidden,
    identity,
    images,
    metadata,
    pods,
    residency,
    secrets,
    tags,
    transport,
)

GUARDRAILS = [
    guardrail
    for module in (
        encryption,
        transport,
        exposure,
        identity,
        metadata,
        pods,
        hidden,
        images,
        secrets,
        residency,
        tags,
    )
    for guardrail in module.GUARDRAILS
]
