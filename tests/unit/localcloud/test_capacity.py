"""Capacity that is left is set by zone or region, by price model or for both."""

from __future__ import annotations

from pathlib import Path

import pytest

from localcloud import capacity
from localcloud.gcp.plugin import GcpBackend
from tests.unit.localcloud.conftest import refused
from tests.unit.localcloud.test_gcp import Gcp, cluster, pool


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSION_HOME", str(tmp_path))


def test_the_closest_limit_counts() -> None:
    assert capacity.left("aws", "g5.xlarge", "us-east-1a", "spot") is None
    capacity.set_left("aws:g5.xlarge:us-east-1", 3)
    capacity.set_left("aws:g5.xlarge:us-east-1a:spot", 0)
    assert capacity.left("aws", "g5.xlarge", "us-east-1a", "spot") == 0
    assert capacity.left("aws", "g5.xlarge", "us-east-1a", "on_demand") == 3
    assert capacity.left("aws", "g5.xlarge", "us-east-1b", "spot") == 3
    capacity.set_left("aws:g5.xlarge:us-east-1", -1)
    assert capacity.left("aws", "g5.xlarge", "us-east-1b", "spot") is None


@pytest.mark.parametrize("key", ["azure:a:b", "aws:g5.xlarge", "aws:g5.xlarge:us-east-1a:cheap", "aws::us-east-1"])
def test_a_key_that_is_none_is_refused(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert capacity.main([key, "0"]) == 2
    assert key in capsys.readouterr().err
    assert capacity.main([]) == 0
    assert capsys.readouterr().out == ""


def test_a_pool_of_gke_that_is_sold_out_is_not_made() -> None:
    gcp = Gcp()
    cluster(gcp)
    capacity.set_left("gcp:a3-highgpu-8g:us-central1-b", 1)
    machine = {"nodeConfig": {"machineType": "a3-highgpu-8g"}, "nodeLocations": ["us-central1-b"]}
    said = refused(pool, gcp, "two", **machine, initialNodeCount=2)
    assert "ZONE_RESOURCE_POOL_EXHAUSTED" in said and "zones/us-central1-b" in said and "GCE_STOCKOUT" in said
    assert [each for each in GcpBackend().inventory.lines() if "nodePool" in each] == []
    assert pool(gcp, "one", **machine).id
    gcp.kill()


def test_the_limits_of_one_cloud_are_forgotten_and_those_of_the_other_stay() -> None:
    capacity.set_left("aws:g5.xlarge:us-east-1", 0)
    capacity.set_left("gcp:g2-standard-4:us-central1", 1)
    capacity.forget("aws")
    assert capacity.left("aws", "g5.xlarge", "us-east-1a", "spot") is None
    assert capacity.left("gcp", "g2-standard-4", "us-central1-a", "spot") == 1
    capacity.forget("gcp")
    assert capacity.left("gcp", "g2-standard-4", "us-central1-a", "spot") is None
