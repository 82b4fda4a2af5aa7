"""`python -m tests.workloads.serving.faulty`: the server with an ONNX runtime that does what its inputs say, and with a
page that it fails on itself."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, cast

from workloads.serving import backends, model, server
from workloads.serving.__main__ import main
from workloads.serving.app import App, Headers
from workloads.serving.backends import Backend, Forward, Runtime
from workloads.serving.package import Array, Package

SLOW, RAISES, HANGS, CRASHES = -1.0, -2.0, -3.0, -4.0
"""First values of a row; others are served as usual."""
MISTAKEN = "/metrics/mistaken"
"""A page that the server itself fails on."""
SLOW_S, HANGS_AFTER_S, HEADER_TIMEOUT_MS = 0.1, 1.0, 1000


def load(package: Package, runtime: Runtime) -> Forward:
    whole = usual.load(package, runtime)

    def forward(inputs: Sequence[Array]) -> list[Array]:
        asked = {float(row.flat[0]) for row in inputs[0]}
        if SLOW in asked:
            time.sleep(SLOW_S)
        if RAISES in asked:
            raise RuntimeError("the runtime\nfailed")
        if HANGS in asked:
            threading.Event().wait()
        if CRASHES in asked:
            os.kill(os.getpid(), signal.SIGSEGV)
        return whole(inputs)

    return forward


def pages(self: App) -> dict[str, Callable[[], tuple[int, Headers, bytes]]]:
    return usual_pages(self) | {MISTAKEN: mistake}


def mistake() -> NoReturn:
    raise ZeroDivisionError("a mistake of the server")


if __name__ == "__main__":
    usual_pages = App._pages
    cast("Any", App)._pages = pages
    usual = backends.BACKENDS["onnxruntime"]
    cast("dict[str, Backend]", backends.BACKENDS)["onnxruntime"] = dataclasses.replace(usual, load=load)
    model.HANGS_AFTER_S = HANGS_AFTER_S
    server.HEADER_TIMEOUT_MS = HEADER_TIMEOUT_MS
    main()
