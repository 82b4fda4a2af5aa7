"""Policy documents of AWS: JSON text or an object, and each of their fields one value or a list."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from policies.resource import Props
from policies.security.ranges import is_everybody

PARTITION = re.compile(r"^arn:[^:]*:")
BOUNDING_OPERATORS = frozenset(
    {"stringequals", "stringequalsignorecase", "stringlike", "arnequals", "arnlike", "ipaddress"}
)
"""Operators that do not hold where the request lacks the key (IAM user guide, "Condition operators")."""
BOUNDING_KEYS = frozenset(
    {
        "aws:principalaccount",
        "aws:principalarn",
        "aws:principalorgid",
        "aws:principalorgpaths",
        "aws:sourceaccount",
        "aws:sourcearn",
        "aws:sourceorgid",
        "aws:sourceowner",
        "aws:sourcevpc",
        "aws:sourcevpce",
        "aws:userid",
        "kms:calleraccount",
        "s3:dataaccesspointaccount",
        "s3:dataaccesspointarn",
    }
)
"""Keys that S3 counts as making a policy not public (Amazon S3 user guide, "The meaning of public"), and those of
other services that tell the account that asks."""


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
            return not matches(action, self.not_actions)
        return matches(action, self.actions)

    def is_about(self, arn: str) -> bool:
        """Whether the statement is about what an ARN names, in any of AWS's partitions."""
        name = PARTITION.sub("arn:", arn)
        if self.not_resources:
            return not matches(name, (PARTITION.sub("arn:", each) for each in self.not_resources))
        return matches(name, (PARTITION.sub("arn:", each) for each in self.resources))

    @property
    def is_bounded(self) -> bool:
        """Whether a condition bounds who may use it, by values that are no wildcard."""
        return any(
            _bounds(str(key).lower(), _texts(values))
            for operator, each in self.conditions.items()
            if operator.lower().removeprefix("foranyvalue:") in BOUNDING_OPERATORS
            for key, values in each.items()
        )


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
        except (ValueError, RecursionError) as error:
            raise WrongDocument(f"it is no JSON: {error}") from None
    if not isinstance(document, Mapping):
        raise WrongDocument("expected an object with the key Statement")
    for index, each in enumerate(_listed(_any_case(document).get("statement"))):
        if not isinstance(each, Mapping):
            raise WrongDocument(f"Statement[{index}] is no object")
        yield _statement(_any_case(each), index)


def _statement(written: Mapping[str, Any], index: int) -> Statement:
    conditions = written.get("condition")
    return Statement(
        allows=str(written.get("effect", "")).lower() != "deny",
        principals=tuple(_principals(written.get("principal"))),
        not_principals=tuple(_principals(written.get("notprincipal"))),
        actions=_texts(written.get("action")),
        not_actions=_texts(written.get("notaction")),
        resources=_texts(written.get("resource")),
        not_resources=_texts(written.get("notresource")),
        conditions={
            str(operator): each
            for operator, each in (conditions.items() if isinstance(conditions, Mapping) else ())
            if isinstance(each, Mapping)
        },
        name=str(written.get("sid") or f"Statement[{index}]"),
    )


def _any_case(written: Mapping[str, Any]) -> dict[str, Any]:
    """By lower-case keys, so that no spelling of `Effect` or `Action` is passed over."""
    return {str(key).lower(): value for key, value in written.items()}


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


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name matches one of AWS's patterns, in which `*` stands for any text and `?` for one sign."""
    return any(re.fullmatch(_expression(pattern), name, re.IGNORECASE | re.DOTALL) for pattern in patterns)


def _expression(pattern: str) -> str:
    return re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")


def _bounds(key: str, values: Sequence[str]) -> bool:
    if key in ("aws:sourceip", "aws:vpcsourceip"):
        return bool(values) and not any(map(is_everybody, values))
    return key in BOUNDING_KEYS and bool(values) and not any(map(_is_anybody, values))


def _is_anybody(value: str) -> bool:
    """Whether a value has a wildcard; an ARN may, beside an account that has none."""
    account = value.split(":")[4] if value.startswith("arn:") and value.count(":") >= 5 else ""
    wild = (sign in value for sign in ("*", "?", "${"))
    return not value or (any(wild) and not re.fullmatch(r"\d{12}", account))
