"""Errors that the components raise before they register anything."""

from __future__ import annotations


class ArgumentError(ValueError):
    """Args that no cloud would accept, or that this cloud can't build.

    The message is one sentence that names the field, its value and what was expected, and says the way out.
    """


def require(condition: bool, message: str) -> None:
    """State one precondition of a component's args.

    Raises:
        ArgumentError: the condition does not hold; with the message as it stands.
    """
    if not condition:
        raise ArgumentError(message)
