"""The account's quotas and what others use of them, asked through the provider: with its credentials, in its region.

Of file systems the provider tells no use: what others have of those is not counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import pulumi_aws as aws

from infra.names import STACK_TAG
from planner.catalog import Catalog, UnknownOffer
from planner.plan import Plan
from planner.quotas import amount, aws_quotas_of, is_of, taken
from planner.workloads import Quota

FILTER_VALUES_MAX = 200
"""Of one filter of DescribeInstances (EC2 API reference)."""
COUNTED = ["pending", "running"]
"""States of the instances that a quota counts."""


def with_quotas(plan: Plan, catalog: Catalog) -> Plan:
    """The plan with each quota that it takes from as it is granted now, or with the reason why one can't be read."""
    try:
        needed = aws_quotas_of(plan, catalog)
        answers = [
            (
                each,
                aws.servicequotas.get_service_quota(
                    quota_code=each.code, service_code=each.service, region=plan.region
                ),
            )
            for each in needed
        ]
    except UnknownOffer as error:
        return dataclasses.replace(plan, quotas_unread=str(error))
    except Exception as error:  # the SDK raises what the provider answered as Exception itself
        return dataclasses.replace(plan, quotas_unread=" ".join(str(error).split()))
    granted = tuple(each.granted(plan.region, answer.value) for each, answer in answers)
    try:
        used = tuple(each if each.gib is not None else _with_use(each, plan, catalog) for each in granted)
    except Exception as error:  # as above
        reason = f"what runs in the account: {' '.join(str(error).split())}"
        return dataclasses.replace(plan, quotas=granted, quotas_unread=reason)
    return dataclasses.replace(plan, quotas=used)


def _with_use(quota: Quota, plan: Plan, catalog: Catalog) -> Quota:
    """The quota with what others use of it, where that decides.

    Left out else: the plan is an input of a resource, and each preview would show what others started and ended since.
    """
    in_use = _used_by_others(quota, plan, catalog)
    wanted = sum(each.total for each in taken(quota, plan, catalog))
    return quota.model_copy(update={"in_use": in_use}) if wanted + in_use > amount(quota) else quota


def _used_by_others(quota: Quota, plan: Plan, catalog: Catalog) -> int:
    """vCPUs of the running instances that a quota counts and that are not the stack's own, of types that are known."""
    vcpus = {
        each.instance_type: int(each.vcpus)
        for each in catalog.find(cloud="aws", region=plan.region)
        if is_of(quota, each.instance_type)
    }
    running = _instances(vcpus, plan.region)
    if not running:
        return 0
    spot = _instances(vcpus, plan.region, ("instance-lifecycle", "spot"))
    own = _instances(vcpus, plan.region, (f"tag:{STACK_TAG}", plan.stack))
    counted = ((running & spot) if quota.price_model == "spot" else (running - spot)) - own
    if not counted:
        return 0
    by_size: dict[int, list[str]] = {}
    for instance_type, size in vcpus.items():
        by_size.setdefault(size, []).append(instance_type)
    return sum(size * len(_instances(types, plan.region) & counted) for size, types in by_size.items())


def _instances(types: Iterable[str], region: str, *filters: tuple[str, str]) -> frozenset[str]:
    """Ids of the running instances of some types."""
    found: set[str] = set()
    wanted = list(types)
    for start in range(0, len(wanted), FILTER_VALUES_MAX):
        asked = [
            ("instance-type", wanted[start : start + FILTER_VALUES_MAX]),
            *((name, [value]) for name, value in filters),
        ]
        answer = aws.ec2.get_instances(
            filters=[aws.ec2.GetInstancesFilterArgs(name=name, values=each) for name, each in asked],
            instance_state_names=COUNTED,
            region=region,
        )
        found.update(answer.ids)
    return frozenset(found)
