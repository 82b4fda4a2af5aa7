"""The server's life: load, serve, reload on SIGHUP, drain on SIGTERM."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import uvloop
from granian.constants import Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from workloads.config import ConfigError
from workloads.serving.app import App
from workloads.serving.config import ServingConfig
from workloads.serving.metrics import Metrics
from workloads.serving.models import Models
from workloads.serving.package import PackageError
from workloads.storage import StorageError
from workloads.training.logs import Log

Read = Callable[[], ServingConfig]

QUIET_S = 0.2
"""A server that goes away waits for so long without a request before it closes."""
HEADER_TIMEOUT_MS = 10_000


def run(read: Read) -> None:
    """Serve what a config says until the process is told to stop.

    Args:
        read: gives the config; called again at SIGHUP.

    Raises:
        ConfigError: the config is wrong.
        PackageError: a package can't be served.
        StorageError: a bucket refused.
    """
    uvloop.run(_serve(read))


async def _serve(read: Read) -> None:
    log, config = Log(0), read()
    metrics = Metrics()
    models = Models(cache_folder(), metrics, log.info)
    app = App(models, metrics, config)
    port = config.port or _free_port(config.host)
    server = Server(
        app,
        address=config.host,
        port=port,
        interface=Interfaces.RSGI,
        websockets=False,
        log_enabled=False,
        backlog=2048,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_TIMEOUT_MS),
    )
    serving = asyncio.create_task(server.serve())  # health answers while models load
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    tasks: set[asyncio.Task[None]] = set()
    loop.add_signal_handler(signal.SIGHUP, lambda: _keep(tasks, _reload(read, models, log)))
    try:
        await models.apply(config)
        gc.freeze()  # the collector need not look through the runtimes' modules again and again
        app.is_ready = True
        log.info("ready", host=config.host, port=port, models=sorted(models.by_name))
        await stop.wait()
        app.is_draining = True
        log.info("draining", requests=app.under_way)
        await _quiet(app, config)
        await models.drain()
    finally:
        server.stop()  # type: ignore[no-untyped-call] # Granian leaves its return type out
        await serving
    log.info("stopped")


def _keep(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
    """Run something; the loop itself keeps only weak references."""
    task = asyncio.get_running_loop().create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def _reload(read: Read, models: Models, log: Log) -> None:
    try:
        await models.apply(read())
    except (ConfigError, PackageError, StorageError) as error:
        log.warning("reload_failed", reason=str(error), serving="what was served before")
    else:
        log.info("reloaded", models=sorted(models.by_name))


async def _quiet(app: App, config: ServingConfig) -> None:
    """Until no request came for a moment, or the time to drain is over."""
    end = time.monotonic() + config.drain_s
    quiet_since = time.monotonic()
    while time.monotonic() < end and time.monotonic() - quiet_since < QUIET_S:
        if app.under_way:
            quiet_since = time.monotonic()
        await asyncio.sleep(0.02)


def _free_port(host: str) -> int:
    with socket.socket() as found:
        found.bind((host, 0))
        port: int = found.getsockname()[1]
        return port


def cache_folder() -> Path:
    """Where packages are kept; a container's root is read-only, its temporary folder is not."""
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named) / "fusion" / "packages"
    return Path(os.environ.get("TMPDIR", "/tmp")) / "fusion-packages"
