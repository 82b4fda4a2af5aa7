"""Refresh reads the clouds' price lists over the wire, and a cloud that fails loses nothing."""

import csv
import datetime
import json

import pytest
from click.testing import CliRunner
from moto.server import ThreadedMotoServer

from fusion.commands.catalog import command
from fusion.errors import FusionError
from planner.catalog import load
from planner.catalog.reading import check
from planner.catalog.refresh import aws, gcp, refresh
from planner.catalog.refresh.base import JsonClient, RefreshError
from planner.catalog.writing import replace_offers
from tests.unit.planner.price_servers import PriceServer, aws_product, azure_item, gcp_sku

TODAY = datetime.date(2026, 11, 23)
AZURE, GCP, AWS = ("azure", "eastus"), ("gcp", "us-central1"), ("aws", "us-east-1")


@pytest.fixture
def prices(monkeypatch):
    server = PriceServer()
    monkeypatch.setenv("FUSION_AZURE_PRICES_ENDPOINT", server.url)
    monkeypatch.setenv("FUSION_GCP_BILLING_ENDPOINT", server.url)
    monkeypatch.setenv("FUSION_GCP_API_KEY", "a-key")
    monkeypatch.setattr("planner.catalog.refresh.base.RETRIES", 2)
    yield server
    server.close()


@pytest.fixture(scope="module")
def moto():
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def account(monkeypatch, moto, prices):
    monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", moto)
    monkeypatch.setenv("AWS_ENDPOINT_URL_PRICING", prices.url)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")


def offers(*keys):
    return [load().offer(*key) for key in keys]


def found(done, cloud, region, name):
    return next(o for o in done.offers if (o.cloud, o.region, o.instance_type) == (cloud, region, name))


def test_azure_gives_on_demand_and_spot_of_every_region_page_by_page(prices):
    size = "Standard_NC24ads_A100_v4"
    prices.azure = [
        azure_item(size, "eastus", 4.0),
        azure_item(size, "eastus", 1.5, sku="NC24ads A100 v4 Spot"),
        azure_item(size, "eastus", 0.9, sku="NC24ads A100 v4 Low Priority"),
        azure_item(size, "eastus", 5.1, product="Virtual Machines Series Windows"),
        azure_item(size, "eastus", 9000.0, unit="1 Year", kind="Reservation"),
        azure_item(size, "westus9", 4.4),
    ]
    done = refresh(offers((*AZURE, size)), ["azure"], today=TODAY)
    here = found(done, *AZURE, size)
    assert (here.price_usd_per_hour, here.spot_price_usd_per_hour) == (4.0, 1.5)
    assert (here.price_source, here.price_as_of) == ("Azure Retail Prices API", "2026-11-23")
    assert (here.accelerator, here.vcpus) == ("A100-80GB-PCIe", 24)
    assert [offer.region for offer in done.added] == ["westus9"]
    assert len(prices.requests) == 3


def test_what_may_pass_is_tried_again(prices):
    prices.failures = [503, 429]
    prices.azure = [azure_item("Standard_NC24ads_A100_v4", "eastus", 4.0)]
    assert not refresh(offers((*AZURE, "Standard_NC24ads_A100_v4")), ["azure"], today=TODAY).failed
    assert len(prices.requests) == 3


def test_a_link_to_another_host_is_not_followed(prices):
    size = "Standard_NC24ads_A100_v4"
    prices.link_host = "http://elsewhere.example.com"
    prices.azure = [azure_item(size, region, 4.0) for region in ("eastus", "westus", "westus2")]
    done = refresh(offers((*AZURE, size)), ["azure"], today=TODAY)
    assert "another host" in done.failed["azure"]


