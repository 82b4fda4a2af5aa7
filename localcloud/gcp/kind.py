"""How a resource type of Google Cloud is declared, and what the declarations share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from localcloud.gcp.inventory import PROJECT_NUMBER, Record, Records
from localcloud.provider import Properties
from localcloud.values import Unknown

COMPUTE = "https://www.googleapis.com/compute/v1/"
CREATED = "2026-01-01T00:00:00.000-00:00"
"""Of everything: what the local cloud assigns is the same each time."""


class RefusedError(Exception):
    """Google's API says no; worded as the official provider passes it on."""

    def __init__(self, status: int, message: str, reason: str = "") -> None:
        super().__init__(f"googleapi: Error {status}: {message}" + (f", {reason}" if reason else ""))


@dataclass(frozen=True, slots=True)
class World:
    """The project as it is when a request comes."""

    project: str
    records: Records

    def find(self, id: str) -> Record | None:
        """What has this id."""
        found = self.records.get(id)
        return None if found is None or found.is_gone else found

    def of(self, *tokens: str) -> list[Record]:
        """All of some types."""
        return [each for each in self.records.values() if each.token in tokens and not each.is_gone]


@dataclass(frozen=True, slots=True)
class Reference:
    """An input that names another resource, by its name, its path or its URL.

    Attributes:
        to: the id of the other, with the fields of this one's inputs in braces and `{name}` for the input's own value.
        holds: whether the other can't be deleted meanwhile.
        is_whole: whether this one is a part of the other, and goes with it.
        in_region: whether it has to be in the same region.
    """

    to: str
    holds: bool = True
    is_whole: bool = False
    in_region: bool = True

    def resolved(self, value: str, inputs: Mapping[str, Any]) -> str:
        """The id that a value means."""
        if (start := value.find("projects/")) >= 0:
            return value[start:]
        return self.to.format(**{**inputs, "name": value})


Rules = Callable[[World, Properties, Properties | None], None]


@dataclass(frozen=True, slots=True)
class Kind:
    """A resource type.

    Attributes:
        token: pulumi-gcp's name of it.
        id: its id, with inputs in braces.
        carried: inputs that are carried out; all others are refused.
        references: by path of the input, what it names.
        defaults: what Google sets where an input is left out; in the outputs, not in the inputs.
        needs: inputs that must be set, besides those that pulumi-gcp requires.
        region: where the region or zone comes from: `region`, `zone`, `location`, or None for what is global.
        name: the input with its name, which is made up where it is left out.
        longest_name: of it.
        name_form: a pattern of names.
        checks: why a value is wrong, by input.
        agree: what is wrong with all inputs together, as (input, reason); values may be unknown.
        rules: raises `RefusedError` for what Google's API would refuse; told the inputs before, None at creation.
        assigned: what the server makes of it.
        may_go: raises `RefusedError` where the resource itself can't be deleted now.
        outlives: its id is taken for ever.
        is_shared: whether making one that is there gives the same one, which stays until all that made it let it go.
        attribution: whether pulumi-gcp puts its own label on it.
        replaces: inputs that replace it, given the old and new ones, besides those that the schema says.
        forms: by path, the form of a value in which those that mean the same are equal.
    """

    token: str
    id: str
    carried: frozenset[str]
    references: Mapping[str, Reference] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    needs: frozenset[str] = frozenset()
    region: str | None = None
    name: str | None = "name"
    longest_name: int = 63
    name_form: str = r"[a-z]([-a-z0-9]*[a-z0-9])?"
    checks: Mapping[str, Callable[[Any], str | None]] = field(default_factory=dict)
    agree: Callable[[Properties], Iterable[tuple[str, str]]] | None = None
    rules: Rules | None = None
    assigned: Callable[[World, Properties], Properties] = lambda world, inputs: {}
    may_go: Callable[[World, Record], None] | None = None
    outlives: bool = False
    is_shared: bool = False
    attribution: bool = True
    replaces: Callable[[Properties, Properties], frozenset[str]] | None = None
    forms: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)


def words(text: str) -> frozenset[str]:
    """`"a b c"` → the set of its words."""
    return frozenset(text.split())


def at(value: Any, path: str) -> Iterator[Any]:
    """The values at a path such as `subnetworks.name`, through lists; unknown ones and None are left out."""
    if isinstance(value, list):
        for each in value:
            yield from at(each, path)
    elif not path:
        if value is not None and not isinstance(value, Unknown):
            yield value
    elif isinstance(value, Mapping):
        name, _, rest = path.partition(".")
        yield from at(value.get(name), rest)


def one(value: Any, path: str, default: Any = None) -> Any:
    """The first value at a path."""
    return next(at(value, path), default)


def region_of(place: str) -> str:
    """`us-central1-a` → `us-central1`; a region is its own."""
    return re.sub(r"-[a-z]$", "", place)


def one_of(*allowed: str) -> Callable[[Any], str | None]:
    """A check for an enumeration."""
    return lambda value: None if value in allowed else f"expected one of {', '.join(allowed)}"


def between(low: int, high: int) -> Callable[[Any], str | None]:
    """A check for a number's range."""
    return lambda value: None if low <= int(value) <= high else f"expected {low} to {high}"


def matching(pattern: str, expected: str) -> Callable[[Any], str | None]:
    """A check for a text's form."""
    return lambda value: None if re.fullmatch(pattern, value) else f"expected {expected}"


def cidr(value: Any) -> str | None:
    """Why a value is no IPv4 range; None when it is one."""
    import ipaddress

    try:
        ipaddress.IPv4Network(str(value))
    except ValueError as error:
        return f"expected an IPv4 range such as 10.0.0.0/20: {error}"
    return None


def compute_outputs(path: str) -> Callable[[World, Properties], Properties]:
    """The URL of a resource of Compute Engine and the time of its creation."""
    return lambda world, inputs: {"selfLink": COMPUTE + path.format(**inputs), "creationTimestamp": CREATED}


def number_of(text: str) -> str:
    """A numeric id, the same each time for the same thing."""
    import hashlib

    return str(int(hashlib.sha256(text.encode()).hexdigest()[:15], 16))


def missing(what: str) -> RefusedError:
    """What Google says of a resource that is not there."""
    return RefusedError(404, f"The resource '{what}' was not found", "notFound")


AGENTS = {
    "storage": f"service-{PROJECT_NUMBER}@gs-project-accounts.iam.gserviceaccount.com",
    "container": f"service-{PROJECT_NUMBER}@container-engine-robot.iam.gserviceaccount.com",
    "compute": f"service-{PROJECT_NUMBER}@compute-system.iam.gserviceaccount.com",
    "artifactregistry": f"service-{PROJECT_NUMBER}@gcp-sa-artifactregistry.iam.gserviceaccount.com",
    "logging": f"service-{PROJECT_NUMBER}@gcp-sa-logging.iam.gserviceaccount.com",
}
"""The project's service agents, which are always there, by the service that acts as them."""
