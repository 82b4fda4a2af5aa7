"""Repositories of Artifact Registry, budgets, and whom Cloud Monitoring tells."""

from __future__ import annotations

import re
from collections.abc import Iterable

from localcloud.gcp.kind import (
    AGENTS,
    CREATED,
    Kind,
    Reference,
    World,
    at,
    matching,
    one,
    one_of,
    words,
)
from localcloud.gcp.kinds.keys import KEY, needs_key
from localcloud.provider import Properties
from localcloud.values import Unknown

CHANNEL = "gcp:monitoring/notificationChannel:NotificationChannel"
REPOSITORY = "projects/{project}/locations/{location}/repositories/{repositoryId}"


def _repository_rules(world: World, inputs: Properties, old: Properties | None) -> None:
    if key := inputs.get("kmsKeyName"):
        needs_key(world, key, AGENTS["artifactregistry"], inputs["location"], "repositories.create")


def _repository(world: World, inputs: Properties) -> Properties:
    place = "{location}-docker.pkg.dev/{project}/{repositoryId}".format(**inputs)
    asked = inputs.get("vulnerabilityScanningConfig") or {}
    return {
        "name": inputs["repositoryId"],
        "registryUri": place,
        "createTime": CREATED,
        "updateTime": CREATED,
        "vulnerabilityScanningConfig": {
            "enablementState": "SCANNING_ACTIVE"
            if asked.get("enablementConfig") == "INHERITED"
            else "SCANNING_DISABLED",
            "enablementConfig": "INHERITED",
            **asked,
        },
    }


def _channel_agrees(inputs: Properties) -> Iterable[tuple[str, str]]:
    labels = inputs.get("labels") or {}
    address = one(labels, "email_address")
    if inputs.get("type") == "email" and not isinstance(labels, Unknown) and not labels.get("email_address"):
        yield "labels.email_address", "required for a channel of type email, and not set"
    elif address and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", address):
        yield "labels.email_address", f"{address}: expected an address such as ml-platform@example.com"


def _budget_agrees(inputs: Properties) -> Iterable[tuple[str, str]]:
    amount = inputs.get("amount") or {}
    if not isinstance(amount, Unknown) and bool(amount.get("specifiedAmount")) == bool(amount.get("lastPeriodAmount")):
        yield "amount", "expected exactly one of specifiedAmount, lastPeriodAmount"
    units = one(amount, "specifiedAmount.units")
    if isinstance(units, str) and not re.fullmatch(r"\d+", units):
        yield "amount.specifiedAmount.units", f"{units}: expected whole units of the currency, such as 1500"
    for value in at(inputs, "thresholdRules.thresholdPercent"):
        if not value >= 0:
            yield "thresholdRules", f"thresholdPercent {value}: expected 0 or more; 0.8 is 80 %"


KINDS = (
    Kind(
        "gcp:artifactregistry/repository:Repository",
        REPOSITORY,
        words(
            "cleanupPolicies cleanupPolicyDryRun description dockerConfig format kmsKeyName labels location mode "
            "project repositoryId vulnerabilityScanningConfig"
        ),
        references={"kmsKeyName": KEY},
        defaults={"mode": "STANDARD_REPOSITORY"},
        region="location",
        name="repositoryId",
        name_form=r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?",
        checks={"format": one_of("DOCKER"), "mode": one_of("STANDARD_REPOSITORY")},
        rules=_repository_rules,
        assigned=_repository,
    ),
    Kind(
        CHANNEL,
        "projects/{project}/notificationChannels/{number}",
        words("description displayName enabled forceDelete labels project type userLabels"),
        defaults={"enabled": True, "forceDelete": False},
        name=None,
        checks={"type": one_of("email", "pubsub", "slack", "pagerduty", "webhook_tokenauth", "sms")},
        agree=_channel_agrees,
        assigned=lambda world, inputs: {
            "name": "projects/{project}/notificationChannels/{number}".format(**inputs),
            "verificationStatus": "",
        },
        attribution=False,
    ),
    Kind(
        "gcp:billing/budget:Budget",
        "billingAccounts/{billingAccount}/budgets/{number}",
        words("allUpdatesRule amount billingAccount budgetFilter displayName ownershipScope thresholdRules"),
        references={
            "allUpdatesRule.monitoringNotificationChannels": Reference("{name}", in_region=False),
        },
        name=None,
        checks={
            "billingAccount": matching(
                r"[0-9A-F]{6}-[0-9A-F]{6}-[0-9A-F]{6}", "an account such as 012345-6789AB-CDEF01"
            )
        },
        agree=_budget_agrees,
        assigned=lambda world, inputs: {"name": inputs["number"]},
    ),
)
