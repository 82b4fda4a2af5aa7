"""The local cloud's AWS: one `moto_server` for a checkout, started when it is needed and found again by its address
file.

Its state survives a restart: every request that changes something is written to a log before it is served, and a new
server serves the log again, each request at the time of day it first came. Random ids come out the same, because the
generator is seeded with the request's number; the first of each kind of reading request is in the log as well, because
moto fills a region (its default VPC) when it is first looked at. A log that has grown long is replaced by a snapshot.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

START_TIMEOUT_S = 60
PROFILE = """\
[profile fusion-local]
endpoint_url = {endpoint}
aws_access_key_id = local
aws_secret_access_key = local
region = us-east-1
s3 =
  addressing_style = path
"""
"""For a person who looks with boto3 or the AWS CLI, in `aws.config`; the plugin does not read it."""


def home() -> Path:
    """Where the local cloud keeps its state: `$FUSION_HOME`, else `.fusion` beside the project's Pulumi.yaml."""
    if named := os.environ.get("FUSION_HOME"):
        return Path(named) / "localcloud"
    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / "Pulumi.yaml").is_file()), here)
    return root / ".fusion" / "localcloud"


def endpoint() -> str | None:
    """The address of the running server; None when none answers."""
    try:
        address = json.loads((home() / "aws.json").read_text())["endpoint"]
        with urllib.request.urlopen(f"{address}{HEALTH_PATH}", timeout=5):
            return str(address)
    except (OSError, ValueError, KeyError, urllib.error.URLError):
        return None


def ensure() -> str:
    """The address of the server, which is started if none answers; several processes at once start one.

    Raises:
        RuntimeError: it did not come up; says where its log is.
    """
    folder = home()
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / "lock"):
        if running := endpoint():
            return running
        log = folder / "server.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "localcloud.server", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=os.environ | {"MOTO_IAM_LOAD_MANAGED_POLICIES": "true", "PYTHONHASHSEED": "0"},
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and process.poll() is None:
            if running := endpoint():
                return running
            time.sleep(0.05)
    raise RuntimeError(f"the local cloud's server did not start within {START_TIMEOUT_S} s; its log is {log}")


def stop() -> None:
    """Stop the server and forget its state: the local cloud is empty afterwards."""
    kill()
    for name in ("aws.json", "aws.config", "requests.jsonl", SNAPSHOT):
        (home() / name).unlink(missing_ok=True)


