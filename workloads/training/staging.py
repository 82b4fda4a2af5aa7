"""The copy of a rank's state that is uploaded while training goes on.

The copy is the very file that the rank contributes to a checkpoint in the format of `torch.distributed.checkpoint`: the
frame that `torch.save` puts around each tensor is laid down once, and a save only copies the tensors' bytes into their
places. Where every file begins and ends is agreed between the ranks once, too, and again only when the state's
structure changes; a tensor that several ranks hold is copied and written by one of them.
"""

from __future__ import annotations

import functools
import io
import mmap
import os
import pickle
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import CURRENT_DCP_VERSION, DEFAULT_SUFFIX, _StorageInfo
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import SavePlan, WriteItem, WriteItemType
from torch.distributed.checkpoint.storage import WriteResult
from torch.serialization import skip_data

from workloads.training.world import World

METADATA = ".metadata"
_ALIGNMENT = 64
"""Of a tensor's frame, which aligns its bytes to the same: vector instructions and views of any type work."""


class Arena:
    """Memory that the saver's process sees as well; not in /dev/shm, which containers keep at 64 MiB."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("checkpoint")
        self.memory = mmap.mmap(-1, 1)

    def resize(self, size: int) -> None:
        """Make room and touch every page, so that no save waits for one; what was in it is lost."""
        os.ftruncate(self.descriptor, 0)
        os.ftruncate(self.descriptor, size)
        self.memory = mmap.mmap(self.descriptor, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)

    def close(self) -> None:
        """Give the memory back once no tensor views it any more."""
        os.close(self.descriptor)


@dataclass(frozen=True)
class Frame:
    """The file that `torch.save` makes of a tensor, without the tensor's bytes."""

    pieces: tuple[tuple[int, bytes], ...]
    """(offset, content)."""
    data_offset: int
    size: int


@dataclass(frozen=True)
class Layout:
    """Where this rank's part of the state goes."""

    local: SavePlan
    """What this rank holds: the layout stands as long as it is the same."""
    tensors: tuple[WriteItem, ...]
    places: tuple[Tensor, ...]
    """Views of the arena, one for each of ``tensors``."""
    objects: tuple[tuple[WriteItem, int, int], ...]
    """What is no tensor: (item, offset, bytes)."""
    size: int
    metadata: bytes
    """The checkpoint's index; empty on all ranks but the first."""


@dataclass(frozen=True)
class Staged:
    """A copy that is ready to be uploaded."""

    name: str
    size: int
    metadata: bytes


class Staging:
    """Copies the state of one rank; all ranks stage together."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.arena = Arena()
        self._layout: Layout | None = None

    def stage(self, state: dict[str, Any]) -> Staged:
        """Copy every tensor, wherever it is; when this returns training may change them.

        The copy before this one must have been uploaded.
        """
        planner = DefaultSavePlanner()
        planner.set_up_planner(state, is_coordinator=self.world.is_first)
        local = planner.create_local_plan()
        objects = None
        if self._layout is not None and self._layout.local == local:
            objects = _same_size(planner, self._layout)
        if self.world.any(objects is None) or self._layout is None or objects is None:
            self._layout, objects = self._lay_out(planner, local)
        for (_, offset, size), content in zip(self._layout.objects, objects, strict=True):
            self.arena.memory[offset : offset + size] = content
        _copy([_tensor(planner, item) for item in self._layout.tensors], self._layout.places)
        return Staged(file_of(self.world.rank), self._layout.size, self._layout.metadata)

    def close(self) -> None:
        """Give the memory back."""
        self._layout = None
        self.arena.close()

    def _lay_out(self, planner: DefaultSavePlanner, local: SavePlan) -> tuple[Layout, list[bytes]]:
        """Agree with the other ranks who writes what, and find each item its place."""
        metadata, plans = None, None
        if (locals_ := self.world.gather(local)) is not None:
            plans, metadata = planner.create_global_plan(locals_)
        mine = planner.finish_plan(self.world.scatter(plans))
        items = [item for item in mine.items if item.type != WriteItemType.BYTE_IO]
        frames = [_frame_of(item) for item in items]
        offsets, size = _stack([frame.size for frame in frames])
        others = [item for item in mine.items if item.type == WriteItemType.BYTE_IO]
        contents = [_content(planner, item) for item in others]
        more, size = _stack([len(content) for content in contents], start=size)
        self._layout = None  # lets go of the old places
        self.arena.resize(max(size, 1))
        written = [(item, offset, frame.size) for item, offset, frame in zip(items, offsets, frames, strict=True)]
        objects = [(item, offset, len(content)) for item, offset, content in zip(others, more, contents, strict=True)]
        return (
            Layout(
                local=local,
                tensors=tuple(items),
                places=tuple(self._place(*place) for place in zip(items, offsets, frames, strict=True)),
                objects=tuple(objects),
                size=size,
                metadata=self._index(metadata, written + objects),
            ),
            contents,
        )

    def _place(self, item: WriteItem, offset: int, frame: Frame) -> Tensor:
        """Lay a frame down; returns the view that the tensor's bytes go to."""
        for start, content in frame.pieces:
            self.arena.memory[offset + start : offset + start + len(content)] = content
        assert item.tensor_data is not None, "it is a tensor"
        dtype, shape = item.tensor_data.properties.dtype, item.tensor_data.chunk.sizes
        count = shape.numel() * dtype.itemsize
        if not count:
            return torch.empty(shape, dtype=dtype)
        flat = torch.frombuffer(self.arena.memory, dtype=torch.uint8, count=count, offset=offset + frame.data_offset)
        return flat.view(dtype).view(shape)

    def _index(self, metadata: Metadata | None, written: list[tuple[WriteItem, int, int]]) -> bytes:
        """The `.metadata` of the checkpoint, on the first rank: where each item of every rank lies."""
        name = file_of(self.world.rank)
        mine = [WriteResult(item.index, size, _StorageInfo(name, offset, size)) for item, offset, size in written]
        results = self.world.gather(mine)
        if results is None or metadata is None:
            return b""
        metadata.version = CURRENT_DCP_VERSION
        metadata.storage_data = {result.index: result.storage_data for rank in results for result in rank}
        metadata.storage_meta = StorageMeta()
        return pickle.dumps(metadata)


