"""The policy pack."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policies.guardrail import Guardrail


def guardrails() -> list[Guardrail]:
    """All guardrails of the pack, family by family."""
    from policies import capacity, cost, latency, left, plan, security

    families = [*cost.GUARDRAILS, *left.GUARDRAILS, *latency.GUARDRAILS, *capacity.GUARDRAILS, *security.GUARDRAILS]
    return [*plan.guardrails(besides=frozenset(each.name for each in families)), *families]
