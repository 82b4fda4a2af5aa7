"""Time on one chip: monotone in work and in the chip, bounded by its peaks, honest about what was measured."""

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.catalog import load
from planner.goals import quick_pass_s
from planner.machines import chips_of
from planner.performance import Chip, PerformanceError, builtin
from planner.performance.gemm import gemm_time
from planner.performance.roofline import forward_time
from planner.profiles.model import profile, shipped
from tests.unit.planner.chips import chip

SIZES = st.integers(1, 20_000)


@settings(max_examples=100, deadline=None)
@given(m=SIZES, n=SIZES, k=SIZES, name=st.sampled_from(["A100-80GB", "H100", "L40S", "T4", "B200"]))
def test_no_product_is_faster_than_the_peak_or_the_memory_allow(m, n, k, name):
    on, precision = chip(name), "fp16"
    parameters = builtin().gemm(name, precision).parameters
    seconds = gemm_time(on, precision, m, n, k, parameters).total_s
    assert seconds >= 2.0 * m * n * k / on.peak(precision)
    assert seconds >= 2.0 * n * k / max(on.memory_bandwidth_bytes_per_s, on.l2_bandwidth_bytes_per_s)


@settings(max_examples=60, deadline=None)
@given(m=SIZES, n=SIZES, k=st.integers(64, 20_000), factor=st.floats(1, 8))
def test_more_bandwidth_never_takes_longer(m, n, k, factor):
    slow = chip("H100")
    fast = dataclasses.replace(slow, memory_bandwidth_bytes_per_s=slow.memory_bandwidth_bytes_per_s * factor)
    parameters = builtin().gemm("H100", "bf16").parameters
    assert gemm_time(fast, "bf16", m, n, k, parameters).total_s <= gemm_time(
        slow, "bf16", m, n, k, parameters
    ).total_s * (1 + 1e-9)


@pytest.mark.parametrize("model", sorted(shipped()))
def test_larger_batches_take_longer_but_less_by_sample(model):
    times = [
        forward_time(chip("A100-80GB"), profile(model), "bf16", batch, builtin()).total_s for batch in (1, 4, 16, 64)
    ]
    assert times == sorted(times)
    by_sample = [seconds / batch for seconds, batch in zip(times, (1, 4, 16, 64), strict=True)]
    assert by_sample == sorted(by_sample, reverse=True)


def test_every_accelerator_of_the_catalog_is_predicted_or_refused_in_one_sentence():
    predicted = 0
    for name, accelerator in load().accelerators.items():
        try:
            on = Chip.from_accelerator(accelerator)
            precision = next(p for p in ("bf16", "fp16", "fp32", "int8") if p in on.peak_flops)
            assert forward_time(on, profile("resnet-50"), precision, 8, builtin()).total_s > 0
            predicted += 1
        except PerformanceError as error:
            assert name in str(error)
    assert predicted >= 20


def test_a_chip_without_rows_says_so_and_gets_a_wider_interval():
    own, foreign = builtin().gemm("H100", "bf16"), builtin().gemm("T4", "bf16")
    assert "measured on this chip" in own.note
    assert "transferred" in foreign.note
    assert foreign.high / foreign.low > own.high / own.low


def test_an_unknown_precision_names_those_that_there_are():
    with pytest.raises(PerformanceError, match="bf16"):
        forward_time(chip("H100"), profile("resnet-50"), "fp13", 1, builtin())


def test_weights_that_stay_in_the_cache_are_read_faster():
    on, parameters = chip("L40S"), builtin().gemm("L40S", "bf16").parameters
    warm, cold = (
        gemm_time(on, "bf16", 8, 4096, 1024, parameters, weight_copies=copies).total_s for copies in (1.0, math.inf)
    )
    assert warm < cold


def test_products_in_8_bits_pay_for_rounding_every_row():
    on, parameters = chip("H100"), builtin().gemm("H100", "fp8").parameters
    free = dataclasses.replace(parameters, quantise_row_s=0.0, quantise_s_per_k=0.0, quantise_bandwidth=1e9)
    rows = 16_384
    with_rounding, without = (gemm_time(on, "fp8", rows, 32, 128, p).total_s for p in (parameters, free))
    assert with_rounding - without > 0.5 * rows * parameters.quantise_row_s


@given(
    st.sampled_from(sorted(shipped())), st.sampled_from(["fp32", "bf16", "fp16", "int8", "fp8"]), st.integers(1, 4096)
)
@settings(deadline=None, max_examples=40)
def test_the_quick_bound_that_a_search_prunes_by_is_below_the_pass_on_every_chip(model, precision, batch):
    for each in chips_of(load().accelerators).values():
        try:
            pass_s = forward_time(each, profile(model), precision, batch, builtin()).total_s
        except PerformanceError:
            continue
        assert 0 < quick_pass_s(each, profile(model), precision, batch, builtin()) <= pass_s
