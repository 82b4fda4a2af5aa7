"""Profiles: what is published of each model, any module traced without its weights, wrong files refused."""

import contextlib
import copy
import math
import warnings

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from planner.performance.checks import PerformanceError
from planner.profiles.model import profile, read_profile, shipped
from planner.profiles.trace import trace
from tests.unit.planner.modules import CASES, Case

FORMULA_OF_OURS = ("lstm", "gru", "einsum", "bilinear")
"""PyTorch's counter misses mkldnn's fused cells, products with a vector, and bilinear ones."""


@pytest.mark.parametrize(
    ("name", "gigaflops", "millions"),
    [
        # torchvision's table of models: 4.09 GMACs, 25.557 M
        ("resnet-50", 2 * 4.09, 25.557),
        # the same table: 17.56 GMACs, 86.568 M
        ("vit-b-16", 2 * 17.56, 86.568),
        # 110 M (Devlin et al.); 2 · 128 tokens · 84.93 M weights of the blocks + 12 · 4 · 128² · 768 of attention + pooler
        ("bert-base-128", 22.348, 109.482),
        ("fusionnet-32", 0.0119, 4.199),
    ],
)
def test_shipped_profiles_have_the_published_counts(name, gigaflops, millions):
    assert profile(name).flops / 1e9 == pytest.approx(gigaflops, rel=0.005)
    assert profile(name).parameters / 1e6 == pytest.approx(millions, rel=0.0005)


def traced(case: Case):
    return trace(case.make(), case.inputs, name=case.name, source="test")


def real_run(case: Case, batch: int):
    """Counted FLOPs and the bytes that autograd saves, of a run with data on the CPU."""
    torch.manual_seed(0)
    module, given = case.make(), case.inputs(batch)
    fixed = {each.untyped_storage()._cdata for each in (*module.parameters(), *module.buffers())}
    saved: dict[int, tuple[int, torch.Tensor]] = {}

    def keep(tensor):
        if tensor.untyped_storage()._cdata not in fixed:
            saved[tensor.untyped_storage()._cdata] = (tensor.untyped_storage().nbytes(), tensor)
        return tensor

    counter = FlopCounterMode(display=False)
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore")
        stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept))
        stack.enter_context(counter)
        module(**given) if isinstance(given, dict) else module(*given)
    return counter.get_total_flops(), sum(size for size, _ in saved.values())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_flops_are_those_of_a_count_by_hand(case):
    assert traced(case).flops == pytest.approx(case.flops, rel=1e-9)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name not in FORMULA_OF_OURS], ids=lambda case: case.name
)
def test_flops_are_those_of_pytorchs_counter_on_a_run_with_data(case):
    assert 4 * traced(case).flops == pytest.approx(real_run(case, 4)[0], rel=1e-9)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_parameters_are_exact_and_tied_ones_count_once(case):
    assert traced(case).parameters == sum(each.numel() for each in case.make().parameters())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_activations_are_the_bytes_that_autograd_saves_for_another_sample(case):
    grown = real_run(case, 7)[1] - real_run(case, 3)[1]
    assert 4 * traced(case).activation_bytes(4) == pytest.approx(grown, rel=1e-6)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_product_has_the_flops_of_its_layer(case):
    products = [layer for layer in traced(case).layers if layer.product is not None]
    for layer in products:
        product = layer.product
        assert 2 * product.m * product.n * product.k * product.count == pytest.approx(layer.flops)
    assert math.fsum(layer.flops for layer in products) > 0 or case.name in ("einsum", "bilinear")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_tracing_leaves_the_module_as_it_was(case):
    module = case.make()
    before, mode = copy.deepcopy(module.state_dict()), module.training
    trace(module, case.inputs, name="x", source="test")
    assert module.training == mode
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(each.device.type == "cpu" for each in module.parameters())


def test_what_does_not_grow_with_the_batch_is_counted_once_by_pass():
    class Biased(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x):
            return self.layer(x) + torch.arange(8.0) * torch.arange(8.0)

    layers = trace(Biased(), lambda batch: [torch.randn(batch, 8)], name="b", source="test").layers
    add = next(layer for layer in layers if layer.name.endswith("add"))
    assert (add.read_numbers, add.written_numbers, add.weight_numbers) == (8, 8, 8)


def test_in_place_operations_move_their_numbers_too():
    def moved(inplace):
        net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=inplace))
        return trace(net, lambda batch: [torch.randn(batch, 3, 8, 8)], name="x", source="test").bytes_moved(1)

    assert moved(True) == moved(False)


def test_dropout_is_one_operation_that_keeps_a_mask_of_bytes():
    net = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.1))
    layers = trace(net, lambda batch: [torch.randn(batch, 8)], name="x", source="test").layers
    (dropout,) = [layer for layer in layers if "dropout" in layer.name]
    assert (dropout.kept_numbers, dropout.kept_bytes) == (0, 16)
    calm = trace(net.eval(), lambda batch: [torch.randn(batch, 8)], name="x", source="test").layers
    assert not any("dropout" in layer.name for layer in calm)


def test_attention_is_one_operation_that_keeps_no_matrix_of_scores():
    (case,) = [case for case in CASES if case.name == "attention"]
    attention = [layer for layer in traced(case).layers if layer.operation == "attention"]
    assert len(attention) == 1
    assert attention[0].flops == 2 * 2 * 16 * 16 * 32


def test_layers_are_named_by_the_module_that_runs_them():
    net = nn.ModuleDict({"body": nn.Sequential(nn.Linear(2, 3), nn.ReLU())})
    net.forward = lambda x: net["body"](x)
    names = [layer.name for layer in trace(net, lambda batch: [torch.randn(batch, 2)], name="x", source="test").layers]
    assert names == ["0:body.0:addmm", "1:body.1:relu"]


def test_a_module_too_large_for_this_machine_is_traced():
    with torch.device("meta"):
        net = nn.Sequential(*(nn.Linear(65_536, 65_536, bias=False) for _ in range(16)))
    assert trace(net, lambda batch: [torch.randn(batch, 65_536)], name="x", source="t").parameters == 16 * 65_536**2


def test_a_module_that_reads_values_says_that_it_was_run_with_made_up_data():
    (case,) = [case for case in CASES if case.name == "reads-values"]
    assert "made-up data" in traced(case).source


@pytest.mark.parametrize(
    ("module", "inputs", "said"),
    [
        (nn.Linear(3, 4), lambda batch: [torch.randn(batch, 5)], "mat1 and mat2"),
        (nn.Linear(3, 4), lambda batch: [torch.randn(batch, 3), torch.randn(batch)], "takes 2 positional arguments"),
        (nn.Embedding(4, 4), lambda batch: [torch.randn(batch, 3)], "scalar types"),
        (nn.ReLU(), lambda batch: [torch.randn(batch, 3)], "nothing to predict"),
        (nn.Module(), lambda batch: [torch.randn(batch, 3)], "forward"),
    ],
)
def test_what_can_not_be_traced_is_one_sentence(module, inputs, said):
    with pytest.raises(PerformanceError, match=r"^[^\n]*$") as refused:
        trace(module, inputs, name="net", source="test")
    assert said in str(refused.value) and str(refused.value).startswith("net ")


def test_a_profile_survives_its_file(tmp_path):
    profile("resnet-50").write(tmp_path / "p.json")
    assert read_profile(tmp_path / "p.json") == profile("resnet-50")


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
