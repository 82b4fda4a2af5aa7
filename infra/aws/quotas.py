"""The account's quotas, asked of Service Quotas through the provider: with its credentials and in its region."""

from __future__ import annotations

import dataclasses

import pulumi_aws as aws

from planner.catalog import Catalog, UnknownOffer
from planner.plan import Plan
from planner.quotas import aws_quotas_of


def with_quotas(plan: Plan, catalog: Catalog) -> Plan:
    """The plan with each quota that it takes from as it is granted now, or with the reason why one can't be read."""
    try:
        needed = aws_quotas_of(plan, catalog)
        answers = [
            (each, aws.servicequotas.get_service_quota(quota_code=each.code, service_code="ec2", region=plan.region))
            for each in needed
        ]
    except UnknownOffer as error:
        return dataclasses.replace(plan, quotas_unread=str(error))
    except Exception as error:  # the SDK raises what the provider answered as Exception itself
        return dataclasses.replace(plan, quotas_unread=" ".join(str(error).split()))
    return dataclasses.replace(plan, quotas=tuple(each.granted(plan.region, answer.value) for each, answer in answers))
