"""What is said of an error or a warning that nobody foresaw: where it arose, and its words if they can quote no sample.

A model of a team's own may put what it was given into its message (`ValueError(f"can't take {row}")`), and logs are
kept and read by others than the data is. Fusion's own messages name places, never values, and so do those of PyTorch's
operations (shapes, types, devices).
"""

from __future__ import annotations

import dis
import sysconfig
import traceback
from pathlib import Path

HIDDEN = "(not shown, as it may quote a sample; log_messages: true shows it)"

_OURS = str(Path(__file__).resolve().parents[1])
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")})
_RAISE = dis.opmap["RAISE_VARARGS"]


def described(error: BaseException) -> str:
    """The traceback of an error and of those behind it, with the messages that can quote no sample."""
    parts: list[str] = []
    told: BaseException | None = error
    joint = ""
    while told is not None and len(parts) < 10:
        parts.insert(0, _one(told) + joint)
        if told.__cause__ is not None:
            told, joint = told.__cause__, "\nwhich was the cause of:\n\n"
        else:
            told, joint = None if told.__suppress_context__ else told.__context__, "\nand while that was handled:\n\n"
    return "".join(parts).rstrip()


def _one(error: BaseException) -> str:
    frames = "".join(traceback.format_tb(error.__traceback__))
    message = str(error) if _quotes_nothing(error) else HIDDEN
    return f"Traceback (most recent call last):\n{frames}{type(error).__qualname__}: {message}\n"


def _quotes_nothing(error: BaseException) -> bool:
    """Whether Fusion's own code raised it, or an operation of PyTorch's, which is no `raise` of any Python code."""
    trace = error.__traceback__
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    if code.co_filename.startswith(_OURS):
        return True
    by_python = code.co_code[trace.tb_lasti] == _RAISE
    return not by_python and (type(error) in (RuntimeError, MemoryError) or type(error).__module__ == "torch")


def described_warning(message: Warning | str, category: type[Warning], file: str, line: int) -> str:
    """What a library warns of; of a warning from anywhere else, which and where."""
    if file.startswith((_OURS, *_LIBRARIES)) or (category.__module__ == "builtins" and category is not UserWarning):
        return " ".join(str(message).split())
    return f"{category.__qualname__} of {Path(file).name}, line {line}: {HIDDEN}"
