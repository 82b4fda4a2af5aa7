"""The gRPC service: its six methods, deadlines, cancellation, and refusals that say when to come again."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from workloads.config import ConfigError
from workloads.serving import protocol
from workloads.serving.answering import EXTENSIONS, Answering, Failed
from workloads.serving.bodies import NoRoom
from workloads.serving.protocol import BadRequest
from workloads.serving.rpc import messages
from workloads.serving.rpc import open_inference_grpc_pb2 as pb
from workloads.training.logs import Log

if TYPE_CHECKING:
    from workloads.serving.traces import RequestTrace

SERVICE = "inference.GRPCInferenceService"
CODES: Mapping[int, grpc.StatusCode] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}
"""By the status that HTTP would have."""
DETAILS = "grpc-status-details-bin"
"""Where a `google.rpc.Status` travels, with a `RetryInfo` in it."""
PUSHBACK_MS = "grpc-retry-pushback-ms"
"""After which a client whose service config has a retry policy tries again: gRPC's proposal A6."""
MESSAGE_OVERHEAD_BYTES = 64 * 1024
"""Of a message around its tensors: names, shapes, parameters."""
PING_MS = 30_000

Context = grpc.aio.ServicerContext[Any, Any]
Method = Callable[[Any, Context], Awaitable[Any]]


class RpcServer:
    """Answers the protocol's calls on a port of its own."""

    def __init__(self, answering: Answering, log: Log) -> None:
        self.port = 0
        self._answering = answering
        self._log = log
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", answering.body_max + MESSAGE_OVERHEAD_BYTES),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_time_ms", PING_MS),
            ]
        )
        methods: Mapping[str, tuple[Method, Any]] = {
            "ServerLive": (self._server_live, pb.ServerLiveRequest),
            "ServerReady": (self._server_ready, pb.ServerReadyRequest),
            "ModelReady": (self._model_ready, pb.ModelReadyRequest),
            "ServerMetadata": (self._server_metadata, pb.ServerMetadataRequest),
            "ModelMetadata": (self._model_metadata, pb.ModelMetadataRequest),
            "ModelInfer": (self._model_infer, pb.ModelInferRequest),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                functools.partial(self._answer, method),
                request_deserializer=functools.partial(_read, message),
                response_serializer=lambda answer: answer.SerializeToString(),
            )
            for name, (method, message) in methods.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    @classmethod
    async def started(cls, answering: Answering, log: Log, host: str, port: int) -> Self:
        """One that listens; for port 0 on a free one.

        Raises:
            ConfigError: nothing can listen there.
        """
        self = cls(answering, log)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        with contextlib.suppress(RuntimeError):
            self.port = self._server.add_insecure_port(address)
        if not self.port:
            raise ConfigError(
                f"grpc_port: got {port} of {host}, where no server can listen; expected a port that no other process "
                "uses"
            )
        await self._server.start()
        return self

    async def stop(self, grace_s: float) -> None:
        """Take no new calls, and end when those under way are answered, or the time is over."""
        await self._server.stop(grace_s)

    async def _answer(self, method: Method, request: Any, context: Context) -> Any:
        self._answering.under_way += 1
        try:
            if request is None:
                raise BadRequest("the bytes are no message of the protocol")
            return await method(request, context)
        except BadRequest as error:
            await _refuse(context, Failed(400, str(error)))
        except Failed as error:
            await _refuse(context, error)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:  # a mistake of this server; the next request is served
            self._answering.metrics.internal_errors.inc()
            reason, where = f"{type(error).__name__}: {error}", " ".join(traceback.format_exc().split())
            self._log.warning("internal_error", path=f"{SERVICE}.{method.__name__}", reason=reason, where=where)
            await _refuse(context, Failed(500, "internal error; the server's log says more"))
        finally:
            self._answering.under_way -= 1

    async def _server_live(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=_passes(self._answering.raise_unless_live))

    async def _server_ready(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=_passes(self._answering.raise_unless_ready))

    async def _model_ready(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:
        is_known = _passes(lambda: self._answering.find(request.name, request.version or None))
        return pb.ModelReadyResponse(ready=is_known and _passes(self._answering.raise_unless_ready))

    async def _server_metadata(self, request: pb.ServerMetadataRequest, context: Context) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name="fusion", version="2", extensions=EXTENSIONS)

    async def _model_metadata(self, request: pb.ModelMetadataRequest, context: Context) -> pb.ModelMetadataResponse:
        served = self._answering.find(request.name, request.version or None)
        versions = list(self._answering.models.by_name[request.name].versions)
        return pb.ModelMetadataResponse(**protocol.metadata(served.pipeline.signature, versions, served.choice.backend))

    async def _model_infer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        self._answering.asked += 1
        traces = self._answering.traces
        if traces is None:
            return await self._infer(request, context, None)
        trace = traces.rpc(f"{SERVICE}/ModelInfer", context.invocation_metadata() or ())
        code = grpc.StatusCode.INTERNAL
        try:
            answer = await self._infer(request, context, trace)
            code = grpc.StatusCode.OK
        except (BadRequest, Failed) as error:
            code = CODES[error.status if isinstance(error, Failed) else 400]
            raise
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED
            raise
        finally:
            trace.answered_rpc(code.name)
        return answer

    async def _infer(
        self, request: pb.ModelInferRequest, context: Context, trace: RequestTrace | None
    ) -> pb.ModelInferResponse:
        start_s = time.monotonic()
        served = self._answering.find(request.model_name, request.model_version or None)
        asked = messages.parse(request, served.pipeline.signature, served.limits.batch_max, context.time_remaining())
        with served.held(), self._answering.room.share() as share:
            try:
                share.take(request.ByteSize())
            except NoRoom:
                served.metrics.refused["memory"].inc()
                raise self._answering.no_room() from None
            read_s = time.monotonic()
            outputs = await self._answering.run(served, asked, start_s, trace=trace)
            sent_s = time.monotonic()
            answer = messages.answer(asked, outputs, served.pipeline.signature)
        self._answering.transferred(served, trace, start_s, read_s, sent_s)
        return answer


def _read(message: Any, content: bytes) -> Any:
    """A message, or None where it is none: gRPC itself would call that a mistake of the server, and log a traceback."""
    try:
        return message.FromString(content)
    except DecodeError:
        return None


def _passes(check: Callable[[], object]) -> bool:
    try:
        check()
    except Failed:
        return False
    return True


async def _refuse(context: Context, error: Failed) -> None:
    """End a call with a status, and where it makes sense the time after which to try again.

    Raises:
        grpc.aio.AbortError: always.
    """
    code = CODES[error.status]
    trailing: list[tuple[str, str | bytes]] = []
    if error.retry_after_s is not None:
        wait_ms = max(1, math.ceil(error.retry_after_s * 1e3))
        status = Status(code=code.value[0], message=str(error))
        status.details.add().Pack(
            RetryInfo(retry_delay=Duration(seconds=wait_ms // 1000, nanos=wait_ms % 1000 * 10**6))
        )
        trailing = [(DETAILS, status.SerializeToString()), (PUSHBACK_MS, str(wait_ms))]
    await context.abort(code, str(error), tuple(trailing))
