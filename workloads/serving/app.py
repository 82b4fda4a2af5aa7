"""The HTTP application: the Open Inference Protocol v2, a raw binary body, health, metrics.

Written on RSGI, the interface of Granian, which parses HTTP/1.1 and HTTP/2 outside of Python.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import time
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import orjson
from granian._granian import RSGIProtocolClosed

from workloads.serving import bodies, docs_page, protocol
from workloads.serving.answering import EXTENSIONS, Answering, Failed
from workloads.serving.bodies import NoRoom, Share
from workloads.serving.model import Answer, ServedModel
from workloads.serving.models import listing
from workloads.serving.openapi import document
from workloads.serving.protocol import BINARY_TYPE, JSON_TYPE, BadRequest, InferRequest
from workloads.training.logs import Log

if TYPE_CHECKING:
    from workloads.serving.traces import RequestTrace

JSON = [("content-type", JSON_TYPE)]
INDEX = "/v2/repository/index"
PROBE = "/v2/probe"
"""Takes any body and answers at once: by it a client measures its link."""
TIMING = "server-timing"
"""https://www.w3.org/TR/server-timing/: the milliseconds from the whole request to its answer."""

MAYBE_UNREAD = (400, 404, 405, 429, 503)
"""What may be answered before the body has come."""
GONE = 499
"""The status of what nobody waits for any more; nginx's."""

Headers = list[tuple[str, str]]


class WrongMethod(Failed):
    """A path that is there, asked by a method that it does not have."""

    def __init__(self, reason: str, allowed: Sequence[str]) -> None:
        super().__init__(405, reason)
        self.allowed = allowed


