"""`fusion offers` lists, filters and sorts, and says what is near when a name is wrong."""

import csv
import json
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from fusion.commands.offers import command
from fusion.errors import FusionError
from planner.catalog import load
from planner.catalog.reading import OFFER_COLUMNS


def run(*arguments):
    ran = CliRunner().invoke(command, arguments)
    if ran.exception and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return ran


def listed(*arguments):
    return json.loads(run(*arguments, "--json").output)


def test_filters_leave_what_was_asked_for():
    offers = listed("--cloud", "aws", "--region", "us-east-1", "--accelerator", "A10G", "--count", "4")
    assert {offer["instance_type"] for offer in offers} == {"g5.12xlarge", "g5.24xlarge"}


def test_the_cheapest_is_first_and_the_limit_holds():
    offers = listed("--accelerator", "H100", "--count", "8", "--limit", "3")
    prices = [offer["price_usd_per_hour"] for offer in offers]
    assert len(prices) == 3 and prices == sorted(prices)


def test_spot_keeps_sorts_and_limits_by_the_spot_price():
    offers = listed("--spot", "--accelerator", "T4", "--max-price", "0.5")
    prices = [offer["spot_price_usd_per_hour"] for offer in offers]
    assert prices == sorted(prices) and max(prices) <= 0.5


def test_memory_limits_are_of_the_host_and_of_each_accelerator():
    offers = listed("--min-memory", "2000", "--min-accelerator-memory", "141", "--min-vcpus", "192")
    assert offers
    assert all(o["memory_gib"] >= 2000 and o["accelerator_memory_gib"] >= 141 and o["vcpus"] >= 192 for o in offers)


def test_arm_offers_can_be_left_out():
    assert {o["architecture"] for o in listed("--architecture", "x86_64", "--accelerator", "none")} == {"x86_64"}


def test_cpu_offers_are_asked_for_by_none():
    assert {offer["accelerator"] for offer in listed("--accelerator", "none", "--cloud", "azure")} == {None}


@pytest.mark.parametrize("sort", ["price", "spot", "price-per-accelerator", "memory", "accelerator-memory", "name"])
def test_every_order_lists_the_same_offers(sort):
    names = sorted(offer["instance_type"] for offer in listed("--region", "us-central1", "--sort", sort))
    assert names == sorted(offer.instance_type for offer in load().find(region="us-central1"))


def test_the_table_says_how_many_more_there_are():
    output = run("--cloud", "gcp").output
    assert f"40 of {len(load().find(cloud='gcp'))} offers" in output


def test_csv_has_the_catalogs_columns():
    rows = list(csv.DictReader(run("--instance-type", "p5.48xlarge", "--csv").output.splitlines()))
    assert tuple(rows[0]) == OFFER_COLUMNS
    assert {row["accelerator"] for row in rows} == {"H100"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cloud", "amazon"], "--cloud amazon: not known"),
        (["--region", "us-est-1"], "us-east-1"),
        (["--accelerator", "H10"], "nearest: H100"),
        (["--instance-type", "g5.xlarg"], "g5.xlarge"),
        (["--sort", "pric"], "nearest: price"),
        (["--json", "--csv"], "exclude each other"),
        (["--catalog", "/nonexistent"], "no such file"),
        (["--accelerator", "H100", "--max-price", "0.1"], "--max-price"),
        (["--max-price", "0"], "no offer matches --max-price 0.0; leave out or relax --max-price (3185 without it)"),
    ],
)
def test_a_wrong_value_is_one_sentence_with_what_is_near(arguments, said):
    with pytest.raises(FusionError, match=r"^[^\n]*$") as refused:
        run(*arguments)
    assert said in str(refused.value)


@pytest.mark.parametrize("value", ["nan", "-1", "inf", "cheap", ""])
def test_numbers_are_numbers(value):
    ran = run("--max-price", value)
    assert ran.exit_code == 2
    assert "is not a number of at least 0" in ran.output


def test_the_process_is_quick_and_loads_nothing_that_it_does_not_need():
    code = (
        "import sys; from fusion.cli import cli; "
        "cli(['offers', '--accelerator', 'H100', '--json'], standalone_mode=False); "
        "print([m for m in ('rich', 'boto3', 'pulumi', 'pydantic', 'urllib3') if m in sys.modules], file=sys.stderr)"
    )
    started = time.perf_counter()
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.strip() == "[]"
    assert time.perf_counter() - started < 3.0, "0.15 s on a quiet machine; this bound is for a loaded one"
