"""The budget of a stack, which tells people before it is spent: what every cloud builds from the same args."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi

from infra.errors import require
from infra.names import EMAIL

ALARM_PERCENT_MAX = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetArgs:
    """A monthly budget with two alarms: one on what was spent, one on what is forecast.

    Attributes:
        stack: whose cost is counted, by the tag `fusion:stack` that everything of it carries.
        limit_usd_per_month: what may be spent.
        emails: who is told.
        actual_percent: of the limit that may be spent before they are told.
        forecast_percent: of the limit that may be forecast for the month before they are told.
        tags: put on the budget.

    Raises:
        ArgumentError: a limit or percentage that means nothing, or nobody to tell.
    """

    stack: str
    limit_usd_per_month: float
    emails: tuple[str, ...]
    actual_percent: float = 80
    forecast_percent: float = 100
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(self.limit_usd_per_month > 0, f"limit_usd_per_month {self.limit_usd_per_month:g}: use more than 0.")
        require(
            1 <= len(set(self.emails)) == len(self.emails),
            f"emails ({', '.join(self.emails) or 'none'}): name at least one address, each once.",
        )
        for email in self.emails:
            require(
                re.fullmatch(EMAIL, email) is not None,
                f"emails: {email!r} is no address; write one such as ml-platform@example.com.",
            )
        for name, percent in (("actual_percent", self.actual_percent), ("forecast_percent", self.forecast_percent)):
            require(
                0 < percent <= ALARM_PERCENT_MAX,
                f"{name} {percent:g}: use more than 0 and at most {ALARM_PERCENT_MAX}.",
            )


class Budget(pulumi.ComponentResource):
    """A stack's budget, whichever cloud it is on.

    Attributes:
        args: what it was made from.
        budget_name: its name in the cloud.
    """

    args: BudgetArgs
    budget_name: pulumi.Output[str]


def budget_facts(cloud: str, args: BudgetArgs) -> dict[str, object]:
    """What guardrails judge a budget of any cloud by; plain values, known in every preview."""
    return {"cloud": cloud, "stack": args.stack, "limit_usd_per_month": args.limit_usd_per_month, "alarms": 2}


def check_recipients(args: BudgetArgs, at_most: int, teller: str) -> None:
    """Refuse more addresses than a cloud's budget tells.

    Raises:
        ArgumentError: names them and the way out.
    """
    require(
        len(args.emails) <= at_most,
        f"emails ({', '.join(args.emails)}): {teller} tells at most {at_most}; name a group's address in place of its "
        "members'.",
    )
