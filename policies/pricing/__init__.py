"""What a resource is billed for, whoever declares it: its type and inputs → quantities of the catalog's tariffs.

`aws`, `gcp` and `kubernetes` have a rule for each type that has a price; `billing.csv` lists the types that are free by
themselves, and those that are billed by use alone, which no input tells. Any other type is unknown, and the guardrail
`priced-types` refuses it.
"""

from __future__ import annotations

import csv
import fnmatch
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from planner.catalog import Catalog
from policies.pricing import aws, beyond, gcp, kubernetes
from policies.pricing.reading import Place, Priced, Quantities, Registered, Rule, UnpricedResource
from policies.resource import Resource

__all__ = [
    "Billing",
    "Place",
    "Quantities",
    "Registered",
    "UnpricedResource",
    "billing_of",
    "cluster_place",
    "quantities",
]

Billing = Literal["priced", "by use", "free", "unknown"]
RULES: Mapping[str, Rule] = {**aws.RULES, **gcp.RULES, **kubernetes.RULES}
NOWHERE = Place("", "")


def quantities(
    resource: Resource, catalog: Catalog, cluster_in: Place = NOWHERE, registered: Registered | None = None
) -> Quantities:
    """What one resource is billed for at the autoscaler's minimum, as it starts, and at its maximum.

    Empty for types without a price of their own. `cluster_in` is where the stack's Kubernetes objects are, `registered`
    is what was registered before it and decides its price.

    Raises:
        UnpricedResource: a field that decides the price is missing or not known before the update.
    """
    beyond.check(resource)
    rule = RULES.get(resource.type)
    if rule is None:
        return {}
    package = resource.type.partition(":")[0]
    place = cluster_in if package == "kubernetes" else Place(package, resource.region)
    return rule(Priced(resource, place, catalog, registered or Registered()))


def cluster_place(config: Mapping[str, str]) -> Place:
    """Where the Kubernetes objects of a stack are: in the one cloud that its config names a region of."""
    named = [Place(cloud, config[f"{cloud}:region"]) for cloud in ("aws", "gcp") if config.get(f"{cloud}:region")]
    return named[0] if len(named) == 1 else NOWHERE


@functools.cache
def billing_of(resource_type: str) -> Billing:
    """How a type of resource is billed."""
    if resource_type in RULES:
        return "priced"
    return next((billing for is_one, billing in _listed() if is_one(resource_type)), "unknown")


@functools.cache
def _listed() -> tuple[tuple[Callable[[str], bool], Billing], ...]:
    with (Path(__file__).parent / "billing.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    billings: dict[str, Billing] = {"by use": "by use", "free": "free"}
    return tuple((_matching(row["type"]), billings[row["billed"]]) for row in rows)


def _matching(pattern: str) -> Callable[[str], bool]:
    """Whether a type is that, or begins as it does before the `*` at its end; other wildcards are read as such.

    Hundreds of regular expressions would take longer to make than a preview takes to ask for.
    """
    beginning = pattern.removesuffix("*")
    if set("*?[") & set(beginning):
        return functools.partial(_fits, pattern)
    return beginning.__eq__ if beginning == pattern else lambda each: each.startswith(beginning)


def _fits(pattern: str, resource_type: str) -> bool:
    return fnmatch.fnmatchcase(resource_type, pattern)