def test_google_prices_are_the_sum_of_the_parts_with_the_host(prices):
    prices.gcp = [
        gcp_sku("G2 Instance Core running in Americas", 0.025, ["us-central1"]),
        gcp_sku("G2 Instance Ram running in Americas", 0.003, ["us-central1"], unit="GiBy.h"),
        gcp_sku("Nvidia L4 GPU running in Americas", 0.56, ["us-central1"], free_tier=True),
        gcp_sku("Spot Preemptible G2 Instance Core running in Americas", 0.01, ["us-central1"], usage="Preemptible"),
        gcp_sku("Spot Preemptible G2 Instance Ram running in Americas", 0.001, ["us-central1"], usage="Preemptible"),
        gcp_sku(
            "Nvidia L4 GPU attached to Spot Preemptible VMs running in Americas",
            0.2,
            ["us-central1"],
            usage="Preemptible",
        ),
        gcp_sku("Commitment v1: G2 Cpu in Americas for 1 Year", 0.001, ["us-central1"], usage="Commit1Yr"),
        gcp_sku("TpuV6e running in Americas", 2.7, ["us-central1", "us-east5"]),
    ]
    old = offers((*GCP, "g2-standard-4"), (*GCP, "tpu-v6e-8chip"))
    done = refresh(old, ["gcp"], today=TODAY)
    machine = found(done, *GCP, "g2-standard-4")
    assert machine.price_usd_per_hour == pytest.approx(4 * 0.025 + 16 * 0.003 + 0.56)
    assert machine.spot_price_usd_per_hour == pytest.approx(4 * 0.01 + 16 * 0.001 + 0.2)
    assert found(done, *GCP, "tpu-v6e-8chip").price_usd_per_hour == pytest.approx(8 * 2.7)
    assert [offer.region for offer in done.added] == ["us-east5"]
    assert all(headers["X-Goog-Api-Key"] == "a-key" for _, _, headers, _ in prices.requests)
    assert len(prices.requests) == 4


def test_google_local_ssd_that_comes_with_a_machine_is_in_its_price(prices):
    regions = ["us-central1"]
    prices.gcp = [
        gcp_sku("A3 Instance Core running in Americas", 0.03, regions),
        gcp_sku("A3 Instance Ram running in Americas", 0.0026, regions, unit="GiBy.h"),
        gcp_sku("Nvidia H100 80GB GPU running in Americas", 9.8, regions),
        gcp_sku("SSD backed Local Storage", 0.08, regions, unit="GiBy.mo", family="Storage"),
    ]
    done = refresh(offers((*GCP, "a3-highgpu-8g")), ["gcp"], today=TODAY)
    expected = 208 * 0.03 + 1872 * 0.0026 + 8 * 9.8 + 6000 * 0.08 / 730
    assert found(done, *GCP, "a3-highgpu-8g").price_usd_per_hour == pytest.approx(expected, abs=1e-5)


def test_google_types_whose_parts_are_unknown_keep_their_prices(prices):
    prices.gcp = [gcp_sku("TpuV6e running in Americas", 2.0, ["us-central1"])]
    old = offers((*GCP, "tpu-v5p-8chip"), (*GCP, "tpu-v6e-8chip"))
    done = refresh(old, ["gcp"], today=TODAY)
    assert found(done, *GCP, "tpu-v5p-8chip") == old[0]
    assert "tpu-v5p-8chip" in done.skipped["gcp"][0]


def test_only_tpus_whose_descriptions_are_not_known_are_left_out_of_googles_parts():
    left_out = {o.accelerator for o in load().find(cloud="gcp") if gcp.machine_of(o) is None}
    assert left_out == {"TPUv2", "TPUv3", "TPUv4", "TPUv5p"}


def test_google_without_credentials_says_how_to_give_some(prices, monkeypatch):
    monkeypatch.delenv("FUSION_GCP_API_KEY")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent.json")
    done = refresh(offers((*GCP, "g2-standard-4")), ["gcp"], today=TODAY)
    assert "FUSION_GCP_API_KEY" in done.failed["gcp"]


def test_aws_takes_prices_from_the_price_list_and_shapes_and_spot_from_ec2(account, prices):
    prices.aws = {
        "us-east-1": [
            aws_product(name, usd)
            for name, usd in (("g5.xlarge", 1.1), ("m5.large", 0.1), ("p4d.24xlarge", 30.0), ("x1.32xlarge", 13.0))
        ]
    }
    old = offers((*AWS, "g5.xlarge"), (*AWS, "m5.large"))
    done = refresh(old, ["aws"], regions=["us-east-1"], today=TODAY)
    assert done.failed == {}
    gpu = found(done, *AWS, "g5.xlarge")
    assert (gpu.price_usd_per_hour, gpu.price_source) == (1.1, "AWS Price List")
    assert (gpu.accelerator, gpu.accelerator_count, gpu.vcpus, gpu.memory_gib) == ("A10G", 1, 4, 16)
    assert gpu.spot_price_usd_per_hour == pytest.approx(1e-5)  # moto's only spot price
    assert gpu.spot_interruption_bucket == old[0].spot_interruption_bucket
    assert gpu.architecture == "x86_64"
    assert {o.architecture for o in done.offers if o.instance_type.startswith("g5g.")} == {"arm64"}
    assert found(done, *AWS, "p4d.24xlarge").accelerator == "A100-40GB"
    assert not any(offer.instance_type == "x1.32xlarge" for offer in done.offers), "CPU types that nobody asked for"


