"""A run tells Prometheus what it does, and ends with what it measured beside what its plan promised."""

from __future__ import annotations

import json
import socket
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from fusion.commands.calibrate import command as calibrate
from planner.calibration.own import RUNS, own_calibrations
from tests.workloads import made
from tests.workloads.conftest import free_port
from tests.workloads.test_models import SMALL, config_of
from workloads.config import ConfigError
from workloads.training.flops import training_flops_per_sample
from workloads.training.logs import Log
from workloads.training.measure import PARTS, Meter
from workloads.training.monitor import Metrics, exposed
from workloads.training.promise import VARIABLE, read_promise
from workloads.training.run import run
from workloads.training.stopping import StopRequest
from workloads.training.world import World

PROMISE = {
    "machine": "c7a.large",
    "instance_type": "c7a.large",
    "nodes": 1,
    "devices": 1,
    "vcpus": 2.0,
    "precision": "fp32",
    "profile": "fusionnet-8",
    "peak_flops": 1e11,
    "samples_per_s": {"value": 1000.0, "low": 500.0, "high": 2000.0},
    "run_hours": {"value": 0.01, "low": 0.005, "high": 0.02},
    "run_usd": {"value": 0.002, "low": 0.001, "high": 0.004},
    "usd_per_hour": 0.2,
    "corrected_by": 1.25,
    "calibration": "a test",
}


def numbers(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return {
        sample.name + sample.labels.get("part", ""): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, float], dict[str, Any], Path]:
    """A run with a promise: what Prometheus was told last, the report, and the folder."""
    folder = tmp_path_factory.mktemp("monitored")
    port, seen, over = free_port(), {}, threading.Event()
    promise = folder / "promise.json"
    promise.write_text(json.dumps(PROMISE))
    config = config_of(folder, "tokens", epochs=60, metrics_port=port)

    def scrape() -> None:
        while not over.wait(0.02):
            try:
                seen.update(numbers(port))
            except OSError:
                continue

    scraper = threading.Thread(target=scrape)
    scraper.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(promise))
        run(config, StopRequest())
    over.set()
    scraper.join()
    return seen, json.loads((Path(config.outputs.url.removeprefix("file://")) / "report.json").read_text()), folder


def test_prometheus_hears_rates_parts_loss_and_utilisation(ended: Any) -> None:
    seen, _, _ = ended
    assert 0 < seen["fusion_training_steps_total"] <= 360
    assert seen["fusion_training_samples_total"] > 0 and seen["fusion_training_samples_per_second"] > 0
    assert all(seen[f"fusion_training_part_seconds_total{part}"] >= 0 for part in PARTS)
    assert seen["fusion_training_part_seconds_totalforward_backward"] > 0
    assert 0 < seen["fusion_training_loss"] < 10
    assert 0 < seen["fusion_training_model_flops_utilisation_ratio"] < 1
    assert seen["process_resident_memory_bytes"] > 1e7


def test_the_report_has_what_was_measured_beside_the_promise(ended: Any) -> None:
    _, report, _ = ended
    measured = report["promise"]["measured"]
    rate = measured["samples_per_s"]
    assert rate["value"] == pytest.approx(report["samples_per_second"], rel=1e-3)
    assert rate["over_predicted"] == pytest.approx(rate["value"] / 1000, rel=1e-3)
    hours = measured["run_hours"]["value"]
    assert 96 * 60 / rate["value"] / 3600 < hours, "saves are in it too"
    assert measured["run_usd"]["value"] == pytest.approx(0.2 * hours, rel=1e-3)
    assert 0 < measured["mfu"] < 1
    parts = report["step_part_ms"]
    mean = 16 * 1000 / report["samples_per_second"]
    assert sum(parts.values()) - parts["checkpoint"] == pytest.approx(mean, rel=0.01)


def test_calibrate_makes_a_row_of_a_run_and_refuses_one_that_says_nothing(ended: Any, tmp_path: Path) -> None:
    _, report, _ = ended
    on_genoa = report | {"processor": "AMD EPYC 9R14", "threads": 2, "data_wait_share": 0.01}

    def said(document: dict[str, Any]) -> str:
        (tmp_path / "report.json").write_text(json.dumps(document))
        row = tmp_path / "calibrations" / RUNS / "row.json"
        done = CliRunner().invoke(calibrate, ["--run", f"file://{tmp_path}", "--output", str(row)])
        return done.output + str(done.exception or "")

    assert "has EPYC-Genoa" in said(on_genoa | {"processor": "Intel(R) Xeon(R)"})
    assert "waited for data in 50% of its time" in said(on_genoa | {"data_wait_share": 0.5})
    assert "ran in bf16 and was predicted in fp32" in said(on_genoa | {"config": {"precision": "bf16"}})
    assert "had 3 threads" not in said(on_genoa) and "its ranks had 3 threads" in said(on_genoa | {"threads": 3})
    assert "no plan predicted the run" in said({name: on_genoa[name] for name in on_genoa if name != "promise"})
    assert "is it a training run's report?" in said({"run": "x"})

    assert "a step takes" in said(on_genoa)
    own = own_calibrations(tmp_path / "calibrations")
    ((row,),) = own.runs.values()
    assert own.refused == ()
    assert row.step_ratio == pytest.approx(1.25 * 1000 / report["samples_per_second"], rel=1e-3)


def test_the_flops_of_a_decoder_are_those_of_its_products() -> None:
    config = {"model": {"name": "decoder", "arguments": SMALL["decoder"]}}
    index = made.index_of("tokens")
    with torch.device("meta"):
        from workloads.models import build

        weights = [each for each in build("decoder", index, SMALL["decoder"]).parameters() if each.dim() == 2]
    tokens, width, layers = 16, 16, 2
    products = 2 * tokens * (sum(each.numel() for each in weights) - 32 * width)  # the embedding is a look-up
    attention = layers * 2 * 2 * tokens * tokens * width
    counted = training_flops_per_sample(config_like(config), index)
    assert counted == pytest.approx(3 * (products + attention), rel=0.01)


def config_like(changes: dict[str, Any]) -> Any:
    from workloads.training.config import TrainingConfig

    url = {"url": "file:///nowhere"}
    return TrainingConfig.model_validate({"run": "x", "data": url, "checkpoint": url, "outputs": url} | changes)


def test_a_broken_promise_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "promise.json"
    file.write_text(json.dumps(PROMISE | {"devices": 0}))
    with pytest.raises(ConfigError, match=r"promise\.json: devices: got 0; input should be greater than or equal to 1"):
        read_promise({VARIABLE: str(file)})
    with pytest.raises(ConfigError, match="can't be read"):
        read_promise({VARIABLE: str(tmp_path / "none")})
    assert read_promise({}) is None


def test_a_port_that_is_taken_is_a_warning_and_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        port = other.getsockname()[1]
        with exposed(Metrics("x", Meter(), World(torch.device("cpu")), None, 0.0), port, Log()):
            pass
    said = json.loads(capsys.readouterr().out)
    assert (said["event"], said["port"]) == ("metrics_off", port) and "in use" in said["reason"]
