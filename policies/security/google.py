"""Bindings of Google Cloud IAM: members to roles, one by one or as a whole policy."""

from __future__ import annotations

import json
from collections.abc import Iterator

from policies.resource import Props

EVERYBODY = {"allusers": "allUsers", "allauthenticatedusers": "allAuthenticatedUsers"}


class WrongPolicy(ValueError):
    """A whole policy that Google Cloud would not read."""


def bindings(props: Props) -> Iterator[Props]:
    """The bindings of a resource: itself, or those of the whole policy that `getIAMPolicy` makes as text.

    Raises:
        WrongPolicy: it is no policy.
        policies.resource.NotKnown: it is not known before the update.
    """
    if not props.has("policyData"):
        yield props
        return
    try:
        document = json.loads(props.get("policyData"))
    except (TypeError, ValueError, RecursionError) as error:
        raise WrongPolicy(f"policyData can't be read: {error}") from None
    yield from Props(document, ("policyData",)).each("bindings")


def grants_to_everybody(props: Props) -> Iterator[str]:
    """One sentence for each grant to whoever asks."""
    try:
        for binding in bindings(props):
            members = [each for key in ("members", "member", "entity") for each in _texts(binding, key)]
            members += [each.rpartition(":")[2] for each in _texts(binding, "roleEntities")]
            for everybody in sorted(EVERYBODY.keys() & {each.lower() for each in members}):
                yield f"it grants {binding.get('role', default='a role')} to {EVERYBODY[everybody]}; name the members"
    except WrongPolicy as error:
        yield str(error)


def _texts(props: Props, key: str) -> list[str]:
    found = props.get(key, default=[])
    return [str(each) for each in found] if isinstance(found, list) else [str(found)]
