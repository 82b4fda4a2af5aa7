"""The bucket server of the local Google Cloud: fake-gcs-server, found again by its address file, its objects in a
folder.

A file system keeps the objects, so that they outlive a kill of the server. It keeps no older versions of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

from localcloud.server import home

PROGRAM = "fake-gcs-server"
START_TIMEOUT_S = 30
_HEALTH = "/_internal/healthcheck"


def endpoint() -> str | None:
    """The address of the running server, for STORAGE_EMULATOR_HOST; None when none answers."""
    try:
        address = str(json.loads((home() / "gcs.json").read_text())["endpoint"])
        with urllib.request.urlopen(address + _HEALTH, timeout=5):
            return address
    except (OSError, ValueError, KeyError, urllib.error.URLError):
        return None


def ensure() -> str:
    """The address of the server, which is started if none answers; several processes at once start one.

    Raises:
        RuntimeError: it is not built, or did not come up; says what to do.
    """
    folder = home()
    (folder / "gcs").mkdir(parents=True, exist_ok=True)
    with (folder / "gcs.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if running := endpoint():
            return running
        return _start(folder)


def _start(folder: Path) -> str:
    program = shutil.which(PROGRAM)
    if program is None:
        raise RuntimeError(f"{PROGRAM} is not on PATH; run `make object-storage`, then `source .fusion/env`")
    port, log = _free_port(), folder / "gcs.log"
    address = f"http://127.0.0.1:{port}"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [
                program,
                *("-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-log-level", "warn"),
                *("-backend", "filesystem", "-filesystem-root", str(folder / "gcs")),
                *("-external-url", address, "-public-host", f"127.0.0.1:{port}"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    (folder / "gcs.json").write_text(json.dumps({"endpoint": address, "pid": process.pid}))
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        if endpoint():
            return address
        time.sleep(0.02)
    raise RuntimeError(f"{PROGRAM} did not start within {START_TIMEOUT_S} s; its log is {log}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def kill() -> None:
    """Stop the server and keep its objects, as a restart of the machine would."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        process_id = int(json.loads((home() / "gcs.json").read_text())["pid"])
        if endpoint() is None:
            return
        os.kill(process_id, signal.SIGKILL)
        while endpoint() is not None:
            time.sleep(0.02)


def stop() -> None:
    """Stop the server and forget its objects."""
    kill()
    (home() / "gcs.json").unlink(missing_ok=True)
    shutil.rmtree(home() / "gcs", ignore_errors=True)


def buckets() -> list[str]:
    """The names of its buckets."""
    return [each["name"] for each in _call("GET", "/storage/v1/b").get("items") or ()]


def make_bucket(name: str) -> None:
    """Make a bucket; one that is there stays as it is."""
    if name not in buckets():
        _call("POST", "/storage/v1/b", {"name": name})


def has_objects(name: str) -> bool:
    """Whether a bucket has any."""
    return bool(_objects(name, most=1))


def remove_bucket(name: str) -> None:
    """Delete a bucket with its objects; one that is gone already is no error."""
    if name not in buckets():
        return
    while found := _objects(name):
        for each in found:
            _call("DELETE", f"/storage/v1/b/{name}/o/{quote(each, safe='')}")
    _call("DELETE", f"/storage/v1/b/{name}")


def _objects(bucket: str, most: int = 1000) -> list[str]:
    if bucket not in buckets():
        return []
    listed = _call("GET", f"/storage/v1/b/{bucket}/o?maxResults={most}")
    return [each["name"] for each in listed.get("items") or ()]


def _call(method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        ensure() + path, data=data, method=method, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read()
        parsed: dict[str, Any] = json.loads(text) if text else {}
        return parsed
