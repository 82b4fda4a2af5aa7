"""Asks the server that has the cloud's parts, over `fusion serve`'s own protocol."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import orjson

from workloads.config import ConfigError
from workloads.partition import codings
from workloads.partition.measuring import window_of
from workloads.partition.plan import Way
from workloads.serving.app import PROBE, TIMING
from workloads.serving.bodies import ENCODING, IMAGE_FORMATS
from workloads.serving.package import NUMPY_TYPES, Array
from workloads.serving.protocol import BINARY_SIZE, BINARY_TYPE, HEADER_LENGTH

CONTENT_TYPE = "content-type"
RETRY_MS = "fusion-retry-after-ms"
TYPE_OF = {dtype: name for name, dtype in NUMPY_TYPES.items()}
DTYPE_OF: Mapping[str, np.dtype[Any]] = {str(name): dtype for name, dtype in NUMPY_TYPES.items()}


class RemoteError(RuntimeError):
    """The cloud gave no answer; `retry_after_s` says when to ask again, where it is known."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer."""

    body: bytes
    seconds: float
    server_s: float
    sent: int
    window_bytes: float
    headers: http.client.HTTPMessage


class Remote:
    """A server, and the connections to it; may be used from several threads."""

    def __init__(self, url: str, version: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ConfigError(f"the server is {url!r}; expected one such as http://10.0.0.5:8080")
        self._host, self._port = parts.hostname, parts.port or 80
        self._version = version
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def window_bytes(self) -> float:
        """What TCP would have under way on the connection that the next request takes."""
        with self._lock:
            sockets = [each.sock for each in self._idle[-1:] if each.sock is not None]
        return window_of(sockets[0]) if sockets else 10.0 * 1448

    def infer(
        self, way: Way, tensors: Sequence[Array], names: Sequence[str], is_compressed: bool, timeout_s: float
    ) -> tuple[list[Array], Exchange]:
        """The cloud part's outputs for coded tensors.

        Raises:
            RemoteError: there is no answer, or it is of another model.
        """
        described = [
            {
                "name": name,
                "datatype": TYPE_OF[each.dtype],
                "shape": list(each.shape),
                "parameters": {BINARY_SIZE: each.nbytes},
            }
            for name, each in zip(names, tensors, strict=True)
        ]
        head = orjson.dumps({"inputs": described, "parameters": {"binary_data_output": True}})
        body = b"".join((head, *(each.tobytes() for each in tensors)))
        headers = {HEADER_LENGTH: str(len(head)), CONTENT_TYPE: BINARY_TYPE}
        if is_compressed:
            body = codings.compressed(body)
            headers[ENCODING] = "zstd"
        exchange = self._post(self._path(way, "infer"), body, headers, timeout_s)
        return self._outputs(way, exchange), exchange

    def infer_image(self, way: Way, file: bytes, timeout_s: float) -> tuple[list[Array], Exchange]:
        """The one output for an image file.

        Raises:
            RemoteError: there is no answer, or it is of another model.
        """
        kind = next(kind for kind, name in IMAGE_FORMATS.items() if name.lower() == way.coding)
        exchange = self._post(self._path(way, "raw"), file, {CONTENT_TYPE: kind}, timeout_s)
        if exchange.headers.get("fusion-model-version") != self._version:
            raise RemoteError(f"{way.model}: the server has another version than {self._version}")
        try:
            shape = [int(side) for side in exchange.headers["fusion-shape"].split(",")]
            dtype = DTYPE_OF[exchange.headers["fusion-datatype"]]
            return [np.frombuffer(exchange.body, dtype).reshape(shape)], exchange
        except (KeyError, ValueError) as error:
            raise RemoteError(f"{way.model}: no answer of the protocol: {error!r}") from None

    def probe(self, size: int, timeout_s: float) -> Exchange:
        """Send so many bytes for nothing.

        Raises:
            RemoteError: there is no answer.
        """
        return self._post(PROBE, bytes(size), {CONTENT_TYPE: BINARY_TYPE}, timeout_s)

    def _path(self, way: Way, action: str) -> str:
        return f"/v2/models/{way.model}/versions/{self._version}/{action}"

    def _outputs(self, way: Way, exchange: Exchange) -> list[Array]:
        try:
            length = int(exchange.headers[HEADER_LENGTH])
            document = orjson.loads(exchange.body[:length])
            if (document["model_name"], document["model_version"]) != (way.model, self._version):
                raise RemoteError(f"{way.model}: the server answered as {document['model_name']}")
            outputs, offset = [], length
            for each in document["outputs"]:
                size = each["parameters"][BINARY_SIZE]
                data = exchange.body[offset : offset + size]
                outputs.append(np.frombuffer(data, DTYPE_OF[each["datatype"]]).reshape(each["shape"]))
                offset += size
        except (KeyError, TypeError, ValueError) as error:
            raise RemoteError(f"{way.model}: no answer of the protocol: {error!r}") from None
        return outputs

    def _post(self, path: str, body: bytes, headers: dict[str, str], timeout_s: float) -> Exchange:
        connection = self._taken(timeout_s)
        try:
            if connection.sock is None:
                connection.connect()
            window = window_of(connection.sock)
            connection.sock.settimeout(timeout_s)
            start = time.perf_counter()
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            answer = response.read()
            seconds = time.perf_counter() - start
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise RemoteError(f"{type(error).__name__}: {error}") from None
        with self._lock:
            self._idle.append(connection)
        if response.status != 200:
            retry_ms = response.headers.get(RETRY_MS)
            reason = answer[:200].decode(errors="replace")
            raise RemoteError(
                f"{path}: {response.status} {reason}", None if retry_ms is None else float(retry_ms) / 1e3
            )
        timing = response.headers.get(TIMING, "")
        server_s = float(timing.rpartition("dur=")[2] or 0) / 1e3
        return Exchange(answer, seconds, server_s, len(body), window, response.headers)

    def _taken(self, timeout_s: float) -> http.client.HTTPConnection:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)

    def forget(self) -> None:
        """Close the connections that nobody uses: those of a link that was lost don't come back."""
        with self._lock:
            idle, self._idle = self._idle, []
        for each in idle:
            each.close()
