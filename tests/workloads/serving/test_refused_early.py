"""A request that is refused before its body is read: the client, which may still be sending it, gets the reason."""

from __future__ import annotations

from tests.workloads.serving.conftest import Start, images

LARGE = 16 * 2**20
"""More than what the sockets' buffers hold."""


def test_a_client_that_sends_a_large_body_reads_why_it_was_refused(serve: Start, package_url: str) -> None:
    server = serve({"versions": [{"package": package_url}], "slo_ms": 5000, "backends": ["onnxruntime"]}, device="cpu")
    for _ in range(20):
        status, _, body = server.ask("/v2/models/other/raw", bytes(LARGE))
        assert status == 404 and b"no such model" in body
    assert server.classify(images(1)).shape == (1, 10)
