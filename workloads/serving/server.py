"""The server's life: load, serve, reload on SIGHUP, drain on SIGTERM."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop
from granian.constants import Interfaces
from granian.http import HTTP1Settings, HTTP2Settings
from granian.server.embed import Server

from workloads.config import ConfigError
from workloads.serving.allocator import give_back_once, keep_freed_memory
from workloads.serving.answering import Answering
from workloads.serving.app import App
from workloads.serving.config import ServingConfig, traces_endpoint
from workloads.serving.metrics import Metrics
from workloads.serving.model import ServedModel
from workloads.serving.models import Models
from workloads.serving.package import PackageError
from workloads.storage import StorageError
from workloads.training.logs import Log

if TYPE_CHECKING:
    from workloads.serving.rpc.server import RpcServer
    from workloads.serving.traces import Traces

Read = Callable[[], ServingConfig]

QUIET_S = 0.2
"""A server that goes away waits for so long without a request before it closes."""
HEADER_TIMEOUT_MS = 75_000
"""For a request's header, and of an idle connection: longer than load balancers keep theirs (60 s), which would else
send requests into connections that are being closed."""
PING_MS = 30_000
"""How often a silent HTTP/2 client is asked whether it is still there."""
HEADERS_MAX_BYTES = 64 * 1024


def run(read: Read) -> int:
    """Serve what a config says until the process is told to stop.

    Args:
        read: gives the config; called again at SIGHUP.

    Returns:
        The process's exit status: 0, or 1 where a model's runtime hangs, so that whoever started it starts it again.

    Raises:
        ConfigError: the config is wrong.
        PackageError: a package can't be served.
        StorageError: a bucket refused.
    """
    keep_freed_memory()
    return uvloop.run(_serve(read))


async def _serve(read: Read) -> int:
    log, config = Log(0), read()
    stop, hanging = asyncio.Event(), list[str]()

    def on_hang(model: ServedModel) -> None:
        hanging.append(model.manifest.name)
        log.warning("hanging", model=model.manifest.name, version=model.manifest.version, backend=model.choice.backend)
        stop.set()

    metrics = Metrics()
    models = Models(cache_folder(), metrics, log.info, on_hang)
    traces = _traces(log)
    answering = Answering(models, metrics, config, traces)
    port = _port(config)
    server = http_server(App(answering, log), config.host, port)
    rpc = await _rpc(answering, log)
    serving = asyncio.create_task(server.serve())  # health answers while models load
    reload = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number, event in ((signal.SIGTERM, stop), (signal.SIGINT, stop), (signal.SIGHUP, reload)):
        loop.add_signal_handler(number, event.set)
    try:
        if await _unless(stop, models.apply(config)):
            give_back_once()
            gc.freeze()  # the collector need not look through the runtimes' modules again and again
            answering.is_ready = True
            ports = {"port": port} if rpc is None else {"port": port, "grpc_port": rpc.port}
            log.info("ready", host=config.host, **ports, models=sorted(models.by_name))
            await _unless(stop, _reloads(reload, read, models, log))
        answering.is_draining = True
        log.info("draining", requests=answering.under_way)
        await _quiet(answering)
        with suppress(TimeoutError):  # those that came to the very end of drain_s
            await asyncio.wait_for(models.drain(), QUIET_S)
    finally:
        server.stop()
        with suppress(TimeoutError):  # a request whose body never comes would hold it until body_timeout_s
            await asyncio.wait_for(serving, QUIET_S)
        if rpc is not None:
            await rpc.stop(QUIET_S)
        if traces is not None:
            traces.flush()
    log.info("stopped")
    return 1 if hanging else 0


def _traces(log: Log) -> Traces | None:
    """OpenTelemetry's traces, where the environment says where to; else not even its modules are loaded."""
    found = traces_endpoint()
    if found is None:
        return None
    from workloads.serving.traces import from_environment

    return from_environment(*found, log)


def http_server(app: App, host: str, port: int) -> Server:
    """The server of HTTP/1.1 and HTTP/2, on the event loop that runs its `serve`."""
    return Server(
        app,
        address=host,
        port=port,
        interface=Interfaces.RSGI,
        websockets=False,
        log_enabled=False,
        backlog=2048,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_TIMEOUT_MS),
        http2_settings=HTTP2Settings(keep_alive_interval=PING_MS, max_headers_size=HEADERS_MAX_BYTES),
    )


async def _rpc(answering: Answering, log: Log) -> RpcServer | None:
    """gRPC, where the config names its port; else not even its modules are loaded."""
    config = answering.config
    if config.grpc_port is None:
        return None
    from workloads.serving.rpc.server import RpcServer

    return await RpcServer.started(answering, log, config.host, config.grpc_port)


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do something until it is done or the event comes; whether it was done."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        working.result()
    stopping.cancel()
    return working.done()


async def _reloads(reload: asyncio.Event, read: Read, models: Models, log: Log) -> None:
    """One after the other; signals that come during one make one more."""
    while await reload.wait():
        reload.clear()
        await _reload(read, models, log)


async def _reload(read: Read, models: Models, log: Log) -> None:
    try:
        await models.apply(read())
    except Exception as error:  # whatever is wrong with the new ones, the old ones go on
        known = isinstance(error, ConfigError | PackageError | StorageError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        log.warning("reload_failed", reason=reason, serving="what was served before")
    else:
        log.info("reloaded", models=sorted(models.by_name))


async def _quiet(answering: Answering) -> None:
    """Until no request came for a moment, or the time to drain is over."""
    end = time.monotonic() + answering.config.drain_s
    quiet_since, asked = time.monotonic(), answering.asked
    while time.monotonic() < end:
        if answering.under_way or answering.asked > asked:  # a short one may have come and gone between two looks
            quiet_since, asked = time.monotonic(), answering.asked
        elif time.monotonic() - quiet_since >= QUIET_S:
            return
        await asyncio.sleep(0.02)


def _port(config: ServingConfig) -> int:
    """The port of a config, or a free one for 0; Granian would share a port with whoever listens on it already.

    Raises:
        ConfigError: nothing can listen there.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        with socket.create_server((config.host, config.port), family=family) as found:
            port: int = found.getsockname()[1]
            return port
    except OSError as error:
        raise ConfigError(
            f"host and port: got {config.host}, {config.port}, where no server can listen ({error.strerror}); expected "
            "an address of this machine and a port that no other process uses"
        ) from None


def cache_folder() -> Path:
    """Where packages are kept; a container's root is read-only, its temporary folder is not."""
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named) / "fusion" / "packages"
    return Path(os.environ.get("TMPDIR", "/tmp")) / "fusion-packages"
