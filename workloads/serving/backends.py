"""The runtimes that can serve a package: each opens one of its formats and maps a batch to a batch.

A backend is chosen by measuring (`choosing.py`). One whose package is not installed, or whose format the package has
not, is left out.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from workloads.serving.package import Array, Format, Package

Forward = Callable[[Sequence[Array]], list[Array]]
"""The package's inputs, (batch, *shape) each, to its outputs; only called from one thread at a time."""
Device = Literal["cpu", "cuda"]
Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, slots=True)
class Backend:
    """One runtime."""

    name: str
    format: Format
    module: str
    """What must be installed."""
    load: Callable[[Package, Runtime], Forward]
    devices: tuple[Device, ...] = ("cpu",)
    precisions: tuple[Precision, ...] = ("fp32",)
    is_tried: bool = True
    """By default; one that compiles for minutes whenever a server starts is tried only where it is named."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a model runs on."""

    threads: int
    device: Device = "cpu"
    precision: Precision = "fp32"


def candidates(package: Package, runtime: Runtime, named: Sequence[str] = ()) -> list[Backend]:
    """The backends that can open the package here; those that are named, or all that are tried by default."""
    return [
        each
        for each in BACKENDS.values()
        if (each.name in named if named else each.is_tried)
        and runtime.device in each.devices
        and runtime.precision in each.precisions
        and (artifact := package.artifact(each.format)) is not None
        and (artifact.format != "aotinductor" or artifact.device == runtime.device)
        and all(importlib.util.find_spec(module) is not None for module in (each.module, *artifact.needs))
    ]


def _eager(package: Package, runtime: Runtime) -> Forward:
    return _torch_forward(_program(package, runtime), runtime)


def _channels_last(package: Package, runtime: Runtime) -> Forward:
    """Convolutions of CPUs and of tensor cores are faster on images whose channels lie together."""
    import torch

    module = _program(package, runtime)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return _torch_forward(module, runtime, memory_format=torch.channels_last)


def _compiled(package: Package, runtime: Runtime) -> Forward:
    import torch

    return _torch_forward(torch.compile(_program(package, runtime), dynamic=True), runtime)


def _program(package: Package, runtime: Runtime) -> Any:
    import torch

    artifact = package.artifact("pytorch")
    assert artifact is not None
    for module in artifact.needs:
        importlib.import_module(module)
    return torch.export.load(package.path(artifact)).module().to(runtime.device)


def _aotinductor(package: Package, runtime: Runtime) -> Forward:
    import torch

    artifact = package.artifact("aotinductor")
    assert artifact is not None
    compiled = torch._inductor.aoti_load_package(str(package.path(artifact)))
    return _torch_forward(compiled, runtime)


def _torch_forward(module: Any, runtime: Runtime, memory_format: Any = None) -> Forward:
    import torch

    torch.set_num_threads(runtime.threads)
    reduced = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(runtime.precision)

    def forward(inputs: Sequence[Array]) -> list[Array]:
        tensors = [torch.from_numpy(each).to(runtime.device, non_blocking=True) for each in inputs]
        if memory_format is not None:
            tensors = [each.contiguous(memory_format=memory_format) if each.dim() == 4 else each for each in tensors]
        with torch.inference_mode(), torch.autocast(runtime.device, dtype=reduced, enabled=reduced is not None):
            outputs = module(*tensors)
        outputs = outputs if isinstance(outputs, tuple | list) else (outputs,)
        return [_to_numpy(each) for each in outputs]

    def _to_numpy(tensor: Any) -> Array:
        tensor = tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
        array: Array = tensor.contiguous().cpu().numpy()
        return array

    return forward


def _onnxruntime(package: Package, runtime: Runtime) -> Forward:
    import onnxruntime

    artifact = package.artifact("onnx")
    assert artifact is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = runtime.threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the server needs the core, too
    session = onnxruntime.InferenceSession(str(package.path(artifact)), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in package.manifest.inputs]

    def forward(inputs: Sequence[Array]) -> list[Array]:
        outputs: list[Array] = session.run(None, dict(zip(names, inputs, strict=True)))
        return outputs

    return forward


def _openvino(package: Package, runtime: Runtime) -> Forward:
    import openvino

    artifact = package.artifact("openvino")
    assert artifact is not None
    settings = {
        "INFERENCE_NUM_THREADS": runtime.threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[runtime.precision],
    }
    compiled = openvino.Core().compile_model(str(package.path(artifact)), "CPU", settings)
    request = compiled.create_infer_request()
    ports = range(len(package.manifest.outputs))

    def forward(inputs: Sequence[Array]) -> list[Array]:
        request.infer(list(inputs), share_inputs=True)
        return [np.array(request.get_output_tensor(port).data) for port in ports]

    return forward


def _xla(package: Package, runtime: Runtime) -> Forward:
    """XLA compiles for each number of rows, so batches are filled up to the next power of two."""
    # How XLA takes the number of its threads; what runs first in a process decides it.
    several, threads = str(runtime.threads > 1).lower(), runtime.threads
    flags = f"--xla_cpu_multi_thread_eigen={several} intra_op_parallelism_threads={threads}"
    os.environ.setdefault("XLA_FLAGS", flags)
    import jax
    from jax import export

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    artifact = package.artifact("stablehlo")
    assert artifact is not None
    program = jax.jit(export.deserialize(bytearray(package.path(artifact).read_bytes())).call)

    def forward(inputs: Sequence[Array]) -> list[Array]:
        rows = len(inputs[0])
        more = 2 ** (rows - 1).bit_length() - rows
        filled = [np.concatenate([each, np.repeat(each[-1:], more, axis=0)]) if more else each for each in inputs]
        outputs = program(*filled)
        outputs = outputs if isinstance(outputs, tuple | list) else (outputs,)
        return [np.array(each)[:rows] for each in outputs]

    return forward


_TORCH: Mapping[str, Any] = {"devices": ("cpu", "cuda"), "precisions": ("fp32", "bf16", "fp16")}
BACKENDS: Mapping[str, Backend] = {
    each.name: each
    for each in (
        Backend("onnxruntime", "onnx", "onnxruntime", _onnxruntime),
        Backend("openvino", "openvino", "openvino", _openvino, precisions=("fp32", "bf16")),
        Backend("xla", "stablehlo", "jax", _xla),
        Backend("aotinductor", "aotinductor", "torch", _aotinductor, devices=("cpu", "cuda")),
        Backend("channels_last", "pytorch", "torch", _channels_last, **_TORCH),
        Backend("eager", "pytorch", "torch", _eager, **_TORCH),
        Backend("compiled", "pytorch", "torch", _compiled, is_tried=False, **_TORCH),
    )
}
