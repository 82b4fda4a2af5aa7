"""A stack that serves on both clouds at once: built on the local clouds, judged on each and as a whole, and removed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from fusion.commands.up import provision
from fusion.review.cost import OUTSIDE, cost_change, plans
from fusion.review.events import read
from fusion.review.predictions import workloads
from fusion.stack import Stack
from localcloud import capacity, server
from localcloud.aws.api import Aws
from localcloud.clouds import LOCAL_CLOUDS
from planner.catalog import load
from tests.engine.conftest import PACK, ROOT, Engine

LOCAL = {"aws:profile": "fusion-local", "gcp:project": "fusion-local"}


@pytest.fixture
def both(platform: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """The stack to start from, on the local clouds."""
    config = yaml.safe_load((ROOT / "stacks" / "Pulumi.multi-cloud.yaml").read_text())["config"]
    for key in [each for each in platform.config if not each.startswith("kubernetes:")]:
        del platform.config[key]
    platform.config.update(config | LOCAL)
    platform.configure()
    for name, value in (platform.environment | PACK | {"PULUMI_OPTION_SKIP_PREVIEW": "true"}).items():
        monkeypatch.setenv(name, value)
    yield platform
    LOCAL_CLOUDS["gcp"].stop()


def test_it_is_previewed_as_one_bill_built_on_both_led_by_health_and_removed(both: Engine, tmp_path: Path) -> None:
    log = tmp_path / "preview"
    both.preview("--event-log", str(log), PULUMI_DEBUG_COMMANDS="true", **PACK)
    preview = read(log)
    known = plans(preview)
    bill = cost_change(preview, known, load())
    assert known.after is not None and bill is not None
    assert [each.cloud for each in known.after.parts] == ["gcp", "aws"]
    assert OUTSIDE not in [each.name for each in bill.components], "all that is made was planned"
    assert bill.total.after is not None
    assert asdict(bill.total.after) == pytest.approx(asdict(known.after.monthly_usd))
    assert [each.name for each in workloads(known, preview.config)] == ["classify on gcp", "classify on aws"]

    both.up(**PACK)
    outputs = both.outputs()
    assert outputs["cluster_name"] != outputs["others"]["aws"]["cluster_name"]
    assert outputs["failover"]["hosts"] == {"classify": "classify.models.example.com"}
    assert len(outputs["failover"]["name_servers"]) > 1
    aws = Aws(server.ensure(), "us-east-1")
    (zone,) = aws.call("route53", "list_hosted_zones")["HostedZones"]
    records = aws.call("route53", "list_resource_record_sets", HostedZoneId=zone["Id"])["ResourceRecordSets"]
    led = {each["Failover"]: each for each in records if "Failover" in each}
    assert {role: each["ResourceRecords"][0]["Value"] for role, each in led.items()} == {
        "PRIMARY": "classify-gcp.models.example.com",
        "SECONDARY": "classify-aws.models.example.com",
    }
    for role in led.values():
        check = aws.call("route53", "get_health_check", HealthCheckId=role["HealthCheckId"])["HealthCheck"]
        assert check["HealthCheckConfig"]["FullyQualifiedDomainName"] == role["ResourceRecords"][0]["Value"]
    for cloud in ("aws", "gcp"):
        kinds = [yaml.safe_load(file.read_text())["kind"] for file in (both.manifests / cloud).rglob("*.yaml")]
        assert kinds.count("Deployment") == 1

    both.destroy()
    assert both.exists() == []
    assert LOCAL_CLOUDS["gcp"].left("us-central1") == []


def test_where_one_of_both_has_no_capacity_the_next_plan_is_taken_there_and_the_user_told(
    both: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capacity.set_left("aws:g6.xlarge:us-east-1", 0)
    provision(Stack(both.stack, both.folder), tmp_path / "log")
    assert "aws us-east-1 had no capacity of g6.xlarge" in capsys.readouterr().out
    groups = [each for each in both.state() if each["type"] == "aws:eks/nodeGroup:NodeGroup"]
    assert all("g6.xlarge" not in each["outputs"]["instanceTypes"] for each in groups)
    assert set(both.outputs()["others"]) == {"aws"}