def kill() -> None:
    """Stop the server and keep its state, as a restart of the machine would."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        process_id = int(json.loads((home() / "aws.json").read_text())["pid"])
        if endpoint() is None:
            return
        os.kill(process_id, signal.SIGKILL)
        while endpoint() is not None:
            time.sleep(0.02)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


HEALTH_PATH = "/fusion/health"
LEDGER_PATH = "/fusion/ledger"
STEP_HEADER = "X-Fusion-Step"
SNAPSHOT = "snapshot.pickle"
LOG_LIMIT_BYTES = 8_000_000

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

READ_ONLY_ACTIONS = ("Describe", "List", "Get", "Head", "BatchGet", "Lookup")


class DurableApp:
    """A WSGI app around moto's: one request at a time, those that change something written down before they are
    served.
    """

    def __init__(self, app: WsgiApp, log: Path) -> None:
        self.app = app
        self.log = log
        self.log_limit_bytes = LOG_LIMIT_BYTES
        self.lock = threading.Lock()
        self.served = 0
        self.replayed_at: datetime | None = None
        self.kinds_seen: set[tuple[str, ...]] = set()
        self.ledger: dict[str, dict[str, Any]] = {}
        self.steps: dict[str, tuple[bytes, str, list[tuple[str, str]]]] = {}

    def restore(self) -> None:
        """Take the snapshot, and serve again what came after it."""
        snapshot = self.log.with_name(SNAPSHOT)
        if snapshot.exists():
            from localcloud import snapshots

            try:
                self.served, self.kinds_seen, self.ledger, self.steps = snapshots.load(snapshot)
            except snapshots.UnreadableSnapshotError as error:
                sys.stderr.write(
                    f"local cloud: {error}; it starts empty, and `pulumi up --refresh` makes it all again\n"
                )
                snapshot.replace(snapshot.with_suffix(".unreadable"))
                self.log.unlink(missing_ok=True)
        self._replay()
        self._shorten_log()

    def _replay(self) -> None:
        """Serve the log again; a last line that was not written whole was never served and is dropped."""
        from werkzeug.test import Client

        if not self.log.exists():
            return
        client = Client(self)
        lines = self.log.read_bytes().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            self.log.write_bytes(b"".join(lines[:-1]))
            lines.pop()
        replaying, self.log = self.log, Path(os.devnull)
        for line in lines:
            entry = json.loads(line)
            number = entry.get("number", self.served + 1)
            if number <= self.served:
                continue  # the snapshot has it: a kill came before the log could be emptied
            self.served = number - 1
            self.replayed_at = datetime.fromisoformat(entry["time"])
            client.open(
                entry["path"],
                method=entry["method"],
                headers=entry["headers"],
                data=base64.b64decode(entry["body"]),
                base_url=f"http://{entry['headers'].get('Host', 'localhost')}",
            ).close()
        self.log = replaying
        self.replayed_at = None

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve one request."""
        from werkzeug.wrappers import Request, Response

        if environ["PATH_INFO"] == HEALTH_PATH:
            return Response("ok")(environ, start_response)
        with self.lock, CLOCK.standing_at(self.replayed_at):
            request = Request(environ)
            body = request.get_data(cache=False)
            changes_something, kind = _changes_something(request, body), _kind(request, body)
            if changes_something or kind not in self.kinds_seen:
                self.kinds_seen.add(kind)
                self._write_down(request, body)
            environ["wsgi.input"] = io.BytesIO(body)
            environ["CONTENT_LENGTH"] = str(len(body))
            environ.pop("HTTP_TRANSFER_ENCODING", None)
            if environ["PATH_INFO"] == LEDGER_PATH:
                answer: Iterable[bytes] = self._ledger(request.method, body)(environ, start_response)
                return answer
            step = request.headers.get(STEP_HEADER)
            if step and changes_something:
                served = self._serve_once(step, environ, start_response)
            else:
                served = list(self.app(environ, start_response))
            self._shorten_log()
            return served

    def _serve_once(self, step: str, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve a step of a creation, or answer as before if it was served already: a creation cut off by a kill can be
        gone through again, and makes nothing twice.
        """
        from werkzeug.wrappers import Response

        if step not in self.steps:
            answer = Response.from_app(self.app, environ, buffered=True)
            if answer.status_code >= 400:
                return answer(environ, start_response)
            self.steps[step] = (answer.get_data(), answer.status, list(answer.headers.items()))
        data, status, headers = self.steps[step]
        return Response(data, status, headers)(environ, start_response)

    def _write_down(self, request: Any, body: bytes) -> None:
        from moto.moto_api._internal import mock_random

        self.served += 1
        mock_random.seed(self.served)
        random.seed(self.served)
        target = request.environ.get("RAW_URI") or request.full_path.rstrip("?")
        entry = {
            "number": self.served,
            "time": CLOCK.now().isoformat(),
            "method": request.method,
            "path": target,
            "headers": {name: value for name, value in request.headers if name.lower() not in UNRECORDED_HEADERS},
            "body": base64.b64encode(body).decode(),
        }
        with self.log.open("a") as handle:
            handle.write(json.dumps(entry) + "\n")

    def _shorten_log(self) -> None:
        """Put a snapshot in the place of a long log. Where moto's state can't be written the log goes on growing."""
        if not self.log.is_file() or self.log.stat().st_size < self.log_limit_bytes:
            return
        from localcloud import snapshots

        snapshot = self.log.with_name(SNAPSHOT)
        try:
            snapshots.save(snapshot, (self.served, self.kinds_seen, self.ledger, self.steps))
        except Exception as error:  # whatever a service of moto keeps
            sys.stderr.write(f"local cloud: no snapshot, the log of requests grows on: {error}\n")
            self.log_limit_bytes *= 2
        else:
            self.log.write_bytes(b"")
            # As long as the state itself: what is written for it is then at most twice what was asked for.
            self.log_limit_bytes = max(LOG_LIMIT_BYTES, snapshot.stat().st_size)

    def _ledger(self, method: str, body: bytes) -> Any:
        """Creations that Pulumi's state is not known to have: PUT adds to the entry of a `key`, DELETE forgets it."""
        from werkzeug.wrappers import Response

        if method != "GET":
            entry = json.loads(body)
            if method == "PUT":
                self.ledger.setdefault(entry["key"], {}).update(entry)
            else:
                self.ledger.pop(entry["key"], None)
                for step in [each for each in self.steps if each.startswith(f"{entry['key']}/")]:
                    del self.steps[step]
        entries = [
            entry | {"steps": sum(step.startswith(f"{key}/") for step in self.steps)}
            for key, entry in self.ledger.items()
        ]
        return Response(json.dumps(entries), content_type="application/json")


@dataclass
class Clock:
    """The time of day as moto sees it: in UTC, without a time zone, and standing still while a request is served."""

    stands_at: datetime | None = None

    def now(self) -> datetime:
        """The time at which it stands, or that of this machine."""
        return self.stands_at or datetime.now(UTC).replace(tzinfo=None)

    @contextlib.contextmanager
    def standing_at(self, time: datetime | None) -> Iterator[None]:
        """Stand still at a time; None is now."""
        self.stands_at = time or self.now()
        try:
            yield
        finally:
            self.stands_at = None


CLOCK = Clock()


def _moto_now() -> datetime:
    from localcloud import server

    return server.CLOCK.now()


UNRECORDED_HEADERS = frozenset({"content-length", "transfer-encoding", "connection", "expect"})


def _changes_something(request: Any, body: bytes) -> bool:
    """Whether a request may change state: by its method, and by the action's name where the protocol is POST only."""
    if request.method in ("GET", "HEAD"):
        return False
    if request.method != "POST":
        return True
    target = request.headers.get("X-Amz-Target", "")
    action = target.rpartition(".")[2] if target else _form_action(body)
    return not action.startswith(READ_ONLY_ACTIONS)


def _kind(request: Any, body: bytes) -> tuple[str, ...]:
    """Service, region and operation, as far as they can be told without moto."""
    _, _, credential = request.headers.get("Authorization", "").partition("Credential=")
    scope = credential.partition(",")[0].split("/")[2:4]
    action = request.headers.get("X-Amz-Target", "") or _form_action(body)
    return (*scope, request.method, str(request.path.count("/")), action)


def _form_action(body: bytes) -> str:
    for pair in body[:4096].split(b"&"):
        if pair.startswith(b"Action="):
            return pair.removeprefix(b"Action=").decode()
    return ""


def application(log: Path) -> DurableApp:
    """The whole local AWS: moto with the backends that Fusion adds, and its state from the log."""
    from moto.moto_api._internal import mock_random

    mock_random.seed(0)  # moto's EKS draws the names of its endpoints when it is imported
    import moto.core.utils
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    from localcloud.aws import backends, quotas

    # moto's modules import this function by name, so it is its code that has to change.
    moto.core.utils.utcnow.__code__ = _moto_now.__code__

    backends.install()
    quotas.install()
    app = DurableApp(DomainDispatcherApplication(create_backend_app), log)
    app.restore()
    return app


def _replace(path: Path, text: str) -> None:
    """Write a file that nobody reads half written."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(text)
    temporary.replace(path)


def main(folder: Path) -> None:
    """Serve on a free port of the loopback until killed."""
    import logging

    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, application(folder / "requests.jsonl"), threaded=True)
    address = f"http://127.0.0.1:{server.server_port}"
    _replace(folder / "aws.config", PROFILE.format(endpoint=address))
    _replace(folder / "aws.json", json.dumps({"endpoint": address, "pid": os.getpid()}))
    server.serve_forever()


if __name__ == "__main__":
    from localcloud import server as this  # under its own name: there is one clock

    this.main(Path(sys.argv[1]))
