import pytest

from infra.aws.budget import AwsBudget
from infra.budget import BudgetArgs
from localcloud.aws.api import ACCOUNT_ID
from tests.unit.infra.cloud import Cloud

EMAILS = ("ml@example.com", "cfo@example.com")
ARGS = BudgetArgs(stack="t", limit_usd_per_month=1234.5, emails=EMAILS, actual_percent=70, tags={"team": "ml"})
NAMED = {"AccountId": ACCOUNT_ID, "BudgetName": "t-budget"}


@pytest.fixture(scope="module")
def cloud():
    with Cloud(lambda: AwsBudget("t-budget", ARGS)) as deployed:
        yield deployed


def test_it_is_the_months_limit_of_what_carries_the_stacks_tag(cloud):
    found = cloud.client("budgets").describe_budget(**NAMED)["Budget"]
    assert (found["BudgetType"], found["TimeUnit"]) == ("COST", "MONTHLY")
    assert found["BudgetLimit"] == {"Amount": "1234.50", "Unit": "USD"}
    assert found["CostFilters"] == {"TagKeyValue": ["user:fusion:stack$t"]}


def test_everybody_named_is_told_of_what_is_spent_and_of_what_is_forecast(cloud):
    client = cloud.client("budgets")
    alarms = client.describe_notifications_for_budget(**NAMED)["Notifications"]
    assert {each["NotificationType"]: each["Threshold"] for each in alarms} == {"ACTUAL": 70, "FORECASTED": 100}
    for alarm in alarms:
        told = client.describe_subscribers_for_notification(**NAMED, Notification=alarm)["Subscribers"]
        assert {(each["SubscriptionType"], each["Address"]) for each in told} == {("EMAIL", each) for each in EMAILS}


def test_it_carries_the_stacks_tags(cloud):
    arn = f"arn:aws:budgets::{ACCOUNT_ID}:budget/t-budget"
    assert cloud.client("budgets").list_tags_for_resource(ResourceARN=arn)["ResourceTags"] == [
        {"Key": "team", "Value": "ml"}
    ]


def test_guardrails_see_its_limit_and_alarms(cloud):
    assert cloud.facts("fusion:aws:Budget") == {
        "cloud": "aws",
        "stack": "t",
        "limit_usd_per_month": 1234.5,
        "alarms": 2,
    }
