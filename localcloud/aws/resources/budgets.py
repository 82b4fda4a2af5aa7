"""Budgets with their alarms; moto keeps them, and what it lacks of their life is added to it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from localcloud.aws.api import (
    ACCOUNT_ID,
    Aws,
    ResourceType,
    camel,
    from_tag_list,
    matching,
    one_of,
    pascal,
    to_tag_list,
    words,
)
from localcloud.provider import Properties
from localcloud.values import has_unknown

TIME = "%Y-%m-%d_%H:%M"
END_OF_TIME = "2087-06-15_00:00"
"""What AWS and the official provider take as the end of a budget that has none."""
SUBSCRIBERS = {"subscriberEmailAddresses": "EMAIL", "subscriberSnsTopicArns": "SNS"}
ALARM = words("comparisonOperator notificationType threshold thresholdType")


def _budget(inputs: Properties) -> dict[str, Any]:
    """As the API has it."""
    period = {
        api: datetime.strptime(f"{inputs[name]}+0000", f"{TIME}%z")
        for api, name in (("Start", "timePeriodStart"), ("End", "timePeriodEnd"))
        if inputs.get(name)
    }
    amount = {"BudgetLimit": {"Amount": inputs["limitAmount"], "Unit": inputs["limitUnit"]}}
    filters = {each["name"]: each["values"] for each in inputs.get("costFilters") or ()}
    types = {"CostTypes": pascal(inputs["costTypes"])} if inputs.get("costTypes") else {}
    return {
        "BudgetName": inputs["name"],
        "BudgetType": inputs["budgetType"],
        "TimeUnit": inputs["timeUnit"],
        "TimePeriod": period,
        **amount,
        **({"CostFilters": filters} if filters else {}),
        **types,
    }


def _alarm(notification: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """A notification and its subscribers."""
    asked = pascal({name: value for name, value in notification.items() if name in ALARM})
    told = [
        {"SubscriptionType": kind, "Address": address}
        for name, kind in SUBSCRIBERS.items()
        for address in notification.get(name) or ()
    ]
    return asked, told


def _create(aws: Aws, inputs: Properties) -> str:
    alarms = [_alarm(each) for each in inputs.get("notifications") or ()]
    aws.call(
        "budgets",
        "create_budget",
        AccountId=ACCOUNT_ID,
        Budget=_budget(inputs),
        NotificationsWithSubscribers=[{"Notification": asked, "Subscribers": told} for asked, told in alarms],
        ResourceTags=to_tag_list(inputs.get("tagsAll")),
    )
    return f"{ACCOUNT_ID}:{inputs['name']}"


def _arn(id: str) -> str:
    return f"arn:aws:budgets::{ACCOUNT_ID}:budget/{id.partition(':')[2]}"


def _read(aws: Aws, id: str) -> Properties | None:
    named = {"AccountId": ACCOUNT_ID, "BudgetName": id.partition(":")[2]}
    found = aws.find("budgets", "describe_budget", "Budget", **named)
    if found is None:
        return None
    alarms = aws.call("budgets", "describe_notifications_for_budget", **named)["Notifications"]
    tags = aws.call("budgets", "list_tags_for_resource", ResourceARN=_arn(id)).get("ResourceTags")
    return {
        "accountId": ACCOUNT_ID,
        "arn": _arn(id),
        "name": found["BudgetName"],
        "budgetType": found["BudgetType"],
        "timeUnit": found["TimeUnit"],
        "limitAmount": found["BudgetLimit"]["Amount"],
        "limitUnit": found["BudgetLimit"]["Unit"],
        "timePeriodStart": found["TimePeriod"]["Start"].strftime(TIME),
        "timePeriodEnd": found["TimePeriod"]["End"].strftime(TIME),
        "costFilters": [{"name": name, "values": values} for name, values in found.get("CostFilters", {}).items()],
        "costTypes": camel(found.get("CostTypes")),
        "notifications": [_notification(aws, named, each) for each in alarms],
        "tagsAll": from_tag_list(tags),
    }


def _notification(aws: Aws, named: Mapping[str, str], alarm: Mapping[str, Any]) -> dict[str, Any]:
    asked = {name: value for name, value in alarm.items() if name != "NotificationState"}
    told = aws.call("budgets", "describe_subscribers_for_notification", **named, Notification=asked)["Subscribers"]
    by_kind = {
        name: [each["Address"] for each in told if each["SubscriptionType"] == kind]
        for name, kind in SUBSCRIBERS.items()
    }
    return {**camel(asked), **{name: addresses for name, addresses in by_kind.items() if addresses}}


def _update(aws: Aws, id: str, old: Properties, new: Properties) -> None:
    named = {"AccountId": ACCOUNT_ID, "BudgetName": new["name"]}
    if _budget(old) != _budget(new):
        aws.call("budgets", "update_budget", AccountId=ACCOUNT_ID, NewBudget=_budget(new))
    before, after = (_by_alarm(each) for each in (old, new))
    for alarm in before.keys() - {key for key, value in after.items() if before.get(key) == value}:
        aws.gone("budgets", "delete_notification", **named, Notification=json.loads(alarm))
    for alarm, told in after.items():
        if before.get(alarm) != told:
            asked = json.loads(alarm)
            aws.call("budgets", "create_notification", **named, Notification=asked, Subscribers=told)


def _by_alarm(inputs: Properties) -> dict[str, list[dict[str, str]]]:
    alarms = map(_alarm, inputs.get("notifications") or ())
    return {json.dumps(asked, sort_keys=True): told for asked, told in alarms}


def _delete(aws: Aws, id: str, inputs: Properties) -> None:
    aws.gone("budgets", "delete_budget", AccountId=ACCOUNT_ID, BudgetName=id.partition(":")[2])


def _tag(aws: Aws, id: str, tags: Mapping[str, str], removed: list[str]) -> None:
    if tags:
        aws.call("budgets", "tag_resource", ResourceARN=_arn(id), ResourceTags=to_tag_list(tags))
    if removed:
        aws.call("budgets", "untag_resource", ResourceARN=_arn(id), ResourceTagKeys=removed)


def _same_amount(found: Any, asked: Any) -> bool:
    """AWS writes 100 as 100.0."""
    return float(found) == float(asked)


def _time(value: Any) -> str | None:
    try:
        datetime.strptime(value, TIME)
    except ValueError:
        return "expected a time such as 2026-01-01_00:00"
    return None


def _amount(value: Any) -> str | None:
    try:
        return None if float(value) > 0 else "expected an amount above 0"
    except ValueError:
        return "expected an amount, such as 1500 or 99.5"


def _somebody_is_told(inputs: Properties) -> Iterator[tuple[str, str]]:
    """Each alarm has somebody to tell, and no two are the same."""
    notifications = inputs.get("notifications")
    if not isinstance(notifications, list) or has_unknown(notifications):
        return
    if any(not any(each.get(name) for name in SUBSCRIBERS) for each in notifications):
        yield "notifications", f"expected one of {' and '.join(SUBSCRIBERS)} in each"
    if len(_by_alarm(inputs)) < len(notifications):
        yield "notifications", "two are alike but for whom they tell; join them"


TYPES = (
    ResourceType(
        token="aws:budgets/budget:Budget",
        carried=words(
            "name budgetType timeUnit limitAmount limitUnit timePeriodStart timePeriodEnd costFilters costTypes "
            "notifications tags"
        ),
        replace_on=words("name"),
        kept=words("costTypes timePeriodStart"),
        unordered=words(
            "costFilters notifications notifications.subscriberEmailAddresses notifications.subscriberSnsTopicArns"
        ),
        needs=words("limitAmount limitUnit"),
        defaults={"timePeriodEnd": END_OF_TIME},
        named_by="name",
        create=_create,
        read=_read,
        update=_update,
        delete=_delete,
        tag=_tag,
        agree=_somebody_is_told,
        alike={"limitAmount": _same_amount},
        checks={
            "name": matching(r"[^:\\]{1,100}", "1 to 100 characters, and neither : nor \\"),
            "budgetType": one_of(
                "COST",
                "USAGE",
                "RI_UTILIZATION",
                "RI_COVERAGE",
                "SAVINGS_PLANS_UTILIZATION",
                "SAVINGS_PLANS_COVERAGE",
            ),
            "timeUnit": one_of("DAILY", "MONTHLY", "QUARTERLY", "ANNUALLY"),
            "limitAmount": _amount,
            "timePeriodStart": _time,
            "timePeriodEnd": _time,
        },
        served_by="moto; changes, subscribers and tags added",
    ),
)