def test_an_aws_region_that_can_not_be_read_keeps_its_prices(account, prices):
    prices.aws = {"us-east-1": [aws_product("g5.xlarge", 1.1)]}
    old = offers((*AWS, "g5.xlarge"), ("aws", "eu-north-1", "p5.48xlarge"))
    done = refresh(old, ["aws"], today=TODAY)
    assert done.failed == {}
    assert found(done, "aws", "eu-north-1", "p5.48xlarge") == old[1]
    assert any(note.startswith("eu-north-1 can't be read") for note in done.skipped["aws"])


def test_aws_devices_are_named_as_in_the_catalog_or_left_out():
    def shape(kind, devices, **device):
        return {kind: {devices: [device]}}

    def of(memory_mib, **device):
        return shape("GpuInfo", "Gpus", MemoryInfo={"SizeInMiB": memory_mib}, **device)

    assert aws._accelerator(of(81920, Name="A100", Count=8))[:2] == ("A100-80GB", 8)
    assert aws._accelerator(of(40960, Name="A100", Count=8))[:2] == ("A100-40GB", 8)
    fraction = of(2861, Name="L4", GpuPartitionSize=0.125, LogicalGpuCount=1)
    assert aws._accelerator(fraction) == ("L4", 0.125, 2.79)
    assert aws._accelerator({}) == (None, 0.0, None)
    neuron = shape("NeuronInfo", "NeuronDevices", Name="Trainium2", Count=16, MemoryInfo={"SizeInMiB": 98304})
    assert aws._accelerator(neuron) == ("Trainium2", 16, 96)
    with pytest.raises(RefreshError, match="Z9000"):
        aws._accelerator(of(1024, Name="Z9000", Count=1))


def test_what_is_sold_no_more_is_removed_and_what_moved_is_shown(prices):
    sizes = ("Standard_NC24ads_A100_v4", "Standard_NC48ads_A100_v4")
    prices.azure = [azure_item(sizes[0], "eastus", 9.0)]
    done = refresh(offers(*((*AZURE, size) for size in sizes)), ["azure"], today=TODAY)
    assert [offer.instance_type for offer in done.removed] == [sizes[1]]
    (move,) = done.moved
    assert (move.before_usd, move.after_usd, move.price_model) == (3.673, 9.0, "on demand")


def test_a_cloud_that_fails_keeps_every_row_while_the_others_are_refreshed(prices):
    prices.azure = [azure_item("Standard_NC24ads_A100_v4", "eastus", 4.0)]
    prices.gcp = []
    old = offers((*AZURE, "Standard_NC24ads_A100_v4"), (*GCP, "g2-standard-4"))
    done = refresh(old, ["azure", "gcp"], today=TODAY)
    assert list(done.failed) == ["gcp"]
    assert found(done, *GCP, "g2-standard-4") == old[1]
    assert found(done, *AZURE, "Standard_NC24ads_A100_v4").price_usd_per_hour == 4.0


def test_an_answer_that_lacks_most_offers_is_taken_for_incomplete(prices):
    sizes = ("Standard_NC24ads_A100_v4", "Standard_NC48ads_A100_v4", "Standard_NC96ads_A100_v4")
    prices.azure = [azure_item(sizes[0], "eastus", 4.0)]
    old = offers(*((*AZURE, size) for size in sizes))
    done = refresh(old, ["azure"], today=TODAY)
    assert "lacks 2 of the 3 offers" in done.failed["azure"]
    assert sorted(done.offers, key=str) == sorted(old, key=str) and not done.removed


@pytest.mark.parametrize("usd", [float("inf"), 2000.0, 1e-12])
def test_an_impossible_price_from_a_cloud_leaves_the_old_file(prices, tmp_path, usd):
    size = "Standard_NC24ads_A100_v4"
    replace_offers(tmp_path / "offers.csv", offers((*AZURE, size)), load().accelerators)
    before = (tmp_path / "offers.csv").read_bytes()
    prices.azure = [azure_item(size, "eastus", usd)]
    ran = CliRunner().invoke(command, ["refresh", "--cloud", "azure", "--into", str(tmp_path)])
    assert isinstance(ran.exception, FusionError), ran.output
    assert (tmp_path / "offers.csv").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["offers.csv"]


def test_a_region_of_which_aws_describes_no_types_keeps_its_prices(account, prices, monkeypatch):
    monkeypatch.setattr(aws, "_shapes", lambda region: {})
    prices.aws = {"us-east-1": [aws_product("g5.xlarge", 1.1)]}
    done = refresh(offers((*AWS, "g5.xlarge")), ["aws"], today=TODAY)
    assert "EC2 describes no instance types of us-east-1" in done.failed["aws"] and not done.removed


