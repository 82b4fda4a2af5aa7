"""A namenode and its datanode in one, as WebHDFS has them: whoever wants bytes is sent from the one to the other.

What it answers was compared with Hadoop 3.4.1's own (`FUSION_WEBHDFS` in `test_webhdfs.py`).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

PREFIX = "/webhdfs/v1"
FAULTS = ("standby", "503", "cut", "half")


class FakeHdfs(ThreadingHTTPServer):
    """Holds files by path; ``spoil_every`` lets every so many requests fail, with the faults by turns."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.users: set[str] = set()
        self.readers: set[str] | None = None
        """Who may ask; None for everyone."""
        self.spoil_every = self.count = self.spoiled = 0
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def fault(self) -> str | None:
        with self.lock:
            self.count += 1
            if not self.spoil_every or self.count % self.spoil_every:
                return None
            self.spoiled += 1
            return FAULTS[self.spoiled % len(FAULTS)]

    def children(self, folder: str) -> dict[str, dict[str, Any]]:
        """What lies directly in a folder, by name."""
        found: dict[str, dict[str, Any]] = {}
        for path, content in self.files.items():
            if path.startswith(folder.rstrip("/") + "/"):
                name, *below = path.removeprefix(folder.rstrip("/") + "/").split("/")
                found[name] = {"pathSuffix": name} | _status(None if below else content)
        return found


def _status(content: bytes | None) -> dict[str, Any]:
    return {"type": "DIRECTORY", "length": 0} if content is None else {"type": "FILE", "length": len(content)}


class _Handler(BaseHTTPRequestHandler):
    server: FakeHdfs
    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        parts = urlsplit(self.path)
        self.file = unquote(parts.path).removeprefix(PREFIX)
        self.asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.spoilt = self.server.fault()
        self.server.users.add(self.asked.get("user.name", "dr.who"))
        match self.spoilt:
            case "standby":
                self.refuse(403, "StandbyException", "Operation category READ is not supported in state standby")
            case "503":
                self.answer(503)
            case "cut":
                self.close_connection = True
            case _ if self.server.readers is not None and self.asked.get("user.name") not in self.server.readers:
                self.refuse(403, "AccessControlException", "Permission denied: user=dr.who, access=READ")
            case _:
                operations: dict[str, Callable[[], None]] = {
                    "CREATE": self.create,
                    "OPEN": self.open_file,
                    "RENAME": self.rename,
                    "DELETE": self.delete,
                    "GETFILESTATUS": self.status,
                    "LISTSTATUS": self.list_folder,
                }
                operations[self.asked["op"]]()

    do_GET = do_PUT = do_DELETE = handle_any

    def create(self) -> None:
        if self.sent_on():
            self.server.files[self.file] = self.body
            self.answer(201)

    def open_file(self) -> None:
        if (content := self.server.files.get(self.file)) is None:
            self.missing()
        elif self.sent_on():
            start = int(self.asked.get("offset", 0))
            self.answer(200, content[start:][: int(self.asked.get("length", len(content)))])

    def rename(self) -> None:
        assert self.asked["renameoptions"] == "OVERWRITE"
        with self.server.lock:
            if (content := self.server.files.pop(self.file, None)) is not None:
                self.server.files[self.asked["destination"]] = content
        self.missing() if content is None else self.answer(200)

    def delete(self) -> None:
        with self.server.lock:
            for path in list(self.server.files):
                if path == self.file or path.startswith(self.file + "/"):
                    del self.server.files[path]
        self.say({"boolean": True})

    def status(self) -> None:
        content = self.server.files.get(self.file)
        if content is None and not self.server.children(self.file):
            self.missing()
        else:
            self.say({"FileStatus": {"pathSuffix": ""} | _status(content)})

    def list_folder(self) -> None:
        if not (found := self.server.children(self.file)):
            self.missing()
        else:
            self.say({"FileStatuses": {"FileStatus": [*found.values()]}})

    def sent_on(self) -> bool:
        """Whether this is the datanode's turn; else the namenode names one."""
        if "datanode" in self.asked:
            return True
        words = urlencode(self.asked | {"datanode": "1"})
        self.answer(307, headers={"Location": f"http://{self.server.address}{PREFIX}{self.file}?{words}"})
        return False

    def missing(self) -> None:
        self.refuse(404, "FileNotFoundException", f"File does not exist: {self.file}")

    def refuse(self, status: int, kind: str, message: str) -> None:
        self.say({"RemoteException": {"exception": kind, "javaClassName": kind, "message": message}}, status)

    def say(self, what: dict[str, Any], status: int = 200) -> None:
        self.answer(status, json.dumps(what).encode())

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ((headers or {}) | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.spoilt == "half" else body)
        self.close_connection = self.spoilt == "half"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def fake_hdfs() -> Iterator[FakeHdfs]:
    with FakeHdfs() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()
