"""Calibration: errors on rows that were left out stay what the benchmark says, and files are checked."""

import statistics

import pytest
from click.testing import CliRunner

from fusion.commands.calibrate import command
from planner.calibration import fit
from planner.calibration.store import builtin, read_calibration
from planner.performance.checks import PerformanceError


@pytest.fixture(scope="module")
def known():
    return fit.chips()


@pytest.mark.parametrize(("chip", "median"), [("A100-80GB", 0.11), ("H100", 0.10), ("L40S", 0.13)])
def test_measured_chips_stay_near_their_rows(known, chip, median):
    parameters = builtin().gemm(chip, "bf16").parameters
    rows = [row for row in fit.gemm_rows(known) if row.chip.name == chip and row.precision == "bf16"]
    errors = [abs(fit.predicted_gemm(row, parameters) / row.seconds - 1) for row in rows]
    assert statistics.median(errors) < median


def test_time_by_output_token_stays_near_the_rows(known):
    parameters, _, _ = builtin().decoder("H100", "trtllm")
    errors = [
        abs(fit.predicted_decoder(row, parameters).time_per_output_token_s / row.output_token_s - 1)
        for row in fit.decoder_rows(known)
    ]
    assert statistics.median(errors) < 0.10
    assert statistics.quantiles(errors, n=10)[-1] < 0.30


def test_predictions_show_date_and_place():
    note = builtin().gemm("H100", "bf16").note
    assert builtin().measured_at in note
    assert "measurements" in note


def test_this_machine_is_measured_and_read_back(tmp_path):
    path = tmp_path / "calibration.json"
    result = CliRunner().invoke(command, ["--output", str(path)])
    assert result.exit_code == 0, result.output
    stored = read_calibration(path)
    assert stored.machine.chip().peak("fp32") > 1e9
    assert 0 < stored.serving.round_trip_s < 0.1
    assert stored.serving.request_s > 0
    assert stored.host["fp32"].page_fault_s_per_byte > 0
    assert stored.gemm(stored.machine.name, "fp32").parameters.launch_s > 0


@pytest.mark.parametrize("text", ["", "{}", '{"name": 3}'])
def test_a_wrong_file_is_named(tmp_path, text):
    (tmp_path / "wrong.json").write_text(text)
    with pytest.raises(PerformanceError, match=r"wrong\.json"):
        read_calibration(tmp_path / "wrong.json")


def test_an_unknown_engine_names_the_known_ones():
    with pytest.raises(PerformanceError, match="vllm"):
        builtin().decoder("H100", "unheard-of")


def test_an_interval_holds_nine_of_ten_of_every_group():
    groups = ([1 + step / 1000 for step in range(100)], [2 + step / 1000 for step in range(300)])
    interval = fit.envelope(groups)
    for group in groups:
        assert sum(interval.low <= ratio <= interval.high for ratio in group) >= 0.9 * len(group)


def test_chips_without_rows_have_the_wider_interval():
    own, foreign = builtin().gemm("H100", "bf16"), builtin().gemm("B200", "bf16")
    assert foreign.low < own.low
    assert foreign.high > own.high
