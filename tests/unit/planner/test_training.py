"""Training: Young–Daly, bounds that name themselves, and totals that add up."""

import dataclasses
import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.calibration.store import MeasuredOn, MeasuredRun
from planner.performance import Parallelism, PerformanceError, TrainingRun, builtin, predict_training
from planner.performance.collectives import inside_link
from planner.performance.memory import training_memory
from planner.performance.training import checkpointing, optimal_interval_s
from planner.profiles.model import Layer, ModelProfile, profile
from tests.unit.planner.chips import chip

RUN = TrainingRun(profile("resnet-50"), samples=100_000, epochs=2, batch_per_device=64)


def predict(**changes):
    return predict_training(chip("A100-80GB"), dataclasses.replace(RUN, **changes), builtin())


@given(write=st.floats(1, 100), mean=st.floats(5_000, 1e6))
def test_the_interval_is_the_one_that_loses_least(write, mean):
    def stretch(every):
        return mean * math.expm1((every + write) / mean) / every

    best = optimal_interval_s(write, mean)
    assert stretch(best) <= min(stretch(best * 0.8), stretch(best * 1.25))


def test_rare_interruptions_give_youngs_first_order():
    assert optimal_interval_s(10, 1e7) == pytest.approx(math.sqrt(2 * 10 * 1e7), rel=0.01)


def test_no_interruptions_lose_nothing():
    assert checkpointing(60, 300, 0) == (math.inf, 1.0)


def test_spot_interruptions_lengthen_the_run():
    calm, stormy = predict(), predict(interruptions_per_node_hour=0.5, checkpoint_write_s=20)
    assert stormy.total_s.value > calm.total_s.value
    assert 0 < stormy.lost_fraction < 1


def test_slow_storage_is_named_as_the_bound():
    slow = predict(input_bytes_per_sample=150_000, input_bytes_per_s=1e6)
    assert slow.bound_by == "input"
    assert slow.step_s.value == pytest.approx(64 * 150_000 / 1e6)


def test_a_slow_network_is_named_as_the_bound():
    assert predict(parallelism=Parallelism(8, 4), network_bytes_per_s=1e8).bound_by == "network"


def test_more_devices_never_take_longer_on_fast_links():
    totals = [predict(parallelism=Parallelism(devices, 1)).total_s.value for devices in (1, 2, 4, 8)]
    assert totals == sorted(totals, reverse=True)


def test_more_network_never_takes_longer():
    totals = [
        predict(parallelism=Parallelism(8, 2), network_bytes_per_s=rate).step_s.value for rate in (1e9, 1e10, 1e11)
    ]
    assert totals == sorted(totals, reverse=True)


def test_the_interval_holds_the_value_and_the_calibration_is_shown():
    result = predict()
    assert result.step_s.low < result.step_s.value < result.step_s.high
    assert "A100" not in result.calibration and "measured on this chip" in result.calibration
    assert 0 < result.model_flops_utilisation < 1


def test_impossible_topologies_are_refused():
    with pytest.raises(PerformanceError, match="must divide the 8 devices"):
        Parallelism(8, 1, tensor=3)
    with pytest.raises(PerformanceError, match="whose links it needs"):
        Parallelism(2, 4, tensor=4)


ANY = st.floats(allow_nan=True, allow_infinity=True) | st.integers() | st.booleans()


@settings(max_examples=150, deadline=None)
@given(
    field=st.sampled_from(
        [
            "samples",
            "epochs",
            "batch_per_device",
            "network_bytes_per_s",
            "input_bytes_per_sample",
            "input_bytes_per_s",
            "checkpoint_write_s",
            "restart_s",
            "interruptions_per_node_hour",
        ]
    ),
    value=ANY,
)
def test_whatever_number_is_given_the_answer_is_finite_or_one_clear_sentence(field, value):
    try:
        result = predict(**{field: value})
    except PerformanceError as error:
        assert "\n" not in str(error)
    else:
        assert math.isfinite(result.total_s.value)
        assert result.total_s.value > 0


