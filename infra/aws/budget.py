"""A budget of AWS Budgets over everything that carries the stack's tag."""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

from infra.budget import Budget, BudgetArgs, budget_facts, check_recipients
from infra.names import STACK_TAG

EMAILS_MAX = 10
"""By alarm (AWS Budgets "Quotas and restrictions", subscribers by notification)."""


class AwsBudget(Budget):
    """The stack's monthly budget with its two alarms.

    Makes: one Budget. It counts what the cost allocation tag `fusion:stack` says, which is switched on once an account:
    `aws ce update-cost-allocation-tags-status --cost-allocation-tags-status TagKey=fusion:stack,Status=Active`.

    Example:
        >>> AwsBudget("prod-budget", BudgetArgs(stack="prod", limit_usd_per_month=9_000, emails=("ml@example.com",)))
    """

    def __init__(self, name: str, args: BudgetArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        check(args)
        super().__init__("fusion:aws:Budget", name, budget_facts("aws", args), opts)
        self.args = args
        budget = aws.budgets.Budget(
            name,
            name=name,
            budget_type="COST",
            time_unit="MONTHLY",
            limit_amount=f"{args.limit_usd_per_month:.2f}",
            limit_unit="USD",
            cost_filters=[
                aws.budgets.BudgetCostFilterArgs(name="TagKeyValue", values=[f"user:{STACK_TAG}${args.stack}"])
            ],
            notifications=[
                _alarm("ACTUAL", args.actual_percent, args.emails),
                _alarm("FORECASTED", args.forecast_percent, args.emails),
            ],
            tags=args.tags,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.budget_name = budget.name
        self.register_outputs({"budget_name": self.budget_name})


def _alarm(kind: str, percent: float, emails: tuple[str, ...]) -> aws.budgets.BudgetNotificationArgs:
    return aws.budgets.BudgetNotificationArgs(
        comparison_operator="GREATER_THAN",
        notification_type=kind,
        threshold=percent,
        threshold_type="PERCENTAGE",
        subscriber_email_addresses=list(emails),
    )


def check(args: BudgetArgs) -> None:
    """Refuse what AWS can't build, before anything is registered.

    Raises:
        ArgumentError: names what and the way out.
    """
    check_recipients(args, EMAILS_MAX, "an alarm of AWS Budgets")
