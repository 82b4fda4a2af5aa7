"""A review as the comment of a pull request: the most important first, and never too long for GitHub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fusion.report.units import usd
from fusion.review.changes import Change, PropertyChange
from fusion.review.cost import CostChange, Line
from fusion.review.escaping import block, code, size, text
from fusion.review.guardrails import GuardrailReview
from fusion.review.predictions import THROUGHPUT, WorkloadReview
from fusion.review.review import DONE, TO_DO, Review
from fusion.review.wording import difference, interval_of, number, range_of, sum_of
from policies.plan import PLAN_TYPE

LIMIT = 63_900
"""Of the whole comment; GitHub takes 65,536 characters."""
PROPERTIES_SHOWN = 8
WITH_DETAILS = ("delete", "replace", "update")
SYMBOLS = {
    "failed": "❌",
    "blocked": "❌",
    "drifted": "⚠️",
    "advised": "⚠️",
    "changes": "✅",
    "unchanged": "✅",
    "violated": "❌",
    "advisory": "⚠️",
    "not judged": "⏳",
    "disabled": "➖",
    "not set": "➖",
    "passed": "✅",
}
FOOT = (
    "<sub>Costs, times and rates are predictions: prices of the catalog, a month of 730 h, and the calibration named "
    "with each workload; an interval holds nine of ten measured cases. Written by <code>fusion preview</code>.</sub>"
)


@dataclass(frozen=True, slots=True)
class Block:
    """A part of the comment that may be cut between two rows.

    Attributes:
        opening, closing: what stands around the rows, whole in itself.
        rows: lines, the most important first.
        share: characters that it gets before the parts after it get more than their own share.
    """

    opening: str
    rows: Sequence[str] = ()
    closing: str = ""
    share: int = 1_500

    def shown(self, count: int) -> str:
        """With the first rows, and how many more there are."""
        left = len(self.rows) - count
        rest = f"\n\n… and {left:,} more" if left else ""
        return "\n".join([self.opening, *self.rows[:count]]) + rest + self.closing

    @property
    def frame(self) -> int:
        """Size without a row, at most."""
        return size(self.shown(0)) + 2


def marker(stack: str) -> str:
    """The hidden line by which a stack's comment is found again."""
    return f"<!-- fusion:{''.join(each for each in stack if each.isalnum() or each in '-_.')} -->"


def markdown(review: Review) -> str:
    """The comment, below `LIMIT`."""
    blocks = [each for part in _PARTS for each in part(review)]
    counts = _fitting(blocks, LIMIT - 200)
    return "\n\n".join(each.shown(count) for each, count in zip(blocks, counts, strict=True)) + "\n"


def _fitting(blocks: Sequence[Block], limit: int) -> list[int]:
    """How many rows of each block are shown: first each one's share, then what is left in their order."""
    left = limit - sum(each.frame for each in blocks)
    counts = [0] * len(blocks)
    for is_share in (True, False):
        for index, each in enumerate(blocks):
            own = min(left, each.share) if is_share else left
            for row in each.rows[counts[index] :]:
                cost = size(row) + 1
                if cost > own:
                    break
                counts[index] += 1
                own -= cost
                left -= cost
    return counts


def _verdict(review: Review) -> Iterator[Block]:
    verdict = review.verdict
    lines = [marker(review.stack), f"### {SYMBOLS[verdict.kind]} {code(review.stack)}: {text(verdict.sentence)}"]
    if review.cost is not None:
        lines.append(f"\n**{sum_of(review.cost)}** (predicted)")
    lines += [f"\n{text(each)}" for each in review.notes]
    yield Block("\n".join(lines))


def _errors(review: Review) -> Iterator[Block]:
    if review.errors:
        rows = [f"{_of_resource(each.urn)}\n\n{block(each.message)}\n" for each in review.errors]
        yield Block("#### What went wrong\n", rows, share=9_000)


def _of_resource(urn: str) -> str:
    return f"In {code(urn.rpartition('::')[2])}:" if urn else "In the program:"


def _lost(review: Review) -> Iterator[Block]:
    if review.lost:
        rows = [
            f"> - {code(each.name)} ({code(each.type)}) will be {DONE[each.kind]}, with {_losing(each)}"
            for each in review.lost
        ]
        yield Block("> [!CAUTION]\n> **What holds data will be deleted or replaced:**", rows, share=16_000)


def _losing(change: Change) -> str:
    why = f"; forced by {', '.join(map(code, change.forced_by))}" if change.forced_by else ""
    return text(change.holds or "") + why + ("; it is protected, so Pulumi refuses" if change.is_protected else "")


def _broken(review: Review) -> Iterator[Block]:
    for outcome, title in (("violated", "Guardrails that stop it"), ("advisory", "Advice")):
        rows = [
            f"- **{text(each.name)}**, {code(found.name)}: {text(found.message)}"
            for each in review.guardrails
            if each.outcome == outcome
            for found in each.findings
        ]
        if rows:
            yield Block(f"#### {title}\n", rows, share=16_000 if outcome == "violated" else 2_000)


def _cost(review: Review) -> Iterator[Block]:
    cost = review.cost
    if cost is None:
        return
    head = "| USD a month, predicted | before | after | difference |\n|---|--:|--:|--:|"
    total = cost.total
    rows = [
        _row(
            said,
            usd(getattr(total.before, bound)) if total.before else "–",
            usd(getattr(total.after, bound)) if total.after else "–",
            difference(getattr(total.difference, bound)),
        )
        for bound, said in (
            ("min", "at the autoscaler's minimum"),
            ("expected", "expected"),
            ("max", "at the autoscaler's maximum"),
        )
    ]
    yield Block(f"#### Cost\n\n{head}", rows)
    yield from _cost_details(cost)
    if cost.notes:
        yield Block("Not in these numbers:\n", [f"- {text(each)}" for each in cost.notes], share=800)


