"""The control plane's processes: each has a file with its id and one with its log in the control plane's folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from localcloud import server

BIN = Path(__file__).resolve().parents[2] / ".fusion" / "bin"
LOOPBACK = "127.0.0.1"
STOP_TIMEOUT_S = 20

Say = Callable[[str], object]


class ControlPlaneError(RuntimeError):
    """The control plane is not there, or did not start; one sentence that says what to do."""


def home() -> Path:
    """Where the control plane keeps its state: `cluster` beside the local cloud's folder."""
    return server.home().parent / "cluster"


def missing(programs: Sequence[str]) -> list[str]:
    """Those that have not been built."""
    return [program for program in programs if not (BIN / program).exists()]


def require_built(programs: Sequence[str]) -> None:
    """Refuse to begin without them.

    Raises:
        ControlPlaneError: names them, and the command that builds them.
    """
    if absent := missing(programs):
        raise ControlPlaneError(f"{', '.join(absent)} not built; run `python -m tools.control_plane --all`")


def running(program: str) -> int | None:
    """The process that runs a program of this control plane, by its id; None when there is none."""
    with contextlib.suppress(OSError, ValueError):
        process_id = int((home() / f"{program}.pid").read_text())
        process = Path("/proc") / str(process_id)
        arguments = (process / "cmdline").read_bytes().split(b"\0")
        # A process that is only just being started has no arguments to show yet.
        is_named = not arguments[0] or arguments[0].endswith(program.encode())
        is_ours = is_named and (process / "cwd").resolve() == home().resolve()
        return process_id if is_ours else None  # another's, which has got the number of one that ended
    return None


def start(program: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    """Start a program in the control plane's folder; its output goes to its log."""
    folder = home()
    with (folder / f"{program}.log").open("ab") as log:
        process = subprocess.Popen(
            [str(BIN / program), *arguments],
            cwd=folder,
            env=os.environ | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (folder / f"{program}.pid").write_text(str(process.pid))


def started() -> list[str]:
    """The programs that were started and not ended, the first one first."""
    files = sorted(home().glob("*.pid"), key=lambda path: path.stat().st_mtime_ns)
    return [path.stem for path in files]


def refuse_ended(programs: Sequence[str]) -> None:
    """Look whether those that were started still run.

    Raises:
        ControlPlaneError: names one that does not, with the end of its log.
    """
    for program in programs:
        if (home() / f"{program}.pid").exists() and running(program) is None:
            log = home() / f"{program}.log"
            last = "\n  ".join(log.read_text(errors="replace").splitlines()[-4:])
            raise ControlPlaneError(f"{program} ended; the end of its log {log}:\n  {last}")


def kill(say: Say = lambda _: None, number: int = signal.SIGKILL) -> None:
    """End every process, the last one first, and keep the objects, as a restart of the machine would."""
    for program in reversed(started()):
        end(program, say, number)


def end(program: str, say: Say = lambda _: None, number: int = signal.SIGKILL) -> None:
    """End one process and wait until it is gone."""
    process_id = running(program)
    if process_id is not None:
        say(f"ending {program}")
        os.kill(process_id, number)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while not _has_ended(process_id):
            if time.monotonic() > deadline:
                os.kill(process_id, signal.SIGKILL)
            time.sleep(0.05)
    (home() / f"{program}.pid").unlink(missing_ok=True)


def _has_ended(process_id: int) -> bool:
    """Whether a process and all its threads have ended, and with them what they held: ports, files."""
    try:
        return os.waitpid(process_id, os.WNOHANG) != (0, 0)
    except ChildProcessError:  # another process started it
        return not (Path("/proc") / str(process_id)).exists()


def free_port() -> int:
    """A port of the loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One at a time; the lock is beside the folder, which stopping removes."""
    with home().with_suffix(".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
