"""HDFS over HTTP, which needs no Hadoop on this machine: `webhdfs://`, and `swebhdfs://` over TLS.

It is fsspec's file system for WebHDFS with what a run needs beside: time limits, another try after what passes, an
answer's status looked at before its bytes are taken for the file's, and objects that appear whole, by a rename
(https://hadoop.apache.org/docs/current/hadoop-project-dist/hadoop-hdfs/WebHDFS.html).

Who asks is `user@` in the URL or `HADOOP_USER_NAME`, as Hadoop's own client has it; on a cluster with Kerberos it is
the delegation token in `WEBHDFS_DELEGATION_TOKEN`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote, urlsplit

import requests
from fsspec.implementations import webhdfs

PORT, TLS_PORT = 9870, 9871
"""Of a namenode: the defaults of dfs.namenode.http-address and dfs.namenode.https-address since Hadoop 3."""
CONNECT_SECONDS, READ_SECONDS = 10, 60
PAUSES_SECONDS = (0.5, 1, 2, 4)
"""Before each further try."""
_BROKEN = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
_DENIED = ("AccessControlException", "AuthorizationException", "InvalidToken", "SecurityException")
_PASSING = ("RetriableException", "SafeModeException", "StandbyException")

Result = TypeVar("Result")


class Passing(OSError):
    """What the cluster refuses now and may grant in a second."""


class WebHDFS(webhdfs.WebHDFS):  # type: ignore[misc] # fsspec has no types
    """A namenode's or HttpFS's HTTP address; each request is made again where it fails for a reason that passes."""

    protocol = ("webhdfs", "swebhdfs")

    @staticmethod
    def _get_kwargs_from_urls(urlpath: str) -> dict[str, Any]:
        secure = urlpath.startswith("swebhdfs:")
        try:
            found: dict[str, Any] = webhdfs.WebHDFS._get_kwargs_from_urls(urlpath)
        except ValueError as error:
            raise OSError(f"{str(error).lower()}; expected webhdfs://HOST:PORT/path") from None
        if "host" not in found:
            raise OSError("it names no host; expected webhdfs://HOST:PORT/path")
        token = os.environ.get("WEBHDFS_DELEGATION_TOKEN")
        who = {"token": token} if token else {"user": found.pop("user", os.environ.get("HADOOP_USER_NAME"))}
        return {"port": TLS_PORT if secure else PORT, "use_https": secure} | found | who

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """The bytes from ``start`` to before ``end``, neither of them negative; all by default."""
        offset = start or 0
        part: dict[str, Any] = {"offset": offset} | ({} if end is None else {"length": end - offset})
        data: bytes = self._call("OPEN", path=path, **part).content
        return data

    def pipe_file(self, path: str, value: bytes, **_: Any) -> None:
        """Put an object."""
        self._tried(lambda: self._put(path, value))

    def put_file(self, lpath: str, rpath: str, **_: Any) -> None:
        """Put a local file."""

        def attempt() -> None:
            with Path(lpath).open("rb") as file:
                self._put(rpath, file)

        self._tried(attempt)

    def get_file(self, rpath: str, lpath: str, **_: Any) -> None:
        """Write an object to a local file, a block at a time."""
        length, block = int(self.size(rpath)), int(self.blocksize)
        with Path(lpath).open("wb") as file:
            for start in range(0, length, block):
                file.write(self.cat_file(rpath, start, min(start + block, length)))

    def _put(self, path: str, body: bytes | BinaryIO) -> None:
        folder, _, name = path.rpartition("/")
        part = f"{folder}/.{name}.part"
        place = self._ask("CREATE", "put", part, redirect=False, overwrite="true").headers["Location"]
        self._send("put", place, data=body, headers={"content-type": "application/octet-stream"})
        self._ask("RENAME", "put", part, destination=path, renameoptions="OVERWRITE")

    def _call(
        self,
        op: str,
        method: str = "get",
        path: str | None = None,
        data: bytes | None = None,
        redirect: bool = True,
        **parameters: Any,
    ) -> requests.Response:
        return self._tried(lambda: self._ask(op, method, path, data, redirect, **parameters))

    def _ask(
        self,
        op: str,
        method: str,
        path: str | None,
        data: bytes | None = None,
        redirect: bool = True,
        **parameters: Any,
    ) -> requests.Response:
        url = self.url + quote(self._strip_protocol(path) if path else "")
        asked = parameters | self.pars | {"op": op.upper()}
        return self._send(method, url, params=asked, data=data, allow_redirects=redirect)

    def _send(self, method: str, url: str, **what: Any) -> requests.Response:
        answer: requests.Response = self.session.request(method, url, timeout=(CONNECT_SECONDS, READ_SECONDS), **what)
        if answer.status_code >= 400:
            raise _error(answer)
        return answer

    def _tried(self, attempt: Callable[[], Result]) -> Result:
        for pause in PAUSES_SECONDS:
            try:
                return attempt()
            except (Passing, *_BROKEN):
                time.sleep(pause)
        try:
            return attempt()
        except _BROKEN as error:
            place = urlsplit(str(error.request.url if error.request is not None else self.url)).netloc
            raise ConnectionError(
                f"{place} does not answer; expected the HTTP address of a namenode ({PORT} by default) or of HttpFS, "
                "and datanodes whose names this machine knows"
            ) from error


def _error(answer: requests.Response) -> OSError:
    """What an answer that is none tells: HDFS names its exceptions in JSON, what stands before it does not."""
    try:
        told = answer.json()["RemoteException"]
        kind, message = str(told["exception"]), " ".join(str(told["message"]).split())[:300]
    except (ValueError, KeyError, TypeError):
        kind, message = "", f"{urlsplit(answer.url).netloc} answered {answer.status_code} {answer.reason}"
    if kind == "FileNotFoundException":
        return FileNotFoundError(message)
    if kind in _DENIED or (answer.status_code in (401, 403) and kind not in _PASSING):
        return PermissionError(message)
    if kind in _PASSING or answer.status_code == 429 or answer.status_code >= 500:
        return Passing(message)
    return OSError(message)
