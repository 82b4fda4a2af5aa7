"""Objects by URL: `s3://`, `gs://` and `file://`, all through fsspec.

Transient errors are retried below this module: botocore retries 5xx answers and throttling, s3fs retries cut
connections and each part of a multipart upload. What still fails is a :class:`StorageError` in one sentence.

`AWS_ENDPOINT_URL` (any S3-compatible server) and `AWS_REGION` are honoured by botocore itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from botocore.exceptions import BotoCoreError, ClientError

SCHEMES = ("s3", "gs", "file")

_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "use_listings_cache": False,  # another process of the run may have written since
        "config_kwargs": {
            "retries": {"mode": "standard", "max_attempts": 5},
            "connect_timeout": 10,
            "read_timeout": 60,
        },
    },
    "gs": {"use_listings_cache": False},
    "file": {"auto_mkdir": True},
}


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
        filesystem, path = locate(url)
        data: bytes = filesystem.cat_file(path)
        return data


def read_or_none(url: str) -> bytes | None:
    """The whole object, or None where there is none."""
    try:
        return read(url)
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def write(url: str, data: bytes) -> None:
    """Put an object; on S3 and GCS it appears whole or not at all."""
    with explained("write", url):
        filesystem, path = locate(url)
        filesystem.pipe_file(path, data) if not _is_local(filesystem) else _write_local(Path(path), data)


def upload(file: Path, url: str) -> None:
    """Put a local file, in parts where it is large."""
    with explained("write", url):
        filesystem, path = locate(url)
        filesystem.put_file(str(file), path)


def names(url: str) -> list[str]:
    """The names directly under a folder, sorted; empty where there is no such folder."""
    with explained("list", url):
        filesystem, path = locate(url)
        try:
            return sorted(entry.rstrip("/").rsplit("/", 1)[-1] for entry in filesystem.ls(path, detail=False))
        except FileNotFoundError:
            return []


def remove(url: str) -> None:
    """Delete an object, or a folder with all under it; nothing happens where there is none."""
    with explained("delete", url):
        filesystem, path = locate(url)
        if filesystem.exists(path):
            filesystem.rm(path, recursive=True)


def locate(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL and the path in it."""
    scheme = url.split("://", 1)[0]
    if scheme not in SCHEMES:
        raise StorageError(f"{url}: expected a URL that starts with s3://, gs:// or file://")
    try:
        filesystem, path = fsspec.core.url_to_fs(url, **_OPTIONS[scheme])
    except ImportError:
        raise StorageError(
            f"{url}: gs:// needs the package gcsfs, which the containers have; install it here too"
        ) from None
    return filesystem, str(path)


@contextmanager
def explained(action: str, url: str) -> Iterator[None]:
    """Turn whatever a storage library raises into one sentence."""
    try:
        yield
    except (OSError, ClientError, BotoCoreError) as error:
        raise StorageError(f"could not {action} {url}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such object or bucket; check the URL"
    if isinstance(error, PermissionError):
        return "access denied; check the credentials and the identity's rights on this bucket"
    return f"{type(error).__name__}: {error}"


def _is_local(filesystem: Any) -> bool:
    return bool(filesystem.protocol == "file" or "file" in filesystem.protocol)


def _write_local(path: Path, data: bytes) -> None:
    """As atomic as an object store: a rename in the same folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(data)
    temporary.replace(path)