def file_of(rank: int) -> str:
    """The name of a rank's file."""
    return f"__{rank}_0{DEFAULT_SUFFIX}"


def _same_size(planner: DefaultSavePlanner, layout: Layout) -> list[bytes] | None:
    """What is no tensor, in bytes; None where it does not fit its place any more."""
    contents = [_content(planner, item) for item, _, _ in layout.objects]
    fits = all(len(content) == size for content, (_, _, size) in zip(contents, layout.objects, strict=True))
    return contents if fits else None


def _content(planner: DefaultSavePlanner, item: WriteItem) -> bytes:
    data = planner.resolve_data(item)
    assert isinstance(data, io.BytesIO), "it is no tensor"
    return data.getvalue()


def _tensor(planner: DefaultSavePlanner, item: WriteItem) -> Tensor:
    data = planner.resolve_data(item)
    assert isinstance(data, Tensor), "it is a tensor"
    return data.detach()


def _copy(sources: list[Tensor], places: tuple[Tensor, ...]) -> None:
    """Copy all tensors; returns when the bytes are there."""
    if sources:
        # XLA's tensors are records of operations, which a copy into plain memory can't follow.
        torch._foreach_copy_(list(places), [each.cpu() if each.device.type == "xla" else each for each in sources])


def _stack(sizes: list[int], start: int = 0) -> tuple[list[int], int]:
    """Offsets of things of these sizes one after the other, and where the last one ends."""
    offsets, end = [], start
    for size in sizes:
        offset = -(-end // _ALIGNMENT) * _ALIGNMENT
        offsets.append(offset)
        end = offset + size
    return offsets, end


def _frame_of(item: WriteItem) -> Frame:
    assert item.tensor_data is not None, "it is a tensor"
    return frame(item.tensor_data.properties.dtype, tuple(item.tensor_data.chunk.sizes))


@functools.lru_cache(maxsize=4096)
def frame(dtype: torch.dtype, shape: tuple[int, ...]) -> Frame:
    """What `torch.save` writes around the bytes of a contiguous tensor of this type and shape."""
    stream = _FrameStream()
    with skip_data():
        torch.save(torch.empty(shape, dtype=dtype), stream)  # type: ignore[arg-type] # writes and seeks are all it needs
    return Frame(tuple(stream.pieces), stream.data_offset, stream.position)


class _FrameStream:
    """Records what is written, and where room is left for a tensor's bytes."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, bytes]] = []
        self.position = 0
        self.data_offset = 0

    def write(self, data: bytes) -> int:
        self.pieces.append((self.position, bytes(data)))
        self.position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int) -> None:
        assert whence == os.SEEK_CUR, "PyTorch leaves room by seeking on"
        self.data_offset = self.position
        self.position += offset

    def flush(self) -> None:
        """Everything is in memory."""
