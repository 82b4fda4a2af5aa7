"""The shipped catalog is right, is found quickly, and says what comes near when something is not there."""

import math

import pytest

from planner.catalog import Catalog, Offer, UnknownOffer, UnknownService, load
from planner.catalog.reading import SHIPPED, check


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return check(SHIPPED)


def test_every_shipped_row_passes_the_checks_that_a_users_file_must_pass(catalog):
    assert len(catalog.offers) > 2500
    assert load().offers == catalog.offers


def test_every_kind_of_hardware_is_offered(catalog):
    kinds = {catalog.accelerators[offer.accelerator].kind for offer in catalog.offers if offer.accelerator}
    assert kinds == {"gpu", "tpu", "neuron", "fpga", "asic"}
    assert any(offer.accelerator is None for offer in catalog.offers)
    assert {offer.accelerator for offer in catalog.find(cloud="aws", instance_type="f2.6xlarge")} == {"VU47P"}


def test_every_figure_says_where_it_is_from(catalog):
    for offer in catalog.offers:
        assert offer.price_usd_per_hour is None or (offer.price_source and offer.price_as_of)
        assert offer.spot_price_usd_per_hour is None or (offer.spot_source and offer.spot_as_of)
    assert all(chip.source and chip.confidence for chip in catalog.accelerators.values())
    assert all(price.source and price.confidence for price in catalog.services.values())


def test_arm_hosts_are_told_from_x86(catalog):
    arm = {offer.instance_type.split(".")[0] for offer in catalog.find(architecture="arm64")}
    assert {"c7g", "m7g", "g5g", "t4g", "Standard_ND128isr_NDR_GB200_v6"} <= arm
    assert not arm & {"g4dn", "g5", "g6", "m6i", "p5", "inf2"}


def test_retired_types_are_gone(catalog):
    names = {offer.instance_type for offer in catalog.offers}
    assert not any(name.startswith("f1.") or name in ("Standard_NC6s_v3", "Standard_NC24rs_v3") for name in names)


def test_a_fractional_gpu_has_only_its_part_of_the_memory(catalog):
    for offer in catalog.offers:
        if 0 < offer.accelerator_count < 1:
            whole = catalog.accelerators[offer.accelerator].memory_gib
            assert offer.accelerator_memory_gib <= whole * offer.accelerator_count * 1.05


def test_pcie_cards_are_not_sold_as_sxm(catalog):
    assert catalog.offer("azure", "eastus", "Standard_NC24ads_A100_v4").accelerator == "A100-80GB-PCIe"
    pcie, sxm = catalog.accelerators["A100-80GB-PCIe"], catalog.accelerators["A100-80GB"]
    assert pcie.memory_bandwidth_gb_per_s < sxm.memory_bandwidth_gb_per_s


def test_gcp_prices_include_the_host(catalog):
    gpu_machine = catalog.offer("gcp", "us-central1", "n1-standard-8+T4x1")
    host = catalog.offer("gcp", "us-central1", "n1-standard-8")
    assert gpu_machine.price_usd_per_hour > host.price_usd_per_hour
    assert math.isclose(gpu_machine.price_usd_per_hour - host.price_usd_per_hour, 0.35, abs_tol=0.01)


def test_sizes_that_are_sold_only_as_spot_have_no_on_demand_price(catalog):
    offer = catalog.find(cloud="gcp", instance_type="a3-highgpu-1g")[0]
    assert offer.price_usd_per_hour is None
    assert offer.spot_price_usd_per_hour is not None


def test_published_peaks_are_dense():
    chips = load().accelerators
    dense_bf16 = {"A10G": 70, "A100-80GB": 312, "H100": 989, "H200": 989, "B200": 2250, "L4": 121, "MI300X": 1307.4}
    assert {name: chips[name].bf16_tflops for name in dense_bf16} == dense_bf16


def test_each_tpu_slice_that_is_offered_has_a_topology(catalog):
    for offer in catalog.offers:
        if offer.accelerator in ("TPUv4", "TPUv5e", "TPUv5p", "TPUv6e"):
            assert catalog.topologies(offer.accelerator, offer.accelerator_count), offer.instance_type
    (cube,) = [t for t in catalog.topologies("TPUv5p", 64) if t.topology == "4x4x4"]
    assert (cube.hosts, cube.machine_type) == (16, "ct5p-hightpu-4t")


@pytest.mark.parametrize(
    "filters",
    [
        {"cloud": "aws"},
        {"region": "us-central1"},
        {"cloud": "gcp", "region": "us-central1"},
        {"accelerator": "H100"},
        {"accelerator": "H100", "cloud": "aws"},
        {"accelerator": "T4", "region": "us-east-1"},
        {"accelerator": "A10G", "cloud": "aws", "region": "us-east-1"},
        {"instance_type": "p5.48xlarge"},
        {"instance_type": "g5.xlarge", "cloud": "aws", "region": "us-east-1"},
    ],
)
def test_the_index_finds_what_a_scan_finds(catalog, filters):
    scanned = [o for o in catalog.offers if all(getattr(o, name) == value for name, value in filters.items())]
    assert scanned
    assert sorted(catalog.find(**filters), key=repr) == sorted(scanned, key=repr)


def test_limits_filter_on_the_price_that_is_asked_for(catalog):
    spot = catalog.find(accelerator="H100", price_model="spot", max_price_usd_per_hour=30)
    assert spot and all(offer.spot_price_usd_per_hour <= 30 for offer in spot)
    on_demand = catalog.find(min_accelerators=8, min_accelerator_memory_gib=141, max_price_usd_per_hour=100)
    assert on_demand and all(offer.price_usd_per_hour <= 100 for offer in on_demand)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (("aws", "us-east-1", "g5.xlarg"), "g5.xlarge"),
        (("aws", "us-est-1", "g5.xlarge"), "us-east-1"),
        (("amazon", "us-east-1", "g5.xlarge"), "aws, azure, gcp"),
        (("aws", "eu-west-1", "g6e.xlarge"), "offered in us-east-1"),
    ],
)
def test_an_unknown_offer_names_what_is_near(catalog, asked, named):
    with pytest.raises(UnknownOffer, match=named):
        catalog.offer(*asked)


def test_a_service_price_stands_in_for_regions_without_their_own(catalog):
    assert catalog.service_price("aws", "us-east-1", "nat_gateway").confidence == "price-api"
    elsewhere = catalog.service_price("aws", "eu-west-1", "nat_gateway")
    assert (elsewhere.region, elsewhere.confidence) == ("*", "stand-in")
    with pytest.raises(UnknownService, match="nat_gateway"):
        catalog.service_price("aws", "us-east-1", "nat_gatway")


def test_a_catalog_can_be_made_of_offers():
    made = Catalog(load().find(cloud="aws", region="us-east-1"), load().accelerators)
    assert made.offer("aws", "us-east-1", "p5.48xlarge").accelerator == "H100"
    assert made.find(cloud="gcp", region="us-central1") == ()


def test_offers_are_immutable():
    offer: Offer = load().offers[0]
    with pytest.raises(AttributeError):
        offer.vcpus = 1.0