class App:
    """Answers requests; called by Granian, once for each."""

    def __init__(self, answering: Answering, log: Log) -> None:
        self.answering = answering
        self.models = answering.models
        self.config = answering.config
        self.log = log

    async def __call__(self, scope: Any, proto: Any) -> None:
        """Answer one request."""
        self.answering.under_way += 1
        self.answering.asked += scope.method == "POST"
        traces = self.answering.traces
        trace = None
        try:
            trace = traces.http(scope) if traces and scope.method == "POST" else None
            status, headers, body = await self._answer(scope, proto, trace)
        except Failed as error:
            status, headers, body = error.status, [*JSON, *_headers(error)], _error(str(error))
        except Exception as error:  # a mistake of this server; the next request is served
            self.answering.metrics.internal_errors.inc()
            status, headers, body = 500, JSON, _error("internal error; the server's log says more")
            reason, where = f"{type(error).__name__}: {error}", " ".join(traceback.format_exc().split())
            self.log.warning("internal_error", path=scope.path, reason=reason, where=where)
        finally:
            self.answering.under_way -= 1
        if self.answering.is_draining and scope.http_version.startswith("1"):
            headers = [*headers, ("connection", "close")]
        proto.response_bytes(status, headers, body)
        if trace:
            trace.answered(status)
        if status in MAYBE_UNREAD:
            await self._discard(scope, proto)

    async def _discard(self, scope: Any, proto: Any) -> None:
        """What is left of a refused request's body, for a client that reads no answer before it has sent everything."""
        if int(scope.headers.get("content-length") or 0) > self.answering.body_max:
            return
        with contextlib.suppress(TimeoutError, RSGIProtocolClosed):
            async with asyncio.timeout(self.config.body_timeout_s):
                async for _ in proto:
                    pass

    async def _answer(self, scope: Any, proto: Any, trace: RequestTrace | None) -> tuple[int, Headers, bytes]:
        path, method = scope.path, scope.method
        if method == "POST" and (path.endswith(("/infer", "/raw"))):
            model_path, _, action = path.rpartition("/")
            served = self._served(model_path)
            act = self._infer if action == "infer" else self._raw
            with served.held(), self.answering.room.share() as share:
                try:
                    return await act(served, scope, proto, share, trace)
                except NoRoom:
                    served.metrics.refused["memory"].inc()
                    raise self.answering.no_room() from None
        if method == "POST" and path == PROBE:
            with self.answering.room.share() as share:
                try:
                    return 200, JSON, orjson.dumps({"bytes": len(await self._body(scope, proto, share))})
                except NoRoom:
                    raise self.answering.no_room() from None
        if method == "POST" and path == INDEX:
            return 200, JSON, orjson.dumps(listing(self.models))
        allowed = self._methods(path)
        if method not in allowed:
            raise WrongMethod(f"{method} {path}: no such method here; expected {' or '.join(allowed)}", allowed)
        status, headers, body = self._page(path)
        return status, headers, b"" if method == "HEAD" else body

    def _pages(self) -> dict[str, Callable[[], tuple[int, Headers, bytes]]]:
        return {
            "/live": self._live,
            "/v2/health/live": self._live,
            "/ready": self._ready,
            "/v2/health/ready": self._ready,
            "/metrics": lambda: (200, [("content-type", "text/plain; version=0.0.4")], self.answering.metrics.text()),
            "/docs": docs_page.page,
            **{f"/docs/{name}": functools.partial(docs_page.asset, name) for name in docs_page.ASSETS},
            "/openapi.json": lambda: (200, JSON, orjson.dumps(document(self.models))),
            "/v2": lambda: (200, JSON, orjson.dumps({"name": "fusion", "version": "2", "extensions": EXTENSIONS})),
        }

    def _methods(self, path: str) -> Sequence[str]:
        """What a path may be asked by.

        Raises:
            Failed: there is no such path.
        """
        if path in (PROBE, INDEX):
            return ("POST",)
        if path.endswith(("/infer", "/raw")):
            self._served(path.rpartition("/")[0])
            return ("POST",)
        if (path.rstrip("/") or "/") not in self._pages():
            self._served(path.removesuffix("/ready"))
        return ("GET", "HEAD")

    def _page(self, path: str) -> tuple[int, Headers, bytes]:
        if page := self._pages().get(path.rstrip("/") or "/"):
            return page()
        if path.endswith("/ready"):
            self._served(path.removesuffix("/ready"))
            return 200, JSON, b"{}"
        served = self._served(path)
        versions = list(self.models.by_name[served.manifest.name].versions)
        return 200, JSON, orjson.dumps(protocol.metadata(served.pipeline.signature, versions, served.choice.backend))

    def _live(self) -> tuple[int, Headers, bytes]:
        self.answering.raise_unless_live()
        return 200, JSON, b"{}"

    def _ready(self) -> tuple[int, Headers, bytes]:
        self.answering.raise_unless_ready()
        return 200, JSON, b"{}"

    def _served(self, path: str) -> ServedModel:
        """`/v2/models/NAME` or `/v2/models/NAME/versions/VERSION` → who serves it."""
        parts = path.split("/")
        if (
            len(parts) not in (4, 6)
            or parts[:3] != ["", "v2", "models"]
            or (len(parts) == 6 and parts[4] != "versions")
        ):
            raise Failed(404, f"{path}: no such page; the API is described in /openapi.json")
        return self.answering.find(parts[3], parts[5] if len(parts) == 6 else None)

    async def _infer(
        self, served: ServedModel, scope: Any, proto: Any, share: Share, trace: RequestTrace | None
    ) -> tuple[int, Headers, bytes]:
        start_s, signature = time.monotonic(), served.pipeline.signature
        body = await self._body(scope, proto, share)
        read_s = time.monotonic()
        try:
            request = protocol.parse(
                body, scope.headers.get(protocol.HEADER_LENGTH), signature, served.limits.batch_max
            )
        except BadRequest as error:
            raise Failed(400, str(error)) from None
        outputs = await self._run(served, request, proto, start_s, trace)
        sent_s = time.monotonic()
        try:
            headers, answer = protocol.answer(request, outputs, signature)
        except BadRequest as error:
            raise Failed(400, str(error)) from None
        self.answering.transferred(served, trace, start_s, read_s, sent_s)
        return 200, [*headers, _timing(read_s)], answer

    async def _raw(
        self, served: ServedModel, scope: Any, proto: Any, share: Share, trace: RequestTrace | None
    ) -> tuple[int, Headers, bytes]:
        start_s, signature = time.monotonic(), served.pipeline.signature
        try:
            priority = protocol.checked_priority(_number(scope.headers, protocol.PRIORITY))
            timeout_ms = _number(scope.headers, protocol.TIMEOUT_MS)
            timeout_s = None if timeout_ms is None else timeout_ms / 1e3
            kind = scope.headers.get("content-type")
            is_image = kind in bodies.IMAGE_FORMATS and signature.inputs[0].datatype != "BYTES"
            is_plain = not is_image and scope.headers.get(bodies.ENCODING) is None
            if is_plain and (length := scope.headers.get("content-length")):
                rows = protocol.raw_rows(int(length), signature, served.limits.batch_max)
                if served.cache is None:  # which may have the answer
                    self.answering.check(served, rows, priority, timeout_s)  # refused before a byte is read
            body = await self._body(scope, proto, share)
            read_s = time.monotonic()
            if is_image:
                inputs = await asyncio.to_thread(bodies.pixels, body, kind, signature)
            else:
                inputs = protocol.parse_raw(body, signature, served.limits.batch_max)
        except BadRequest as error:
            raise Failed(400, str(error)) from None
        request = InferRequest(inputs, priority=priority, timeout_s=timeout_s)
        outputs = await self._run(served, request, proto, start_s, trace)
        sent_s = time.monotonic()
        spec = signature.outputs[0]
        headers = [
            ("content-type", BINARY_TYPE),
            ("fusion-datatype", spec.datatype),
            ("fusion-shape", ",".join(map(str, outputs[0].shape))),
            ("fusion-model-version", served.manifest.version),
            _timing(read_s),
        ]
        answer = protocol.to_bytes(outputs[0])
        self.answering.transferred(served, trace, start_s, read_s, sent_s)
        return 200, headers, answer

    async def _run(
        self, served: ServedModel, request: InferRequest, proto: Any, start_s: float, trace: RequestTrace | None
    ) -> Answer:
        try:
            return await self.answering.run(served, request, start_s, functools.partial(_unless_gone, proto), trace)
        except asyncio.CancelledError:
            raise _gone() from None

    async def _body(self, scope: Any, proto: Any, share: Share) -> bytes:
        """The whole body, decompressed; what it takes is taken of the room before it is read.

        Raises:
            NoRoom: the other bodies leave none for it.
        """
        length = scope.headers.get("content-length")
        if length is not None and int(length) > self.answering.body_max:
            raise self._too_large()
        share.take(int(length or 0))
        try:
            async with asyncio.timeout(self.config.body_timeout_s):
                body: bytes = await (self._chunks(proto, share) if length is None else proto())
        except TimeoutError:
            raise Failed(408, f"the request was not sent within {self.config.body_timeout_s:g} s") from None
        except RSGIProtocolClosed:
            raise _gone() from None
        encoding = scope.headers.get(bodies.ENCODING)
        if encoding is None:
            return body
        try:
            plain = bodies.decompressed(body, encoding, self.answering.body_max)
        except bodies.TooLarge:
            raise self._too_large() from None
        except BadRequest as error:
            raise Failed(400, str(error)) from None
        share.take(len(plain))
        return plain

    async def _chunks(self, proto: Any, share: Share) -> bytes:
        """A body whose length nobody said."""
        chunks, size = [], 0
        async for chunk in proto:
            size += len(chunk)
            if size > self.answering.body_max:
                raise self._too_large()
            share.take(len(chunk))
            chunks.append(chunk)
        return b"".join(chunks)

    def _too_large(self) -> Failed:
        return Failed(413, f"the body is larger than {self.config.body_max_mib:g} MiB (body_max_mib)")


