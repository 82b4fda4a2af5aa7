"""Objects by URL: `s3://`, `gs://`, `hdfs://`, `webhdfs://`, `swebhdfs://` and `file://`.

S3 and GCS go through obstore, whose Rust client holds no lock of Python's while it reads; everything else goes through
fsspec.

Server errors, throttling, cut connections, stalled answers and half answers are tried again, with growing pauses, by
the clients where they do so, and here for `PATIENCE_SECONDS`: a bucket that is away for that long ends no run. What
still fails is a :class:`StorageError` in one sentence.

`AWS_ENDPOINT_URL` (any S3-compatible server) and `AWS_REGION` are honoured; credentials are found as botocore finds
them.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import mmap
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import fsspec
import obstore
import obstore.exceptions
from botocore.exceptions import BotoCoreError, ClientError

from workloads.webhdfs import WebHDFS

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

SCHEMES = ("s3", "gs", "hdfs", "webhdfs", "swebhdfs", "file")
EMULATOR = "STORAGE_EMULATOR_HOST"
"""Address of a server in GCS's place, as Google's own clients have it. It takes no credentials, and is reached through
gcsfs alone: obstore writes in parts through an API of GCS that emulators do not serve.
"""
EXPECTED = "expected a URL that starts with s3://, gs://, hdfs://, webhdfs://, swebhdfs:// or file://"

_PART_BYTES = 16 * 1024 * 1024
_LEAST_PART_BYTES = 5 * 1024 * 1024
_MOST_PARTS = 10_000
"""As S3 has both for one object."""

_OPTIONS: dict[str, dict[str, Any]] = {
    "gs": {"use_listings_cache": False},  # another process of the run may have written since
    "hdfs": {},
    "webhdfs": {},
    "swebhdfs": {},
    "file": {"auto_mkdir": True},
}
_CLIENT: ClientConfig = {"connect_timeout": "10s", "read_timeout": "20s", "timeout": "300s", "allow_http": True}
# A request that no server answers is given up at once and tried again below: all in all within about a minute.
_RETRIES: RetryConfig = {"max_retries": 5, "retry_timeout": timedelta(seconds=15)}
PATIENCE_SECONDS = 40
"""With S3 and GCS, after the first failure of all the client's own retries, which take a second or two."""
_LONGEST_PAUSE_SECONDS = 4.0
_ObstoreError = obstore.exceptions.BaseError

Result = TypeVar("Result")

for _scheme in WebHDFS.protocol:
    fsspec.register_implementation(_scheme, WebHDFS, clobber=True)


class StorageError(RuntimeError):
    """An object could not be read or written; says which, why, and what to check."""


def join(url: str, *names: str) -> str:
    """`s3://bucket/a` and `b` → `s3://bucket/a/b`."""
    return "/".join((url.rstrip("/"), *names))


