"""Policy documents of AWS: JSON text or an object, and each of their fields one value or a list."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policies.resource import Props


class WrongDocument(ValueError):
    """A policy that no service would read."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement; the fields are those of the IAM JSON policy reference, with lists where one value may stand."""

    allows: bool
    principals: tuple[str, ...]
    not_principals: tuple[str, ...]
    actions: tuple[str, ...]
    not_actions: tuple[str, ...]
    resources: tuple[str, ...]
    not_resources: tuple[str, ...]
    conditions: Mapping[str, Mapping[str, Any]]
    name: str

    @property
    def is_public(self) -> bool:
        """Whether anybody may use it, whatever the conditions are."""
        return self.allows and ("*" in self.principals or bool(self.not_principals))

    def covers(self, action: str) -> bool:
        """Whether the statement is about an action, such as `s3:GetObject`; names of actions know no case."""
        if self.not_actions:
            return not _matches(action, self.not_actions)
        return _matches(action, self.actions)


def statements(policy: Props) -> Iterator[Statement]:
    """The statements of a document.

    Raises:
        policies.resource.NotKnown: a part of it is not known before the update.
        WrongDocument: it is no policy document.
    """
    document = policy.get()
    if document is None or document == "":
        return
    if isinstance(document, str):
        try:
            document = json.loads(document)
        except ValueError as error:
            raise WrongDocument(f"it is no JSON: {error}") from None
    if not isinstance(document, Mapping):
        raise WrongDocument("expected an object with the key Statement")
    for index, each in enumerate(_listed(document.get("Statement"))):
        if not isinstance(each, Mapping):
            raise WrongDocument(f"Statement[{index}] is no object")
        yield _statement(each, index)


def _statement(written: Mapping[str, Any], index: int) -> Statement:
    conditions = written.get("Condition")
    return Statement(
        allows=str(written.get("Effect", "")).lower() != "deny",
        principals=tuple(_principals(written.get("Principal"))),
        not_principals=tuple(_principals(written.get("NotPrincipal"))),
        actions=_texts(written.get("Action")),
        not_actions=_texts(written.get("NotAction")),
        resources=_texts(written.get("Resource")),
        not_resources=_texts(written.get("NotResource")),
        conditions=conditions if isinstance(conditions, Mapping) else {},
        name=str(written.get("Sid") or f"Statement[{index}]"),
    )


def _principals(value: Any) -> Iterable[str]:
    if isinstance(value, Mapping):
        return [each for kind in value.values() for each in _texts(kind)]
    return _texts(value)


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(str(each) for each in _listed(value))


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _matches(action: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns)