def staged(*flops):
    layers = [
        Layer(name=str(at), operation="gemm", flops=each, read_numbers=1, written_numbers=10 * at, weight_numbers=each)
        for at, each in enumerate(flops, start=1)
    ]
    return ModelProfile(name="x", source="", input_numbers=1, output_numbers=1, parameters=1e6, layers=tuple(layers))


def test_the_slowest_stage_is_as_short_as_the_layers_allow():
    model = staged(3, 1, 1, 1, 3, 3)
    assert [model.stages(count).slowest_share * 12 for count in (1, 2, 3, 4)] == pytest.approx([12, 6, 5, 3])


@given(flops=st.lists(st.integers(1, 50), min_size=1, max_size=9), count=st.integers(1, 5))
def test_no_other_cut_of_the_layers_has_a_shorter_slowest_stage(flops, count):
    cuts = itertools.combinations(range(1, len(flops)), min(count, len(flops)) - 1)
    best = min(max(sum(flops[a:b]) for a, b in itertools.pairwise((0, *cut, len(flops)))) for cut in cuts)
    assert staged(*flops).stages(count).slowest_share * sum(flops) == pytest.approx(best)


def test_a_pipelines_step_has_its_bubble_its_imbalance_and_what_its_stages_send():
    model = staged(*[4e12] * 5)
    run = dataclasses.replace(RUN, profile=model, batch_per_device=8)
    whole, piped = (
        predict_training(chip("A100-80GB"), dataclasses.replace(run, parallelism=shape), builtin())
        for shape in (Parallelism(4, 1, tensor=4), Parallelism(4, 1, pipeline=4, microbatches=8))
    )
    slowest, bubble = 2 / 5 * 4, 3 / 8
    assert piped.compute_s / whole.compute_s == pytest.approx(slowest * (1 + bubble), rel=0.01)
    inside = inside_link(chip("A100-80GB"), 4)
    one_s = inside.latency_s + model.stages(4).sent_numbers * 2 * 8 / 8 / inside.rate
    assert piped.exposed_communication_s == pytest.approx(2 * (8 + 4 - 1) * one_s)


def test_the_stage_with_most_weights_decides_what_fits():
    use = training_memory(staged(6, 1, 1), "bf16", 1, pipeline_parallel=2)
    assert use.weights == pytest.approx(2e6 * 6 / 8)


def test_measured_runs_of_the_same_model_and_precision_correct_the_prediction_and_say_so():
    def row(ratio: float, **changes) -> MeasuredRun:
        on = MeasuredOn(processor="x", processors=1, accelerator="NVIDIA A100-SXM4-80GB", torch="2.9.0")
        known = {"machine": "A100-80GB", "devices": 1, "vcpus": 0, "profile": RUN.profile.name, "precision": "bf16"}
        said = {"step_ratio": ratio, "samples_per_s": 1.0, "measured_at": "2026-11-26T20:00:00+00:00", "place": "here"}
        return MeasuredRun.model_validate(known | said | {"measured_on": on} | changes)

    def predicted(*rows: MeasuredRun):
        return predict_training(chip("A100-80GB"), RUN, builtin().model_copy(update={"runs": rows}))

    usual = predict()
    one = predicted(row(2.0))
    assert one.step_s.value == pytest.approx(2 * usual.step_s.value)
    assert one.total_s.value == pytest.approx(2 * usual.total_s.value)
    assert one.step_s.low < one.step_s.value < one.step_s.high
    assert (one.corrected_by, one.calibration) == (2.0, "run of 2026-11-26T20:00:00+00:00 (here)")
    several = predicted(row(1.0), row(4.0))
    assert several.corrected_by == pytest.approx(2.0)
    assert several.step_s.low < usual.step_s.value and several.step_s.high > 4 * usual.step_s.value
    assert predicted(row(2.0, profile="another"), row(2.0, precision="fp8")) == usual
