"""BentoML's service for `benchmarks/serving.py`: `bentoml serve serving_bentoml:Served` in the peers' environment.

Its batches are of lists, in JSON, so the bytes go as base64, as they do to LitServe.
"""

from __future__ import annotations

import base64
import os

import bentoml
from serving_peers import forward, program

BATCH_MAX = int(os.environ["PEER_BATCH_MAX"])


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 1000})
class Served:
    """One worker that batches as BentoML's documentation says: adaptively, up to a latency."""

    def __init__(self) -> None:
        self.module = program(os.environ["PEER_PROGRAM"])

    @bentoml.api(batchable=True, max_batch_size=BATCH_MAX, max_latency_ms=60_000)
    def predict(self, bodies: list[str]) -> list[str]:
        """The logits of a batch."""
        answers = forward(self.module, [base64.b64decode(body) for body in bodies])
        return [base64.b64encode(answer).decode() for answer in answers]
