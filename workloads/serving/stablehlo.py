"""`python stablehlo.py PROGRAM.pt2 MODEL.stablehlo`: a PyTorch program → StableHLO with a free batch, as jax keeps it.

Runs in a Python of its own, with torchax, which goes with an older PyTorch than the rest of Fusion, and so imports
nothing of it. One artifact for CPU, TPU and CUDA: XLA compiles it where it is opened. Prints the packages' versions as
JSON.
"""

from __future__ import annotations

import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

PLATFORMS = ("cpu", "tpu", "cuda")
PACKAGES = ("torchax", "jax", "torch")


def main(program_file: Path, file: Path) -> None:
    """Lower the program and write it."""
    warnings.simplefilter("ignore")
    import jax
    import torch
    from jax import export
    from torchax.export import exported_program_to_jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)  # tokens are 64-bit integers
    program = torch.export.load(program_file)
    weights, forward = exported_program_to_jax(program)
    (batch,) = export.symbolic_shape("batch")
    examples, _ = program.example_inputs
    inputs = [jax.ShapeDtypeStruct((batch, *each.shape[1:]), each.numpy().dtype) for each in examples]
    lowered = export.export(jax.jit(lambda *tensors: forward(weights, tensors)), platforms=PLATFORMS)(*inputs)
    file.write_bytes(lowered.serialize())
    print(json.dumps({name: version(name) for name in PACKAGES}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
