"""Whether a package gives the model's own answers over real inputs, by every runtime and precision it will meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workloads.serving.backends import Precision, Runtime, candidates
from workloads.serving.choosing import measure
from workloads.serving.package import Array, Package, Tolerance, error_of

REDUCED_TOLERANCE = 0.02
"""Of the largest output, in bf16 and fp16: bf16 keeps 8 bits of a number, and a few layers lose some of them."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One backend at one precision, on this machine.

    Attributes:
        backend: the runtime.
        precision: that it computed in.
        bytes: of the files that it opens.
        max_abs_error: over all inputs, against the model in fp32.
        allowed: the tolerance, for people.
        fits: whether every output is within it.
        batch_ms: of one batch, the median.
        rows_per_s: in such batches.
    """

    backend: str
    precision: Precision
    bytes: int
    max_abs_error: float
    allowed: str
    fits: bool
    batch_ms: float
    rows_per_s: float


def check(
    package: Package,
    inputs: Sequence[Array],
    reference: Sequence[Array],
    precisions: Sequence[Precision],
    *,
    batch: int,
    threads: int,
) -> tuple[Checked, ...]:
    """Run a package by all that can run it here.

    Args:
        package: made for the new chip.
        inputs: (rows, *shape) each, real ones.
        reference: the model's outputs for them, in fp32.
        precisions: to compute in.
        batch: rows at a time whose time is measured.
        threads: of the model.
    """
    found = []
    for precision in precisions:
        runtime = Runtime(threads=threads, precision=precision)
        tolerance, allowed = _tolerance(package.manifest.tolerance, reference, precision)
        for backend in candidates(package, runtime):
            artifact = package.artifact(backend.format)
            assert artifact is not None
            forward = backend.load(package, runtime)
            error, fits = error_of(forward(inputs), reference, tolerance)
            seconds = measure(forward, [each[:batch] for each in inputs], batch).at(batch)
            size = sum(file.bytes for file in artifact.files)
            found.append(Checked(backend.name, precision, size, error, allowed, fits, seconds * 1e3, batch / seconds))
    return tuple(found)


def _tolerance(stated: Tolerance, reference: Sequence[Array], precision: Precision) -> tuple[Tolerance, str]:
    if precision == "fp32":
        return stated, f"{stated.absolute:.2g} + {stated.relative:.2g} × value"
    absolute = REDUCED_TOLERANCE * max(float(np.abs(each).max()) for each in reference)
    return Tolerance(absolute=absolute, relative=0), f"{absolute:.2g}"
