"""The peers of `benchmarks/serving.py`, each serving the same exported program, eager, on one thread.

    python serving_peers.py litserve|bentoml|ray|asgi PROGRAM.pt2 PORT BATCH_MAX

Run by the benchmark in an environment of its own. Each takes the bytes of one float32 input and answers with the bytes of
its logits, and batches as its documentation says.
"""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np
import torch
from starlette.requests import Request
from starlette.responses import Response

SHAPE: tuple[int, ...] = ()
WAIT_S = 0.005


def program(path: str) -> Any:
    """The exported program, as a module."""
    torch.set_num_threads(1)
    exported = torch.export.load(path)
    global SHAPE
    SHAPE = tuple(exported.example_inputs[0][0].shape[1:])
    return exported.module()


def forward(module: Any, bodies: list[bytes]) -> list[bytes]:
    """The logits of a batch of inputs."""
    batch = torch.from_numpy(np.stack([np.frombuffer(body, np.float32).reshape(SHAPE) for body in bodies]))
    with torch.inference_mode():
        return [row.tobytes() for row in module(batch).numpy()]


class Api(litserve.LitAPI):
    """LitServe's hooks; at the module's level, because its workers are other processes."""

    def __init__(self, path: str, batch_max: int) -> None:
        super().__init__(max_batch_size=batch_max, batch_timeout=WAIT_S)
        self.path = path

    def setup(self, device: str) -> None:
        """Load the program in the worker."""
        self.module = program(self.path)

    def decode_request(self, request: dict[str, str]) -> bytes:
        """LitServe hands bodies over as JSON, or as forms whose files can't go to its workers: so base64 in JSON."""
        return base64.b64decode(request["body"])

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """As they are; `forward` puts them together."""
        return inputs

    def predict(self, inputs: list[bytes]) -> list[bytes]:
        """Answer a batch."""
        return forward(self.module, inputs)

    def unbatch(self, outputs: list[bytes]) -> list[bytes]:
        """As they are."""
        return outputs

    def encode_response(self, output: bytes) -> Response:
        """The bytes alone."""
        return Response(output, media_type="application/octet-stream")


def serve_by_litserve(path: str, port: int, batch_max: int) -> None:
    """LitServe with one worker."""
    server = litserve.LitServer(Api(path, batch_max), accelerator="cpu", workers_per_device=1)
    server.run(port=port, host="127.0.0.1", generate_client_file=False, log_level="error")


def serve_by_bentoml(path: str, port: int, batch_max: int) -> None:
    """BentoML with one worker: its own command, on the service in `serving_bentoml.py`."""
    os.environ |= {"PEER_PROGRAM": path, "PEER_BATCH_MAX": str(batch_max), "BENTOML_DO_NOT_TRACK": "True"}
    place = ["--host", "127.0.0.1", "--port", str(port), "--working-dir", str(Path(__file__).parent)]
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", "serve", "serving_bentoml:Served", *place])


def serve_by_ray(path: str, port: int, batch_max: int) -> None:
    """Ray Serve with one replica."""
    import ray
    from ray import serve

    @serve.deployment(max_ongoing_requests=1000, ray_actor_options={"num_cpus": 1})
    class Served:
        def __init__(self) -> None:
            self.module = program(path)

        @serve.batch(max_batch_size=batch_max, batch_wait_timeout_s=WAIT_S)
        async def batch(self, bodies: list[bytes]) -> list[bytes]:
            return forward(self.module, bodies)

        async def __call__(self, request: Request) -> Response:
            return Response(await self.batch(await request.body()), media_type="application/octet-stream")

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(Served.bind(), route_prefix="/", blocking=True)


def serve_by_asgi(path: str, port: int, batch_max: int) -> None:
    """The plain server that the peers are measured by: uvicorn, a queue, one thread."""
    from concurrent.futures import ThreadPoolExecutor

    import uvicorn

    module, thread = program(path), ThreadPoolExecutor(1)
    waiting: list[tuple[bytes, asyncio.Future[bytes]]] = []
    wake: asyncio.Event | None = None

    async def batches(event: asyncio.Event) -> None:
        while True:
            await event.wait()
            batch, waiting[:] = waiting[:batch_max], waiting[batch_max:]
            if not batch:
                event.clear()
                continue
            bodies = [body for body, _ in batch]
            answers = await asyncio.get_running_loop().run_in_executor(thread, forward, module, bodies)
            for (_, future), answer in zip(batch, answers, strict=True):
                future.set_result(answer)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal wake
        if scope["type"] != "http":
            return
        if wake is None:
            wake = asyncio.Event()
            app.task = asyncio.ensure_future(batches(wake))
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        future = asyncio.get_running_loop().create_future()
        waiting.append((body, future))
        wake.set()
        answer = await future
        headers = [(b"content-type", b"application/octet-stream"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False, loop="uvloop", http="httptools")


PEERS = {"litserve": serve_by_litserve, "bentoml": serve_by_bentoml, "ray": serve_by_ray, "asgi": serve_by_asgi}

if __name__ == "__main__":
    peer, path, port, batch_max = sys.argv[1:]
    PEERS[peer](path, int(port), int(batch_max))
