"""What a user's code does with requests before the model and with answers after it, on CPU threads beside the chip.

`pre` and `post` of a model in serving.yaml name a `module:factory` each. The factory is called once for each version,
with its manifest, and returns a `Pre` or a `Post`: what clients send or get, in the words of the protocol, and the
function that maps one request's tensors. While a batch computes, the requests of the next one are prepared. The
function is called on several threads at once. A `ValueError` of it is the request's fault (400), any other error its
own (500, with the traceback in the log).
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from workloads.serving.package import Array, Manifest, PackageError, TensorSpec
from workloads.serving.scheduler import LEARNING_RATE, Refused

Run = Callable[[Sequence[Array]], Sequence[Array]]
Say = Callable[..., object]


@dataclass(frozen=True, slots=True)
class Pre:
    """Preprocessing.

    Attributes:
        inputs: what clients send; a `BYTES` tensor holds `bytes` objects, such as image files.
        run: one request's inputs, (rows, *shape) each → the model's inputs with as many rows.
    """

    inputs: tuple[TensorSpec, ...]
    run: Run


@dataclass(frozen=True, slots=True)
class Post:
    """Postprocessing.

    Attributes:
        outputs: what clients get.
        run: one request's outputs of the model → those, with as many rows.
    """

    outputs: tuple[TensorSpec, ...]
    run: Run


class BadInput(ValueError):
    """The user's code refused a request's content."""


class StepError(RuntimeError):
    """The user's code raised an error of its own, or gave what it should not."""


class Step:
    """One of them at work; all but what its threads do is called on the event loop's thread."""

    def __init__(
        self, name: str, run: Run, gives: tuple[TensorSpec, ...], threads: int, queue_max: int, say: Say
    ) -> None:
        """A step with threads of its own.

        Args:
            name: `pre` or `post`, with the factory's, for messages.
            run: the user's function.
            gives: what it must return.
            threads: that call it.
            queue_max: requests that may wait for one.
            say: writes a line into the log.
        """
        self._name = name
        self._run = run
        self._gives = gives
        self._threads = threads
        self._queue_max = queue_max
        self._say = say
        self._waiting = 0
        self._usual_s = 0.0
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    def expected_s(self) -> float:
        """Until a request that comes now is through."""
        return (self._waiting / self._threads + 1) * self._usual_s

    def check(self, allowed_s: float) -> None:
        """Pass where a request can go through in time; one that comes alone always may.

        Raises:
            Refused: too many wait for it.
        """
        if self._waiting >= self._queue_max:
            raise Refused(f"{self._waiting} requests wait for {self._name}", self.expected_s() / 2)
        if self._waiting >= self._threads and (late_s := self.expected_s() - allowed_s) > 0:
            raise Refused(f"{self._name} would take {self.expected_s() * 1e3:.0f} ms for what waits", late_s)

    def start(self, inputs: Sequence[Array], deadline_s: float) -> asyncio.Task[list[Array]]:
        """Let the function make something of one request's tensors.

        Args:
            inputs: (rows, *shape) each.
            deadline_s: when it is worthless; what has not started by then never does.

        Returns:
            A task that ends with the tensors, or with `Refused` (its time is over), `BadInput` (the function refused
            it) or `StepError` (the function failed). Where it is cancelled before its turn, the function is not called.
        """
        self._waiting += 1
        task = asyncio.ensure_future(self._through(inputs, deadline_s))
        task.add_done_callback(self._ended)
        return task

    def _ended(self, _: asyncio.Task[list[Array]]) -> None:
        self._waiting -= 1

    async def _through(self, inputs: Sequence[Array], deadline_s: float) -> list[Array]:
        try:
            async with asyncio.timeout(max(0.0, deadline_s - time.monotonic())):
                return await asyncio.wrap_future(self._pool.submit(self._work, inputs))
        except TimeoutError:
            raise Refused(f"{self._name} took too long, and its time is over", self._usual_s) from None

    def _work(self, inputs: Sequence[Array]) -> list[Array]:
        start_s = time.monotonic()
        try:
            outputs = [np.asarray(each) for each in self._run(inputs)]
        except ValueError as error:
            raise BadInput(_line(error)) from None
        except Exception as error:
            where = " ".join(traceback.format_exc().split())
            self._say("pipeline_error", step=self._name, reason=f"{type(error).__name__}: {error}", where=where)
            raise StepError(f"{self._name} raised {type(error).__name__}: {_line(error)}") from None
        self._usual_s += LEARNING_RATE * (time.monotonic() - start_s - self._usual_s)
        self._check(outputs, len(inputs[0]))
        return outputs

    def _check(self, outputs: Sequence[Array], rows: int) -> None:
        given = [(each.dtype, each.shape) for each in outputs]
        wanted = [(spec.dtype, (rows, *spec.shape)) for spec in self._gives]
        if given != wanted:
            raise StepError(f"{self._name} gave {_shown(given)}; expected {_shown(wanted)}")

    def end(self) -> None:
        """End its threads; none of its requests is left."""
        self._pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A version's steps around its model.

    Attributes:
        signature: the manifest, with what clients send and get in place of what the model takes and gives.
        pre: None where clients send the model's own inputs.
        post: None where they get its own outputs.
    """

    signature: Manifest
    pre: Step | None = None
    post: Step | None = None

    def end(self) -> None:
        """End the threads."""
        for step in (self.pre, self.post):
            if step is not None:
                step.end()


def pipeline_of(
    manifest: Manifest, pre: str | None, post: str | None, *, threads: int, queue_max: int, say: Say
) -> Pipeline:
    """The steps that a model's config names.

    Args:
        manifest: of the version.
        pre: `module:factory`.
        post: likewise.
        threads: of each step.
        queue_max: requests that may wait for each.
        say: writes a line into the log.

    Raises:
        PackageError: a factory can't be had.
    """
    changed: dict[str, tuple[TensorSpec, ...]] = {}
    before = after = None
    if pre is not None:
        first = made(pre, Pre, manifest)
        changed["inputs"] = first.inputs
        before = Step(f"pre ({pre})", first.run, manifest.inputs, threads, queue_max, say)
    if post is not None:
        last = made(post, Post, manifest)
        changed["outputs"] = last.outputs
        after = Step(f"post ({post})", last.run, last.outputs, threads, queue_max, say)
    return Pipeline(manifest.model_copy(update=changed), before, after)


Made = TypeVar("Made", Pre, Post)


def made(reference: str, kind: type[Made], manifest: Manifest) -> Made:
    """What a `module:factory` gives for a version of a model.

    Raises:
        PackageError: there is no such factory, it failed, or it gives something else.
    """
    field = kind.__name__.lower()
    module, _, name = reference.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), name)(manifest)
    except Exception as error:  # the user's code may raise anything
        raise PackageError(f"{field}: {reference} can't be had: {type(error).__name__}: {_line(error)}") from None
    if not isinstance(found, kind):
        raise PackageError(f"{field}: {reference} returned {type(found).__name__}; expected a {kind.__name__}")
    return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _shown(tensors: Sequence[tuple[np.dtype[Any], tuple[int, ...]]]) -> str:
    return ", ".join(f"{dtype} {list(shape)}" for dtype, shape in tensors) or "nothing"
