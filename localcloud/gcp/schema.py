"""Names and types of the served resource types, as `tools/gcp_schema.py` took them from pulumi-gcp and its provider."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from localcloud.gcp.kind import Kind
from localcloud.provider import Failure, Properties
from localcloud.schemas import Schema

SCHEMA = Schema("localcloud.gcp")


@cache
def facts(token: str) -> Mapping[str, Any]:
    """What the provider's source says of a type: `replaces`, `kept` and `sets` are paths, `values` and `defaults` by
    path.
    """
    found: Mapping[str, Any] = SCHEMA.parsed["resources"][token]
    return found


def defaults_of(kind: Kind) -> Properties:
    """What an input is where it is left out: the provider's own defaults, and what Google sets."""
    own = {name: value for name, value in facts(kind.token)["defaults"].items() if name in facts(kind.token)["outputs"]}
    return {**own, **kind.defaults}


def wrong_names(kind: Kind, new: Properties) -> Iterator[Failure]:
    """Inputs that are missing, unknown to pulumi-gcp, or not carried out here."""
    declared = facts(kind.token)
    for name in sorted({*declared["required"], *kind.needs}):
        if new.get(name) is None:
            yield Failure(name, f"required, and not set on {kind.token}")
    for name, value in new.items():
        if name not in declared["inputs"]:
            yield Failure(name, f"{kind.token} has no such input")
        elif name == "deletionPolicy" and value == "DELETE":
            continue  # the default, said
        elif name not in kind.carried:
            yield Failure(name, f"the local cloud does not carry this input of {kind.token} out")
