"""XLA's StableHLO in a package: run by XLA on this machine, made by a Python of its own (docs/serving.md)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fusion.commands.export import command
from fusion.errors import FusionError
from tests.workloads.serving.conftest import images
from tests.workloads.serving.test_migrate import migrated, report
from tests.workloads.serving.test_server import expected
from workloads.models.fusionnet import FusionNet
from workloads.serving.backends import BACKENDS, Runtime, candidates
from workloads.serving.choosing import choose
from workloads.serving.export import Source, export
from workloads.serving.package import (
    SELF_TEST,
    Artifact,
    Manifest,
    Package,
    PackageError,
    TensorSpec,
    describe,
    open_package,
)

XLA_PYTHON = os.environ.get("FUSION_XLA_PYTHON", "")
WEIGHTS = np.random.default_rng(0).standard_normal((6, 3), dtype=np.float32)


@pytest.fixture
def package(tmp_path: Path) -> Package:
    """Of a matrix product that jax itself lowered with a free batch."""
    import jax
    from jax import export as lowering

    (batch,) = lowering.symbolic_shape("batch")
    product = lowering.export(jax.jit(lambda rows: (rows @ WEIGHTS,)))(jax.ShapeDtypeStruct((batch, 6), np.float32))
    file, test = tmp_path / "model.stablehlo", tmp_path / SELF_TEST
    file.write_bytes(product.serialize())
    rows = np.random.default_rng(1).standard_normal((4, 6), dtype=np.float32)
    np.savez(test, **{"input.rows": rows, "output.product": rows @ WEIGHTS})
    artifact = Artifact(format="stablehlo", files=(describe(file),), made_with="jax", max_abs_error=0)
    manifest = Manifest(
        name="product",
        version="1",
        source="a test",
        inputs=(TensorSpec(name="rows", datatype="FP32", shape=(6,)),),
        outputs=(TensorSpec(name="product", datatype="FP32", shape=(3,)),),
        self_test=describe(test),
        artifacts=(artifact,),
    )
    return Package(manifest, tmp_path)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_xla_runs_batches_of_any_size(package: Package, count: int) -> None:
    forward = BACKENDS["xla"].load(package, Runtime(threads=1))
    rows = np.random.default_rng(count).standard_normal((count, 6), dtype=np.float32)
    (found,) = forward([rows])
    np.testing.assert_allclose(found, rows @ WEIGHTS, rtol=1e-5, atol=1e-5)
    assert found.dtype == np.float32


def test_a_package_of_stablehlo_is_served_by_xla(package: Package) -> None:
    assert [each.name for each in candidates(package, Runtime(threads=1))] == ["xla"]
    assert choose(package, Runtime(threads=1), batch_max=4, slo_s=1).backend == "xla"


def test_without_torchax_the_export_says_which_python_it_takes(
    module: FusionNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(module, {"input": images(2)})
    monkeypatch.delenv("FUSION_XLA_PYTHON", raising=False)
    with pytest.raises(
        PackageError, match=r"No module named 'torchax'; it is made by a Python with .* FUSION_XLA_PYTHON"
    ):
        export(source, f"file://{tmp_path / 'a'}", name="small", version="1", formats=("stablehlo",))
    monkeypatch.setenv("FUSION_XLA_PYTHON", "/nowhere/python")
    with pytest.raises(PackageError, match="FUSION_XLA_PYTHON: got /nowhere/python, which can't be run"):
        export(source, f"file://{tmp_path / 'b'}", name="small", version="1", formats=("stablehlo",))
    assert not list(tmp_path.glob("*/manifest.json"))


@pytest.mark.skipif(not XLA_PYTHON, reason="FUSION_XLA_PYTHON names no Python with torchax")
def test_a_model_is_exported_to_stablehlo_and_gives_its_own_outputs(module: FusionNet, tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'package'}"
    export(Source(module, {"input": images(4)}), url, name="small", version="1", formats=("stablehlo",))
    opened = open_package(url, tmp_path / "cache")
    artifact = opened.artifact("stablehlo")
    assert artifact
    assert artifact.max_abs_error < 1e-4
    forward = BACKENDS["xla"].load(opened, Runtime(threads=1))
    for rows in (1, 3, 32):
        np.testing.assert_allclose(forward([images(rows)])[0], expected(module, images(rows)), rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(not XLA_PYTHON, reason="FUSION_XLA_PYTHON names no Python with torchax")
def test_for_a_tpu_xlas_program_is_made_here_where_there_is_a_python_for_it(module: FusionNet, tmp_path: Path) -> None:
    done = migrated(module, tmp_path, "v5e")
    assert done.exit_code == 0, (done.output, done.exception)
    found = report(tmp_path)
    assert "xla" in {each["backend"] for each in found["measured_on_this_cpu"]}
    assert found["still_to_run"] == ""


@pytest.mark.parametrize("named", ["tensorrt", "neuron"])
def test_what_is_compiled_in_a_container_says_so(named: str) -> None:
    done = CliRunner().invoke(command, ["package", "--model", "fusionnet", "--format", named])
    assert isinstance(done.exception, FusionError)
    assert f"--format: {named} is compiled in the container of its chip, not here" in str(done.exception)
