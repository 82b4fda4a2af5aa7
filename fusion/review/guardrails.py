"""Which guardrails the change keeps and which it breaks, as the engine's policies said."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fusion.review.events import PolicyViolation, Preview
from planner.guardrails.settings import GuardrailSettings
from policies.guardrail import Guardrail

Outcome = Literal["violated", "advisory", "not judged", "disabled", "not set", "passed"]
ORDER: tuple[Outcome, ...] = ("violated", "advisory", "not judged", "disabled", "not set", "passed")
PACK = "fusion"
STACK = ""
"""In place of a URN: the stack as a whole."""
LATER = "values are not known before the update, which judges them"


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
        outcome, note = _outcome(own, known.get(name), preview, enabled)
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
    own: Sequence[PolicyViolation], guardrail: Guardrail | None, preview: Preview, enabled: Collection[str]
) -> tuple[Outcome, str]:
    """With why it is not judged; a guardrail that is not of the pack is listed for its violations only."""
    if own or guardrail is None:
        return ("advisory" if {each.level for each in own} == {"advisory"} else "violated"), ""
    if not preview.has_policies:
        return "not judged", "a saved `pulumi preview --json` does not say what policies found"
    if not preview.judges:
        return "not judged", "no policy pack judged anything"
    settings = settings_of(preview.config)
    if settings.get("levels", {}).get(guardrail.name) == "disabled":
        return "disabled", "the stack disables it"
    if not _does_something(guardrail, settings):
        return "not set", f"the stack sets none of {', '.join(guardrail.settings)}"
    return _outcome_without_violation(guardrail, preview, enabled)


def _outcome_without_violation(guardrail: Guardrail, preview: Preview, enabled: Collection[str]) -> tuple[Outcome, str]:
    if guardrail.judge_stack is not None:
        if guardrail.name in preview.passed.get(STACK, ()):
            return "passed", ""
        return "not judged", LATER if STACK in preview.passed else "the preview did not come to the stack as a whole"
    if guardrail.name not in enabled:
        return "disabled", "the pack's config disables it"
    unjudged = [urn for urn, passed in preview.passed.items() if urn and passed and guardrail.name not in passed]
    if unjudged:
        return "not judged", f"{len(unjudged)} resource{'s' if len(unjudged) > 1 else ''}: {LATER}"
    if not preview.is_whole:
        return "not judged", "it broke nothing so far, but the preview ended early"
    return "passed", ""


def settings_of(config: Mapping[str, str]) -> Mapping[str, Any]:
    """`fusion:guardrails` as the stack has it; wrong types are told by the guardrails themselves."""
    try:
        values = json.loads(config.get("fusion:guardrails", "{}"))
    except ValueError:
        return {}
    if not isinstance(values, dict):
        return {}
    return values if isinstance(values.get("levels", {}), dict) else values | {"levels": {}}


def _does_something(guardrail: Guardrail, settings: Mapping[str, Any]) -> bool:
    """Whether one of its limits is set, or it has none: what exempts from it is no limit."""
    limits = [name for name in guardrail.settings if not name.endswith("_exempt")]
    fields = GuardrailSettings.model_fields
    values = [settings.get(name, fields[name].get_default(call_default_factory=True)) for name in limits]
    return not limits or any(bool(each) or (each == 0 and each is not False) for each in values)


def _description_in(message: str) -> str:
    """The first line of a message that has more, as the engine puts it."""
    first, _, rest = message.partition("\n")
    return first if rest.strip() else ""


def _finding(violation: PolicyViolation, description: str) -> Finding:
    """Without the description, which the engine puts before every message."""
    message = violation.message.removeprefix(description).strip()
    return Finding(violation.urn, " ".join(message.split()))
