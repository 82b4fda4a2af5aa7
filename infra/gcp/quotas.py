"""The project's quotas, asked of the Cloud Quotas API through the provider: with its credentials, in its project.

Of all that a plan takes from: vCPUs by family, GPUs by model or family, GPUs of all regions, chips of TPUs in GKE. The
API tells what is granted and not what is in use, so what others of the project use is not counted, unlike on AWS.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import pulumi_gcp as gcp

from planner.catalog import Catalog, UnknownOffer
from planner.plan import Plan
from planner.quotas import GcpQuota, gcp_quotas_of, is_of, taken
from planner.workloads import Quota

SERVICE = "compute.googleapis.com"
UNLIMITED = -1


def with_quotas(plan: Plan, catalog: Catalog) -> Plan:
    """The plan with each quota that it takes from as it is granted now, and the reason why others can't be read."""
    try:
        needed = gcp_quotas_of(plan, catalog)
        project = gcp.organizations.get_client_config().project
    except UnknownOffer as error:
        return dataclasses.replace(plan, quotas_unread=str(error))
    except Exception as error:  # the SDK raises what the provider answered as Exception itself
        return dataclasses.replace(plan, quotas_unread=" ".join(str(error).split()))
    values: dict[GcpQuota, float | None] = {}
    unread = []
    for each in needed:
        try:
            values[each] = _value(each, project, plan.region)
        except Exception as error:  # as above; one that the project does not know hides no other
            unread.append(f"{each.named}: {' '.join(str(error).split()).rstrip('.')}")
    found = tuple(each for each in _granted(values, plan.region) if taken(each, plan, catalog))
    unread += [f"no quota of {name} is known" for name in _uncounted(plan, needed)]
    return dataclasses.replace(plan, quotas=found, quotas_unread="; ".join(unread) or None)


def _granted(values: Mapping[GcpQuota, float | None], region: str) -> Iterator[Quota]:
    """Those with a limit. Where none is set of spot, its machines take of the quota that others take of."""
    for each, value in values.items():
        of_both = any(spot.is_spot_of(each) and values[spot] is None for spot in values)
        if value is not None and value != UNLIMITED:
            yield each.granted(region, value, None if of_both else each.price_model)


def _value(quota: GcpQuota, project: str, region: str) -> float | None:
    """What is granted there: of the entries that fit, the one that says most of where; None where none has a value."""
    answer = gcp.cloudquota.get_s_quota_info(parent=f"projects/{project}", service=SERVICE, quota_id=quota.code)
    where = {"region": region} | dict([quota.dimension.split("=")] if quota.dimension else [])
    fitting = [
        each
        for each in answer.dimensions_infos
        if each.dimensions.items() <= where.items()
        and any(place in ("global", region) for place in each.applicable_locations)
        and any(detail.value for detail in each.details)
    ]
    if not fitting:
        return None
    return float(max(fitting, key=lambda each: len(each.dimensions)).details[0].value)


def _uncounted(plan: Plan, needed: Iterable[GcpQuota]) -> list[str]:
    """Accelerators of the plan, as they are bought, of which no quota of a region is known."""
    counted = [each for each in needed if each.unit == "accelerators" and each.price_model is not None]
    return sorted(
        {
            f"{pool.accelerator} {pool.quota_model.replace('_', ' ')}"
            for pool in plan.pools
            if pool.accelerator is not None
            and not any(
                each.price_model == pool.quota_model
                and each.accelerator in (None, pool.accelerator)
                and is_of(each.granted(plan.region, 0, None), pool.instance_type)
                for each in counted
            )
        }
    )
