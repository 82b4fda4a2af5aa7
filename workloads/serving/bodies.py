"""What a body is before it is tensors: compressed (`Content-Encoding: zstd`), or an image (`Content-Type`)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import zstandard
from PIL import Image

from workloads.serving.package import Array, Manifest
from workloads.serving.protocol import BadRequest

ENCODING = "content-encoding"
IMAGE_FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG"}
"""By content type, in Pillow's words."""
MODES = {1: "L", 3: "RGB"}
"""By channels, in Pillow's words."""
WINDOW_MAX_BYTES = 2**23
"""What RFC 9659 allows a zstd body to ask of its reader."""


class TooLarge(ValueError):
    """More bytes than the server takes."""


class NoRoom(Exception):
    """The bodies under way leave no room for this one."""


class Share:
    """What the body of one request takes of the room for all."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.bytes = 0

    def take(self, count: int) -> None:
        """So many bytes more.

        Raises:
            NoRoom: there are not so many.
        """
        if self._room.taken + count > self._room.bytes_max:
            raise NoRoom
        self._room.taken += count
        self.bytes += count


class Room:
    """The memory that the bodies of all requests under way may take, from before they are read until they are
    answered: a server that many clients send large bodies to refuses some instead of being killed with all."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.taken = 0

    @contextmanager
    def share(self) -> Iterator[Share]:
        """One request's, given back at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            self.taken -= share.bytes


def decompressed(body: bytes, encoding: str, bytes_max: int) -> bytes:
    """The bytes that a client compressed.

    Raises:
        BadRequest: the encoding is not known, or the body is not so encoded.
        TooLarge: there would be more than `bytes_max`; no more than that is ever made.
    """
    if encoding == "identity":
        return body
    if encoding != "zstd":
        raise BadRequest(f"Content-Encoding: got {encoding[:40]!r}; expected zstd, or none")
    decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX_BYTES)
    try:
        with decompressor.stream_reader(body) as reader:
            plain = reader.read(bytes_max + 1)
    except (zstandard.ZstdError, MemoryError) as error:
        raise BadRequest(f"body: not a zstd frame: {error}") from None
    if len(plain) > bytes_max:
        raise TooLarge
    return plain


def pixels(body: bytes, content_type: str, manifest: Manifest) -> list[Array]:
    """The pixels of one image file, as the one row of a model whose input they fit.

    Raises:
        BadRequest: the model does not take images of 8 bits, or this is none of its size.
    """
    spec = manifest.inputs[0]
    if len(manifest.inputs) != 1 or spec.datatype != "UINT8" or len(spec.shape) != 3 or spec.shape[0] not in MODES:
        raise BadRequest(
            f"Content-Type: got {content_type}; {manifest.name} does not take images (one UINT8 input of 1 or 3 "
            "channels × height × width)"
        )
    channels, height, width = spec.shape
    try:
        with Image.open(io.BytesIO(body), formats=[IMAGE_FORMATS[content_type]]) as image:
            if image.size != (width, height):  # known before a pixel is decoded
                raise BadRequest(f"body: an image of {image.width} × {image.height}; expected {width} × {height}")
            decoded = np.asarray(image.convert(MODES[channels]), dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, BadRequest):
            raise
        raise BadRequest(f"body: not {content_type}: {' '.join(str(error).split())[:100]}") from None
    rows = decoded.reshape(1, height, width, channels).transpose(0, 3, 1, 2)
    return [np.ascontiguousarray(rows)]
