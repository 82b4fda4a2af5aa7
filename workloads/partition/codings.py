"""How what crosses the cut is coded, and what the cloud's part makes of it.

| coding | of | on the wire | exact |
|---|---|---|---|
| `plain` | any tensor | as it is | yes |
| `int8` | floats | 8 bits a number, with each row's least value and step | to half a step |
| `pixels` | an image that was made of 8-bit pixels ÷ a scale | the pixels | yes |
| `png`, `jpeg` | likewise | an image file | PNG is |

All but the image files may be compressed by zstd besides.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import zstandard
from PIL import Image
from torch import Tensor

from workloads.serving.bodies import MODES
from workloads.serving.package import Array

Coding = Literal["plain", "int8", "pixels", "png", "jpeg"]
IMAGE_FILES: tuple[Coding, ...] = ("png", "jpeg")
JPEG_QUALITY = 90
ZSTD_LEVEL = 1
"""The fastest: at 8 bits a number the higher ones gain little and take several times as long."""
STEPS = 255


def names_of(coding: Coding, tensors: Sequence[str], floats: Sequence[bool]) -> list[str]:
    """Of the cloud part's inputs, where these tensors are sent."""
    if coding != "int8":
        return list(tensors)
    return [name for tensor, is_float in zip(tensors, floats, strict=True) for name in _int8_names(tensor, is_float)]


def _int8_names(tensor: str, is_float: bool) -> tuple[str, ...]:
    return (tensor, f"{tensor}.range") if is_float else (tensor,)


def coded(coding: Coding, tensors: Sequence[Array], scale: float) -> list[Array]:
    """The cloud part's inputs, (rows, …) each; image files are the pixels that the server makes of them."""
    match coding:
        case "plain":
            return [np.ascontiguousarray(each) for each in tensors]
        case "int8":
            return [part for each in tensors for part in _int8(each)]
        case "pixels":
            return [pixels_of(tensors[0], scale)]
        case "png" | "jpeg":
            rows = [_opened(image_file(coding, each[None], scale)) for each in tensors[0]]
            return [np.stack(rows)]


def pixels_of(images: Array, scale: float) -> Array:
    """8-bit pixels of images that are pixels ÷ scale."""
    return np.rint(images * np.float32(scale)).clip(0, STEPS).astype(np.uint8)


def image_file(coding: Coding, image: Array, scale: float) -> bytes:
    """One image, (1, channels, height, width), as a file."""
    pixels = pixels_of(image, scale)[0].transpose(1, 2, 0)
    file = io.BytesIO()
    made = Image.fromarray(pixels[..., 0] if MODES[pixels.shape[2]] == "L" else np.ascontiguousarray(pixels))
    if coding == "png":
        made.save(file, "png", compress_level=1)
    else:
        made.save(file, "jpeg", quality=JPEG_QUALITY)
    return file.getvalue()


def _opened(file: bytes) -> Array:
    pixels = np.asarray(Image.open(io.BytesIO(file)), dtype=np.uint8)
    return pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)


def _int8(tensor: Array) -> tuple[Array, ...]:
    """By row: (value - least) ÷ step, and (least, step)."""
    if tensor.dtype.kind != "f":
        return (np.ascontiguousarray(tensor),)
    flat = tensor.reshape(len(tensor), -1)
    least, most = flat.min(1, keepdims=True), flat.max(1, keepdims=True)
    step = np.maximum((most - least) / STEPS, np.finfo(np.float32).tiny).astype(np.float32)
    numbers = flat - least
    numbers /= step
    np.rint(numbers, out=numbers)
    return numbers.astype(np.uint8).reshape(tensor.shape), np.concatenate([least, step], axis=1).astype(np.float32)


def compressed(body: bytes) -> bytes:
    """By zstd."""
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(body)


@dataclass(frozen=True, slots=True)
class Decoder:
    """What makes a tensor of the inputs of the cloud's part that it came in."""

    inputs: int
    function: Callable[..., Tensor] | None = None
    """None: it is the one input."""
    arguments: tuple[float, ...] = ()
    """Of the function, behind the inputs."""


def decoders(coding: Coding, floats: Sequence[bool], scale: float) -> list[Decoder]:
    """By tensor; the inputs are as `names_of` has them."""
    if coding == "plain":
        return [Decoder(1) for _ in floats]
    if coding == "int8":
        return [Decoder(2, _floats) if is_float else Decoder(1) for is_float in floats]
    return [Decoder(1, _divided, (scale,))]


def _floats(numbers: Tensor, ranges: Tensor) -> Tensor:
    shape = [-1, *[1] * (numbers.dim() - 1)]
    return numbers.to(torch.float32) * ranges[:, 1].reshape(shape) + ranges[:, 0].reshape(shape)


def _divided(pixels: Tensor, scale: float) -> Tensor:
    return pixels.to(torch.float32) / scale
