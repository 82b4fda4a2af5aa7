"""What the API's description says is what the server does: schemathesis makes requests of it, right and wrong ones.

The servers take requests of one row, about which the description says everything; of more rows it can't say that as
many values must come.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.workloads.serving import schemathesis_hooks
from tests.workloads.serving.conftest import Running, servers
from workloads.serving.export import Source, export

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "positive_data_acceptance",
    "negative_data_rejection",
    "unsupported_method",
)


MAY_ANSWER = ["2xx", "3xx", "4xx", "503"]
"""503: a request of a microsecond's timeout, on a busy machine."""


class Both(nn.Module):
    """Two inputs of different types, two outputs."""

    def forward(self, image: Tensor, age: Tensor) -> tuple[Tensor, Tensor]:
        """(rows, 2, 3) and (rows,) → (rows,) and (rows, 2)."""
        return image.sum((1, 2)) + age, age[:, None] * torch.tensor([1, -1], dtype=torch.int32)


@pytest.fixture(scope="module")
def server(package_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    url = f"file://{tmp_path_factory.mktemp('packages') / 'both'}"
    inputs = {"image": np.ones((4, 2, 3), np.float32), "age": np.arange(4, dtype=np.int32)}
    export(Source(Both(), inputs, output_names=("sum", "both")), url, name="both", version="1", formats=("onnx",))
    models = [
        {"versions": [{"package": each}], "batch_max": 1, "slo_ms": 60_000, "backends": ["onnxruntime"]}
        for each in (package_url, url)
    ]
    with servers(tmp_path_factory.mktemp("described")) as start:
        yield start(*models, device="cpu", body_max_mib=1, body_timeout_s=5)


def test_what_fits_the_description_is_answered_as_it_says_and_what_does_not_is_refused(
    server: Running, tmp_path: Path
) -> None:
    settings = f"[checks.not_a_server_error]\nexpected-statuses = {MAY_ANSWER}\n"
    (tmp_path / "schemathesis.toml").write_text(settings)
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", "--phases=coverage,fuzzing", "--no-color"]
    command += [
        f"--checks={','.join(CHECKS)}",
        "--max-examples=10",
        "--request-timeout=20",
        "--generation-deterministic",
    ]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{server.port}/openapi.json"],
        env=os.environ | {"SCHEMATHESIS_HOOKS": schemathesis_hooks.__name__, "PYTHONPATH": str(Path.cwd())},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not server.events("internal_error")
