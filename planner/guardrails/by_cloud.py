"""A stack that serves on two clouds at once is judged on each: either one must keep every limit by itself."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator

from planner.catalog import Catalog
from planner.guardrails.settings import GuardrailSettings
from planner.plan import Plan

Judge = Callable[[Plan, GuardrailSettings, Catalog], Iterable[str]]


def on_each_cloud(judge: Judge) -> Callable[[Plan, GuardrailSettings, Catalog], Iterator[str]]:
    """A rule that judges the plan of each cloud by itself; a message says of which where there are two."""

    @functools.wraps(judge)
    def judge_each(plan: Plan, settings: GuardrailSettings, catalog: Catalog) -> Iterator[str]:
        for part in plan.parts:
            where = f"on {part.cloud} {part.region}: " if plan.others else ""
            yield from (where + message for message in judge(part, settings, catalog))

    return judge_each
