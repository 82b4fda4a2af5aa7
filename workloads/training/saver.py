"""The process beside each rank that brings checkpoints to the bucket while the rank trains.

A process and not a thread: hashing and uploading would take the interpreter's lock from the training loop. It shares
the memory that the rank stages its state in (`staging.Arena`), takes part in no process group, and does not import
PyTorch. It ends with its rank, however that ends: a rank that is gone must not commit anything any more.
"""

from __future__ import annotations

import mmap
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

from workloads import storage
from workloads.storage import StorageError
from workloads.training import manifest
from workloads.training.manifest import File, Manifest

NICENESS = 10
"""The loader's and the training's threads go first where there are too few CPUs."""

_MOST_PARTS_AT_A_TIME = 12
"""Of one file; a bucket gives each connection a part of its rate only."""

_COMMAND = "import sys; from workloads.training.saver import main; main(int(sys.argv[1]), int(sys.argv[2]))"
"""Not `-m`, with which the process's requests and answers would be of other classes than the rank's."""


@dataclass(frozen=True)
class Write:
    """Upload the first ``arena_bytes`` of the arena as ``name``, and ``others``; the answer describes every file."""

    folder: str
    name: str
    arena_bytes: int
    others: dict[str, bytes]


@dataclass(frozen=True)
class Commit:
    """Write the marker and delete old checkpoints."""

    url: str
    keep: int
    manifest: Manifest


@dataclass(frozen=True)
class Answer:
    """What became of a request: the files (none for a commit), or why it failed."""

    files: dict[str, File] = field(default_factory=dict)
    problem: str = ""


class Saver:
    """This rank's side: hands over one request at a time and looks for its answer without waiting."""

    def __init__(self, arena: int) -> None:
        """Start the process lazily; ``arena`` is the descriptor of the shared memory."""
        self._arena = arena
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._answer: Answer | None = None

    def request(self, what: Write | Commit) -> None:
        """Begin; the request before this one has been answered."""
        self._answer = None
        if self._process is None:
            self._start()
        assert self._pipe is not None, "made with the process"
        try:
            self._pipe.send(what)
        except OSError:
            self._ended()

    def answered(self, *, within_seconds: float = 0) -> Answer | None:
        """The answer to the last request; None while there is none."""
        if self._answer is None and self._pipe is not None:
            try:
                if self._pipe.poll(within_seconds):
                    self._answer = self._pipe.recv()
            except (EOFError, OSError):
                self._ended()
        return self._answer

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self._process is not None and self._pipe is not None:
            self._pipe.close()
            self._process.wait()
        self._process = self._pipe = None

    def _start(self) -> None:
        self._pipe, theirs = Pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, str(theirs.fileno()), str(self._arena)],
            pass_fds=(theirs.fileno(), self._arena),
            env=os.environ | {"PYTHONPATH": os.pathsep.join((_root(), os.environ.get("PYTHONPATH", "")))},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the rank, which waits for the last save
        )
        theirs.close()

    def _ended(self) -> None:
        assert self._process is not None, "something was asked of it"
        status = self._process.wait()
        self._answer = Answer(
            problem=f"the process that saves ended with status {status}"
            + (": killed, perhaps for memory" if status == -9 else "")
        )
        self.close()


def _root() -> str:
    """The folder that `workloads` is imported from."""
    return str(Path(__file__).resolve().parents[2])


def main(descriptor: int, arena: int) -> None:
    """Answer requests until the rank is gone."""
    os.nice(NICENESS)
    pipe = Connection(descriptor)
    requests: queue.SimpleQueue[Write | Commit] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, requests), daemon=True).start()
    while True:
        pipe.send(_answer(requests.get(), arena))


def _listen(pipe: Connection, requests: queue.SimpleQueue[Write | Commit]) -> None:
    try:
        while True:
            requests.put(pipe.recv())
    except (EOFError, OSError):
        os._exit(0)  # in the middle of an upload too


def _answer(request: Write | Commit, arena: int) -> Answer:
    try:
        if isinstance(request, Write):
            return Answer(files=_write(request, arena))
        manifest.commit(request.url, request.keep, request.manifest)
    except StorageError as error:
        return Answer(problem=str(error))
    except Exception as error:  # whatever it is, the rank must hear of it
        return Answer(problem=f"could not save: {type(error).__name__}: {error}")
    return Answer()


def _write(request: Write, arena: int) -> dict[str, File]:
    files = {}
    if size := request.arena_bytes:
        url, at_a_time = storage.join(request.folder, request.name), parts_at_a_time(os.environ)
        with mmap.mmap(arena, size, prot=mmap.PROT_READ) as staged, ThreadPoolExecutor(max_workers=1) as hashing:
            entry = hashing.submit(manifest.described, staged)
            if at_a_time == 1:
                entry.result()
            storage.write_durably(url, staged, parts_at_a_time=at_a_time)
            files[request.name] = entry.result()
    for name, data in request.others.items():
        storage.write_durably(storage.join(request.folder, name), data)
        files[name] = manifest.described(data)
    return files


def parts_at_a_time(environment: Mapping[str, str]) -> int:
    """Parts of a file that are uploaded side by side: each takes about a CPU, and one of the rank's is the loop's."""
    ranks = int(environment.get("LOCAL_WORLD_SIZE") or 1)
    return min(max(1, len(os.sched_getaffinity(0)) // ranks - 1), _MOST_PARTS_AT_A_TIME)
