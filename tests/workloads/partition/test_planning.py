"""A plan has the ways worth having, with what each loses on held-out data; a profile is of the model that it is for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from planner.calibration.store import builtin
from planner.catalog import load
from planner.performance.chip import Chip
from planner.performance.link import Link
from tests.workloads.partition.conftest import SCALE, Split, of_this_machine
from tests.workloads.partition.test_layers import traced
from workloads.config import ConfigError
from workloads.models.fusionnet import FusionNet
from workloads.models.resnet import ResNet50
from workloads.partition import codings, devices
from workloads.partition.plan import Watts, estimates, ranked, read_plan
from workloads.partition.planning import Settings, make_plan
from workloads.serving.export import Source
from workloads.serving.package import Array


def test_the_plan_in_the_folder_is_the_one_that_was_made(split: Split) -> None:
    assert read_plan(split.url) == split.plan
    kinds = [way.kind for way in split.plan.ways]
    assert kinds.count("edge") == 1 and kinds.count("split") == 2
    assert {way.coding for way in split.plan.ways if way.kind == "cloud"} == {"pixels", "png", "jpeg"}


def test_loss_is_of_accuracy_on_labels_that_the_model_has_not_seen(split: Split) -> None:
    plan = split.plan
    assert (plan.judged_by, plan.held_out_rows) == ("labels", 200)
    right = (split.wanted.argmax(1) == split.labels).mean()
    assert right > 0.8
    assert all(0 <= way.loss <= plan.loss_max for way in plan.ways)
    assert all(way.loss == 0 for way in plan.ways if way.coding in ("pixels", "png"))


def test_a_coding_that_loses_too_much_is_left_out_and_said(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 1, 16, 16)) / np.float32(SCALE)
    torch.manual_seed(0)
    untrained = FusionNet(shape=(1, 16, 16), classes=10).eval()
    source = Source(untrained, {"image": noise.astype(np.float32)}, scale=SCALE)
    made = make_plan(
        source, f"file://{tmp_path}/p", of_this_machine(9), of_this_machine(1), Settings("n", "1", loss_max=0.0)
    )
    assert made.judged_by == "the whole model's answers"
    assert any(each.startswith("cloud/jpeg: loses 0.") for each in made.left_out), made.ways
    assert "jpeg" not in {way.coding for way in made.ways}


def test_a_slow_link_and_a_fast_one_have_other_best_ways(split: Split) -> None:
    ways = split.plan.ways
    assert ranked(estimates(ways, Link(1e9, 1e-5)), None)[0].way.kind != "edge"
    assert ranked(estimates(ways, Link(1e9, 10.0)), None)[0].way.kind == "edge"


def test_least_energy_sends_where_waiting_is_cheap_and_computing_dear(split: Split) -> None:
    link = Link(1e6, 0.05)
    assert ranked(estimates(split.plan.ways, link), Watts(compute=1e6, idle=0, send=0))[0].way.kind == "cloud"
    assert ranked(estimates(split.plan.ways, link), Watts(compute=1, idle=1, send=1e6))[0].way.kind == "edge"


@settings(deadline=None)
@given(arrays(np.float32, (2, 3, 4), elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False)))
def test_eight_bits_are_wrong_by_half_a_step_at_most(tensor: Array) -> None:
    numbers, ranges = codings.coded("int8", [tensor], 1.0)
    (decoder,) = codings.decoders("int8", [True], 1.0)
    assert decoder.function is not None
    found = decoder.function(torch.from_numpy(numbers), torch.from_numpy(ranges)).numpy()
    reach = np.ptp(tensor.reshape(2, -1), axis=1)[:, None, None]
    assert (np.abs(found - tensor) <= reach / 255 / 2 * 1.01 + np.abs(tensor).max() * 1e-6).all()


@given(arrays(np.uint8, (1, 3, 4, 5)))
def test_pixels_and_png_give_the_pixels_back(pixels: Array) -> None:
    images = pixels / np.float32(255)
    for coding in ("pixels", "png"):
        (found,) = codings.coded(coding, [images], 255.0)
        np.testing.assert_array_equal(found, pixels)


def test_the_roofline_gives_every_layer_of_a_chip_that_is_not_here_its_time() -> None:
    layers = traced(ResNet50(shape=(3, 32, 32), classes=10), (3, 32, 32))
    chip = Chip.from_accelerator(load().accelerators["H100"])
    profile = devices.predicted(layers, [torch.rand(1, 3, 32, 32)], chip, "fp16", builtin())
    assert profile.source == "roofline" and profile.seconds[0] == 0
    assert all(0 < each < 1e-3 for each in profile.seconds[1:])


def test_a_profile_of_another_model_is_refused(split: Split) -> None:
    other = traced(FusionNet(shape=(1, 8, 8), classes=10), (1, 8, 8))
    with pytest.raises(ConfigError, match="is of another model"):
        split.plan.edge.model_copy(update={"layers": ("a", "b")}).fits(other)
