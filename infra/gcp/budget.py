"""A budget of Cloud Billing over everything that carries the stack's label, which writes to people."""

from __future__ import annotations

import math

import pulumi
import pulumi_gcp as gcp

from infra.budget import Budget, BudgetArgs, budget_facts, check_recipients
from infra.gcp.labels import as_labels
from infra.names import STACK_TAG

CHANNELS_MAX = 5
"""Of a budget ("Set up budget notifications", Cloud Billing)."""


class GcpBudget(Budget):
    """The stack's monthly budget with its two alarms, on the billing account of the project.

    Makes: one NotificationChannel for each address, and a Budget. It is in USD, so the billing account must be too, and
    whoever updates the stack needs `roles/billing.costsManager` on it.

    Example:
        >>> GcpBudget("prod-budget", BudgetArgs(stack="prod", limit_usd_per_month=9_000, emails=("ml@example.com",)))
    """

    def __init__(self, name: str, args: BudgetArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        check(args)
        super().__init__("fusion:gcp:Budget", name, budget_facts("gcp", args), opts)
        self.args = args
        project = gcp.organizations.get_project_output(opts=pulumi.InvokeOptions(parent=self))
        child = pulumi.ResourceOptions(parent=self)
        channels = [
            gcp.monitoring.NotificationChannel(
                f"{name}-{index}",
                type="email",
                display_name=f"{name}: {email}",
                labels={"email_address": email},
                user_labels=as_labels(args.tags),
                opts=child,
            )
            for index, email in enumerate(args.emails)
        ]
        whole = math.floor(args.limit_usd_per_month)
        budget = gcp.billing.Budget(
            name,
            billing_account=project.billing_account,
            display_name=name,
            amount=gcp.billing.BudgetAmountArgs(
                specified_amount=gcp.billing.BudgetAmountSpecifiedAmountArgs(
                    currency_code="USD",
                    units=str(whole),
                    nanos=round((args.limit_usd_per_month - whole) * 100) * 10**7,
                )
            ),
            budget_filter=gcp.billing.BudgetBudgetFilterArgs(
                projects=[pulumi.Output.concat("projects/", project.number)],
                calendar_period="MONTH",
                labels=as_labels({STACK_TAG: args.stack}),
            ),
            threshold_rules=[
                _alarm("CURRENT_SPEND", args.actual_percent),
                _alarm("FORECASTED_SPEND", args.forecast_percent),
            ],
            all_updates_rule=gcp.billing.BudgetAllUpdatesRuleArgs(
                monitoring_notification_channels=[each.name for each in channels],
                # The addresses that are named, and not everybody who administers the billing account.
                disable_default_iam_recipients=True,
            ),
            opts=child,
        )
        self.budget_name = budget.display_name.apply(str)
        self.register_outputs({"budget_name": self.budget_name})


def check(args: BudgetArgs) -> None:
    """Refuse what Google Cloud can't build, before anything is registered.

    Raises:
        ArgumentError: names what and the way out.
    """
    check_recipients(args, CHANNELS_MAX, "a budget of Google Cloud")


def _alarm(basis: str, percent: float) -> gcp.billing.BudgetThresholdRuleArgs:
    return gcp.billing.BudgetThresholdRuleArgs(threshold_percent=percent / 100, spend_basis=basis)
