"""Which arithmetic a run uses: autocast, FSDP's policy, fp8 layers, and the scaling that fp16's gradients need."""

from __future__ import annotations

import contextlib

import torch
from torch import nn, optim
from torch.distributed.fsdp import MixedPrecisionPolicy

from workloads.config import ConfigError
from workloads.training.config import TrainingConfig
from workloads.training.world import World, WorldError

FP8_CAPABILITY = (8, 9)
"""The CUDA compute capability from which matrix units take fp8: Ada, then Hopper and Blackwell."""
FP8_MULTIPLE = 16
"""Both sides of a matrix must be multiples of it (cuBLASLt's fp8 kernels)."""
SCALE_AT_FIRST = 2.0**16


def set_numerics(config: TrainingConfig) -> None:
    """How exact and how repeatable the arithmetic is."""
    torch.use_deterministic_algorithms(config.deterministic)
    torch.set_float32_matmul_precision("high" if config.precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = config.precision == "tf32"
    torch.backends.cudnn.benchmark = not config.deterministic


def half(config: TrainingConfig) -> torch.dtype | None:
    """The 16-bit type that layers compute in; None where they compute in fp32. Around fp8 matrices it is bf16."""
    return {"bf16": torch.bfloat16, "fp8": torch.bfloat16, "fp16": torch.float16}.get(config.precision)


def autocast(config: TrainingConfig, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """What a forward pass runs in; FSDP has its own policy."""
    dtype = half(config)
    if dtype is None or config.parallel.strategy == "fsdp":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def fsdp_policy(config: TrainingConfig) -> MixedPrecisionPolicy:
    """Weights are gathered in 16 bits where the precision has them; gradients are always summed in fp32."""
    dtype = half(config)
    return MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32 if dtype else None)


def use_fp8(model: nn.Module, world: World) -> None:
    """Let the large linear layers compute in fp8 (torchao, scaled by tensor, forward and backward).

    Raises:
        WorldError: the chip has no fp8.
        ConfigError: torchao is not installed.
    """
    capable = world.device.type == "cuda" and torch.cuda.get_device_capability(world.device) >= FP8_CAPABILITY
    if not capable:
        raise WorldError(
            f"precision: got fp8; this is {world.device_name}, and fp8 needs a CUDA chip of Ada, Hopper or newer; "
            "expected bf16"
        )
    try:
        from torchao.float8 import convert_to_float8_training
    except ImportError:
        raise ConfigError("precision: got fp8, which needs the package torchao; install it or choose bf16") from None
    convert_to_float8_training(model, module_filter_fn=takes_fp8)


def takes_fp8(module: nn.Module, name: str) -> bool:
    """True for the linear layers that fp8 kernels fit, except the last one: logits need more than 8 bits."""
    fits = isinstance(module, nn.Linear) and not (
        module.in_features % FP8_MULTIPLE or module.out_features % FP8_MULTIPLE
    )
    return fits and not name.endswith("head")


class LossScale:
    """Keeps fp16's small gradients from vanishing: the loss is multiplied before, the gradients divided after.

    The scale is part of the run: it lies in the optimizer's first group, so that checkpoints hold it and a resumed run
    goes on with the same bits.
    """

    def __init__(self, config: TrainingConfig, device: torch.device, optimizer: optim.Optimizer) -> None:
        self.group = optimizer.param_groups[0]
        self.group.update(loss_scale=SCALE_AT_FIRST, loss_scale_good_steps=0)
        self.scaler = torch.amp.GradScaler(device.type, init_scale=SCALE_AT_FIRST, enabled=config.precision == "fp16")

    def restore(self, optimizer: optim.Optimizer) -> None:
        """Go on with the scale of the checkpoint that the optimizer was loaded from."""
        self.group = optimizer.param_groups[0]
        if self.scaler.is_enabled():
            known = self.scaler.state_dict()
            scale, good = self.group["loss_scale"], self.group["loss_scale_good_steps"]
            self.scaler.load_state_dict(known | {"scale": scale, "_growth_tracker": good})

    def store(self) -> None:
        """Bring the optimizer's copy up to date; call it before the run is saved."""
        if self.scaler.is_enabled():
            known = self.scaler.state_dict()
            self.group.update(loss_scale=known["scale"], loss_scale_good_steps=known["_growth_tracker"])