def test_no_aws_credentials_is_said_once(account, prices, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    done = refresh(offers((*AWS, "g5.xlarge"), ("aws", "eu-north-1", "p5.48xlarge")), ["aws"], today=TODAY)
    assert done.failed["aws"].count("credentials") == 2


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"Items": 3}', b'{"Items": [3]}'])
def test_an_answer_of_another_form_is_one_sentence(prices, monkeypatch, answer):
    monkeypatch.setattr(prices, "respond", lambda *_: (200, answer))
    done = refresh(offers((*AZURE, "Standard_NC24ads_A100_v4")), ["azure"], today=TODAY)
    assert done.failed["azure"]


def test_an_error_of_the_api_is_quoted(prices, monkeypatch):
    monkeypatch.setenv("FUSION_GCP_API_KEY", "wrong")
    done = refresh(offers((*GCP, "g2-standard-4")), ["gcp"], today=TODAY)
    assert "403" in done.failed["gcp"] and "missing a valid API key" in done.failed["gcp"]


def test_no_answer_is_one_sentence():
    with pytest.raises(RefreshError, match="does not answer"):
        JsonClient("http://127.0.0.1:9", backoff_s=0).get("/x", {})


def test_the_command_writes_the_folder_and_shows_the_difference(prices, tmp_path):
    size = "Standard_NC24ads_A100_v4"
    replace_offers(tmp_path / "offers.csv", offers((*AZURE, size), (*GCP, "g2-standard-4")), load().accelerators)
    prices.azure = [azure_item(size, "eastus", 9.0), azure_item(size, "westus9", 4.4)]
    ran = CliRunner().invoke(command, ["refresh", "--cloud", "azure", "--into", str(tmp_path)])
    assert ran.exit_code == 0, ran.output
    assert "1 offers priced anew, 1 added, 0 removed, 1 prices moved" in ran.output
    assert "added: azure westus9 Standard_NC24ads_A100_v4" in ran.output
    assert "3.673 -> 9 USD/h (+145%)" in ran.output
    assert check(tmp_path).offer(*AZURE, size).price_usd_per_hour == 9.0
    assert [path.name for path in tmp_path.iterdir()] == ["offers.csv"]


def test_the_command_fails_and_leaves_the_file_when_no_cloud_answers(prices, tmp_path):
    replace_offers(tmp_path / "offers.csv", offers((*GCP, "g2-standard-4")), load().accelerators)
    before = (tmp_path / "offers.csv").read_bytes()
    ran = CliRunner().invoke(command, ["refresh", "--cloud", "gcp", "--into", str(tmp_path)])
    assert isinstance(ran.exception, FusionError) and "gcp: " in str(ran.exception)
    assert (tmp_path / "offers.csv").read_bytes() == before


def test_a_dry_run_writes_nothing(prices, tmp_path):
    size = "Standard_NC24ads_A100_v4"
    replace_offers(tmp_path / "offers.csv", offers((*AZURE, size)), load().accelerators)
    before = (tmp_path / "offers.csv").read_bytes()
    prices.azure = [azure_item(size, "eastus", 9.0)]
    ran = CliRunner().invoke(command, ["refresh", "--cloud", "azure", "--into", str(tmp_path), "--dry-run"])
    assert ran.exit_code == 0 and (tmp_path / "offers.csv").read_bytes() == before


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path):
    import dataclasses

    path = tmp_path / "offers.csv"
    good = offers((*GCP, "g2-standard-4"))
    replace_offers(path, good, load().accelerators)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="price_usd_per_hour"):
        replace_offers(path, [dataclasses.replace(good[0], price_usd_per_hour=-1.0)], load().accelerators)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["offers.csv"]


def test_the_check_command_counts_or_refuses(tmp_path):
    good = CliRunner().invoke(command, ["check"])
    assert good.exit_code == 0 and "all right" in good.output
    (tmp_path / "offers.csv").write_text("cloud\n")
    bad = CliRunner().invoke(command, ["check", str(tmp_path)])
    assert isinstance(bad.exception, FusionError)


def test_the_shipped_file_is_what_the_writer_would_write(tmp_path):
    from planner.catalog.reading import SHIPPED

    replace_offers(tmp_path / "offers.csv", load().offers, load().accelerators)
    assert (tmp_path / "offers.csv").read_text() == (SHIPPED / "offers.csv").read_text()
    with (tmp_path / "offers.csv").open() as file:
        assert json.dumps(next(csv.reader(file)))
