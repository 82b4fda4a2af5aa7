"""The state of moto in one file, so that the log of requests need not grow for ever.

The file holds a header, which says what it was written with, and then everything at once, so that what backends
share stays shared.
"""

from __future__ import annotations

import copyreg
import marshal
import os
import pickle
import sys
import threading
from collections import defaultdict
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import CellType, FunctionType
from typing import Any

from moto.core.base_backend import AccountSpecificBackend, BackendDict

LOCKS = {type(threading.Lock()): threading.Lock, type(threading.RLock()): threading.RLock}


class UnreadableSnapshotError(Exception):
    """It was written with another version of moto or Python, or is damaged."""


def save(path: Path, extra: Any) -> None:
    """Write the state of moto, and ``extra``, in one step: a kill leaves the old file or the new one.

    Raises:
        Exception: something in moto's state can't be written; the old file stays.
    """
    state = {
        _service(services): {account: dict(regions.items()) for account, regions in services.items()}
        for services in _registries()
    }
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        pickle.dump(_writer(), file)
        _Pickler(file).dump((state, extra))
        file.flush()
    _parts(temporary)  # what could not be read again must not take the log's place
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def load(path: Path) -> Any:
    """Bring moto into the saved state; what was given as ``extra``.

    Raises:
        UnreadableSnapshotError: see there.
    """
    state, extra = _parts(path)
    for service, accounts in state.items():
        for account, regions in accounts.items():
            _services(service)[account].update(regions)
    return extra


def _parts(path: Path) -> tuple[Any, Any]:
    try:
        with path.open("rb") as file:
            written_with = pickle.load(file)
            if written_with == _writer():
                state, extra = _Unpickler(file).load()
                return state, extra
    except Exception as error:  # a damaged file may say anything
        raise UnreadableSnapshotError(f"{path}: {error}") from error
    raise UnreadableSnapshotError(f"{path}: written with {written_with}; this is {_writer()}")


def _writer() -> str:
    return f"moto {version('moto')} and Python {sys.version_info.major}.{sys.version_info.minor}"


def _registries() -> list[Any]:
    """moto's services that are in use."""
    registry: Any = BackendDict
    return list(registry._instances)


def _service(services: Any) -> str:
    """`moto.ec2.models` → `ec2`."""
    return str(services.backend.__module__.split(".")[1])


def _services(service: str) -> Any:
    return import_module("moto.backends").get_backend(service)


class _Pickler(pickle.Pickler):
    """Knows what pickle alone does not: moto's registries, locks, and the private keys of KMS."""

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, BackendDict):
            return (_service(value),)
        if isinstance(value, AccountSpecificBackend):
            return (str(value.backend.__module__.split(".")[1]), value.account_id)
        return None

    def reducer_override(self, value: Any) -> Any:
        if (make := LOCKS.get(type(value))) is not None:
            return make, ()
        if isinstance(value, defaultdict) and type(value) is not defaultdict:
            state = (vars(value), {"default_factory": value.default_factory})
            return copyreg.__newobj__, (type(value),), state, None, iter(value.items())  # type: ignore[attr-defined]  # not in typeshed
        if isinstance(value, FunctionType) and "<locals>" in value.__qualname__:
            cells = tuple(cell.cell_contents for cell in value.__closure__ or ())
            return _function, (marshal.dumps(value.__code__), value.__module__, value.__defaults__, cells)
        from cryptography.hazmat.primitives import serialization

        if hasattr(value, "private_bytes") and type(value).__module__.startswith("cryptography."):
            written = value.private_bytes(
                serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            return _private_key, (written,)
        return NotImplemented


def _function(code: bytes, module: str, defaults: Any, cells: tuple[Any, ...]) -> FunctionType:
    """A function inside another one: moto has some as defaults of its dictionaries."""
    closure = tuple(CellType(value) for value in cells)
    return FunctionType(marshal.loads(code), vars(import_module(module)), None, defaults, closure)


def _private_key(written: bytes) -> Any:
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    return load_der_private_key(written, None)


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, place: Any) -> Any:
        service, *account = place
        return _services(service)[account[0]] if account else _services(service)