def sha256(data: bytes) -> str:
    """The SHA-256 of some bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def read(url: str) -> bytes:
    """The whole object."""
    with explained("read", url):
        if (found := _object_store(url)) is None:
            filesystem, path = _locate(url)
            data: bytes = filesystem.cat_file(path)
            return data
        store, key = found
        return _with_retries(lambda: obstore.get(store, key).bytes().to_bytes())


def read_range(url: str, start: int, end: int) -> bytes:
    """The bytes of an object from ``start`` to before ``end``."""
    with explained("read", url):
        if (found := _object_store(url)) is None:
            filesystem, path = _locate(url)
            data: bytes = filesystem.cat_file(path, start=start, end=end)
            return data
        store, key = found
        return _with_retries(lambda: obstore.get_range(store, key, start=start, end=end).to_bytes())


def size(url: str) -> int:
    """How many bytes an object has."""
    with explained("read", url):
        if (found := _object_store(url)) is None:
            filesystem, path = _locate(url)
            return int(filesystem.size(path))
        store, key = found
        return _with_retries(lambda: obstore.head(store, key)["size"])


def _with_retries(attempt: Callable[[], Result], *also: type[Exception]) -> Result:
    """Its result, as soon as the bucket answers; ``also`` are further errors that may pass."""
    passing: tuple[type[Exception], ...] = (obstore.exceptions.GenericError, *also)
    pause, end = 0.25, None
    while True:
        try:
            return attempt()
        except passing as error:
            now = time.monotonic()
            end = now + PATIENCE_SECONDS if end is None else end
            if now + pause > end or _stays(error):
                raise
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _stays(error: Exception) -> bool:
    """Whether the bucket has answered and would answer the same again: a wrong region, or what it refuses."""
    said = str(error)
    return "redirect without LOCATION" in said or (_status(said).startswith("4") and "retries" not in said)


def read_or_none(url: str) -> bytes | None:
    """The whole object, or None where there is none."""
    try:
        return read(url)
    except StorageError as error:
        if is_missing(error):
            return None
        raise


def is_missing(error: StorageError) -> bool:
    """Whether it failed because there is no such object."""
    return isinstance(error.__cause__, FileNotFoundError | obstore.exceptions.NotFoundError)


def write(url: str, data: bytes) -> None:
    """Put an object; on S3 and GCS it appears whole or not at all."""
    with explained("write", url):
        if (found := _object_store(url)) is not None:
            with memoryview(data) as view:
                _put_in_parts(found, view, len(data))
            return
        filesystem, path = _locate(url)
        filesystem.pipe_file(path, data) if not _is_local(filesystem) else _write_local(Path(path), data)


def write_durably(url: str, data: bytes | mmap.mmap, *, parts_at_a_time: int = 12) -> None:
    """Put an object, in parts where it is large; when this returns it outlives a loss of power."""
    with explained("write", url):
        if (found := _object_store(url)) is not None:
            with memoryview(data) as view:
                _put_in_parts(found, view, len(data), parts_at_a_time)
            return
        filesystem, path = _locate(url)
        if _is_local(filesystem):
            _write_local(Path(path), data, durable=True)
        else:
            filesystem.pipe_file(path, data[:])


def upload(file: Path, url: str) -> None:
    """Put a local file, in parts where it is large."""
    with explained("write", url):
        if (found := _object_store(url)) is not None:
            _put_in_parts(found, file, file.stat().st_size)
            return
        filesystem, path = _locate(url)
        filesystem.put_file(str(file), path)


def _put_in_parts(place: tuple[Any, str], data: memoryview | Path, size: int, parts_at_a_time: int = 12) -> None:
    """The time limit of a request covers its body: on a slow link each further try sends less at a time."""
    store, key = place
    tries = itertools.count()

    def attempt() -> None:
        less = 4 ** next(tries)
        part = max(_PART_BYTES // less, _LEAST_PART_BYTES, -(-size // _MOST_PARTS))
        obstore.put(store, key, data, chunk_size=part, max_concurrency=max(1, parts_at_a_time // less))

    # Where the answer to the last request was cut, the client can't know that the parts are together, and fails on an
    # upload that is no more: nothing says whether this object or an older one lies there now.
    _with_retries(attempt, FileNotFoundError)


def download(url: str, file: Path) -> None:
    """Copy an object to a local file."""
    with explained("read", url):
        if (found := _object_store(url)) is None:
            filesystem, path = _locate(url)
            filesystem.get_file(path, str(file))
        else:
            _with_retries(lambda: _stream(*found, file))


def _stream(store: Any, key: str, file: Path) -> None:
    with file.open("wb") as local:
        for part in obstore.get(store, key).stream():
            local.write(part)


def names(url: str) -> list[str]:
    """The names directly under a folder, sorted; empty where there is no such folder."""
    with explained("list", url), suppress(FileNotFoundError):
        return sorted(each.rstrip("/").rsplit("/", 1)[-1] for each in _paths_under(url))
    return []


def _paths_under(url: str) -> list[str]:
    if (found := _object_store(url)) is None:
        filesystem, path = _locate(url)
        paths: list[str] = filesystem.ls(path, detail=False)
        return paths
    store, key = found
    listed = _with_retries(lambda: obstore.list_with_delimiter(store, key))
    objects = [each["path"] for each in listed["objects"]]
    return [each for each in (*listed["common_prefixes"], *objects) if each != key.rstrip("/")]


def remove(url: str) -> None:
    """Delete an object, or a folder with all under it; nothing happens where there is none."""
    with explained("delete", url):
        if (found := _object_store(url)) is not None:
            with suppress(FileNotFoundError, obstore.exceptions.NotFoundError):
                _delete(*found)
            return
        filesystem, path = _locate(url)
        if filesystem.exists(path):
            with suppress(FileNotFoundError):  # an attempt whose answer was lost may have deleted it
                filesystem.rm(path, recursive=True)


def _delete(store: Any, key: str) -> None:
    if under := _with_retries(lambda: [each["path"] for part in obstore.list(store, key) for each in part]):
        _with_retries(lambda: obstore.delete(store, under))
    _with_retries(lambda: obstore.delete(store, key))  # an object may have the folder's name


def _locate(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL and the path in it."""
    scheme = url.split("://", 1)[0]
    if scheme not in SCHEMES:
        raise StorageError(f"{url}: {EXPECTED}")
    try:
        filesystem, path = fsspec.core.url_to_fs(url, **_OPTIONS[scheme], **_without_credentials(scheme))
    except ImportError:
        raise StorageError(
            f"{url}: gs:// needs the package gcsfs, which the containers have; install it here too"
        ) from None
    except OSError as error:
        if scheme != "hdfs":
            raise
        raise StorageError(
            f"{url} could not be reached through Hadoop's client ({' '.join(str(error).split())[:200]}); expected "
            "JAVA_HOME and HADOOP_HOME, CLASSPATH from `hadoop classpath --glob`, and a namenode that answers; or "
            "webhdfs:// with the namenode's HTTP address, which needs no Hadoop here"
        ) from None
    return filesystem, str(path)


