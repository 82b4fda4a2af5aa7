"""A model's package: a folder with `manifest.json`, the model in one or more formats, and a numerical self-test.

Every file is listed with its size and SHA-256, and checked when the package is opened. The manifest is written last: a
folder without one is not a package yet. Shapes leave out the batch, which every input and output has first.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from workloads import storage
from workloads.storage import StorageError

MANIFEST = "manifest.json"
SELF_TEST = "self-test.npz"

Operators = Literal["torchao", "torch.ao.quantization.fx._decomposed"]
"""Modules that bring operators of quantized programs."""
Format = Literal["pytorch", "aotinductor", "onnx", "openvino", "stablehlo"]
Datatype = Literal["BOOL", "UINT8", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"]
"""In the words of the Open Inference Protocol. BYTES, elements of any length, are of pipelines, not of models."""
NUMPY_TYPES: Mapping[Datatype, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""Tensor types of models, and numpy's; little-endian, as the protocol's binary tensors are."""

Array = NDArray[Any]
"""(batch, *shape) of one tensor."""


class PackageError(RuntimeError):
    """A package can't be read or made; one sentence with the way out."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorSpec(_Part):
    """One input or output."""

    name: str = Field(min_length=1)
    datatype: Datatype
    shape: tuple[Annotated[int, Field(ge=1)], ...] = Field(description="of one row, without the batch")

    @property
    def dtype(self) -> np.dtype[Any]:
        """In numpy; of BYTES, an array of `bytes` objects."""
        return np.dtype(object) if self.datatype == "BYTES" else NUMPY_TYPES[self.datatype]

    @property
    def row_bytes(self) -> int:
        """Of one row; of all types but BYTES."""
        return self.dtype.itemsize * math.prod(self.shape)


class PackageFile(_Part):
    """One file of the package."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Artifact(_Part):
    """The model in one format."""

    format: Format
    files: tuple[PackageFile, ...] = Field(min_length=1, description="the first is the one that a runtime opens")
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="what it was compiled for")
    needs: tuple[Operators, ...] = Field(default=(), description="modules to import before it is opened")
    made_with: str = Field(description="the tool and its version")
    max_abs_error: float = Field(ge=0, description="against the reference, on the self-test")


class Tolerance(_Part):
    """How far an output may be from the reference: `|a - b| <= absolute + relative * |b|`, element by element."""

    relative: float = Field(default=1e-3, ge=0, le=1)
    absolute: float = Field(default=1e-4, ge=0)


