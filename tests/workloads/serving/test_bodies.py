"""Compressed bodies and images become what the model takes, or are refused in one sentence."""

from __future__ import annotations

import io

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from workloads.serving import bodies
from workloads.serving.package import Artifact, Manifest, PackageFile, TensorSpec
from workloads.serving.protocol import BadRequest

PIXELS = np.add.outer(np.add.outer(np.arange(5) * 20, np.arange(7) * 10), [0, 30, 60]).astype(np.uint8)
"""A slope of colours, as an image has them; of noise a JPEG keeps nothing."""


def takes(datatype: str, *shape: int) -> Manifest:
    file = PackageFile(name="f", bytes=0, sha256="0" * 64)
    spec = TensorSpec(name="image", datatype=datatype, shape=shape)
    artifact = Artifact(format="pytorch", files=(file,), made_with="test", max_abs_error=0)
    return Manifest(
        name="m", version="1", source="", inputs=(spec,), outputs=(spec,), self_test=file, artifacts=(artifact,)
    )


def encoded(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind, quality=100)
    return file.getvalue()


@given(st.binary(max_size=5_000))
def test_what_was_compressed_comes_back(body: bytes) -> None:
    assert bodies.decompressed(zstandard.compress(body), "zstd", 5_000) == body


def test_a_small_body_that_unfolds_into_a_large_one_is_refused() -> None:
    with pytest.raises(bodies.TooLarge):
        bodies.decompressed(zstandard.compress(bytes(10_000_000)), "zstd", 9_999_999)


@given(st.binary(max_size=200))
def test_no_other_bytes_break_the_server(body: bytes) -> None:
    for read in (
        lambda: bodies.decompressed(body, "zstd", 1_000),
        lambda: bodies.pixels(body, "image/png", takes("UINT8", 3, 5, 7)),
        lambda: bodies.pixels(encoded("png")[: len(body)] + body, "image/png", takes("UINT8", 3, 5, 7)),
    ):
        try:
            read()
        except BadRequest as error:
            assert str(error)


def test_an_unknown_encoding_is_named() -> None:
    with pytest.raises(BadRequest, match="Content-Encoding: got 'gzip'; expected zstd"):
        bodies.decompressed(b"", "gzip", 10)


def test_a_png_is_the_pixels_themselves_and_a_jpeg_nearly() -> None:
    wanted = PIXELS.transpose(2, 0, 1)[None]
    (exact,) = bodies.pixels(encoded("png"), "image/png", takes("UINT8", 3, 5, 7))
    np.testing.assert_array_equal(exact, wanted)
    (near,) = bodies.pixels(encoded("jpeg"), "image/jpeg", takes("UINT8", 3, 5, 7))
    assert near.shape == wanted.shape and np.abs(near.astype(int) - wanted).mean() < 4


def test_an_image_that_does_not_fit_the_model_is_refused() -> None:
    with pytest.raises(BadRequest, match="an image of 7 × 5; expected 8 × 5"):
        bodies.pixels(encoded("png"), "image/png", takes("UINT8", 3, 5, 8))
    with pytest.raises(BadRequest, match="m does not take images"):
        bodies.pixels(encoded("png"), "image/png", takes("FP32", 3, 5, 7))
    with pytest.raises(BadRequest, match="not image/png"):
        bodies.pixels(encoded("jpeg"), "image/png", takes("UINT8", 3, 5, 7))
