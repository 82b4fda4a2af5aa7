"""The messages of the engine's protocols without Pulumi's SDK, in whose package they lie.

With them all of it would be imported: a quarter of a second of the processor, in each plugin, language host and
policy pack that a command of Pulumi's starts.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType


@contextlib.contextmanager
def _without_the_sdk() -> Iterator[None]:
    """In it the SDK's packages hold modules and have run nothing; afterwards they can be imported whole."""
    found = importlib.util.find_spec("pulumi")
    assert found is not None and found.origin is not None
    folder = Path(found.origin).parent
    packages = {"pulumi": folder, "pulumi.runtime": folder / "runtime"}
    missing = [name for name in packages if name not in sys.modules]
    for name in missing:
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = [str(packages[name])]
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]


with _without_the_sdk():
    from pulumi.runtime.proto import (
        analyzer_pb2,
        analyzer_pb2_grpc,
        language_pb2,
        language_pb2_grpc,
        plugin_pb2,
        provider_pb2,
        provider_pb2_grpc,
    )

__all__ = [
    "analyzer_pb2",
    "analyzer_pb2_grpc",
    "language_pb2",
    "language_pb2_grpc",
    "plugin_pb2",
    "provider_pb2",
    "provider_pb2_grpc",
]
