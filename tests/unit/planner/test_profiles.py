"""Profiles: what is published of each model, any module traced without its weights, wrong files refused."""

import pytest
import torch
from torch import nn

from planner.performance.checks import PerformanceError
from planner.profiles.model import profile, read_profile, shipped
from planner.profiles.trace import trace


@pytest.mark.parametrize(
    ("name", "gigaflops", "millions"),
    [
        ("resnet-50", 8.2, 25.56),
        ("vit-b-16", 35.1, 86.57),
        ("bert-base-128", 22.3, 109.48),
        ("fusionnet-32", 0.012, 4.2),
    ],
)
def test_shipped_profiles_have_the_published_counts(name, gigaflops, millions):
    assert profile(name).flops / 1e9 == pytest.approx(gigaflops, rel=0.02)
    assert profile(name).parameters / 1e6 == pytest.approx(millions, rel=0.01)


def test_a_traced_module_counts_its_products_weights_and_kept_activations():
    net = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
    traced = trace(net, lambda batch: [torch.empty(batch, 128)], name="net", source="test")
    first = next(layer for layer in traced.layers if layer.operation == "gemm")
    assert traced.flops == 2 * (128 * 64 + 64 * 10)
    assert traced.parameters == 128 * 64 + 64 + 64 * 10 + 10
    assert first.weight_numbers == 128 * 64 + 64
    assert (first.product.m, first.product.n, first.product.k) == (1, 64, 128)
    assert traced.activation_numbers >= 64


def test_a_profile_survives_its_file(tmp_path):
    profile("resnet-50").write(tmp_path / "p.json")
    assert read_profile(tmp_path / "p.json") == profile("resnet-50")


def test_a_module_that_reads_values_is_refused_in_one_sentence():
    class Reads(nn.Module):
        def forward(self, x):
            return x * x.sum().item()

    with pytest.raises(PerformanceError, match="can't be traced without data"):
        trace(Reads(), lambda batch: [torch.empty(batch, 2)], name="reads", source="test")


@pytest.mark.parametrize("text", ["{}", "[", '{"name": "x", "layers": []}', '{"name": "x", "surprise": 1}'])
def test_a_wrong_file_names_the_file_and_the_field(tmp_path, text):
    (tmp_path / "wrong.json").write_text(text)
    with pytest.raises(PerformanceError, match=r"wrong\.json"):
        read_profile(tmp_path / "wrong.json")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(PerformanceError, match="resnet-50"):
        profile("resnet-51")


def test_profiles_ship_for_the_models_that_are_promised():
    assert {"fusionnet-8", "fusionnet-32", "resnet-50", "vit-b-16", "bert-base-128"} <= set(shipped())
