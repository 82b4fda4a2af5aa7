"""Spreads a model over the ranks: DDP, FSDP2 and tensor parallel, with activation checkpointing and torch.compile."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor.parallel import parallelize_module
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from workloads.config import ConfigError
from workloads.data.loader import Batch
from workloads.training.config import TrainingConfig
from workloads.training.optimizers import make_embeddings_sparse
from workloads.training.precision import fsdp_policy, use_fp8
from workloads.training.world import World

POWERSGD_RANK = 4
"""Of the matrices that stand for a gradient (Vogels et al. 2019 use 1 to 4)."""
POWERSGD_EXACT_STEPS = 100
"""Steps that send whole gradients first: early ones are badly approximated."""


def spread(model: nn.Module, config: TrainingConfig, world: World) -> nn.Module:
    """The model on this rank's device, sharing its work with the other ranks as the config says.

    Raises:
        ConfigError: the model does not declare what the config asks for.
        WorldError: the chip has not what the precision needs.
    """
    asked = config.parallel
    if config.precision == "fp8":
        use_fp8(model, world)
    if config.optimizer.sparse_embeddings:
        _check_sparse(world)
        make_embeddings_sparse(model)
    model = model.to(world.device)
    if asked.tensor_parallel > 1:
        _split_layers(model, config, world)
    if asked.activation_checkpointing:
        _recompute_activations(model, config)
    if config.compile:
        for part in blocks_of(model) or [model]:
            part.compile()
    if asked.strategy == "fsdp" and world.mesh is not None:
        return _shard(model, config, world)
    return model if world.size == 1 else _replicate(model, config)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The repeated parts that a model declares; none where it doesn't."""
    return list(getattr(model, "blocks", ()))


@contextlib.contextmanager
def gradients_summed(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Whether the backward pass inside exchanges gradients between ranks; only the last part of a batch needs it."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(wanted)
    with model.no_sync() if isinstance(model, DistributedDataParallel) and not wanted else contextlib.nullcontext():
        yield


def micro_batches(batch: Batch, size: int | None, world: World) -> list[Batch]:
    """Cut a rank's batch into parts of at most ``size`` samples; every rank gets the same number of parts."""
    parts = 1 if size is None else -(-_largest_part(batch, world) // size)
    if parts <= 1:
        return [batch]
    pieces = zip(batch.inputs.tensor_split(parts), batch.labels.tensor_split(parts), strict=True)
    return [Batch(inputs, labels, batch.global_samples) for inputs, labels in pieces]


def take_small_batches(model: nn.Module, config: TrainingConfig, samples: int, world: World) -> None:
    """Where a rank computes one sample or none at once, as of an epoch's last batch, let layers take it that normalize
    by batch."""
    size, micro = min(config.data.batch_size, samples), config.parallel.micro_batch_size
    if min(_smallest_part(batch, micro, world) for batch in (size, samples % size or size)) < 2:
        for layer in model.modules():
            if isinstance(layer, _BatchNorm) and layer.track_running_stats:
                layer.forward = functools.partial(_normalized, layer, layer.forward)  # type: ignore[method-assign]


def _smallest_part(batch: int, micro: int | None, world: World) -> int:
    """The fewest samples of a batch that a rank computes at once."""
    parts = 1 if micro is None else math.ceil(math.ceil(batch / world.data_size) / micro)
    return batch // world.data_size // parts


def _normalized(layer: _BatchNorm, by_batch: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """By the batch; where it has one value of a channel, which has no variance, by the batches before it.

    Raises:
        ConfigError: there are none before it.
    """
    if not layer.training or inputs.numel() > inputs.shape[1]:
        return by_batch(inputs)
    if not layer.num_batches_tracked:
        raise ConfigError(
            "data.batch_size: a rank computes one sample at once, and the model normalizes by batch, which takes two; "
            "expected a larger one, or fewer ranks, or a larger parallel.micro_batch_size"
        )
    return F.batch_norm(inputs, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=layer.eps)


def _normalizes_by_batch(model: nn.Module) -> bool:
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def full_weights(model: nn.Module) -> dict[str, Any]:
    """All weights under the model's own names, on the first rank's CPU; every rank must call it."""
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def _largest_part(batch: Batch, world: World) -> int:
    return -(-batch.global_samples // world.data_size)


def _check_sparse(world: World) -> None:
    if world.size > 1 and dist.get_backend() == "nccl":
        raise ConfigError(
            "optimizer.sparse_embeddings: NCCL sums no sparse gradients; expected one rank, or device: cpu"
        )


def _split_layers(model: nn.Module, config: TrainingConfig, world: World) -> None:
    declared = getattr(model, "tensor_parallel_plan", None)
    if declared is None or world.mesh is None:
        raise ConfigError(
            f"parallel.tensor_parallel: the model {config.model.name} declares no tensor_parallel_plan; expected 1"
        )
    try:
        plan = declared(config.parallel.tensor_parallel)
    except ValueError as error:
        raise ConfigError(f"parallel.tensor_parallel: {error}") from error
    parallelize_module(model, world.mesh["tensor"], plan)


def _recompute_activations(model: nn.Module, config: TrainingConfig) -> None:
    blocks = blocks_of(model)
    if not blocks:
        raise ConfigError(f"parallel.activation_checkpointing: the model {config.model.name} declares no blocks")
    if any(map(_normalizes_by_batch, blocks)):
        raise ConfigError(
            f"parallel.activation_checkpointing: the blocks of {config.model.name} normalize by batch, and computing "
            "them twice would count each batch twice; expected false"
        )
    for block in blocks:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)


def _shard(model: nn.Module, config: TrainingConfig, world: World) -> nn.Module:
    assert world.mesh is not None
    how: dict[str, Any] = {"mesh": world.mesh["data"], "mp_policy": fsdp_policy(config)}
    for block in blocks_of(model):
        fully_shard(block, **how)
    fully_shard(model, **how)
    return model


def _replicate(model: nn.Module, config: TrainingConfig) -> nn.Module:
    replica = DistributedDataParallel(
        model, forward_sync_buffers=_normalizes_by_batch(model), gradient_as_bucket_view=True
    )
    match config.parallel.gradient_compression:
        case "fp16":
            replica.register_comm_hook(None, default_hooks.fp16_compress_hook)
        case "bf16":
            replica.register_comm_hook(None, default_hooks.bf16_compress_hook)
        case "powersgd":
            state = powerSGD_hook.PowerSGDState(
                process_group=None,
                matrix_approximation_rank=POWERSGD_RANK,
                start_powerSGD_iter=POWERSGD_EXACT_STEPS,
                random_seed=config.seed,
            )
            replica.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    return replica
