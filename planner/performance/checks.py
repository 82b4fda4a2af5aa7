"""Where numbers enter the performance model: each is checked once, and a wrong one is named."""

from __future__ import annotations

import math

from planner.errors import PlanError

LARGEST = 1e30
"""No count, rate, size or time of this world is larger; beyond it floating-point sums go wrong silently."""


class PerformanceError(PlanError):
    """A prediction can't be made from what was given; the text names the field, its value and what was expected."""


class DoesNotFit(PerformanceError):
    """The model needs more memory than there is; `missing_gib` says how much more."""

    def __init__(self, message: str, missing_gib: float) -> None:
        super().__init__(message)
        self.missing_gib = missing_gib


def positive(field: str, value: float) -> float:
    """The value as a float, if it is a finite number above zero.

    Raises:
        PerformanceError: it is not; names the field.
    """
    if _number(field, value) <= 0:
        raise PerformanceError(f"{field} is {value!r}; it must be above zero")
    return float(value)


def not_negative(field: str, value: float) -> float:
    """The value as a float, if it is a finite number of at least zero.

    Raises:
        PerformanceError: it is not; names the field.
    """
    if _number(field, value) < 0:
        raise PerformanceError(f"{field} is {value!r}; it must not be negative")
    return float(value)


def fraction(field: str, value: float) -> float:
    """The value as a float, if it lies from 0 to 1.

    Raises:
        PerformanceError: it does not; names the field.
    """
    if not 0 <= _number(field, value) <= 1:
        raise PerformanceError(f"{field} is {value!r}; it must lie between 0 and 1")
    return float(value)


def whole(field: str, value: int, *, at_least: int = 1, at_most: int = 10**12) -> int:
    """The value, if it is a whole number within the bounds.

    Raises:
        PerformanceError: it is not; names the field.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not at_least <= value <= at_most:
        raise PerformanceError(f"{field} is {value!r}; it must be a whole number from {at_least} to {at_most}")
    return value


def _number(field: str, value: float) -> float:
    if type(value) is float and -LARGEST <= value <= LARGEST:
        return value  # at once: most of the numbers of a search
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise PerformanceError(f"{field} is {value!r}; it must be a finite number")
    if abs(value) > LARGEST:
        raise PerformanceError(f"{field} is {value!r}; no quantity of this world is larger than {LARGEST:g}")
    return float(value)