def _without_credentials(scheme: str) -> dict[str, str]:
    return {"token": "anon"} if scheme == "gs" and os.environ.get(EMULATOR) else {}


def _object_store(url: str) -> tuple[Any, str] | None:
    """obstore's client of a URL's bucket and the key in it; None for schemes that it does not serve."""
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme == "s3":
        return _s3(bucket, os.environ.get("AWS_ENDPOINT_URL_S3", os.environ.get("AWS_ENDPOINT_URL"))), key
    return (_gs(bucket), key) if scheme == "gs" and not os.environ.get(EMULATOR) else None


@functools.lru_cache
def _s3(bucket: str, endpoint: str | None) -> Any:
    import boto3
    from obstore.auth.boto3 import Boto3CredentialProvider

    session = boto3.Session()
    options: dict[str, Any] = {"region": session.region_name or "us-east-1"}
    if endpoint:
        options["endpoint"] = endpoint
    if session.get_credentials() is None:
        options["skip_signature"] = True
    else:
        options["credential_provider"] = Boto3CredentialProvider(session)
    return obstore.store.S3Store(bucket, client_options=_CLIENT, retry_config=_RETRIES, **options)


@functools.lru_cache
def _gs(bucket: str) -> Any:
    return obstore.store.GCSStore(bucket, client_options=_CLIENT, retry_config=_RETRIES)


@contextmanager
def explained(action: str, url: str) -> Iterator[None]:
    """Turn whatever a storage library raises into one sentence."""
    try:
        yield
    except (OSError, ClientError, BotoCoreError, _ObstoreError) as error:
        raise StorageError(f"could not {action} {url}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    said = str(error).partition("Debug source:")[0]  # obstore's, of a dozen lines
    status = _status(said) if isinstance(error, _ObstoreError) else ""
    if isinstance(error, FileNotFoundError | obstore.exceptions.NotFoundError) or status == "404":
        return "there is no such object or bucket; check the URL"
    denied = obstore.exceptions.PermissionDeniedError | obstore.exceptions.UnauthenticatedError
    if isinstance(error, PermissionError | denied) or status in ("401", "403"):
        told = f" ({error})" if isinstance(error, PermissionError) else ""  # obstore's goes on for lines
        return f"access denied{told}; check the credentials and the identity's rights on this bucket"
    return f"{type(error).__name__}: {' '.join(said.split())}"


def _status(said: str) -> str:
    """Of the bucket's answer, in obstore's words, which has no class for what a listing is answered; else empty."""
    return said.partition("status code: ")[2][:3]


def _is_local(filesystem: Any) -> bool:
    return bool(filesystem.protocol == "file" or "file" in filesystem.protocol)


def _write_local(path: Path, data: bytes | mmap.mmap, *, durable: bool = False) -> None:
    """As atomic as an object store: a rename in the same folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)  # a full disk would stay full
        raise
    temporary.replace(path)
    if durable:
        _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
