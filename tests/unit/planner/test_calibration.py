"""Calibration: errors on rows that were left out stay what the benchmark says, and files are checked."""

import functools
import json
import math
import operator
import statistics

import pytest
import torch
from click.testing import CliRunner

from fusion.commands.calibrate import command
from planner.calibration import fit, measure
from planner.calibration.store import Calibration, builtin, read_calibration
from planner.performance.checks import PerformanceError
from planner.performance.roofline import forward_time
from planner.profiles.model import profile


@pytest.fixture(scope="module")
def known():
    return fit.chips()


@pytest.fixture(scope="module")
def gemms(known):
    return fit.gemm_rows(known)


@pytest.mark.parametrize(
    ("chip", "precision", "median"),
    [
        ("A100-80GB", "bf16", 0.10),
        ("H100", "bf16", 0.10),
        ("L40S", "bf16", 0.10),
        ("B200", "bf16", 0.10),
        ("RTXPRO6000", "bf16", 0.10),
        ("H200", "fp8", 0.10),
        ("L40S", "fp8", 0.13),
        ("GB300", "fp8", 0.10),
        ("B300", "fp4", 0.12),
    ],
)
def test_measured_chips_stay_near_their_rows(gemms, chip, precision, median):
    parameters = builtin().gemm(chip, precision).parameters
    rows = [row for row in gemms if row.chip.name == chip and row.precision == precision]
    errors = [abs(fit.predicted_gemm(row, parameters) / row.seconds - 1) for row in rows]
    assert statistics.median(errors) < median


def test_a_chip_that_is_left_out_is_predicted_by_its_generation_and_stays_in_its_interval(gemms):
    rows = [row for row in gemms if row.precision == "fp8" and row.chip.generation == "hopper"]
    parameters = fit.left_out_gemm(rows, "H200")
    ratios = [row.seconds / fit.predicted_gemm(row, parameters) for row in rows if row.chip.name == "H200"]
    interval = builtin().gemms["fp8"].sibling_ratio
    assert statistics.median(abs(ratio - 1) for ratio in ratios) < 0.10
    assert sum(interval.low <= ratio <= interval.high for ratio in ratios) >= 0.9 * len(ratios)


def test_every_generation_counts_the_same_in_what_unknown_ones_get():
    one, other = (builtin().gemm(name, "fp8").parameters for name in ("L40S", "H200"))
    middle = fit.shared([one, other])
    assert middle.write_cost == pytest.approx(math.sqrt(one.write_cost * other.write_cost))
    assert fit.shared([middle, middle]) == middle


@pytest.fixture(scope="module")
def served(known):
    return [row for row in fit.decoder_rows(known) if row.client != fit.UNKNOWN_CLIENT]


def decoder_errors(known, rows, seconds):
    parameters = {engine: builtin().decoder("H100", engine)[0] for engine in fit.ENGINES}
    products = fit.chip_products(builtin().gemms, known)
    return [abs(seconds(fit.predicted_decoder(row, parameters, products), row) - 1) for row in rows]


def test_time_by_output_token_stays_near_the_rows(known, served):
    errors = decoder_errors(known, served, lambda timing, row: timing.time_per_output_token_s / row.output_token_s)
    assert statistics.median(errors) < 0.10
    assert statistics.quantiles(errors, n=10)[-1] < 0.30


@pytest.mark.parametrize(("model", "engine", "median"), [("qwen3-32b", "vllm", 0.12), ("minimax-m2.5", "vllm", 0.18)])
def test_time_to_first_token_stays_near_the_rows_of_that_source(known, served, model, engine, median):
    rows = [row for row in served if row.config.name == model and row.engine == engine]
    errors = decoder_errors(known, rows, lambda timing, row: timing.time_to_first_token_s / row.first_token_s)
    assert statistics.median(errors) < median


def test_predictions_show_date_and_place():
    note = builtin().gemm("H100", "bf16").note
    assert builtin().measured_at in note
    assert "measurements" in note


