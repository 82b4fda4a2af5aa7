"""What a server says of itself, and the dashboard and alert rules that read it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client.parser import text_string_to_metric_families

from tests.workloads.serving.conftest import Running, images, servers
from workloads.serving import observability

FOLDER = Path(observability.__file__).parent
ALERTS, DASHBOARD = FOLDER / "alerts.yaml", FOLDER / "dashboard.json"
CASES = Path(__file__).with_name("alerts_test.yaml")
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (apt-get install prometheus)")


@pytest.fixture(scope="module")
def server(package_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with servers(tmp_path_factory.mktemp("observed")) as start:
        model = {"slo_ms": 60_000, "batch_max": 8, "backends": ["eager"], "versions": [{"package": package_url}]}
        yield start(model)


def samples(server: Running) -> dict[tuple[str, str], float]:
    """The server's metrics by name and stage."""
    families = text_string_to_metric_families(server.ask("/metrics")[2].decode())
    return {(each.name, each.labels.get("stage", "")): each.value for family in families for each in family.samples}


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def dashboard_expressions() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def test_the_stages_of_a_request_are_timed_and_add_up_to_no_more_than_the_whole(server: Running) -> None:
    before = samples(server)
    for seed in range(5):
        server.classify(images(2, seed))
    after = samples(server)
    stages = ("queue", "batch", "compute", "transfer")

    def grown(name: str, stage: str = "") -> float:
        return after[name, stage] - before[name, stage]

    for stage in (*stages, "total"):
        assert grown("fusion_request_seconds_count", stage) == 5
        assert grown("fusion_request_seconds_sum", stage) > 0
    inside = sum(grown("fusion_request_seconds_sum", stage) for stage in ("queue", "batch", "compute"))
    assert inside <= grown("fusion_request_seconds_sum", "total")
    assert grown("fusion_batch_rows_sum") == 10
    assert grown("fusion_compute_seconds_total") == pytest.approx(grown("fusion_request_seconds_sum", "compute"))
    assert grown("fusion_slow_requests_total") == 0
    assert (after["fusion_ready", ""], after["fusion_batch_max_rows", ""]) == (1, 8)


def test_what_the_dashboard_and_the_alert_rules_read_is_there(server: Running) -> None:
    given = {name for name, _ in samples(server)}
    read = [*dashboard_expressions(), *(rule["expr"] for rule in rules())]
    names = {name for text in read for name in re.findall(r"(?<!:)\bfusion_[a-z_]+", text)}
    assert len(names) > 8
    assert names - given == set()
    stages = {stage for text in read for stage in re.findall(r'stage="(\w+)"', text)}
    assert stages == {"queue", "batch", "compute", "transfer", "total"}


def test_the_dashboard_has_panels_that_do_not_cover_one_another_and_one_data_source() -> None:
    taken = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        assert place["x"] + place["w"] <= 24
        assert {each["datasource"]["uid"] for each in panel["targets"]} == {"${datasource}"}
        assert len({each["refId"] for each in panel["targets"]}) == len(panel["targets"])
    assert len({panel["id"] for panel in panels()}) == len(panels())


def unknown_to_grafana(document: dict[str, Any]) -> list[str]:
    """What the types that Grafana publishes of its schema do not give back when they have read the dashboard."""

    def lost(given: Any, kept: Any, path: str) -> list[str]:
        if isinstance(given, dict) and isinstance(kept, dict):
            return [each for key in given for each in lost(given[key], kept.get(key), f"{path}/{key}")]
        if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
            return [
                each for n, (a, b) in enumerate(zip(given, kept, strict=True)) for each in lost(a, b, f"{path}/{n}")
            ]
        return [] if given == kept else [path]

    return lost(document, json.loads(json.dumps(Dashboard.from_json(document), cls=JSONEncoder)), "")


def test_every_field_of_the_dashboard_is_one_of_grafanas_published_schema() -> None:
    register_default_plugins()  # panels and data sources, each with options of its own
    document = json.loads(DASHBOARD.read_text())
    assert unknown_to_grafana(document) == []
    panel = document["panels"][0]
    for place in (document, panel, panel["options"], panel["targets"][0], panel["fieldConfig"]["defaults"]):
        place["unheardOf"] = True
    assert [each.rpartition("/")[2] for each in unknown_to_grafana(document)] == ["unheardOf"] * 5


@needs_promtool
def test_prometheus_takes_the_rules_and_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    texts = [text.replace("$__rate_interval", "5m").replace("$model", ".+") for text in dashboard_expressions()]
    recorded = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(texts)]
    panel_rules, prometheus = tmp_path / "panels.yaml", tmp_path / "prometheus.yml"
    panel_rules.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    prometheus.write_text(yaml.safe_dump({"rule_files": [str(ALERTS), str(panel_rules)]}))
    said = promtool("check", "config", str(prometheus))
    assert f"{len(rules())} rules found" in said
    assert f"{len(recorded)} rules found" in said


@needs_promtool
def test_the_alerts_fire_when_they_should_and_not_before() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(CASES))


@needs_promtool
def test_prometheus_takes_the_metrics_of_a_running_server(server: Running) -> None:
    promtool("check", "metrics", given=server.ask("/metrics")[2].decode())


def promtool(*arguments: str, given: str | None = None) -> str:
    assert PROMTOOL
    done = subprocess.run([PROMTOOL, *arguments], input=given, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
