"""Training: Young–Daly, bounds that name themselves, and totals that add up."""

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.performance import Parallelism, PerformanceError, TrainingRun, builtin, predict_training
from planner.performance.training import checkpointing, optimal_interval_s
from planner.profiles.model import profile
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
