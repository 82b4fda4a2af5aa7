"""Answers kept by the content of what was asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import tritonclient.grpc as triton
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from prometheus_client.parser import text_string_to_metric_families

from tests.workloads.serving.conftest import CLASSES, OF_ONE_NUMBER, SHAPE, Running, Start, exported, images
from tests.workloads.serving.test_rpc import address, asked
from tests.workloads.serving.test_server import expected
from workloads.models.fusionnet import FusionNet
from workloads.serving.cache import AnswerCache
from workloads.serving.metrics import Metrics
from workloads.serving.package import Array

MIB = 2**20
SETTINGS = {"slo_ms": 10_000, "batch_max": 8, "backends": ["onnxruntime"], "cache_mib": 1}


def cache(bytes_max: int = MIB, version: str = "1") -> tuple[AnswerCache, Metrics]:
    metrics = Metrics()
    manifest = OF_ONE_NUMBER.model_copy(update={"version": version})
    return AnswerCache(manifest, bytes_max, metrics.of("echo", version, slo_s=1, batch_max=1)), metrics


def key(inputs: Sequence[Array], version: str = "1") -> bytes:
    return asyncio.run(cache(version=version)[0].key(inputs))


def counted(server: Running) -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families(server.ask("/metrics")[2].decode())
    found = (each for family in families for each in family.samples if each.name.startswith("fusion_"))
    return {(each.name, each.labels.get("version", "")): each.value for each in found}


def test_one_content_has_one_answer_whichever_protocol_brings_it(
    serve: Start, package_url: str, module: FusionNet
) -> None:
    server = serve({"versions": [{"package": package_url}], **SETTINGS}, grpc_port=0, device="cpu")
    rows = images(2)
    wanted = expected(module, rows)
    np.testing.assert_allclose(server.classify(rows), wanted, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(server.classify(rows), wanted, rtol=1e-3, atol=1e-5)
    tensor = {"name": "input", "datatype": "FP32", "shape": [2, *SHAPE], "data": rows.ravel().tolist()}
    _, _, body = server.ask("/v2/models/small/infer", json.dumps({"inputs": [tensor]}).encode())
    (output,) = json.loads(body)["outputs"]
    np.testing.assert_allclose(np.reshape(output["data"], (2, CLASSES)), wanted, rtol=1e-3, atol=1e-5)
    with triton.InferenceServerClient(address(server)) as client:
        np.testing.assert_allclose(client.infer("small", asked(rows)).as_numpy("output"), wanted, rtol=1e-3, atol=1e-5)
    server.classify(images(2, seed=1))
    server.classify(rows[:1])
    said = counted(server)
    assert (said["fusion_cache_hits_total", "1"], said["fusion_cache_misses_total", "1"]) == (3, 3)
    assert said["fusion_batch_rows_count", "1"] == 3, "what was kept cost no batch"
    assert 3 * 1024 < said["fusion_cache_bytes", "1"] < MIB


def test_no_answer_outlives_a_reload(serve: Start, package_url: str, module: FusionNet, tmp_path: Path) -> None:
    torch.manual_seed(1)
    other = FusionNet(shape=SHAPE, classes=CLASSES).eval()
    changed = exported(other, tmp_path / "other", "1")  # the same name and version, with other weights
    server = serve({"versions": [{"package": package_url}], **SETTINGS}, device="cpu")
    rows = images(1)
    for _ in range(2):
        np.testing.assert_allclose(server.classify(rows), expected(module, rows), rtol=1e-3, atol=1e-5)
    document = {"host": "127.0.0.1", "port": server.port, "device": "cpu"}
    server.reload(document | {"models": [{"versions": [{"package": changed}], **SETTINGS}]}, says='"reloaded"')
    for _ in range(2):
        np.testing.assert_allclose(server.classify(rows), expected(other, rows), rtol=1e-3, atol=1e-5)


@given(
    arrays.arrays(st.sampled_from((np.float32, np.uint8, np.int64)), arrays.array_shapes(max_dims=3, max_side=3)),
    st.integers(0, 100),
)
@settings(max_examples=50, deadline=None)
def test_a_key_says_type_shape_values_and_version(array: Array, place: int) -> None:
    other = array.copy()
    other.view(np.uint8).reshape(-1)[place % other.nbytes] ^= 1
    different = [
        [other],
        [array.reshape(-1, 1, 1, 1)],
        [array.view(np.uint8)] if array.dtype != np.uint8 else [],
        [array, array],
    ]
    assert key([array]) == key([array.copy()])
    assert all(key([array]) != key(each) for each in different if each)
    assert key([array]) != key([array], version="2")


def test_elements_of_bytes_do_not_run_together() -> None:
    assert key([np.array([b"ab", b"c"], object)]) != key([np.array([b"a", b"bc"], object)])


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 2000)), min_size=1, max_size=60))
@settings(max_examples=50, deadline=None)
def test_it_never_holds_more_than_it_may_and_gives_back_what_it_was_given(asks: list[tuple[int, int]]) -> None:
    kept, metrics = cache(bytes_max=8 * 1024)
    for number, size in asks:
        name, answer = bytes([number]), [np.full((1, size), number, np.float32)]
        found = kept.get(name)
        if found is None:
            kept.keep(name, answer)
            found = kept.get(name) or answer
        assert (found[0] == number).all()
        held = metrics.registry.get_sample_value("fusion_cache_bytes", {"model": "echo", "version": "1"})
        assert held is not None
        assert held <= 8 * 1024


def test_what_is_kept_is_no_part_of_a_batch_and_can_not_be_changed() -> None:
    kept, _ = cache()
    batch = np.zeros((32, 4), np.float32)
    kept.keep(b"a", [batch[:1]])
    batch += 1
    found = kept.get(b"a")
    assert found
    assert not found[0].any()
    assert found[0].base is None
    with pytest.raises(ValueError, match="read-only"):
        found[0][0] = 1
