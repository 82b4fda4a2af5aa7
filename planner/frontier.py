"""The frontier of cost and time: every choice that no other one beats in both."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

Choice = TypeVar("Choice")


@dataclass(frozen=True, slots=True)
class Bound(Generic[Choice]):
    """The least that a choice can cost and take, and how it is predicted."""

    usd: float
    seconds: float
    predict: Callable[[], tuple[float, float, Choice] | None]
    """USD, seconds and the choice; None where it can't run."""


def frontier(bounds: Iterable[Bound[Choice]]) -> tuple[Choice, ...]:
    """The choices that are not dominated, cheapest first; of equals, the first.

    Bounds and predicted choices stand in one queue in the order of cost, then time. Whatever is no faster than the
    fastest choice taken so far is dominated by it, since it costs at least as much: it is dropped, and a bound that is
    dropped is never predicted.
    """
    number = itertools.count()
    queue: list[tuple[float, float, bool, int, Bound[Choice] | Choice]] = [
        (each.usd, each.seconds, True, next(number), each) for each in bounds if math.isfinite(each.usd)
    ]
    heapq.heapify(queue)
    found: list[Choice] = []
    fastest = math.inf
    while queue:
        _, seconds, _, _, each = heapq.heappop(queue)
        if seconds >= fastest:
            continue
        if not isinstance(each, Bound):
            found.append(each)
            fastest = seconds
            continue
        if (predicted := each.predict()) is not None:
            usd, seconds, choice = predicted
            heapq.heappush(queue, (usd, seconds, False, next(number), choice))
    return tuple(found)