def _headers(error: Failed) -> Headers:
    if isinstance(error, WrongMethod):
        return [("allow", ", ".join(error.allowed))]
    if error.retry_after_s is None:
        return []
    seconds = max(0.001, error.retry_after_s)
    return [("retry-after", str(math.ceil(seconds))), ("fusion-retry-after-ms", str(math.ceil(seconds * 1e3)))]


def _gone() -> Failed:
    return Failed(GONE, "the client went away")


async def _unless_gone(proto: Any, future: asyncio.Future[Answer]) -> Answer:
    """The answer, unless the client goes away first.

    Raises:
        asyncio.CancelledError: it went away.
    """
    gone: asyncio.Future[Any] = asyncio.ensure_future(proto.client_disconnect())
    done, _ = await asyncio.wait((future, gone), return_when=asyncio.FIRST_COMPLETED)
    if future in done:
        gone.cancel()
        return future.result()
    future.cancel()
    raise asyncio.CancelledError


def _timing(read_s: float) -> tuple[str, str]:
    return TIMING, f"model;dur={(time.monotonic() - read_s) * 1e3:.2f}"


def _number(headers: Any, name: str) -> int | None:
    text = headers.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > protocol.DIGITS_MAX:
        raise BadRequest(f"{name}: got {text[:20]!r}; expected a whole number, 0 or more")
    return int(text)


def _error(reason: str) -> bytes:
    return orjson.dumps({"error": reason})