def _cost_details(cost: CostChange) -> Iterator[Block]:
    head = "| {} | before | after | difference |\n|---|--:|--:|--:|"
    changed = sum(each.is_changed for each in cost.components)
    if cost.components:
        yield _folded(
            f"By component, minimum / expected / maximum: {changed} of {len(cost.components)} change",
            head.format("component"),
            [_cost_row(text(each.name), each) for each in cost.components],
        )
    if cost.resources:
        changed = sum(each.is_changed for each in cost.resources)
        yield _folded(
            f"By resource with a price of its own: {changed} of {len(cost.resources)} change",
            head.format("resource"),
            [_cost_row(f"{code(each.name)} {code(each.type)}", each) for each in cost.resources],
        )


def _cost_row(name: str, line: Line) -> str:
    before, after = (range_of(each) if each else "–" for each in (line.before, line.after))
    return _row(name, before, after, range_of(line.difference, difference) if line.is_changed else "same")


def _predictions(review: Review) -> Iterator[Block]:
    services = [each for each in review.workloads if each.kind != "training"]
    jobs = [each for each in review.workloads if each.kind == "training"]
    for title, limit, found in (
        ("Latency and throughput", "limit", services),
        ("Training jobs", "deadline, limit", jobs),
    ):
        if found:
            head = f"| workload | predicted | before | after | interval | {limit} |\n|---|---|--:|--:|--:|--:|"
            yield Block(f"#### {title}\n\n{head}", [row for each in found for row in _measures(each)], share=4_000)
            yield _folded("What these predictions rest on", "", [_reasons(each) for each in found])


def _measures(found: WorkloadReview) -> Iterator[str]:
    name = code(found.name)
    for each in found.measures:
        after = number(each.after.value, each.unit)
        limited = f", limited by {text(found.bound_by)}" if each.name == THROUGHPUT and found.bound_by else ""
        yield _row(
            name,
            text(each.name) + limited,
            number(each.before.value, each.unit) if each.before else "–",
            f"**{after}** ❌" if each.is_over else after,
            interval_of(each.after),
            number(each.limit, each.unit) if each.limit is not None else "–",
        )


def _reasons(found: WorkloadReview) -> str:
    load = f" for {text(found.load)}" if found.load else ""
    reasons = "; ".join(text(each) for each in found.reasons)
    return f"- {code(found.name)}: {text(found.runs_on)}{load}. {reasons}. Rests on: {text(found.calibration)}"


def _guardrails(review: Review) -> Iterator[Block]:
    outcomes = dict.fromkeys(each.outcome for each in review.guardrails)
    counted = (f"{sum(each.outcome == outcome for each in review.guardrails)} {outcome}" for outcome in outcomes)
    if review.guardrails:
        yield _folded(
            f"Guardrails: {', '.join(counted)}",
            "| | guardrail | what it holds | outcome |\n|---|---|---|---|",
            [_guardrail_row(each) for each in review.guardrails],
        )


def _guardrail_row(found: GuardrailReview) -> str:
    outcome = found.outcome if not found.findings else f"{found.outcome} ({len(found.findings)})"
    note = f": {text(found.note)}" if found.note else ""
    return _row(SYMBOLS[found.outcome], text(found.name), text(found.description), f"{outcome}{note}")


def _changes(review: Review) -> Iterator[Block]:
    in_cloud = "Changed in the cloud, not by the program: "
    for title, found, words in (("", review.changes, TO_DO), (in_cloud, review.drift, DONE)):
        for kind, said in words.items():
            own = [each for each in found if each.kind == kind]
            if own:
                says_what = kind in WITH_DETAILS and any(each.properties or each.loses or each.is_kept for each in own)
                head = (
                    "| resource | type | what changes |\n|---|---|---|"
                    if says_what
                    else "| resource | type |\n|---|---|"
                )
                yield _folded(f"{title}{len(own):,} {said}", head, [_change_row(each, says_what) for each in own])


def _change_row(change: Change, says_what: bool) -> str:
    named = code(change.name), code(change.type)
    if not says_what:
        return _row(*named)
    said = [_property(each) for each in change.properties[:PROPERTIES_SHOWN]]
    if (more := len(change.properties) - len(said)) > 0:
        said.append(f"… and {more} more")
    if change.loses:
        said.insert(0, f"⚠️ with {_losing(change)}")
    elif change.is_kept and change.kind == "delete":
        said.insert(0, "leaves the stack, stays in the cloud")
    if change.type == PLAN_TYPE:
        said.append("see the cost")
    return _row(*named, "<br>".join(said))


def _property(change: PropertyChange) -> str:
    before, after = ("not set" if value is None else code(value) for value in (change.before, change.after))
    return f"{code(change.path)}: {before} → {after}" + (" (forces it)" if change.forces_replacement else "")


def _warnings(review: Review) -> Iterator[Block]:
    if review.warnings:
        yield _folded(
            f"Warnings: {len(review.warnings)}",
            "",
            [f"- {_of_resource(each.urn)} {text(each.message)}" for each in review.warnings],
        )


def _foot(_: Review) -> Iterator[Block]:
    yield Block(FOOT)


def _folded(title: str, head: str, rows: Sequence[str]) -> Block:
    start = f"<details><summary>{title}</summary>\n"
    return Block(f"{start}\n{head}" if head else start, rows, "\n\n</details>")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


_PARTS = (_verdict, _errors, _lost, _broken, _cost, _predictions, _guardrails, _changes, _warnings, _foot)
