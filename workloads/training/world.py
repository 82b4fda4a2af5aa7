"""The ranks of a run: who am I, on which device, and the few things that ranks tell each other."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from workloads.training.config import TrainingConfig

COLLECTIVE_TIMEOUT = timedelta(minutes=10)


class WorldError(RuntimeError):
    """The ranks or the device that the run was promised are not there; one sentence with the way out."""


class RankLost(WorldError):
    """Another rank went away, or never came; the run goes on from the last checkpoint when it is started again."""


@dataclass(frozen=True)
class World:
    """This rank among all of them."""

    device: torch.device
    rank: int = 0
    size: int = 1
    data_rank: int = 0
    """Which part of each batch this rank takes; the ranks of one tensor-parallel group take the same."""
    data_size: int = 1
    mesh: DeviceMesh | None = field(default=None, repr=False)
    """The ranks by `data` and `tensor`; None where there is one."""
    control: dist.ProcessGroup | None = field(default=None, repr=False)
    """A gloo group apart from the one that carries gradients, so that control messages never wait for a GPU."""

    @property
    def is_first(self) -> bool:
        """True on the one rank that writes reports and logs."""
        return self.rank == 0

    @property
    def is_first_of_node(self) -> bool:
        """True on the one rank of each node that listens to the node's machine and speaks for it."""
        return os.environ.get("LOCAL_RANK", "0") == "0"

    @property
    def device_name(self) -> str:
        """`NVIDIA H100 80GB HBM3`, or `cpu`."""
        if self.device.type == "xla":
            import torch_xla

            return f"xla:{torch_xla.runtime.device_type()}"
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"

    def end_step(self) -> None:
        """Where operations are only recorded, as on XLA: compile and start what the step recorded."""
        if self.device.type == "xla":
            import torch_xla

            torch_xla.sync()

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.size > 1:
            dist.barrier(self.control)

    def any(self, flag: bool) -> bool:
        """True on every rank if it is on one."""
        return self.any_of(flag)[0]

    def any_of(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set on any rank; one message for all."""
        if self.size == 1:
            return list(flags)
        values = torch.tensor([int(flag) for flag in flags])
        dist.all_reduce(values, dist.ReduceOp.MAX, group=self.control)
        return [bool(value) for value in values.tolist()]

    def mean(self, value: float) -> float:
        """The mean of every rank's value."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total, group=self.control)
        return total.item() / self.size

    def gather(self, value: Any) -> list[Any] | None:
        """Every rank's value, on the first rank; None on the others."""
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.is_first else None
        dist.gather_object(value, values, group=self.control)
        return values

    def scatter(self, values: list[Any] | None) -> Any:
        """Each rank's own of the first rank's values."""
        if self.size == 1 and values is not None:
            return values[0]
        mine: list[Any] = [None]
        dist.scatter_object_list(mine, values, group=self.control)
        return mine[0]

    def broadcast(self, value: Any) -> Any:
        """The first rank's value, on every rank."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, group=self.control)
        return values[0]


def processor_name() -> str:
    """As Linux calls it; its architecture where it has no name for it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


@contextmanager
def join(config: TrainingConfig) -> Iterator[World]:
    """Take this process's place among the ranks, as torchrun or an indexed Kubernetes Job says it.

    Raises:
        WorldError: the config asks for a device or a number of ranks that is not there, or the environment says only
            half of what is needed.
        RankLost: another rank went away, or never came.
    """
    size, rank = _size_and_rank()
    tensor = config.parallel.tensor_parallel
    if size % tensor:
        raise WorldError(
            f"parallel.tensor_parallel: got {tensor}; expected a divisor of the {size} rank(s) of this run"
        )
    device = _device(config, size)
    _set_threads(config)
    if size == 1:
        yield World(device)
        return
    try:
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo", rank=rank, world_size=size, timeout=COLLECTIVE_TIMEOUT
        )
        control = dist.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT)
        assert isinstance(control, dist.ProcessGroup), "every rank is a member of this group"
        mesh = init_device_mesh(device.type, (size // tensor, tensor), mesh_dim_names=("data", "tensor"))
        yield World(device, rank, size, rank // tensor, size // tensor, mesh, control)
    except RuntimeError as error:
        if not _tells_of_a_lost_rank(error):
            raise
        raise RankLost(
            "another rank is gone, and this one can't go on alone; why is in that rank's log. Run the same command "
            "again, with any number of ranks: it goes on from the last checkpoint"
        ) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _tells_of_a_lost_rank(error: RuntimeError) -> bool:
    """Whether a collective failed since its other side is not there any more; gloo has no class for it.

    A machine that loses its power closes no connection: its peers hear nothing until `COLLECTIVE_TIMEOUT`.
    """
    words = (
        "Connection closed by peer",
        "Connection reset by peer",
        "Broken pipe",
        "Connection refused",
        "Timed out waiting",
    )
    return isinstance(error, dist.DistError) or any(each in str(error) for each in words)


def _size_and_rank() -> tuple[int, int]:
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return 1, 0
    rank = os.environ.get("RANK", os.environ.get("JOB_COMPLETION_INDEX"))
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if rank is None:
        missing.append("RANK (or JOB_COMPLETION_INDEX)")
    if rank is None or missing:
        raise WorldError(f"WORLD_SIZE is {size} but {', '.join(missing)} is not set; start the ranks with torchrun")
    return size, int(rank)


def _device(config: TrainingConfig, size: int) -> torch.device:
    if config.device == "xla" or (config.device == "auto" and os.environ.get("PJRT_DEVICE")):
        return _xla_device(size)
    if config.device == "cpu" or (config.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise WorldError("device: got cuda, but PyTorch finds no CUDA device here; expected cpu or auto")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def _xla_device(size: int) -> torch.device:
    if size > 1:
        raise WorldError(f"device: got xla with {size} ranks; expected one rank, others have not been tried")
    try:
        import torch_xla
    except ImportError:
        raise WorldError("device: got xla, which needs the package torch_xla, as the TPU's container has it") from None
    device: torch.device = torch_xla.device()
    return device


def _set_threads(config: TrainingConfig) -> None:
    """This rank's share of the CPUs that the process may use: more threads than CPUs make every rank slower."""
    local_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(config.threads or max(1, len(os.sched_getaffinity(0)) // local_ranks))
