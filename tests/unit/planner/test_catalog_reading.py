"""A user's file is read, or refused in one sentence that names file, row, field and what was expected."""

import csv
import dataclasses
import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.catalog import CatalogError, load
from planner.catalog.reading import OFFER_COLUMNS, check
from planner.catalog.writing import replace_offers

GOOD = {
    "cloud": "aws",
    "region": "us-east-1",
    "zone": "",
    "instance_type": "p5.48xlarge",
    "accelerator": "H100",
    "accelerator_count": "8",
    "accelerator_memory_gib": "80",
    "vcpus": "192",
    "memory_gib": "2048",
    "price_usd_per_hour": "55.04",
    "spot_price_usd_per_hour": "20.5",
    "spot_interruption_bucket": ">20%",
    "price_source": "a quote",
    "price_as_of": "2026-11-01",
    "spot_source": "a quote",
    "spot_as_of": "2026-11",
    "note": "",
    "architecture": "x86_64",
}


def written(tmp_path, *rows, columns=OFFER_COLUMNS):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([row[column] for column in columns] for row in rows)
    path = tmp_path / "offers.csv"
    path.write_text(text.getvalue())
    return path


def test_a_good_file_replaces_the_shipped_offers(tmp_path):
    path = written(tmp_path, GOOD)
    (offer,) = load(path).offers
    assert (offer.instance_type, offer.price_usd_per_hour, offer.zone) == ("p5.48xlarge", 55.04, None)
    assert load(tmp_path).offers == (offer,)
    assert load(path).accelerators.keys() == load().accelerators.keys()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("cloud", "amazon", "not known"),
        ("cloud", "AWS", "not known"),
        ("region", "", "expected a name"),
        ("instance_type", "../x", "expected a name"),
        ("accelerator", "H10", "nearest: H100"),
        ("accelerator_count", "-1", "expected a positive number"),
        ("accelerator_count", "1.5", "whole number"),
        ("accelerator_count", "0", "expected at least"),
        ("accelerator_memory_gib", "81920", "wrong unit or variant"),
        ("architecture", "riscv", "not known"),
        ("vcpus", "", "expected a number"),
        ("memory_gib", "0", "expected at least"),
        ("memory_gib", "2048 GiB", "without its unit"),
        ("memory_gib", "1e300", "at most"),
        ("price_usd_per_hour", "$55", "without its unit"),
        ("price_usd_per_hour", "nan", "expected a positive number"),
        ("price_usd_per_hour", "inf", "expected a positive number"),
        ("price_usd_per_hour", "-3", "expected a positive number"),
        ("price_usd_per_hour", "0", "expected at least"),
        ("price_usd_per_hour", "1_000", "expected a positive number"),
        ("spot_price_usd_per_hour", "56", "more than the on-demand price of 55.04"),
        ("spot_interruption_bucket", "often", "not known"),
        ("price_source", "", "where the figure comes from"),
        ("price_as_of", "last week", "a date such as"),
        ("price_as_of", "2026-13-01", "a date such as"),
        ("price_as_of", "2026-02-31", "a date such as"),
        ("price_usd_per_hour", "40179.2", "is it a price by month"),
        ("spot_price_usd_per_hour", "1e-320", "expected at least"),
        ("vcpus", "1e-9", "expected at least"),
    ],
)
def test_a_wrong_cell_is_refused_with_file_row_and_field(tmp_path, field, value, said):
    path = written(tmp_path, GOOD | {"region": "us-west-2"}, GOOD | {field: value})
    with pytest.raises(CatalogError) as refused:
        check(path)
    assert f"{path}: row 3: {field} is {value!r}" in str(refused.value)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "offer", [offer for offer in load().offers if offer.price_usd_per_hour][::97], ids=lambda offer: offer.instance_type
)
def test_a_price_by_month_is_not_taken_for_one_by_hour(tmp_path, offer):
    monthly = dataclasses.replace(offer, price_usd_per_hour=round(offer.price_usd_per_hour * 730, 4))
    with pytest.raises(ValueError, match=r"row 2: price_usd_per_hour is .* expected at (least|most)"):
        replace_offers(tmp_path / "offers.csv", [monthly], load().accelerators)


