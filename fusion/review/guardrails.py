"""Which guardrails the change keeps and which it breaks, as the engine's policies said."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fusion.review.events import PolicyViolation, Preview
from planner.guardrails import GuardrailSettings
from policies.guardrail import Guardrail

Outcome = Literal["violated", "advisory", "not judged", "disabled", "not set", "passed"]
ORDER: tuple[Outcome, ...] = ("violated", "advisory", "not judged", "disabled", "not set", "passed")
PACK = "fusion"


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation: the resource (its URN; empty for the stack) and what is wrong with it."""

    urn: str
    message: str

    @property
    def name(self) -> str:
        """The resource's name."""
        return self.urn.rpartition("::")[2] or "the stack"


@dataclass(frozen=True, slots=True)
class GuardrailReview:
    """One guardrail's outcome over all resources."""

    name: str
    description: str
    outcome: Outcome
    findings: tuple[Finding, ...]
    note: str
    """Why it was not judged, or what it lacks; empty otherwise."""


def review_guardrails(preview: Preview, pack: Sequence[Guardrail]) -> tuple[GuardrailReview, ...]:
    """All guardrails of the pack and every other policy that found something, the gravest first."""
    known = {each.name: each for each in pack}
    violations = [*preview.violations, *_said_by_the_program(preview, known.keys())]
    enabled = frozenset(each.policy for each in violations).union(*preview.passed.values())
    rows = []
    for name in dict.fromkeys([*known, *(each.policy for each in violations)]):
        own = [each for each in violations if each.policy == name]
        outcome, note = _outcome(name, own, known[name].settings if name in known else (), preview, enabled)
        description = known[name].description if name in known else _description_in(own[0].message)
        findings = sorted({_finding(each, description) for each in own}, key=lambda each: (each.urn, each.message))
        rows.append(GuardrailReview(name, description, outcome, tuple(findings), note))
    return tuple(sorted(rows, key=lambda each: (ORDER.index(each.outcome), each.name)))


def _said_by_the_program(preview: Preview, names: Collection[str]) -> Iterator[PolicyViolation]:
    """Violations that the program itself found, since no pack was loaded: its error has a line for each."""
    for error in () if preview.judges else preview.errors:
        for line in error.message.splitlines():
            name, colon, message = line.partition(": ")
            if colon and name in names:
                yield PolicyViolation(PACK, name, "mandatory", message, error.urn)


def _outcome(
    name: str, own: Iterable[PolicyViolation], settings: Sequence[str], preview: Preview, enabled: frozenset[str]
) -> tuple[Outcome, str]:
    levels = {each.level for each in own}
    if levels:
        return ("violated" if levels & {"mandatory", "remediate"} else "advisory"), ""
    if not preview.has_policies:
        return "not judged", "a saved `pulumi preview --json` does not say what policies found"
    if not preview.judges:
        return "not judged", "no policy pack judged anything"
    if name not in enabled:
        return "disabled", "the stack or the pack's config disables it"
    if unjudged := [urn for urn, passed in preview.passed.items() if urn and passed and name not in passed]:
        some = f"{len(unjudged)} resource{'s' if len(unjudged) > 1 else ''}"
        return "not judged", f"{some} with values that are not known before the update, which judges them"
    if not preview.is_whole:
        return "not judged", "it broke nothing so far, but the preview ended early"
    if settings and not _is_set(settings, preview.config):
        return "not set", f"the stack sets none of {', '.join(settings)}"
    return "passed", ""


def _is_set(settings: Sequence[str], config: Mapping[str, str]) -> bool:
    """Whether the stack sets one, or one holds without being set."""
    try:
        values = json.loads(config.get("fusion:guardrails", "{}"))
    except ValueError:
        values = {}
    written = values if isinstance(values, dict) else {}
    defaults = GuardrailSettings.model_fields
    return any(
        name in written or (name in defaults and defaults[name].get_default(call_default_factory=True))
        for name in settings
    )


def _description_in(message: str) -> str:
    """The first line of a message that has more, as the engine puts it."""
    first, _, rest = message.partition("\n")
    return first if rest.strip() else ""


def _finding(violation: PolicyViolation, description: str) -> Finding:
    """Without the description, which the engine puts before every message."""
    message = violation.message.removeprefix(description).strip()
    return Finding(violation.urn, " ".join(message.split()))
