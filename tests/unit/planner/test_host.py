"""A machine's own processors: costs are read from curves."""

import pytest
from pydantic import ValidationError

from planner.calibration.store import Calibration, MeasuredChip
from planner.performance import PerformanceError, builtin
from planner.performance.host import Curve, HostCosts, host_time, lone_convolution
from planner.performance.roofline import forward_time
from planner.profiles.model import profile


def flat(cost: float) -> Curve:
    return Curve(at=(1.0,), cost=(cost,))


COSTS = HostCosts(
    threads=1,
    launch_s={"elementwise": 1e-6, "gemm": 2e-6, "conv": 3e-6, "lone conv": 1e-6},
    pass_s=1e-6,
    row_s_per_byte=flat(1e-10),
    packing_s_per_byte=flat(1e-10),
    aligned_packing_s_per_byte=flat(2e-10),
    product_flops=flat(1e11),
    attention_flops=5e10,
    convolution_flops=flat(1e11),
    lone_convolution_flops=flat(5e10),
    convolution_s_per_weight_byte=1e-10,
    move_s_per_byte={"elementwise": flat(1e-11), "reduction": flat(1e-9)},
)


def test_a_curve_is_straight_between_its_points_and_constant_beyond():
    curve = Curve(at=(1, 100), cost=(1, 10_000))
    assert curve(10) == pytest.approx(100)
    assert (curve(0.1), curve(1e6)) == (1, 10_000)


@pytest.mark.parametrize("model", ["fusionnet-8", "fusionnet-32", "resnet-50", "vit-b-16", "bert-base-128"])
def test_larger_batches_take_longer_but_less_than_as_many_single_ones(model):
    times = [host_time(COSTS, profile(model), "fp32", batch).total_s for batch in (2, 4, 16, 64)]
    assert times == sorted(times)
    assert times[-1] < 32 * times[0]


def test_one_small_image_goes_to_pytorchs_own_convolution():
    assert lone_convolution(1, 3 * 32 * 32, 3)
    assert not lone_convolution(2, 3 * 32 * 32, 3)
    assert not lone_convolution(1, 64 * 32 * 32, 3)


def calibration() -> Calibration:
    machine = MeasuredChip(name="here", peak_flops={"fp32": 1e11}, memory_bandwidth_bytes_per_s=1e10, memory_bytes=1e10)
    return builtin().model_copy(update={"name": "own", "machine": machine, "host": {"fp32": COSTS}})


def test_a_machine_that_was_measured_is_predicted_from_its_costs_and_others_are_not():
    own = calibration()
    here, net = own.machine.chip(), profile("fusionnet-8")
    assert forward_time(here, net, "fp32", 4, own).total_s == host_time(COSTS, net, "fp32", 4).total_s


def test_a_precision_that_was_not_measured_names_those_that_were():
    own = calibration()
    with pytest.raises(PerformanceError, match="did not measure; it has fp32"):
        forward_time(own.machine.chip(), profile("fusionnet-8"), "bf16", 4, own)


@pytest.mark.parametrize("wrong", [float("nan"), -1.0, 0.0, float("inf")])
def test_a_curve_refuses_what_is_no_cost(wrong):
    with pytest.raises(ValidationError):
        Curve(at=(1,), cost=(wrong,))
