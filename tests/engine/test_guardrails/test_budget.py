"""The budget that a stack must have, as the real Budget component makes it."""

import pytest

from tests.engine.conftest import PACK, Engine

BUDGET = """
    import pulumi
    from infra.aws.budget import AwsBudget, BudgetArgs

    def changed(args):
        return pulumi.ResourceTransformResult({key: args.props[key] for key in args.props if key not in LOSES}, args.opts)

    pulumi.runtime.register_resource_transform(changed)
    AwsBudget("monthly", BudgetArgs(stack="local", limit_usd_per_month=100, emails=("a@example.com",), actual_percent=PERCENT))
"""


@pytest.fixture
def budgeted(small: Engine) -> Engine:
    small.environment["PYTHONPATH"] = str(PACK["PULUMI_OPTION_POLICY_PACK"]).removesuffix("/policies")
    small.configure(guardrails={"budget_required": True, "tags_required": []})
    return small


def test_a_stack_without_a_budget_or_whose_component_loses_its_alarms_on_the_way_creates_nothing(
    budgeted: Engine,
) -> None:
    budgeted.program("import pulumi_aws as aws\naws.sqs.Queue('jobs', kms_master_key_id='alias/jobs')")
    assert "the stack has no budget; add one with alarms" in budgeted.run("up", "--yes", status=None, **PACK)
    assert budgeted.exists() == []
    budgeted.program(BUDGET.replace("LOSES", "['notifications']").replace("PERCENT", "80"))
    assert "the budget monthly has no alarm" in budgeted.run("up", "--yes", status=None, **PACK)
    assert budgeted.exists() == []


def test_a_budget_of_the_component_is_created_whenever_it_tells(budgeted: Engine) -> None:
    for percent in ("80", "1000"):
        budgeted.program(BUDGET.replace("LOSES", "[]").replace("PERCENT", percent))
        budgeted.run("up", "--yes", **PACK)
        assert len(budgeted.exists()) == 1
