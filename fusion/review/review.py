"""A preview as one answer: the verdict first, then what it rests on. Markdown, page and JSON render nothing else."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fusion.review.changes import ORDER, Change, changes, drift
from fusion.review.cost import CostChange, cost_change, plans
from fusion.review.events import Diagnostic, Preview
from fusion.review.guardrails import GuardrailReview, review_guardrails
from fusion.review.predictions import WorkloadReview, workloads
from planner.catalog import Catalog
from planner.plan import finite

VerdictKind = Literal["failed", "blocked", "drifted", "advised", "changes", "unchanged"]
DONE: Mapping[str, str] = {
    "delete": "deleted",
    "replace": "replaced",
    "update": "updated",
    "create": "created",
    "import": "imported",
    "read": "read",
}
"""By kind of change, what was done in the cloud, not by the program."""

TO_DO: Mapping[str, str] = {
    "delete": "to delete",
    "replace": "to replace",
    "update": "to update",
    "create": "to create",
    "import": "to import",
    "read": "to read",
}
"""By kind of change, what a preview says of it: nothing is done yet."""

LIMITS_OF_COST = (
    "monthly-cost-limit",
    "expected-monthly-cost",
    "monthly-cost-increase",
    "workload-cost-limit",
    "pool-hourly-limit",
    "request-cost-limit",
    "training-run-limit",
)
"""The guardrails that bound what a stack costs, each where its limit is set."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reader must know first."""

    kind: VerdictKind
    sentence: str


@dataclass(frozen=True, slots=True)
class Review:
    """Everything that is said of one preview.

    Attributes:
        stack: its name.
        counts: how many resources are to create, to update and so on, by `TO_DO`'s keys.
        lost: changes that delete or replace what holds data.
        cost: None where nothing that has a price was seen.
        drift: what a refresh found changed or gone.
        errors, warnings: of the program, the providers and the engine.
        notes: what these numbers lack.
    """

    stack: str
    verdict: Verdict
    counts: Mapping[str, int]
    lost: tuple[Change, ...]
    cost: CostChange | None
    workloads: tuple[WorkloadReview, ...]
    guardrails: tuple[GuardrailReview, ...]
    changes: tuple[Change, ...]
    drift: tuple[Change, ...]
    errors: tuple[Diagnostic, ...]
    warnings: tuple[Diagnostic, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        found: dict[str, Any] = finite(dataclasses.asdict(self))
        return found


def review(preview: Preview, catalog: Catalog, *, stack: str = "", expects_no_changes: bool = False) -> Review:
    """All that a preview says.

    Args:
        stack: its name where the preview ended before any resource named it.
        expects_no_changes: any change is drift.
    """
    from policies import guardrails

    both = plans(preview)
    changed, drifted = changes(preview), drift(preview)
    counts: Counter[str] = Counter(each.kind for each in changed)
    judged = review_guardrails(preview, guardrails())
    reported = {line.message for each in judged for line in each.findings}
    errors = tuple(each for each in preview.errors if not _is_reported(each, reported))
    return Review(
        stack=stack or preview.stack,
        verdict=_verdict(preview, judged, counts, expects_no_changes and bool(changed or drifted)),
        counts={kind: counts[kind] for kind in ORDER if counts[kind]},
        lost=tuple(each for each in changed if each.loses),
        cost=cost_change(preview, both, catalog),
        workloads=workloads(both, preview.config),
        guardrails=judged,
        changes=changed,
        drift=drifted,
        errors=errors,
        warnings=preview.warnings,
        notes=tuple(_notes(preview, judged)),
    )


def _is_reported(error: Diagnostic, reported: Collection[str]) -> bool:
    """Whether every line of it is told as a violation of a guardrail already."""
    return all(line.partition(": ")[2] in reported for line in error.message.splitlines())


def _verdict(
    preview: Preview, judged: tuple[GuardrailReview, ...], counts: Mapping[str, int], is_drift: bool
) -> Verdict:
    broken = [each.name for each in judged if each.outcome == "violated"]
    advised = [each.name for each in judged if each.outcome == "advisory"]
    stopped = f"stopped by {_counted(len(broken), 'guardrail')}: {', '.join(broken)}" if broken else ""
    said = said_counts(counts)
    if (preview.errors and preview.judges) or (not stopped and not preview.is_whole):
        untold = "" if preview.errors or preview.has_policies else "; this file does not say whether by a guardrail"
        return Verdict("failed", "The preview failed" + (f", and is {stopped}" if stopped else untold))
    if stopped:
        return Verdict("blocked", stopped[0].upper() + stopped[1:])
    if is_drift:
        return Verdict("drifted", f"The stack is not as its program says: {said or 'it was changed in the cloud'}")
    if advised:
        return Verdict("advised", f"{said or 'No changes'}, with advice of {', '.join(advised)}")
    return Verdict("changes", said) if said else Verdict("unchanged", "No changes")


def said_counts(counts: Mapping[str, int]) -> str:
    """3 to replace, 2 to create."""
    return ", ".join(f"{counts[kind]:,} {TO_DO[kind]}" for kind in ORDER if counts.get(kind))


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"


def _notes(preview: Preview, judged: Collection[GuardrailReview]) -> Iterator[str]:
    if not preview.is_whole:
        yield "The preview ended early: resources that it did not come to are missing from costs and changes."
    if all(each.outcome == "not set" for each in judged if each.name in LIMITS_OF_COST):
        yield (
            "No limit set: no cost of this stack, whatever it is, stops it. Set one in its file, such as "
            "monthly_cost_limit_usd of fusion:guardrails."
        )
