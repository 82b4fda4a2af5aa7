"""Numbers of fewer bits, by torchao: 8 bits for weights and activations, 4 for weights, fp8."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from unittest.mock import patch

import torch
from torch import Tensor, nn

from workloads.data.loader import Loader
from workloads.optimization.sparsity import OptimizationError
from workloads.optimization.tuning import Tuning, tune
from workloads.serving.export import BATCH_LIMIT
from workloads.serving.package import Format
from workloads.serving.sources import Trained
from workloads.training.precision import takes_fp8

Quantization = Literal["int8-dynamic", "int8-static", "int8-qat", "int4-weights", "fp8"]

CALIBRATION_ROWS = 512
"""Samples of the training split that ranges of activations are taken from."""
WEIGHTS_A_SCALE = 32
"""Of int4, in a row: the smallest group that the kernels take, and so the most exact."""
INT4_OUTPUTS = 16
"""Of a layer, that int4 kernels of CPUs take at a time (`_convert_weight_to_int4pack_for_cpu`)."""


@dataclass(frozen=True, slots=True)
class Way:
    """One quantization.

    Attributes:
        says: what it does, for people.
        formats: that can hold it.
        apply: makes the quantized module; the given one stays as it is.
    """

    says: str
    formats: tuple[Format, ...]
    apply: Callable[[nn.Module, Trained, Tuning], nn.Module]


def _int8_static(module: nn.Module, trained: Trained, tuning: Tuning) -> nn.Module:
    with _quiet():
        prepared = _prepared(module, trained, is_qat=False)
        with torch.no_grad():
            for inputs in _calibration(trained, tuning.batch_size):
                prepared(inputs)
        return _converted(prepared, is_qat=False)


def _int8_qat(module: nn.Module, trained: Trained, tuning: Tuning) -> nn.Module:
    with _quiet():
        from torchao.quantization.pt2e import allow_exported_model_train_eval

        prepared = _prepared(copy.deepcopy(module).train(), trained, is_qat=True)
        allow_exported_model_train_eval(prepared)
    prepared.train()  # of an exported graph, it returns nothing
    tune(prepared, trained, tuning)
    prepared.eval()
    with _quiet():
        return _converted(prepared, is_qat=True)


def _prepared(module: nn.Module, trained: Trained, *, is_qat: bool) -> torch.fx.GraphModule:
    """The module's graph, with observers where numbers will be rounded."""
    from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e, prepare_qat_pt2e
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )

    quantizer = X86InductorQuantizer()
    quantizer.set_global(get_default_x86_inductor_quantization_config(is_qat=is_qat))
    example = torch.from_numpy(trained.held_out(2))
    batch = torch.export.Dim("batch", min=1, max=BATCH_LIMIT)
    try:
        graph = torch.export.export(copy.deepcopy(module), (example,), dynamic_shapes=({0: batch},)).module()
        prepared: torch.fx.GraphModule = (prepare_qat_pt2e if is_qat else prepare_pt2e)(graph, quantizer)
    except Exception as error:  # the tracer and the quantizer raise whatever they meet
        reason = " ".join(str(error).split())[:200]
        raise OptimizationError(f"--quantize: the model's graph can't be quantized: {reason}") from None
    return prepared


def _converted(prepared: torch.fx.GraphModule, *, is_qat: bool) -> nn.Module:
    """With numbers of 8 bits, and without the fp32 weights that they were made from."""
    from torchao.quantization.pt2e import allow_exported_model_train_eval, quantize_pt2e

    if is_qat and any("conv" in str(node.target) for node in prepared.graph.nodes):
        graph: torch.fx.GraphModule = quantize_pt2e.convert_pt2e(prepared)
    else:
        # Nothing is left to fold into a convolution, and it takes a minute to look for it: 96 patterns are traced.
        with patch.object(quantize_pt2e, "_fold_conv_bn_qat", lambda graph: graph):
            graph = quantize_pt2e.convert_pt2e(prepared)
    allow_exported_model_train_eval(graph)
    used = {node.target for node in graph.graph.nodes if node.op == "get_attr"}
    if not any("quantize_per_tensor" in str(node.target) for node in graph.graph.nodes):
        raise OptimizationError("--quantize: the model has no layer that can be quantized; leave it out")
    for name in {*dict(graph.named_parameters()), *dict(graph.named_buffers())} - used:
        owner, _, leaf = name.rpartition(".")
        delattr(graph.get_submodule(owner), leaf)
    return graph


def _calibration(trained: Trained, batch_size: int) -> Iterator[Tensor]:
    task, rows = trained.task, 0
    for batch in Loader(trained.split("train"), batch_size).epoch(0):
        yield task.inputs_and_targets(batch)[0]
        rows += len(batch.labels)
        if rows >= CALIBRATION_ROWS:
            return


def _int8_dynamic(module: nn.Module, trained: Trained, tuning: Tuning) -> nn.Module:
    with _quiet():
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig

    return _with_linear_layers_as(module, Int8DynamicActivationInt8WeightConfig())


def _int4_weights(module: nn.Module, trained: Trained, tuning: Tuning) -> nn.Module:
    with _quiet():
        from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

    return _with_linear_layers_as(module, PrototypeInt4WeightOnlyConfig(group_size=WEIGHTS_A_SCALE), _takes_int4)


def _fp8(module: nn.Module, trained: Trained, tuning: Tuning) -> nn.Module:
    with _quiet():
        from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, quant_api

    # torchao asks for the chip; PyTorch's products in fp8 run on CPUs too, slowly, and can be judged there.
    with patch.object(quant_api, "_check_hardware_support", lambda granularity: None):
        return _with_linear_layers_as(module, Float8DynamicActivationFloat8WeightConfig(), takes_fp8)


def _takes_int4(layer: nn.Module, _: str = "") -> bool:
    """Whether the CPU's kernel does."""
    return (
        isinstance(layer, nn.Linear)
        and layer.in_features % WEIGHTS_A_SCALE == 0
        and layer.out_features % INT4_OUTPUTS == 0
    )


def _is_linear(layer: nn.Module, _: str = "") -> bool:
    return isinstance(layer, nn.Linear)


def _with_linear_layers_as(
    module: nn.Module, config: Any, takes: Callable[[nn.Module, str], bool] = _is_linear
) -> nn.Module:
    """A copy whose linear layers torchao has quantized."""
    from torchao.quantization import quantize_

    quantized = copy.deepcopy(module)
    if not any(takes(each, "") for each in quantized.modules()):
        raise OptimizationError("--quantize: the model has no linear layer that can be quantized; leave it out")
    with _quiet():
        quantize_(quantized, config, filter_fn=takes)
    return quantized


QUANTIZATIONS: Mapping[Quantization, Way] = {
    "int8-dynamic": Way("linear layers: weights of 8 bits, activations as they come", ("pytorch",), _int8_dynamic),
    "int8-static": Way(
        "convolutions and linear layers: 8 bits, ranges from training data",
        ("pytorch", "onnx", "openvino"),
        _int8_static,
    ),
    "int8-qat": Way("as int8-static, and the model learns with it", ("pytorch", "onnx", "openvino"), _int8_qat),
    "int4-weights": Way("linear layers: weights of 4 bits", ("pytorch",), _int4_weights),
    "fp8": Way("linear layers: weights and activations in fp8", ("pytorch",), _fp8),
}


@contextmanager
def _quiet() -> Iterator[None]:
    """torchao warns of its own plans for the future."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
