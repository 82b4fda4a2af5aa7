"""What a cluster's Kubernetes version does to its bill."""

import csv
import dataclasses
import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.catalog import load
from planner.catalog.kubernetes import EXTENDED, STANDARD, VERSIONS, control_plane
from planner.plan import PlanRequest, plan
from planner.workloads import ExpectedUsage
from tests.unit.planner.test_plan import SHAPE, job

A_DAY = datetime.timedelta(days=1)
DAYS = st.dates(datetime.date(2024, 1, 1), datetime.date(2040, 1, 1))


def rows() -> list[dict[str, str]]:
    with VERSIONS.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row['cloud']}-{row['version']}")
def test_extended_support_is_billed_from_the_day_on_which_standard_support_ends(row: dict[str, str]) -> None:
    ends = datetime.date.fromisoformat(row["standard_support_until"])
    assert ends < datetime.date.fromisoformat(row["extended_support_until"])
    assert control_plane(row["cloud"], row["version"], on=ends - A_DAY) == STANDARD
    assert control_plane(row["cloud"], row["version"], on=ends) == EXTENDED


@given(minor=st.integers(10, 99), day=DAYS)
def test_a_newer_version_is_never_billed_as_an_older_one(minor: int, day: datetime.date) -> None:
    if control_plane("aws", f"1.{minor}", on=day) == STANDARD:
        assert control_plane("aws", f"1.{minor + 1}", on=day) == STANDARD


@given(text=st.text(max_size=6), day=DAYS)
def test_what_is_no_version_is_left_to_the_cloud_to_refuse(text: str, day: datetime.date) -> None:
    assert control_plane("aws", text, on=day) in (STANDARD, EXTENDED)
    assert control_plane("azure", text, on=day) == STANDARD


def test_an_old_version_costs_half_a_dollar_an_hour_more() -> None:
    def cluster_usd_per_month(version: str) -> float:
        shape = dataclasses.replace(SHAPE, kubernetes_version=version)
        planned = plan(PlanRequest("test", "aws", "us-east-1", shape, (job(),), ExpectedUsage()), load())
        (fee,) = [each for each in planned.items if each.component == "cluster" and "kubernetes" in each.tariff.item]
        return fee.monthly_usd.max

    assert cluster_usd_per_month("1.30") - cluster_usd_per_month("1.99") == pytest.approx(0.5 * 730)