class Manifest(_Part):
    """What `manifest.json` says."""

    format: Literal["fusion-package-1"] = "fusion-package-1"
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    source: str = Field(description="what it was exported from, for people")
    inputs: tuple[TensorSpec, ...] = Field(min_length=1)
    outputs: tuple[TensorSpec, ...] = Field(min_length=1)
    classes: tuple[str, ...] = Field(default=(), description="names of the first output's columns")
    tolerance: Tolerance = Tolerance()
    self_test: PackageFile
    artifacts: tuple[Artifact, ...] = Field(min_length=1)

    @field_validator("inputs", "outputs")
    @classmethod
    def _numbers(cls, value: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        if named := [each.name for each in value if each.datatype == "BYTES"]:
            raise ValueError(f"{named[0]} is BYTES; models take and give numbers")
        return value


@dataclass(frozen=True, slots=True)
class Package:
    """A package whose files lie here, each as the manifest says."""

    manifest: Manifest
    folder: Path

    def artifact(self, wanted: Format) -> Artifact | None:
        """The model in a format; None where the package has none."""
        return next((each for each in self.manifest.artifacts if each.format == wanted), None)

    def path(self, artifact: Artifact) -> Path:
        """The file that a runtime opens."""
        return self.folder / artifact.files[0].name

    def self_test(self) -> tuple[list[Array], list[Array]]:
        """Inputs, and the outputs that the reference gave for them."""
        with np.load(self.folder / SELF_TEST, allow_pickle=False) as arrays:
            inputs = [arrays[f"input.{spec.name}"] for spec in self.manifest.inputs]
            outputs = [arrays[f"output.{spec.name}"] for spec in self.manifest.outputs]
        return inputs, outputs


def open_package(url: str, cache: Path) -> Package:
    """Fetch a package into a folder of the cache and check every file.

    Args:
        url: of the package's folder.
        cache: a local folder; files that lie there already and are whole are not fetched again.

    Raises:
        PackageError: there is none, or a file is missing or not what the manifest says.
        StorageError: the bucket refused.
    """
    data = storage.read_or_none(storage.join(url, MANIFEST))
    if data is None:
        raise PackageError(f"{url} holds no package ({MANIFEST} is missing); make one with `fusion export`")
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"]) or "the file"
        raise PackageError(f"{storage.join(url, MANIFEST)}: {field}: {problem['msg']}; export the model anew") from None
    folder = cache / storage.sha256(data)
    folder.mkdir(parents=True, exist_ok=True)
    for file in (manifest.self_test, *(file for artifact in manifest.artifacts for file in artifact.files)):
        _fetch(storage.join(url, file.name), folder / file.name, file)
    return Package(manifest, folder)


def _fetch(url: str, place: Path, file: PackageFile) -> None:
    if place.exists() and _sha256(place) == file.sha256:
        return
    part = place.with_name(f"{place.name}.part")
    try:
        storage.download(url, part)
    except StorageError as error:
        if storage.is_missing(error):
            raise PackageError(f"{url} is missing, and the manifest lists it; export the model anew") from None
        raise
    if _sha256(part) != file.sha256:
        part.unlink()
        raise PackageError(f"{url} is not what was exported (SHA-256 differs); export the model anew")
    part.replace(place)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe(path: Path) -> PackageFile:
    """The manifest's entry for a local file."""
    return PackageFile(name=path.name, bytes=path.stat().st_size, sha256=_sha256(path))


def refuse_published(url: str) -> None:
    """Pass where there is no package yet.

    Raises:
        PackageError: there is one.
    """
    if storage.read_or_none(storage.join(url, MANIFEST)) is not None:
        raise PackageError(f"{url} holds a package already, and a version never changes; choose another folder")


def publish(folder: Path, url: str, manifest: Manifest) -> None:
    """Upload the files of a package, then its manifest, which makes it exist.

    Raises:
        PackageError: there is a package already.
        StorageError: the bucket refused; there is no package then.
    """
    refuse_published(url)
    for file in (manifest.self_test, *(file for artifact in manifest.artifacts for file in artifact.files)):
        storage.upload(folder / file.name, storage.join(url, file.name))
    storage.write(storage.join(url, MANIFEST), manifest.model_dump_json(indent=2).encode())


def error_of(outputs: Sequence[Array], reference: Sequence[Array], tolerance: Tolerance) -> tuple[float, bool]:
    """How far outputs are from the reference, and whether that is within the tolerance.

    Args:
        outputs: (batch, *shape) each.
        reference: the same shapes.
        tolerance: what is allowed.

    Returns:
        The largest absolute difference (infinite where shapes or finiteness differ), and whether every element fits.
    """
    if len(outputs) != len(reference):
        return math.inf, False
    worst, fits = 0.0, True
    for found, wanted in zip(outputs, reference, strict=True):
        if found.shape != wanted.shape or not np.array_equal(np.isfinite(found), np.isfinite(wanted)):
            return math.inf, False
        finite = np.isfinite(wanted)
        a, b = found[finite].astype(np.float64), wanted[finite].astype(np.float64)
        if a.size:
            worst = max(worst, float(np.abs(a - b).max()))
            fits = fits and bool(np.all(np.abs(a - b) <= tolerance.absolute + tolerance.relative * np.abs(b)))
    return worst, fits