def test_this_machine_is_measured_and_read_back(tmp_path):
    path = tmp_path / "calibration.json"
    (tmp_path / "unrelated.json").write_text('{"not": "a calibration"}')
    result = CliRunner().invoke(command, ["--output", str(path)])
    assert result.exit_code == 0, result.output
    assert "note: calibration calibration.json of" in result.stderr
    assert "unrelated" not in result.stderr
    stored = read_calibration(path)
    assert stored.machine.chip().peak("fp32") > 1e9
    assert 0 <= stored.serving.wake_ups_s < 0.1
    assert stored.serving.loop.of_request(4096) >= stored.serving.loop.request_s > 0
    assert stored.gemm(stored.machine.name, "fp32").parameters.launch_s > 0


def test_the_code_that_measures_accelerators_tells_what_it_saw_of_these_processors(monkeypatch):
    monkeypatch.setattr(measure, "GEMM_SHAPES", ((16, 256, 1024), (64, 256, 256)))
    monkeypatch.setattr(measure, "NOT_CACHED_BYTES", 2**21)
    with torch.inference_mode():
        found = measure._chip("cpu", "these", ("fp32",), lambda what: None)
    assert read_back(found).machine.chip().peak("fp32") > 1e8
    assert found.gemm("these", "fp32").low <= 1.01
    assert set(found.class_bandwidth_share) == {"elementwise", "reduction", "normalisation"}
    assert forward_time(found.machine.chip(), profile("fusionnet-8"), "fp32", 8, found).total_s > 0


def read_back(calibration: Calibration) -> Calibration:
    return Calibration.model_validate_json(calibration.model_dump_json())


def test_the_device_that_was_named_is_waited_for_and_no_other(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    assert measure._median_s(lambda: None, "cuda:1", repeats=2) >= 0
    assert set(waited) == {"cuda:1"}


def test_weights_take_turns_until_no_cache_holds_them():
    assert measure._turns(torch.float32, (1, 8192, 8192)) == 1
    assert measure._turns(torch.float32, (1, 1024, 4096)) == 12
    assert measure._turns(torch.float32, (1, 64, 64)) == measure.MOST_TURNS


@pytest.mark.parametrize("device", ["xpu", "cuda:x", "CPU", ""])
def test_a_device_whose_work_would_not_be_waited_for_is_refused(device):
    result = CliRunner().invoke(command, ["--device", device])
    assert f"--device is {device!r}; it must be cpu, cuda or cuda:N" in str(result.exception)


@pytest.mark.parametrize("text", ["", "{}", '{"name": 3}'])
def test_a_wrong_file_is_named(tmp_path, text):
    (tmp_path / "wrong.json").write_text(text)
    with pytest.raises(PerformanceError, match=r"wrong\.json"):
        read_calibration(tmp_path / "wrong.json")


@pytest.mark.parametrize(
    ("place", "lost"),
    [
        (("gemms", "bf16", "shared"), "launch_s"),
        (("gemms", "fp8", "by_generation", "hopper"), "latency_s_per_k"),
        (("decoders", "engines", "vllm"), "copies_time"),
        (("decoders", "ratios"), "sglang"),
    ],
)
def test_a_file_that_lacks_a_constant_is_told_which(tmp_path, place, lost):
    document = json.loads(builtin().model_dump_json())
    functools.reduce(operator.getitem, place, document).pop(lost)
    (tmp_path / "wrong.json").write_text(json.dumps(document))
    with pytest.raises(PerformanceError, match=rf"wrong\.json.*{lost}"):
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
    own, sibling, foreign = (builtin().gemm(name, "bf16") for name in ("H100", "H100-PCIe", "T4"))
    assert foreign.low < sibling.low < own.low
    assert foreign.high > sibling.high > own.high
    assert "other hopper chips" in sibling.note
    assert "other generations" in foreign.note