def test_a_folder_without_any_file_of_a_catalog_is_refused(tmp_path):
    (tmp_path / "prices.csv").write_text("x")
    with pytest.raises(CatalogError, match=r"holds none of offers\.csv"):
        check(tmp_path)


def test_an_offer_that_is_there_twice_is_refused_with_both_rows(tmp_path):
    with pytest.raises(CatalogError, match=r"row 3: aws us-east-1 p5.48xlarge is in row 2 already"):
        check(written(tmp_path, GOOD, GOOD))


def test_columns_are_named(tmp_path):
    old = tuple("price_usd_hour" if name == "price_usd_per_hour" else name for name in OFFER_COLUMNS)
    with pytest.raises(CatalogError, match="'price_usd_hour' is now named 'price_usd_per_hour'"):
        check(written(tmp_path, GOOD | {"price_usd_hour": "1"}, columns=old))
    with pytest.raises(CatalogError, match="'cloud' is missing"):
        check(written(tmp_path, GOOD, columns=OFFER_COLUMNS[1:]))
    with pytest.raises(CatalogError, match="in this order"):
        check(written(tmp_path, GOOD, columns=OFFER_COLUMNS[::-1]))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is missing"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (",".join(OFFER_COLUMNS).encode(), "has no rows"),
        (",".join(OFFER_COLUMNS).encode() + b"\naws,us-east-1\n", "has 2 cells"),
        (",".join(OFFER_COLUMNS).encode() + b'\n"aws', "is not CSV"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, content, said):
    path = tmp_path / "offers.csv"
    path.write_bytes(content)
    with pytest.raises(CatalogError, match=said):
        check(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(CatalogError, match="no such file"):
        load(tmp_path / "nothing.csv")


def test_a_chip_whose_fp8_peak_can_not_be_dense_is_refused(tmp_path):
    source = load().accelerators["H100"]
    names = list(type(source).__slots__)
    row = ["" if getattr(source, name) is None else str(getattr(source, name)) for name in names]
    row[names.index("fp8_tflops")] = "7912"
    with (tmp_path / "accelerators.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names, row])
    with pytest.raises(CatalogError, match=r"row 2: fp8_tflops is '7912'.*sparsity"):
        check(tmp_path)


def test_one_row_adds_a_chip_to_the_shipped_ones_or_takes_the_place_of_one(tmp_path):
    names = list(type(load().accelerators["H100"]).__slots__)
    own = {"kind": "gpu", "vendor": "other", "memory_gib": "96", "source": "sheet", "as_of": "2026-11-01"}
    own |= {"bf16_tflops": "800", "memory_bandwidth_gb_per_s": "4000", "confidence": "vendor-doc"}
    rows = [[(own | {"name": name}).get(field, "") for field in names] for name in ("Zeta1", "H100")]
    with (tmp_path / "accelerators.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    found = check(tmp_path).accelerators
    assert found.keys() == load().accelerators.keys() | {"Zeta1"}
    assert found["Zeta1"].bf16_tflops == found["H100"].bf16_tflops == 800
    assert found["H200"] == load().accelerators["H200"]


cells = st.one_of(
    st.sampled_from(
        ["", "0", "-1", "nan", "inf", "1e9", "1e-400", "0.5", "8", "80", "²", "١", "H100", "aws", "\x00", '"']
    ),
    st.text(max_size=12),
    st.floats().map(str),
    st.integers().map(str),
)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(changes=st.dictionaries(st.sampled_from(OFFER_COLUMNS), cells, max_size=5))
def test_whatever_is_in_the_cells_it_is_a_catalog_or_one_sentence(tmp_path, changes):
    path = written(tmp_path, GOOD | changes)
    try:
        (offer,) = check(path).offers
    except CatalogError as error:
        assert "\n" not in str(error).replace(str(path), "")
        return
    assert offer.vcpus > 0 and offer.memory_gib > 0
    prices = offer.price_usd_per_hour, offer.spot_price_usd_per_hour
    assert None in prices or prices[1] <= prices[0]


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(content=st.one_of(st.binary(max_size=300), st.text(max_size=300).map(lambda text: text.encode())))
def test_whatever_the_bytes_it_is_one_sentence(tmp_path, content):
    path = tmp_path / "offers.csv"
    path.write_bytes(content)
    with pytest.raises(CatalogError):
        check(path)
