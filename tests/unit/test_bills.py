"""The bill of more than twenty stacks, to the cent, against a sum that knows nothing of the planner.

`tests/stacks/bills.csv` says how much of which price each stack has at the autoscaler's minimum, as expected and at its
maximum, worked out from its file and from what the components build. The prices are read from the catalog's rows as they
are written, and multiplied and added as decimals. `resources.yaml` and `resource_bills.csv` are the same of programs that
declare resources beside any plan, which the guardrail `monthly-cost-limit` adds up.
"""

import csv
import json
from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest
import yaml

from infra.config import load as load_config
from infra.planning import plan_stack, violations
from planner.catalog import load
from policies.cost import monthly_cost_limit
from policies.testing import Declared, judge

ROOT = Path(__file__).parents[2]
STACKS, DATA = ROOT / "tests/stacks", ROOT / "planner/catalog/data"
HOURS_PER_MONTH = Decimal(730)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


OFFERS, SERVICES = (rows(DATA / name) for name in ("offers.csv", "services.csv"))
BILLS, RESOURCE_BILLS = (rows(STACKS / name) for name in ("bills.csv", "resource_bills.csv"))
RESOURCES = yaml.safe_load((STACKS / "resources.yaml").read_text())
NAMES = sorted({row["stack"] for row in BILLS})


def price_usd_per_month(region: str, item: str, bought: str, cloud: str = "aws") -> Decimal:
    """As the catalog's files have it: a machine by hour, a service by hour or by its unit for a month."""
    if bought == "service":
        found = [row for row in SERVICES if (row["cloud"], row["service"]) == (cloud, item)]
        (row,) = [row for row in found if row["region"] == region] or [row for row in found if row["region"] == "*"]
        by_hour = row["unit"] in ("hour", "hours") or row["unit"].endswith("hour")
        return Decimal(row["price_usd"]) * (HOURS_PER_MONTH if by_hour else 1)
    (row,) = [row for row in OFFERS if (row["cloud"], row["region"], row["instance_type"]) == (cloud, region, item)]
    column = "spot_price_usd_per_hour" if bought == "spot" else "price_usd_per_hour"
    return Decimal(row[column]) * HOURS_PER_MONTH


def to_the_cent(amounts: Iterable[Decimal]) -> Decimal:
    return sum(amounts, Decimal(0)).quantize(Decimal("0.01"), ROUND_HALF_UP)


def test_there_are_more_than_twenty_stacks_and_each_has_its_bill() -> None:
    files = sorted(path.name.split(".")[1] for path in STACKS.glob("Pulumi.*.yaml"))
    assert files == NAMES
    assert len(files) > 20


@pytest.mark.parametrize("name", NAMES)
def test_the_monthly_sum_is_that_of_the_catalogs_rows_to_the_cent(name: str) -> None:
    written = yaml.safe_load((STACKS / f"Pulumi.{name}.yaml").read_text())["config"]
    values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in written.items()}
    config = load_config(values, stack=name, stack_file=f"Pulumi.{name}.yaml")
    plan = plan_stack(config, name, load())
    stated = plan.as_props()
    for load_at in ("min", "expected", "max"):
        lines = [row for row in BILLS if row["stack"] == name]
        independent = to_the_cent(
            Decimal(row[load_at]) * price_usd_per_month(plan.region, row["item"], row["bought"], plan.cloud)
            for row in lines
        )
        assert Decimal(str(stated[f"monthly_cost_{load_at}_usd"])) == independent
    limit = float(independent)
    kept, broken = (
        config.model_copy(update={"guardrails": config.guardrails.model_copy(update={"monthly_cost_limit_usd": each})})
        for each in (limit, limit - 0.01)
    )
    of_cost = [
        [each.guardrail for each in violations(plan, it, load())].count("monthly-cost-limit") for it in (kept, broken)
    ]
    assert of_cost == [0, 1]


@pytest.mark.parametrize("name", RESOURCES)
def test_what_resources_beside_a_plan_add_up_to_is_that_of_the_catalogs_rows_to_the_cent(name: str) -> None:
    stack = RESOURCES[name]
    cloud = "gcp" if stack["region"] == "us-central1" else "aws"
    declared = [
        Declared(each["type"], each["inputs"], name=f"resource-{number}")
        for number, each in enumerate(stack["resources"])
    ]
    independent = to_the_cent(
        Decimal(row["max"]) * price_usd_per_month(stack["region"], row["item"], row["bought"], cloud)
        for row in RESOURCE_BILLS
        if row["stack"] == name
    )
    config = {"aws:region": "", f"{cloud}:region": stack["region"]}
    assert judge(monthly_cost_limit, *declared, config=config, monthly_cost_limit_usd=float(independent)) == []
    below = float(independent - Decimal("0.01"))
    (told,) = judge(monthly_cost_limit, *declared, config=config, monthly_cost_limit_usd=below)
    assert f"would take the stack to ${independent:,}" in told


def test_each_bill_is_of_a_stack() -> None:
    assert {row["stack"] for row in RESOURCE_BILLS} == RESOURCES.keys()
