"""A traced model comes apart into layers, and any cut of it gives the same answers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from workloads.models.fusionnet import FusionNet
from workloads.models.resnet import ResNet50
from workloads.partition.layers import Layers, layers_of


def traced(module: nn.Module, shape: tuple[int, ...]) -> Layers:
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(module.eval(), (torch.rand(2, *shape),), dynamic_shapes=({0: batch},))
    return layers_of(program)


class Branches(nn.Module):
    """Two branches, an operation with two outputs, and a reshaping that needs the batch's size."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1), nn.Linear(128, 4)

    def forward(self, images: Tensor) -> Tensor:
        first, second = torch.chunk(torch.relu(self.left(images)), 2, dim=1)
        both = torch.cat([first * second, self.right(images)[:, :4]], dim=1)
        return self.last(both.reshape(images.shape[0], -1))


@pytest.fixture(scope="module", params=["fusionnet", "resnet-50", "branches"])
def model(request: pytest.FixtureRequest) -> tuple[nn.Module, tuple[int, ...], Layers]:
    torch.manual_seed(0)
    made: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
        "fusionnet": (FusionNet(shape=(1, 8, 8), classes=10), (1, 8, 8)),
        "resnet-50": (ResNet50(shape=(3, 32, 32), classes=10), (3, 32, 32)),
        "branches": (Branches(), (3, 4, 4)),
    }
    module, shape = made[request.param]
    return module.eval(), shape, traced(module, shape)


def test_both_parts_of_any_prefix_together_answer_as_the_whole_model(
    model: tuple[nn.Module, tuple[int, ...], Layers],
) -> None:
    module, shape, layers = model
    count = len(layers.graph.names)
    images = torch.rand(3, *shape)
    with torch.no_grad():
        wanted = module(images)
        for size in sorted({1, 2, count // 3, count // 2, count - 1}):
            on_edge = frozenset(range(size))
            sent = layers.graph.sent(on_edge)
            edge = layers.part(on_edge, [0], sent)
            cloud = layers.part(set(range(count)) - on_edge, sent, layers.graph.results)
            between = edge(images)
            found = cloud(*(between if isinstance(between, tuple) else (between,)))
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_an_activation_a_norm_and_a_pooling_belong_to_the_layer_before_them() -> None:
    names = traced(FusionNet(shape=(1, 8, 8), classes=10), (1, 8, 8)).graph
    assert names.names == ("images", "features.0", "classifier.1", "classifier.4")
    assert names.output_bytes == (256.0, 64 * 4 * 4 * 4.0, 1024.0, 40.0)


def test_a_shortcut_crosses_the_cut_beside_the_block_that_it_skips() -> None:
    layers = traced(ResNet50(shape=(3, 32, 32), classes=10), (3, 32, 32))
    inside = layers.graph.names.index("layer1.1.conv2")
    assert len(layers.graph.sent(frozenset(range(inside)))) == 2
    behind = layers.graph.names.index("layer1.2.conv1")
    assert len(layers.graph.sent(frozenset(range(behind)))) == 1
