"""What a run says while it works: one JSON object a line, or plain text on a terminal."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

from workloads.training.config import TrainingConfig
from workloads.training.failures import described_warning


@dataclass(frozen=True)
class Log:
    """The log of one rank; only the first rank's infos are shown, every rank's warnings are."""

    rank: int = 0

    def info(self, event: str, **fields: object) -> None:
        """Say what happened."""
        if self.rank == 0:
            self._say("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Say what went wrong without ending the run."""
        self._say("warning", event, {"rank": self.rank, **fields})

    def _say(self, level: str, event: str, fields: dict[str, Any]) -> None:
        if sys.stdout.isatty():
            details = "  ".join(f"{name} {_plain(value)}" for name, value in fields.items())
            print(f"{'! ' if level == 'warning' else ''}{event.replace('_', ' ')}  {details}", flush=True)
        else:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            print(json.dumps({"time": now, "level": level, "event": event, **fields}), flush=True)


@contextmanager
def warnings_said(log: Log, *, in_full: bool) -> Iterator[None]:
    """What Python code warns of meanwhile goes the way of all that the log says; not in full, without what may quote a
    sample."""
    before = warnings.showwarning

    def say(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        reason = " ".join(str(message).split()) if in_full else described_warning(message, category, filename, lineno)
        log.warning("warning", reason=reason)

    warnings.showwarning = say
    try:
        yield
    finally:
        warnings.showwarning = before


def says_all(config: TrainingConfig) -> bool:
    """Whether messages that may quote a sample are shown: the config wants it, or they go to a terminal and no log."""
    return config.log_messages or sys.stderr.isatty()


def _plain(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
